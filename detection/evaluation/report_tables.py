"""A report's tables, from a run's analysis, and how its numbers are worded."""

import math
from typing import Any, NamedTuple

import numpy as np

from detection.evaluation.curves import SIZES
from detection.evaluation.errors import ErrorType
from detection.evaluation.report_analysis import MAX_DETECTIONS, Analysis
from detection.evaluation.report_pictures import WORDS
from detection.evaluation.significance import Interval

MOST_CONFUSIONS = 12


class ErrorRow(NamedTuple):
    """What a type of error costs.

    Attributes:
        name: its name.
        meaning: what it is.
        number: how many there are; None for the two totals.
        cost: gain in AP at IoU .50 without it, in [0, 1].
    """

    name: str
    meaning: str
    number: int | None
    cost: float


class ConfusionRow(NamedTuple):
    """What the objects of a class were taken for, classes first and background last.

    Attributes:
        name: the class.
        total: number of objects, or of detections of nothing.
        cells: counts by predicted class.
    """

    name: str
    total: int
    cells: tuple[int, ...]


def percent(value: float | None) -> str:
    """Words a share as papers do: 38.2; n/a without objects."""
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def interval_text(interval: Interval, sign: str = "") -> str:
    """Words an interval as "36.1 to 40.3", with ``sign`` "+" for differences."""
    if math.isnan(interval.low):
        return "n/a"
    note = "" if interval.holds_value else ", too few images"
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}{note}"


def class_columns() -> tuple[tuple[str, str], ...]:
    """Heading and meaning of the numbers of `class_rows`, after the class."""
    return (
        ("objects", "objects that count"),
        ("AP", "IoU .50:.05:.95"),
        ("AP50", "IoU .50"),
        ("AP75", "IoU .75"),
        ("small", "AP of objects below 32² pixels"),
        ("medium", "AP of objects of 32² to 96² pixels"),
        ("large", "AP of objects above 96² pixels"),
        (f"AR{MAX_DETECTIONS}", f"recall, IoU .50:.05:.95, {MAX_DETECTIONS} detections"),
        ("VOC07", "AP by 11 points, IoU ≥ .50"),
        ("VOC10", "AP by area, IoU ≥ .50"),
        ("F1", "highest F1, IoU .50"),
        ("at score", "score threshold of the highest F1"),
    )


def class_rows(run: Analysis) -> list[tuple[str, tuple[float, ...]]]:
    """Name and numbers of each class, shares in [0, 1]; nan without objects."""
    matches = run.matches
    all_sizes = run.by_size["all"]
    at_75 = all_sizes[:, matches.iou_index(0.75)].tolist()
    recall = run.recall.mean(axis=1).tolist()
    sizes = [run.by_size[size].mean(axis=1).tolist() for size in SIZES if size != "all"]
    return [
        (
            coco.name,
            (
                coco.objects,
                coco.ap,
                coco.ap50,
                at_75[k],
                *(size[k] for size in sizes),
                recall[k],
                voc.voc07,
                voc.voc10,
                point.f1,
                point.threshold,
            ),
        )
        for k, (coco, voc, point) in enumerate(
            zip(run.coco.per_class, run.voc.per_class, run.points, strict=True)
        )
    ]


def error_rows(run: Analysis) -> list[ErrorRow]:
    """TIDE's types and the two totals."""
    meanings = {
        ErrorType.CLASSIFICATION: "IoU ≥ .50 with an object of another class",
        ErrorType.LOCALIZATION: "IoU .10 to .50 with an object of its class",
        ErrorType.BOTH: "IoU .10 to .50 with an object of another class",
        ErrorType.DUPLICATE: "the object has a better detection",
        ErrorType.BACKGROUND: "IoU ≤ .10 with any object",
        ErrorType.MISSED: "an object that no detection meant",
    }
    costs = run.costs
    rows = [
        ErrorRow(WORDS[kind], meaning, costs.counts[kind], costs.costs[kind])
        for kind, meaning in meanings.items()
    ]
    every = "gain without any "
    return [
        *rows,
        ErrorRow("all false positives", every + "of them", None, costs.false_positives),
        ErrorRow("all objects not found", every + "of them", None, costs.false_negatives),
    ]


def confusion_rows(run: Analysis) -> list[ConfusionRow]:
    """The matrix by rows, background last."""
    counts = np.roll(run.confusion.counts, -1, axis=(0, 1))
    names = (*run.matches.class_names, "background")
    return [
        ConfusionRow(name, int(row.sum()), tuple(row.tolist()))
        for name, row in zip(names, counts, strict=True)
    ]


def greatest_confusions(run: Analysis) -> list[tuple[str, str, int]]:
    """The most frequent pairs of different classes: object, detection, how often."""
    counts = run.confusion.counts[1:, 1:].copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts.ravel(), kind="stable")[:MOST_CONFUSIONS]
    names = run.matches.class_names
    pairs = [divmod(place, len(names)) for place in order.tolist()]
    return [(names[a], names[b], int(counts[a, b])) for a, b in pairs if counts[a, b]]


def flatten(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Lists the leaves of nested mappings and lists as name and text, names joined by dots."""
    if isinstance(values, list):
        return [row for value in values for row in flatten(value, prefix)]
    if isinstance(values, dict):
        return [
            row
            for key, value in values.items()
            for row in flatten(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    whole = isinstance(values, int) and not isinstance(values, bool)
    return [(prefix, "–" if values is None else f"{values:,}" if whole else str(values))]
