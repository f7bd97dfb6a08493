"""VOC's average precision by the rules of its devkit (VOCevaldet.m and VOCap.m), in numpy.

Shape shorthand:
    N: detections        G: ground-truth boxes        P: pairs of a detection and a box

A detection is assigned to the ground truth of its image and class with the highest IoU. It is a
true positive if that IoU reaches the threshold and no detection of a higher score is assigned to
the same object; it counts neither way if the object is difficult; else it is a false positive.
COCO crowd regions are treated as difficult. Half-open widths equal the devkit's "+1" widths.

Differs from the devkit: ties of the score are broken by image id and box; a recall of exactly 0.3
reaches the 11-point level 0.3, which in the devkit's ``0:0.1:1`` is rounded up.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import canonical_predictions, image_ids_of_boxes, select
from detection.structures import Annotations, Predictions

RECALL_LEVELS = np.arange(11) / 10
FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = range(3)


class VocClassFigures(NamedTuple):
    """VOC's figures of one class; nan without objects.

    Attributes:
        name: the class.
        objects: ground-truth objects that count (neither difficult nor crowd).
        voc07: AP by 11 points, in [0, 1].
        voc10: AP by area, in [0, 1].
    """

    name: str
    objects: int
    voc07: float
    voc10: float


class VocFigures(NamedTuple):
    """VOC's mean AP over the classes that have ground truth; nan if none has.

    Attributes:
        voc07: mean AP by 11-point interpolation (VOC 2007), in [0, 1].
        voc10: mean AP by the area under the interpolated curve (VOC 2010 on), in [0, 1].
        per_class: the figures of classes 1…K.
        images: number of images evaluated.
        iou_threshold: the least IoU of a true positive.
    """

    voc07: float
    voc10: float
    per_class: tuple[VocClassFigures, ...]
    images: int
    iou_threshold: float


def evaluate_voc(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> VocFigures:
    """Computes VOC's average precision, both by 11 points and by area.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.
        iou_threshold: the least IoU of a true positive, in (0, 1]. The devkit's rule is
            IoU >= 0.5; py-faster-rcnn asks for more than 0.5.

    Returns:
        The figures: 0 without detections, nan without ground truth.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`, or the threshold is outside
            (0, 1].
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number in (0, 1], got {iou_threshold}")
    predictions = canonical_predictions(annotations, predictions, class_names)
    predictions = select(predictions, np.argsort(-predictions.scores, kind="stable"))
    outcomes = _outcomes(annotations, predictions, iou_threshold)
    counted = annotations.labels[~(annotations.difficult | annotations.crowd)]
    per_class = []
    for label, name in enumerate(class_names, start=1):
        of_class = outcomes[predictions.labels == label]
        hits = of_class[of_class != IGNORED] == TRUE_POSITIVE
        objects = int(np.count_nonzero(counted == label))
        per_class.append(VocClassFigures(name, objects, *_average_precisions(hits, objects)))
    present = [figures for figures in per_class if figures.objects]
    return VocFigures(
        voc07=float(np.mean([f.voc07 for f in present])) if present else math.nan,
        voc10=float(np.mean([f.voc10 for f in present])) if present else math.nan,
        per_class=tuple(per_class),
        images=len(annotations.image_ids),
        iou_threshold=iou_threshold,
    )


def _outcomes(
    annotations: Annotations, predictions: Predictions, iou_threshold: float
) -> NDArray[np.int64]:
    """Returns what each detection counts as: (N,) int64. Detections come best score first."""
    ious, assigned = _best_overlaps(annotations, predictions)
    matched = np.flatnonzero(ious >= iou_threshold)
    # An assignment does not depend on other detections, so an object's first match is its hit.
    _, first = np.unique(assigned[matched], return_index=True)
    outcomes = np.full(len(ious), FALSE_POSITIVE)
    outcomes[matched[first]] = TRUE_POSITIVE
    ignored = annotations.difficult | annotations.crowd
    outcomes[matched[ignored[assigned[matched]]]] = IGNORED
    return outcomes


def _best_overlaps(
    annotations: Annotations, predictions: Predictions
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Finds each detection's ground truth of highest IoU within its image and class.

    Returns:
        ious: (N,) float64, -1 where the image has no box of the class.
        assigned: (N,) int64, row of the ground-truth box; the first of equals.
    """
    ids = np.sort(annotations.image_ids)
    classes = 1 + int(max(annotations.labels.max(initial=0), predictions.labels.max(initial=0)))
    truth = np.searchsorted(ids, image_ids_of_boxes(annotations)) * classes + annotations.labels
    found = np.searchsorted(ids, predictions.image_ids) * classes + predictions.labels
    by_group = np.argsort(truth, kind="stable")
    starts = np.searchsorted(truth[by_group], found, side="left")
    counts = np.searchsorted(truth[by_group], found, side="right") - starts

    # All P pairs of one image and class, grouped by detection.
    detection = np.repeat(np.arange(len(found)), counts)
    firsts = np.cumsum(counts) - counts
    within = np.arange(len(detection)) - firsts[detection]
    box = by_group[starts[detection] + within]
    iou = _pairwise_iou(predictions.boxes[detection].astype(np.float64), annotations.boxes[box])

    best_first = np.lexsort((-iou, detection))
    some = counts > 0
    best = best_first[firsts[some]]
    ious, assigned = np.full(len(found), -1.0), np.zeros(len(found), dtype=np.int64)
    ious[some], assigned[some] = iou[best], box[best]
    return ious, assigned


def _pairwise_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the IoU of row i of ``a`` with row i of ``b``, xyxy: (P,) float64; 0 if apart."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    intersection = sides.clip(min=0).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - intersection
    iou = np.zeros(len(a))
    np.divide(intersection, union, out=iou, where=intersection > 0)
    return iou


def _average_precisions(hits: NDArray[np.bool_], objects: int) -> tuple[float, float]:
    """Returns AP by 11 points and by area (VOCap.m), from true (1) and false (0) positives."""
    if objects == 0:
        return math.nan, math.nan
    recall = np.cumsum(hits) / objects
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    by_points = envelope[np.searchsorted(recall, RECALL_LEVELS)].sum() / 11
    by_area = (np.diff(recall, prepend=0.0) * envelope[:-1]).sum()
    return float(by_points), float(by_area)
