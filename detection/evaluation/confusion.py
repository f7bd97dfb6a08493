"""The confusion matrix of a detector, with background as a class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import check_annotations, check_predictions, select
from detection.evaluation.matches import class_agnostic, match_detections
from detection.structures import Annotations, Predictions


class Confusion(NamedTuple):
    """What objects were taken for.

    Attributes:
        counts: (K + 1, K + 1) int64, row: label of the object, column: label of the detection;
            0 is background. Row 0 holds detections of nothing, column 0 missed objects.
        score: detections of this score and above were counted.
        iou: the threshold of a match.
    """

    counts: NDArray[np.int64]
    score: float
    iou: float


def confusion_matrix(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    score: float = 0.5,
    iou: float = 0.5,
) -> Confusion:
    """Matches detections to objects whatever their labels, by COCO's rule, and counts the labels.

    Args:
        annotations: the ground truth; crowd regions absorb, difficult objects are ignored.
        predictions: detections, in any order; all of sufficient score are used.
        class_names: the K names of labels 1…K.
        score: the least score.
        iou: the least IoU, in (0, 1].

    Returns:
        The matrix.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`, or ``iou`` is outside (0, 1].
    """
    classes = len(class_names)
    check_predictions(predictions, classes)
    kept = select(predictions, np.flatnonzero(predictions.scores >= score))
    x1, y1, x2, y2 = kept.boxes.T
    # The order in which matches of a single class stand, where the labels are found again.
    order = np.lexsort((kept.labels, y2, x2, y1, x1, kept.image_ids, -kept.scores))
    found = select(kept, order)
    check_annotations(annotations, classes)
    merged = class_agnostic(annotations, found)
    matches = match_detections(*merged, ["object"], (iou,), max(len(order), 1))
    matched, counted = matches.matched[:, 0], ~matches.ignored[:, 0]
    objects = np.append(annotations.labels, 0)[matched]  # without a match, -1: background
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (objects[counted], found.labels[counted]), 1)
    missed = ~(annotations.crowd | annotations.difficult)
    missed[matched[matched >= 0]] = False
    counts[:, 0] += np.bincount(annotations.labels[missed], minlength=classes + 1)
    return Confusion(counts, score, iou)
