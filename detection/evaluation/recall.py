"""Recall against the number of detections or proposals.

A detection's match does not depend on those of lower scores, so one assignment answers for every
number up to its own ``max_detections``.

Shape shorthand:
    K: classes        T: IoU thresholds        L: limits
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.matches import COCO_IOUS, Matches, class_agnostic, match_detections
from detection.structures import Annotations, Predictions

LIMITS = (1, 10, 100, 300, 1000)


def recall_at(matches: Matches, limits: Sequence[int]) -> NDArray[np.float64]:
    """Computes the recall with the best detections of each image and class.

    COCO's AR is the mean over thresholds, then over classes with objects.

    Args:
        matches: the assignment, made with at least the highest limit as ``max_detections``.
        limits: the L numbers of detections per image and class.

    Returns:
        (K, T, L) float64 in [0, 1]; nan without objects.
    """
    objects = matches.objects.sum(axis=1).astype(np.float64)
    objects[objects == 0] = np.nan
    hits = (matches.matched >= 0) & ~matches.ignored
    shape = len(objects), len(matches.ious)
    found = np.empty((*shape, len(limits)))
    for i, limit in enumerate(limits):
        row, t = np.nonzero(hits & (matches.ranks < limit)[:, None])
        cells = (matches.labels[row] - 1) * shape[1] + t
        found[:, :, i] = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    recall: NDArray[np.float64] = found / objects[:, None, None]
    return recall


def proposal_recall(
    annotations: Annotations,
    proposals: Predictions,
    ious: Sequence[float] = COCO_IOUS,
    limits: Sequence[int] = LIMITS,
) -> NDArray[np.float64]:
    """Computes the class-agnostic recall of boxes, of detections or of an RPN's proposals.

    Args:
        annotations: the ground truth.
        proposals: boxes with scores, in any order; the labels are not looked at.
        ious: the T thresholds, rising, in (0, 1].
        limits: the L numbers of proposals per image.

    Returns:
        (T, L) float64 in [0, 1], nan without objects. The mean over T is the average recall.

    Raises:
        ValueError: as in `matches.match_detections`, or a limit is below 1.
    """
    if not limits or min(limits) < 1:
        raise ValueError(f"limits: expected numbers from 1, got {list(limits)}")
    merged = class_agnostic(annotations, proposals)
    recall: NDArray[np.float64] = recall_at(
        match_detections(*merged, ["object"], ious, max(limits)), limits
    )[0]
    return recall
