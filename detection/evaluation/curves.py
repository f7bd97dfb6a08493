"""Curves and breakdowns of the average precision: by score, size, and what the boxes alone give.

Shape shorthand:
    N: detections        P: points        K: classes        T: IoU thresholds
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.matches import (
    ALL_AREAS,
    COCO_IOUS,
    Matches,
    class_agnostic,
    match_detections,
)
from detection.evaluation.precision import average_precision, mean_precision
from detection.structures import Annotations, Predictions

# COCO's area ranges, square pixels, both ends included
SIZES = {
    "all": ALL_AREAS,
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, ALL_AREAS[1]),
}


class Curve(NamedTuple):
    """Precision and recall of the detections down to each score.

    Attributes:
        scores: (P,) float, falling.
        precision: (P,) float64, in [0, 1].
        recall: (P,) float64, in [0, 1]; nan without objects.
        f1: (P,) float64, their harmonic mean; 0 without a true positive.
    """

    scores: NDArray[np.floating]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


class OperatingPoint(NamedTuple):
    """The score threshold of the highest F1 of a class, and what it gives; nan without any.

    Attributes:
        name: the class.
        threshold: detections of this score and above are kept.
        f1: the harmonic mean of precision and recall, in [0, 1].
        precision: in [0, 1].
        recall: in [0, 1].
    """

    name: str
    threshold: float
    f1: float
    precision: float
    recall: float


class Recognition(NamedTuple):
    """AP beside the AP of the boxes alone (ResNet appendix A), in [0, 1]; nan without objects.

    A gain in ``ap50`` alone is one of recognition; a gain as large in ``ap`` is one of
    localisation too. The class-agnostic figures merge all labels, at most 100 detections per
    image, so that they lack what is lost to wrong labels.

    Attributes:
        ap: AP at IoU .50:.05:.95.
        ap50: AP at IoU .50.
        ap75: AP at IoU .75.
        agnostic_ap: class-agnostic AP at IoU .50:.05:.95.
        agnostic_ap50: class-agnostic AP at IoU .50.
        agnostic_ap75: class-agnostic AP at IoU .75.
    """

    ap: float
    ap50: float
    ap75: float
    agnostic_ap: float
    agnostic_ap50: float
    agnostic_ap75: float


def precision_recall(matches: Matches, label: int, iou: float = 0.5) -> Curve:
    """Computes the full curve of a class, a point per detection that counts.

    Args:
        matches: the assignment.
        label: the class, 1…K.
        iou: one of the matches' thresholds.

    Returns:
        The curve, not interpolated; `precision.interpolated_precision` has COCO's 101 points.

    Raises:
        ValueError: the label is outside 1…K or there are no matches at this threshold.
    """
    if not 1 <= label <= len(matches.class_names):
        raise ValueError(f"label: expected 1…{len(matches.class_names)}, got {label}")
    t = matches.iou_index(iou)
    rows = np.arange(matches.offsets[label - 1], matches.offsets[label])
    rows = rows[~matches.ignored[rows, t]]
    found = np.cumsum(matches.matched[rows, t] >= 0)
    objects = int(matches.objects[label - 1].sum())
    counted = np.arange(1, len(rows) + 1)
    recall = found / objects if objects else np.full(len(rows), np.nan)
    # 2PR / (P + R), written without a division by 0
    return Curve(matches.scores[rows], found / counted, recall, 2 * found / (counted + objects))


def f1_threshold(matches: Matches, label: int, iou: float = 0.5) -> Curve:
    """Computes F1 against the score threshold, a point per different score.

    Args:
        matches: the assignment.
        label: the class, 1…K.
        iou: one of the matches' thresholds.

    Returns:
        The curve; detections of a tied score are kept or dropped together.

    Raises:
        ValueError: as in `precision_recall`.
    """
    scores, precision, recall, f1 = precision_recall(matches, label, iou)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    return Curve(scores[last], precision[last], recall[last], f1[last])


def operating_points(matches: Matches, iou: float = 0.5) -> tuple[OperatingPoint, ...]:
    """Finds each class's score threshold of the highest F1; the higher threshold of equals.

    Args:
        matches: the assignment.
        iou: one of the matches' thresholds.

    Returns:
        A point per class 1…K, nan where a class has no objects or no detections.
    """
    points = []
    for label, name in enumerate(matches.class_names, start=1):
        scores, precision, recall, f1 = f1_threshold(matches, label, iou)
        if not len(f1) or np.isnan(recall[0]):
            points.append(OperatingPoint(name, *[float("nan")] * 4))
            continue
        best = int(np.argmax(f1))
        values = (column[best].item() for column in (scores, f1, precision, recall))
        points.append(OperatingPoint(name, *values))
    return tuple(points)


def precision_by_size(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    ious: Sequence[float] = COCO_IOUS,
) -> dict[str, NDArray[np.float64]]:
    """Computes AP per class and IoU for each of COCO's sizes, by the annotation's ``area``.

    Args:
        annotations: the ground truth.
        predictions: detections, in any order.
        class_names: the K names of labels 1…K.
        ious: the T thresholds, rising, in (0, 1].

    Returns:
        (K, T) float64 for each of all, small, medium and large; nan without objects.

    Raises:
        ValueError: as in `matches.match_detections`.
    """
    return {
        size: average_precision(
            match_detections(annotations, predictions, class_names, ious, area_range=area_range)
        )
        for size, area_range in SIZES.items()
    }


def recognition(
    annotations: Annotations, predictions: Predictions, class_names: Sequence[str]
) -> Recognition:
    """Computes AP beside class-agnostic AP, each at COCO's IoUs, at .50 and at .75.

    Args:
        annotations: the ground truth.
        predictions: detections, in any order.
        class_names: the K names of labels 1…K.

    Returns:
        The six figures.

    Raises:
        ValueError: as in `matches.match_detections`.
    """
    figures = []
    merged = class_agnostic(annotations, predictions)
    for case in ((annotations, predictions, class_names), (*merged, ["object"])):
        matches = match_detections(*case)
        precision = average_precision(matches)
        at = [precision[:, matches.iou_index(iou)] for iou in (0.5, 0.75)]
        figures += [mean_precision(values) for values in (precision, *at)]
    return Recognition(*figures)
