"""A study's evaluations beside the paper: figures, gaps, classes, each with interval and verdict.

All figures are in percent, differences in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from detection.reproduction.evaluated import Evaluated, check_same_data, read_run
from detection.reproduction.intervals import ImageIntervals
from detection.reproduction.study import Gap, Metric, Row, Study, missing
from detection.reproduction.tables import VOC_CLASSES
from detection.reproduction.verdict import Measured, difference, judge, judge_direction, measured

TITLES: Mapping[Metric, str] = {"ap": "AP", "ap50": "AP50", "voc07": "VOC07", "voc10": "VOC10"}


class Figure(NamedTuple):
    """One figure of a row.

    Attributes:
        metric: which.
        paper: the paper's; None if it has none.
        ours: ours; None if there is none.
        verdict: of `judge`; empty where the two do not compare; else why ours is not there.
    """

    metric: Metric
    paper: float | None
    ours: Measured | None
    verdict: str


class RowOutcome(NamedTuple):
    """A row with its figures.

    Attributes:
        row: the row.
        figures: one a metric.
        runs: folders of its evaluations.
    """

    row: Row
    figures: tuple[Figure, ...]
    runs: tuple[Path, ...]


class GapOutcome(NamedTuple):
    """A claim: the difference of two rows in one metric.

    Attributes:
        a: the first method.
        b: the second.
        metric: which.
        paper: the paper's difference; None if it has none.
        ours: ours; None if a side has no run.
        verdict: of `judge_direction`; else why ours is not there.
    """

    a: str
    b: str
    metric: Metric
    paper: float | None
    ours: Measured | None
    verdict: str


class ClassOutcome(NamedTuple):
    """A class of VOC beside the paper.

    Attributes:
        name: the class.
        paper: AP of each row of the study's `per_class`.
        ours: of the same rows, means over the runs; None where there is no run or no object.
    """

    name: str
    paper: tuple[float, ...]
    ours: tuple[float | None, ...]


class Outcome(NamedTuple):
    """Everything a report says.

    Attributes:
        study: what was reproduced.
        rows: in the study's order.
        gaps: a row for each claim and metric.
        classes: beside the study's `per_class`; empty without.
        images: of the test set; None if nothing was evaluated.
    """

    study: Study
    rows: tuple[RowOutcome, ...]
    gaps: tuple[GapOutcome, ...]
    classes: tuple[ClassOutcome, ...]
    images: int | None


def read_outcome(
    study: Study,
    folders: Mapping[str, Sequence[Path]],
    resamples: int = 1000,
    absent: str = "",
    data: Path | None = None,
) -> Outcome:
    """Reads the evaluations and sets them beside the paper.

    Args:
        study: what was reproduced.
        folders: row key -> folders of `resdet evaluate`, one a seed; rows without are not run.
        resamples: of the bootstrap where there is one run; 0 for no interval there.
        absent: why rows without folders have none; found out if empty.
        data: where the data set is now, if the runs may have been evaluated elsewhere.

    Raises:
        OSError: a run or its data cannot be read.
        ValueError: a run is not what was evaluated, or the runs are of different data.
    """
    absent = absent or missing(study) or "not run"
    runs = {
        key: [read_run(folder, str(folder), data) for folder in own]
        for key, own in folders.items()
        if own
    }
    flat = [run for own in runs.values() for run in own]
    if flat:
        check_same_data(flat)
    intervals = ImageIntervals(runs, resamples)
    rows = tuple(
        RowOutcome(
            row,
            _figures(study, row, runs.get(row.key, ()), intervals, absent),
            tuple(folders.get(row.key, ())),
        )
        for row in study.rows
    )
    by_key = {row.key: row for row in study.rows}
    gaps = tuple(
        _gap(gap, metric, by_key, runs, intervals)
        for gap in study.gaps
        for metric in by_key[gap.b].metrics
    )
    return Outcome(
        study, rows, gaps, _classes(study, runs), flat[0].figures.get("images") if flat else None
    )


def _values(runs: Sequence[Evaluated], metric: Metric) -> list[float]:
    """Each run's figure; one without objects has none."""
    family = "voc" if metric.startswith("voc") else "coco"
    values = [run.figures[family][metric] for run in runs]
    return [100 * value for value in values if value is not None]


def _figures(
    study: Study, row: Row, runs: Sequence[Evaluated], intervals: ImageIntervals, absent: str
) -> tuple[Figure, ...]:
    figures = []
    for index, metric in enumerate(row.metrics):
        paper = row.published[index].value if index < len(row.published) else None
        values = _values(runs, metric)
        if not values:
            figures.append(Figure(metric, paper, None, row.unavailable or absent))
            continue
        ours = measured(values, intervals.one(row.key, metric))
        comparable = study.comparable and paper is not None
        verdict = judge(paper, ours) if comparable and paper is not None else ""
        figures.append(Figure(metric, paper, ours, verdict))
    return tuple(figures)


def _gap(
    gap: Gap,
    metric: Metric,
    rows: Mapping[str, Row],
    runs: Mapping[str, Sequence[Evaluated]],
    intervals: ImageIntervals,
) -> GapOutcome:
    a, b = rows[gap.a], rows[gap.b]
    index = b.metrics.index(metric)
    paper = gap.paper[index] if gap.paper else None
    if not gap.paper and index < min(len(a.published), len(b.published)):
        paper = round(b.published[index].value - a.published[index].value, 2)
    first, second = (_values(runs.get(key, ()), metric) for key in (gap.a, gap.b))
    if not (first and second):
        return GapOutcome(a.method, b.method, metric, paper, None, "one side has no figure")
    ours = difference(first, second, intervals.gap(gap, metric))
    verdict = "" if paper is None else judge_direction(paper, ours)
    return GapOutcome(a.method, b.method, metric, paper, ours, verdict)


def _classes(study: Study, runs: Mapping[str, Sequence[Evaluated]]) -> tuple[ClassOutcome, ...]:
    if not study.per_class:
        return ()
    own = [_class_means(runs.get(row.key, ()), row.metrics[0]) for row in study.rows]
    return tuple(
        ClassOutcome(
            name,
            tuple(published.per_class[i] for published in study.per_class),
            tuple(means.get(name) for means in own),
        )
        for i, name in enumerate(VOC_CLASSES)
    )


def _class_means(runs: Sequence[Evaluated], metric: Metric) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run in runs:
        for row in run.figures["classes"]:
            if row[TITLES[metric]] is not None:
                values.setdefault(row["class"], []).append(100 * row[TITLES[metric]])
    return {name: sum(own) / len(own) for name, own in values.items()}
