"""What a report shows first: the most confident mistakes and the worst images."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.errors import Errors, ErrorType
from detection.evaluation.matches import Matches
from detection.structures import Annotations

Box = tuple[float, float, float, float]


class Mistake(NamedTuple):
    """A false positive, and the object it concerns.

    Attributes:
        image_id: the data set's own id.
        box: xyxy, pixels.
        label: 1…K.
        score: in [0, 1].
        error: why it is a false positive.
        truth: row of the ground-truth box that it meant, repeats or overlaps; None without.
        truth_box: its box, xyxy, pixels; None without.
        truth_label: its label, 1…K; None without.
    """

    image_id: int
    box: Box
    label: int
    score: float
    error: ErrorType
    truth: int | None
    truth_box: Box | None
    truth_label: int | None


class ImageErrors(NamedTuple):
    """How an image was handled, with detections of a least score.

    Attributes:
        image_id: the data set's own id.
        f1: harmonic mean of precision and recall over all classes, in [0, 1].
        hits: true positives.
        false_positives: detections of nothing.
        misses: objects without a detection.
        weight: the false positives' scores and the misses, added up.
    """

    image_id: int
    f1: float
    hits: int
    false_positives: int
    misses: int
    weight: float


def confident_mistakes(
    annotations: Annotations, matches: Matches, errors: Errors, limit: int = 50
) -> list[Mistake]:
    """Lists the false positives of the highest scores.

    Args:
        annotations: the ground truth that the matches were made with.
        matches: the assignment.
        errors: from `errors.classify_errors`, of the same matches.
        limit: the most mistakes.

    Returns:
        The mistakes by falling score; those of the same score by class, then image and box.
    """
    rows = np.flatnonzero(errors.types != ErrorType.NONE)
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")][:limit]
    mistakes = []
    for row in rows.tolist():
        truth = int(errors.truths[row])
        mistakes.append(
            Mistake(
                image_id=int(matches.image_ids[matches.images[row]]),
                box=_box(matches.boxes[row]),
                label=int(matches.labels[row]),
                score=float(matches.scores[row]),
                error=ErrorType(int(errors.types[row])),
                truth=truth if truth >= 0 else None,
                truth_box=_box(annotations.boxes[truth]) if truth >= 0 else None,
                truth_label=int(annotations.labels[truth]) if truth >= 0 else None,
            )
        )
    return mistakes


def worst_images(
    matches: Matches, score: float = 0.5, iou: float = 0.5, limit: int = 50
) -> list[ImageErrors]:
    """Lists the images of the lowest F1.

    Args:
        matches: the assignment.
        score: detections of this score and above are kept.
        iou: one of the matches' thresholds.
        limit: the most images.

    Returns:
        Images with errors, by rising F1, then falling weight, then image id.

    Raises:
        ValueError: there are no matches at this threshold.
    """
    t = matches.iou_index(iou)
    kept = (matches.scores >= score) & ~matches.ignored[:, t]
    hit = matches.matched[kept, t] >= 0
    images, n = matches.images[kept], len(matches.image_ids)
    hits = np.bincount(images[hit], minlength=n)
    false = np.bincount(images[~hit], minlength=n)
    misses = matches.objects.sum(axis=0) - hits
    weight = np.bincount(images[~hit], matches.scores[kept][~hit], n) + misses
    f1 = 2 * hits / np.maximum(2 * hits + false + misses, 1)
    order = np.lexsort((matches.image_ids, -weight, f1))
    worst = order[(false + misses)[order] > 0][:limit]
    columns = (matches.image_ids, f1, hits, false, misses, weight)
    rows = zip(*(column[worst].tolist() for column in columns), strict=True)
    return [ImageErrors(*row) for row in rows]


def _box(box: NDArray[np.floating]) -> Box:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
