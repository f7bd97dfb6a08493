"""The error types of TIDE (Bolya et al. 2020) and what each costs in AP.

A false positive is of the first type whose rule it meets, with t_f = .5 and t_b = .1, by its IoU
with the objects that count, as in the authors' tidecv:

    localization     t_b ≤ best IoU with its own class ≤ t_f
    classification   best IoU with another class ≥ t_f
    duplicate        IoU ≥ t_f with an object of its class that another detection holds
    background       best IoU with any object ≤ t_b
    both             none of these: wrong class and badly placed

An object is missed if it was neither matched nor is the one that a localization or classification
error meant. The cost of a type is the gain in AP when it alone is mended: a localization or
classification error becomes the true positive of the free object that it meant, if it has the
highest score of those that meant it; all other errors are removed, and missed objects are no
longer looked for.

Differs from tidecv: matches are COCO's, with its limit per image and class, not per image; a class
that never had objects is left out of the mean. As there, a cost is not below 0, and a class whose
objects are all missed leaves the mean when these are mended, or counts 0 if it has false positives.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import image_ids_of_boxes
from detection.evaluation.matches import Matches
from detection.evaluation.overlaps import Boxes, Pairs, overlapping_pairs
from detection.evaluation.precision import average_precision
from detection.structures import Annotations


class ErrorType(IntEnum):
    """TIDE's types; ``NONE`` is a true positive or a detection that counts neither way."""

    NONE = 0
    CLASSIFICATION = 1
    LOCALIZATION = 2
    BOTH = 3
    DUPLICATE = 4
    BACKGROUND = 5
    MISSED = 6


class Errors(NamedTuple):
    """The error of each detection of some matches, and the objects not found.

    Attributes:
        types: (N,) int8, an `ErrorType`, in the matches' order; never ``MISSED``.
        truths: (N,) int64, row of the ground-truth box that the detection holds, meant or
            repeats, or overlaps most; -1 without.
        mendable: (N,) bool, becomes a true positive when its error is mended.
        missed: (M,) int64, rows of the missed objects.
        unmatched: (F,) int64, rows of all objects without a match, the missed ones among them.
        iou: t_f.
        background: t_b.
    """

    types: NDArray[np.int8]
    truths: NDArray[np.int64]
    mendable: NDArray[np.bool_]
    missed: NDArray[np.int64]
    unmatched: NDArray[np.int64]
    iou: float
    background: float


class ErrorCosts(NamedTuple):
    """What errors cost in AP at t_f; nan where no class with objects is left.

    Attributes:
        ap: AP of the detections as they are, mean over classes, in [0, 1].
        counts: how many there are, for each type but ``NONE``.
        costs: gain in AP when the type is mended, in [0, 1], for each type but ``NONE``.
        false_positives: gain in AP without any false positive.
        false_negatives: gain in AP without any unmatched object.
    """

    ap: float
    counts: dict[ErrorType, int]
    costs: dict[ErrorType, float]
    false_positives: float
    false_negatives: float


def classify_errors(
    annotations: Annotations, matches: Matches, iou: float = 0.5, background: float = 0.1
) -> Errors:
    """Finds out why each false positive is one.

    Args:
        annotations: the ground truth that the matches were made with.
        matches: the assignment, over all areas.
        iou: t_f, one of the matches' thresholds.
        background: t_b, above 0 and below t_f.

    Returns:
        The errors.

    Raises:
        ValueError: there are no matches at this threshold, or ``background`` is out of range.
    """
    if not 0 < background < iou:
        raise ValueError(f"background: expected a number in (0, {iou}), got {background}")
    t = matches.iou_index(iou)
    matched = matches.matched[:, t].astype(np.int64)
    counted = ~(annotations.crowd | annotations.difficult)
    used = np.zeros(len(counted), np.bool_)
    used[matched[matched >= 0]] = True
    types, truths = np.zeros(len(matched), np.int8), matched
    false = np.flatnonzero((matched < 0) & ~matches.ignored[:, t])
    pairs = _pairs_of_images(annotations, matches, false, counted, background)
    same = annotations.labels[pairs.truth] == matches.labels[false][pairs.detection]
    types[false], truths[false] = _apply_rules(pairs, same, used, len(false), (iou, background))

    meant = np.isin(types, (ErrorType.LOCALIZATION, ErrorType.CLASSIFICATION))
    hopeful = np.flatnonzero(meant)
    hopeful = hopeful[~used[truths[hopeful]]]
    by_score = hopeful[np.argsort(-matches.scores[hopeful], kind="stable")]
    objects, first = np.unique(truths[by_score], return_index=True)
    mendable = np.zeros(len(types), np.bool_)
    mendable[by_score[first]] = True
    unmatched = np.flatnonzero(counted & ~used)
    missed = np.setdiff1d(unmatched, objects)
    return Errors(types, truths, mendable, missed, unmatched, iou, background)


def error_costs(annotations: Annotations, matches: Matches, errors: Errors) -> ErrorCosts:
    """Computes what each type of error costs, mended alone.

    Args:
        annotations: the ground truth that the matches were made with.
        matches: the assignment.
        errors: from `classify_errors`, of the same matches.

    Returns:
        The counts and costs.
    """
    t = matches.iou_index(errors.iou)
    base = matches._replace(
        ious=matches.ious[[t]], matched=matches.matched[:, [t]], ignored=matches.ignored[:, [t]]
    )
    present = matches.objects.sum(axis=1) > 0
    ap = _mean(base, present)
    counts = np.bincount(errors.types, minlength=len(ErrorType))
    counts[ErrorType.MISSED] = len(errors.missed)
    types: list[ErrorType] = [error for error in ErrorType if error != ErrorType.NONE]
    costs: dict[ErrorType, float] = {}
    for error in types:
        if error == ErrorType.MISSED:
            mended = _without(annotations, base, errors.missed)
        else:
            mended = _mend(annotations, base, errors, error)
        costs[error] = max(_mean(mended, present) - ap, 0.0)  # nan stays nan
    no_false = base._replace(ignored=base.ignored | (errors.types != ErrorType.NONE)[:, None])
    all_found = _without(annotations, base, errors.unmatched)
    return ErrorCosts(
        ap,
        {error: int(counts[error]) for error in types},
        costs,
        _mean(no_false, present) - ap,
        _mean(all_found, present) - ap,
    )


def _pairs_of_images(
    annotations: Annotations,
    matches: Matches,
    rows: NDArray[np.int64],
    counted: NDArray[np.bool_],
    least: float,
) -> Pairs:
    """Pairs, best first, of the given detections with objects that count, of any class."""
    objects = np.flatnonzero(counted)
    images = np.searchsorted(matches.image_ids, image_ids_of_boxes(annotations))
    pairs = overlapping_pairs(
        Boxes(matches.images, matches.boxes, matches.extents).take(rows),
        Boxes(images, annotations.boxes, annotations.extents).take(objects),
        np.zeros(len(objects), np.bool_),
        least,
    )
    order = np.lexsort((pairs.truth, -pairs.iou, pairs.detection))
    return Pairs(pairs.detection[order], objects[pairs.truth[order]], pairs.iou[order])


def _apply_rules(
    pairs: Pairs,
    same: NDArray[np.bool_],
    used: NDArray[np.bool_],
    n: int,
    thresholds: tuple[float, float],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the type of each of n false positives and the object concerned."""
    iou, background = thresholds
    own, own_truth = _best(pairs, same, n)
    other, other_truth = _best(pairs, ~same, n)
    held, held_truth = _best(pairs, same & used[pairs.truth], n)
    nearest = np.where(own >= other, own_truth, other_truth)
    rules = [
        (ErrorType.LOCALIZATION, (own >= background) & (own <= iou), own_truth),
        (ErrorType.CLASSIFICATION, other >= iou, other_truth),
        (ErrorType.DUPLICATE, held >= iou, held_truth),
        (ErrorType.BACKGROUND, np.maximum(own, other) <= background, np.full(n, -1)),
    ]
    types, conditions, truths = zip(*rules, strict=True)
    return (
        np.select(conditions, [np.int64(error) for error in types], np.int64(ErrorType.BOTH)),
        np.select(conditions, truths, nearest),
    )


def _best(
    pairs: Pairs, among: NDArray[np.bool_], n: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The highest IoU of each detection and whose it is, among some pairs; 0 and -1 without."""
    iou, truth = np.zeros(n), np.full(n, -1)
    detections, first = np.unique(pairs.detection[among], return_index=True)
    iou[detections] = pairs.iou[among][first]
    truth[detections] = pairs.truth[among][first]
    return iou, truth


def _mend(annotations: Annotations, base: Matches, errors: Errors, error: ErrorType) -> Matches:
    of_type = errors.types == error
    rows = np.flatnonzero(of_type & errors.mendable)
    labels, matched = base.labels.copy(), base.matched.copy()
    ignored = base.ignored | of_type[:, None]
    ignored[rows] = False
    matched[rows, 0] = errors.truths[rows]
    labels[rows] = annotations.labels[errors.truths[rows]]
    order = np.lexsort((-base.scores, labels))
    return base._replace(
        labels=labels[order],
        offsets=np.searchsorted(labels[order], np.arange(1, len(base.class_names) + 2)),
        images=base.images[order],
        scores=base.scores[order],
        matched=matched[order],
        ignored=ignored[order],
    )


def _without(annotations: Annotations, base: Matches, rows: NDArray[np.int64]) -> Matches:
    images = np.searchsorted(base.image_ids, image_ids_of_boxes(annotations)[rows])
    objects = base.objects.copy()
    np.subtract.at(objects, (annotations.labels[rows] - 1, images), 1)
    return base._replace(objects=objects)


def _mean(matches: Matches, present: NDArray[np.bool_]) -> float:
    """AP over the classes that had objects, as far as objects or detections of them are left."""
    ap = average_precision(matches)[:, 0]
    detections = np.bincount(matches.labels[~matches.ignored[:, 0]], minlength=len(ap) + 1)[1:]
    ap[np.isnan(ap) & (detections > 0)] = 0.0
    left = ap[present & ~np.isnan(ap)]
    return float(left.mean()) if left.size else float("nan")
