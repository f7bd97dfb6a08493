"""The one assignment of detections to ground truth that all explanations stand on.

Shape shorthand:
    I: images        N: detections        G: ground-truth boxes        K: classes
    T: IoU thresholds

COCO's rule, for each image, class and threshold: detections choose by falling score, each the
free object of the highest IoU that reaches the threshold. One that finds none may go to an
ignored region: a crowd takes any number of detections, by intersection over the detection's
area; a VOC difficult object or an object outside the area range takes one. Detections of ignored
regions count neither way, nor do unmatched detections outside the area range. ``match_voc``
follows the VOC devkit's rule instead.

Ties of the score are broken by image id and box, as in `detection.evaluation.coco`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import canonical_predictions, image_ids_of_boxes
from detection.evaluation.overlaps import Boxes, Pairs, overlapping_pairs, xywh
from detection.structures import Annotations, Predictions

COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
ALL_AREAS = (0.0, 1e5**2)


class Matches(NamedTuple):
    """Detections and what they were matched with, by class, then by falling score.

    Attributes:
        class_names: the K names of labels 1…K.
        image_ids: (I,) int64, rising.
        ious: (T,) float64, the thresholds.
        offsets: (K + 1,) int64: the detections of label k are rows ``offsets[k - 1]:offsets[k]``.
        labels: (N,) int64, 1…K.
        images: (N,) int64, position in ``image_ids``.
        ranks: (N,) int64, position among the detections of the image and class, 0 is the best.
        boxes: (N, 4) float, xyxy, pixels.
        scores: (N,) float.
        matched: (N, T) int32, row of the ground-truth box, -1 without.
        ignored: (N, T) bool, counts neither way.
        objects: (K, I) int64, ground-truth objects that count.
        extents: (N, 2) float64 or None, as in `detection.structures.Predictions`.
    """

    class_names: tuple[str, ...]
    image_ids: NDArray[np.int64]
    ious: NDArray[np.float64]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    ranks: NDArray[np.int64]
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    matched: NDArray[np.int32]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]
    extents: NDArray[np.float64] | None

    def iou_index(self, iou: float) -> int:
        """Position of a threshold; ValueError if the matches were made without it."""
        near = np.flatnonzero(np.isclose(self.ious, iou, rtol=0, atol=1e-9))
        if not len(near):
            raise ValueError(f"iou: expected one of {self.ious.tolist()}, got {iou}")
        return int(near[0])

    def hits(self, index: int) -> NDArray[np.bool_]:
        """(N,) bool, the true positives at threshold number ``index``."""
        return (self.matched[:, index] >= 0) & ~self.ignored[:, index]


def match_detections(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    ious: Sequence[float] = COCO_IOUS,
    max_detections: int = 100,
    area_range: tuple[float, float] = ALL_AREAS,
) -> Matches:
    """Assigns detections to ground truth by COCO's rule.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.
        ious: the T thresholds, rising, in (0, 1].
        max_detections: the most detections per image and class, of the highest scores; the
            others are left out.
        area_range: square pixels, both included; objects outside by the annotation's ``area``
            are ignored.

    Returns:
        The matches.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`, thresholds that do not rise
            in (0, 1], or ``max_detections`` below 1.
    """
    if max_detections < 1:
        raise ValueError(f"max_detections: expected at least 1, got {max_detections}")
    case = _arrange(annotations, predictions, class_names, ious, max_detections)
    low, high = area_range
    ignored_truth = annotations.crowd | annotations.difficult
    ignored_truth |= (annotations.areas < low) | (annotations.areas > high)
    reached = np.minimum(case.ious, 1 - 1e-10)  # as pycocotools
    pairs = overlapping_pairs(case.found, case.truth, annotations.crowd, float(reached[0]))
    matched = _assign(pairs, case, ignored_truth, annotations.crowd, reached)
    areas = xywh(case.found.boxes, case.found.extents)[:, 2:].prod(axis=1)
    out_of_range = (areas < low) | (areas > high)
    return _pack(case, matched, ignored_truth, out_of_range)


def match_voc(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    iou: float = 0.5,
) -> Matches:
    """Assigns detections to ground truth by the rule of `detection.evaluation.voc`.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order; all are kept.
        class_names: the K names of labels 1…K.
        iou: the only threshold, in (0, 1].

    Returns:
        The matches; a detection of an object that another holds is unmatched.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`, or a threshold outside (0, 1].
    """
    annotations, predictions = (
        annotations._replace(extents=None),
        predictions._replace(extents=None),  # VOC counts by corners
    )
    case = _arrange(annotations, predictions, class_names, (iou,), None)
    pairs = overlapping_pairs(case.found, case.truth, np.zeros_like(annotations.crowd), iou)
    order = np.lexsort((pairs.truth, -pairs.iou, pairs.detection))
    detections, first = np.unique(pairs.detection[order], return_index=True)
    assigned = pairs.truth[order][first]
    ignored_truth = annotations.crowd | annotations.difficult
    # An assignment does not depend on other detections, so an object's first match is its hit.
    held = ignored_truth[assigned]
    held[np.unique(assigned, return_index=True)[1]] = True
    matched = np.full((len(case.ranks), 1), -1, np.int32)
    matched[detections[held], 0] = assigned[held]
    return _pack(case, matched, ignored_truth, np.zeros(len(matched), np.bool_))


def class_agnostic(
    annotations: Annotations, predictions: Predictions
) -> tuple[Annotations, Predictions]:
    """Gives every object and detection label 1, so that only the boxes count."""
    return (
        annotations._replace(labels=np.ones_like(annotations.labels)),
        predictions._replace(labels=np.ones_like(predictions.labels)),
    )


class _Case(NamedTuple):
    """Checked input. Detections are in canonical order; a key is image position × K + label - 1."""

    class_names: tuple[str, ...]
    image_ids: NDArray[np.int64]
    ious: NDArray[np.float64]
    found: Boxes
    scores: NDArray[np.floating]
    ranks: NDArray[np.int64]
    truth: Boxes


def _arrange(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    ious: Sequence[float],
    max_detections: int | None,
) -> _Case:
    thresholds = np.array(ious, np.float64)
    rising = thresholds.ndim == 1 and len(thresholds) and (np.diff(thresholds) > 0).all()
    if not (rising and thresholds[0] > 0 and thresholds[-1] <= 1):
        raise ValueError(f"ious: expected rising thresholds in (0, 1], got {list(ious)}")
    found = canonical_predictions(annotations, predictions, class_names)
    image_ids = np.sort(annotations.image_ids)
    classes = len(class_names)
    keys = np.searchsorted(image_ids, found.image_ids) * classes + found.labels - 1
    ranks = _positions_in_runs(keys)
    kept = np.flatnonzero(ranks < (max_detections or len(ranks)))
    images = np.searchsorted(image_ids, image_ids_of_boxes(annotations))
    return _Case(
        tuple(class_names),
        image_ids,
        thresholds,
        Boxes(keys, found.boxes, found.extents).take(kept),
        found.scores[kept],
        ranks[kept],
        Boxes(images * classes + annotations.labels - 1, annotations.boxes, annotations.extents),
    )


def _assign(
    pairs: Pairs,
    case: _Case,
    ignored_truth: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
    ious: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Returns the ground truth of each detection at each threshold: (N, T) int32, or -1.

    The first choices of all images and classes are made at once, then the second ones, and so on.
    """
    # pycocotools takes the last of equals
    by_choice = np.lexsort((-pairs.truth, -pairs.iou, ignored_truth[pairs.truth], pairs.detection))
    choosers, firsts = np.unique(pairs.detection[by_choice], return_index=True)
    turns = _positions_in_runs(case.found.keys[choosers])
    counts = np.diff(firsts, append=len(by_choice))
    in_turn = np.argsort(np.repeat(turns, counts), kind="stable")
    rows = by_choice[in_turn]
    matched = np.full((len(case.ranks), len(ious)), -1, np.int32)
    taken = np.zeros((len(crowd), len(ious)), np.bool_)
    bounds = np.cumsum(np.bincount(turns, weights=counts)).astype(np.int64).tolist()
    for start, stop in zip([0, *bounds], bounds, strict=False):
        detection, truth, iou = (column[rows[start:stop]] for column in pairs)
        free = (iou[:, None] >= ious) & ~taken[truth]
        n = stop - start
        begins = np.flatnonzero(np.diff(detection, prepend=-1))
        choice = np.minimum.reduceat(np.where(free, np.arange(n)[:, None], n), begins)
        chooser, t = np.nonzero(choice < n)
        chosen = choice[chooser, t]
        matched[detection[chosen], t] = truth[chosen]
        taken[truth[chosen], t] = ~crowd[truth[chosen]]
    return matched


def _pack(
    case: _Case,
    matched: NDArray[np.int32],
    ignored_truth: NDArray[np.bool_],
    out_of_range: NDArray[np.bool_],
) -> Matches:
    classes, images = len(case.class_names), len(case.image_ids)
    position, label = np.divmod(case.found.keys, max(classes, 1))
    order = np.lexsort((-case.scores, label))
    ignored = np.where(matched < 0, out_of_range[:, None], False)
    ignored[matched >= 0] = ignored_truth[matched[matched >= 0]]
    found = case.found.take(order)
    objects = np.bincount(case.truth.keys[~ignored_truth], minlength=images * classes)
    return Matches(
        case.class_names,
        case.image_ids,
        case.ious,
        np.searchsorted(label[order], np.arange(classes + 1)),
        label[order] + 1,
        position[order],
        case.ranks[order],
        found.boxes,
        case.scores[order],
        matched[order],
        ignored[order],
        np.ascontiguousarray(objects.reshape(images, classes).T),
        found.extents,
    )


def _positions_in_runs(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each element among those of its key, where equal keys are adjacent."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    lengths = np.diff(starts, append=len(keys))
    return np.arange(len(keys)) - np.repeat(starts, lengths)
