"""A report's charts, from a run's analysis."""

import math

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.curves import f1_threshold
from detection.evaluation.precision import COCO_LEVELS, interpolated_precision
from detection.evaluation.report_analysis import Analysis
from detection.evaluation.report_charts import (
    Axis,
    Chart,
    Line,
    bars_of,
    line_path,
    linear_axis,
    log_axis,
    percent_axis,
)
from detection.evaluation.report_tables import percent

CURVE_IOUS = (0.5, 0.75)
THRESHOLDS = np.linspace(0.0, 1.0, 101)


def curve_charts(run: Analysis) -> tuple[Chart, Chart]:
    """Precision against recall, and F1 against the score threshold, of every class and the mean."""
    matches = run.matches
    low = min(0.0, float(matches.scores.min(initial=0)))
    high = max(1.0, float(matches.scores.max(initial=1)))
    precision_lines: list[Line] = []
    f1_lines: list[Line] = []
    precision = interpolated_precision(matches, COCO_LEVELS)
    best = []
    for iou in CURVE_IOUS:
        t, style = matches.iou_index(iou), f"iou{100 * iou:.0f}"
        f1 = np.array([_f1(run, k, iou, (low, high)) for k in range(1, len(precision) + 1)])
        precision_lines += _class_lines(run, COCO_LEVELS, precision[:, t], style)
        f1_lines += _class_lines(run, THRESHOLDS, f1.reshape(-1, len(THRESHOLDS)), style)
        best.append(_mean_columns(f1.reshape(-1, len(THRESHOLDS))).max())
    at_50 = run.coco.ap50
    score_ticks = np.linspace(low, high, 6).round(2).tolist()
    return (
        Chart(
            "Precision and recall",
            "Interpolated precision against recall, a curve per class and their mean, whose "
            f"average is {percent(at_50)} at IoU .50 and {percent(run.coco.ap75)} at IoU .75.",
            percent_axis("recall"),
            percent_axis("precision"),
            tuple(precision_lines),
        ),
        Chart(
            "F1 and score threshold",
            "F1 against the least score, a curve per class and their mean, which is at most "
            f"{percent(best[0])} at IoU .50 and {percent(best[1])} at IoU .75.",
            linear_axis("score threshold", score_ticks, (low, high)),
            percent_axis("F1"),
            tuple(f1_lines),
        ),
    )


def iou_chart(run: Analysis) -> Chart:
    """AP against IoU, of all objects and of each size."""
    means = {size: _mean_columns(values) for size, values in run.by_size.items()}
    figures = ", ".join(f"{size} {percent(_mean(values))}" for size, values in means.items())
    return Chart(
        "AP by size and IoU",
        f"AP against the IoU threshold. Averages over IoU .50:.05:.95: {figures}.",
        _iou_axis(run),
        percent_axis("AP"),
        tuple(
            Line(f"{size} {percent(_mean(values))}", _iou_path(run, values), _series(i))
            for i, (size, values) in enumerate(means.items())
            if not np.isnan(values).all()
        ),
        legend=True,
    )


def recall_charts(run: Analysis) -> tuple[Chart, Chart]:
    """Class-agnostic recall against the number of detections, and against IoU."""
    limits = np.array(run.limits, np.float64)
    across = np.log10(limits) / math.log10(run.limits[-1])
    at = [run.matches.iou_index(iou) for iou in CURVE_IOUS]
    series = {
        "IoU .50": run.proposals[at[0]],
        "IoU .75": run.proposals[at[1]],
        "mean of .50:.05:.95": run.proposals.mean(axis=0),
    }
    last = f"{run.limits[-1]:,} detections an image"
    chosen = [i for i, limit in enumerate(run.limits) if limit in (1, 10, 100)]
    chosen += [len(run.limits) - 1] if run.limits[-1] not in (1, 10, 100) else []
    return (
        Chart(
            "Recall by number of detections",
            f"Class-agnostic recall; with {last} it is "
            + ", ".join(f"{percent(values[-1])} at {name}" for name, values in series.items())
            + ".",
            log_axis("best detections of an image", run.limits[-1]),
            percent_axis("recall"),
            tuple(
                Line(name, line_path(across, values), _series(i))
                for i, (name, values) in enumerate(series.items())
            ),
            legend=True,
        ),
        Chart(
            "Recall by IoU",
            "Class-agnostic recall against the IoU threshold. Average recall: "
            + ", ".join(
                f"{percent(_mean(run.proposals[:, i]))} with {run.limits[i]:,}" for i in chosen
            )
            + " detections an image.",
            _iou_axis(run),
            percent_axis("recall"),
            tuple(
                Line(f"best {run.limits[i]:,}", _iou_path(run, run.proposals[:, i]), _series(n))
                for n, i in enumerate(chosen)
            ),
            legend=True,
        ),
    )


def calibration_charts(run: Analysis) -> tuple[Chart, Chart] | None:
    """Share of true positives by score, and how many detections there are; None without scores."""
    bins = run.calibration
    if bins is None or not bins.counts.any():
        return None
    edges = [f"score {a:.1f} to {b:.1f}" for a, b in zip(bins.edges, bins.edges[1:], strict=False)]
    counts = bins.counts.tolist()
    shares = [f"{percent(p)} % true positives" for p in bins.precision.tolist()]
    ticks = linear_axis("score", [0, 0.2, 0.4, 0.6, 0.8, 1], (0, 1))
    top = 10 ** max(1, math.ceil(math.log10(max(counts) + 1)))
    heights = np.log10(np.maximum(bins.counts, 1)) / math.log10(top)
    return (
        Chart(
            "Calibration",
            "Share of true positives of each tenth of the scores: "
            + "; ".join(f"{a} {b}" for a, b in zip(edges, shares, strict=True)),
            ticks,
            percent_axis("true positives"),
            (Line("calibrated", "M0 100L100 0", "guide"),),
            bars_of(
                bins.edges,
                bins.precision,
                [f"{a}: {b} of {n:,}" for a, b, n in zip(edges, shares, counts, strict=True)],
            ),
        ),
        Chart(
            "Detections by score",
            "; ".join(f"{a}: {n:,}" for a, n in zip(edges, counts, strict=True)),
            ticks,
            log_axis("detections", top),
            bars=bars_of(
                bins.edges,
                np.where(bins.counts > 0, np.maximum(heights, 0.01), np.nan),
                [f"{a}: {n:,}" for a, n in zip(edges, counts, strict=True)],
            ),
        ),
    )


def _class_lines(
    run: Analysis, x: NDArray[np.float64], rows: NDArray[np.float64], style: str
) -> list[Line]:
    lines = [
        Line(name, line_path(x, row), f"class {style}", label)
        for label, (name, row) in enumerate(zip(run.matches.class_names, rows, strict=True), 1)
        if not np.isnan(row).all()
    ]
    return [*lines, Line("mean of all classes", line_path(x, _mean_columns(rows)), f"mean {style}")]


def _f1(run: Analysis, label: int, iou: float, ends: tuple[float, float]) -> NDArray[np.float64]:
    """F1 of a class at evenly spaced thresholds; nan without objects."""
    curve = f1_threshold(run.matches, label, iou)
    if not run.matches.objects[label - 1].any():
        return np.full(len(THRESHOLDS), np.nan)
    low, high = ends
    kept = np.searchsorted(-curve.scores, -(low + (high - low) * THRESHOLDS), side="right")
    return np.append(0.0, curve.f1)[kept]


def _iou_axis(run: Analysis) -> Axis:
    ious = run.matches.ious
    return linear_axis("IoU", [0.5, 0.6, 0.7, 0.8, 0.9], (float(ious[0]), float(ious[-1])))


def _iou_path(run: Analysis, values: NDArray[np.float64]) -> str:
    return line_path(np.linspace(0.0, 1.0, len(run.matches.ious)), values)


def _series(index: int) -> str:
    return f"series-{index + 1}"


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def _mean_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the classes with objects at each point."""
    return np.array([_mean(column) for column in values.T])
