"""A report of one or more runs as one self-contained HTML page.

The page fetches nothing: styles, script, charts (SVG) and images (data URIs) are inside, and its
content security policy forbids the rest. Names of classes, files and runs are data and escaped.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from detection.evaluation import report_curves as curves
from detection.evaluation import report_tables as tables
from detection.evaluation.report_analysis import MAX_DETECTIONS, Analysis
from detection.evaluation.report_comparison import (
    compared_classes,
    compared_figures,
    headline_intervals,
)
from detection.evaluation.report_pictures import Picture, mistake_pictures, worst_pictures
from detection.evaluation.significance import Bootstrap, Interval


class Run(NamedTuple):
    """A run to report.

    Attributes:
        name: its heading, different from the other runs'.
        data: where the data set is.
        split: the split's name.
        analysis: from `report_analysis.analyse`.
        facts: heading -> nested mappings of plain values: cost, configuration, environment and
            the like; empty ones are left out.
    """

    name: str
    data: str
    split: str
    analysis: Analysis
    facts: Mapping[str, Any]


class Image(NamedTuple):
    """An image as it is embedded.

    Attributes:
        name: its file, for people to find it.
        source: a data URI; None if it could not be read.
    """

    name: str
    source: str | None


class Gallery(NamedTuple):
    """Pictures under a heading.

    Attributes:
        title: the heading.
        definition: how they were chosen.
        pictures: in order.
    """

    title: str
    definition: str
    pictures: Sequence[Picture]


class Tile(NamedTuple):
    """A headline figure.

    Attributes:
        name: the metric.
        value: as text.
        definition: in a few words.
        interval: as text; empty without.
    """

    name: str
    value: str
    definition: str
    interval: str = ""


def galleries(run: Analysis, pictures: int) -> tuple[Gallery, Gallery]:
    """Chooses the pictures of a run.

    Args:
        run: the analysis.
        pictures: the most in both galleries together.

    Returns:
        The worst images and the most confident mistakes.
    """
    at = f"at score ≥ {run.score:.3g} and IoU .50"
    mistakes = mistake_pictures(run, pictures // 2)
    return (
        Gallery(
            "Worst images",
            f"Lowest F1 over all classes {at}, where F1 over all images is highest.",
            worst_pictures(run, pictures - len(mistakes)),
        ),
        Gallery(
            "Most confident mistakes",
            "False positives of the highest scores at IoU .50, the first of each image.",
            mistakes,
        ),
    )


def render_report(
    runs: Sequence[Run],
    chosen: Sequence[tuple[Gallery, ...]],
    images: Mapping[int, Image],
    bootstraps: Sequence[Bootstrap] = (),
) -> str:
    """Writes the page.

    Args:
        runs: at least one; all of the same data, split and classes.
        chosen: the galleries of each run.
        images: image id -> the image, for all pictures of the galleries.
        bootstraps: from `report_analysis.compare`; none leaves the intervals out.

    Returns:
        HTML.
    """
    analyses = [run.analysis for run in runs]
    environment = Environment(
        loader=PackageLoader("detection.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = tables.percent
    environment.filters["interval"] = tables.interval_text
    environment.tests["nan"] = math.isnan
    return environment.get_template("report.html.jinja").render(
        runs=[
            _page(run, pictures, intervals)
            for run, pictures, intervals in zip(
                runs, chosen, headline_intervals(len(runs), bootstraps), strict=True
            )
        ],
        images=images,
        bootstrap=bootstraps[0] if bootstraps else None,
        compared=compared_figures(analyses, bootstraps) if len(runs) > 1 else [],
        compared_classes=compared_classes(analyses, bootstraps) if len(runs) > 1 else [],
        columns=tables.class_columns(),
    )


def _page(
    run: Run, pictures: Sequence[Gallery], intervals: tuple[Interval, Interval] | None
) -> dict[str, Any]:
    """What the template shows of a run."""
    analysis = run.analysis
    ignored = analysis.annotations.crowd | analysis.annotations.difficult
    return {
        "name": run.name,
        "data": run.data,
        "split": run.split,
        "images": analysis.coco.images,
        "objects": int((~ignored).sum()),
        "ignored": int(ignored.sum()),
        "detections": len(analysis.matches.scores),
        "tiles": _tiles(analysis, intervals),
        "analysis": analysis,
        "curves": curves.curve_charts(analysis),
        "breakdowns": (curves.iou_chart(analysis), *curves.recall_charts(analysis)),
        "calibration": curves.calibration_charts(analysis),
        "classes": tables.class_rows(analysis),
        "errors": tables.error_rows(analysis),
        "confusion": tables.confusion_rows(analysis),
        "confusions": tables.greatest_confusions(analysis),
        "galleries": pictures,
        "facts": {name: tables.flatten(fact) for name, fact in run.facts.items() if fact},
    }


def _tiles(run: Analysis, intervals: tuple[Interval, Interval] | None) -> list[Tile]:
    ap, ap50 = (tables.interval_text(one) for one in intervals) if intervals else ("", "")
    few = f"maxDets {MAX_DETECTIONS}"
    return [
        Tile("AP", tables.percent(run.coco.ap), f"COCO, IoU .50:.05:.95, {few}", ap),
        Tile("AP50", tables.percent(run.coco.ap50), f"COCO, IoU .50, {few}", ap50),
        Tile("AP75", tables.percent(run.coco.ap75), f"COCO, IoU .75, {few}"),
        Tile("VOC07", tables.percent(run.voc.voc07), "VOC, 11 points, IoU ≥ .50, all detections"),
        Tile("VOC10", tables.percent(run.voc.voc10), "VOC, area, IoU ≥ .50, all detections"),
        Tile("AR100", tables.percent(run.coco.ar100), f"COCO, IoU .50:.05:.95, {few}"),
    ]
