"""A report's comparison of runs: figures side by side, with bootstrap intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from detection.evaluation.report_analysis import Analysis
from detection.evaluation.significance import Bootstrap, Interval


class Compared(NamedTuple):
    """A figure or class in all runs.

    Attributes:
        name: the figure or class.
        cells: for each run its figure and interval; from the second run on the difference to the
            first and its interval, None where it was not resampled.
    """

    name: str
    cells: tuple[tuple[float, Interval | None, float | None, Interval | None], ...]


def headline_intervals(
    runs: int, bootstraps: Sequence[Bootstrap]
) -> list[tuple[Interval, Interval] | None]:
    """Intervals of AP and AP50 of each run; None without bootstraps."""
    if not bootstraps:
        return [None] * runs
    all_runs = [bootstraps[0].a, *(one.b for one in bootstraps if one.b)]
    return [(intervals.ap, intervals.ap50) for intervals in all_runs]


def compared_figures(runs: Sequence[Analysis], bootstraps: Sequence[Bootstrap]) -> list[Compared]:
    """Sets the headline figures of all runs side by side.

    Args:
        runs: on the same ground truth and classes.
        bootstraps: from `report_analysis.compare`; none leaves the intervals out.
    """
    names = {
        "ap": "AP",
        "ap50": "AP50",
        "ap75": "AP75",
        "ap_small": "AP small",
        "ap_medium": "AP medium",
        "ap_large": "AP large",
        "ar1": "AR1",
        "ar10": "AR10",
        "ar100": "AR100",
    }
    figures = [run.coco.scalars() for run in runs]
    rows = [
        _compared(title, [one[name] for one in figures], _resampled(bootstraps, name))
        for name, title in names.items()
    ]
    voc = [run.voc for run in runs]
    return [
        *rows,
        _compared("VOC07", [one.voc07 for one in voc], None),
        _compared("VOC10", [one.voc10 for one in voc], None),
    ]


def compared_classes(runs: Sequence[Analysis], bootstraps: Sequence[Bootstrap]) -> list[Compared]:
    """Sets COCO's AP of each class side by side; arguments as for `compared_figures`."""
    rows = []
    for k, name in enumerate(runs[0].matches.class_names):
        values = [run.coco.per_class[k].ap for run in runs]
        rows.append(_compared(name, values, _resampled(bootstraps, k)))
    return rows


def _resampled(
    bootstraps: Sequence[Bootstrap], figure: str | int
) -> list[tuple[Interval, Interval | None]] | None:
    """The interval of a figure or class, and of its difference, for each run; None without."""
    if not bootstraps or (isinstance(figure, str) and figure not in ("ap", "ap50")):
        return None

    def pick(intervals: Any) -> Interval:
        found: Interval = (
            intervals.per_class[figure] if isinstance(figure, int) else getattr(intervals, figure)
        )
        return found

    return [
        (pick(bootstraps[0].a), None),
        *((pick(one.b), pick(one.difference)) for one in bootstraps),
    ]


def _compared(
    name: str,
    values: Sequence[float],
    resampled: Sequence[tuple[Interval, Interval | None]] | None,
) -> Compared:
    cells = []
    for i, value in enumerate(values):
        interval, difference = resampled[i] if resampled else (None, None)
        cells.append((value, interval, value - values[0] if i else None, difference))
    return Compared(name, tuple(cells))
