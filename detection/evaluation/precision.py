"""Average precision from matches alone, with images counted once or by weights.

Shape shorthand:
    I: images        N: detections        K: classes        T: IoU thresholds
    B: weightings    R: recall levels     P: true positives

An image of weight w counts as w copies of it. The interpolated precision at a recall level is the
highest precision at that recall or beyond, so only the true positives need to be visited.
"""

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.matches import Matches

COCO_LEVELS = np.linspace(0.0, 1.0, 101)
VOC07_LEVELS = np.arange(11) / 10


def average_precision(
    matches: Matches,
    weights: NDArray[np.integer] | None = None,
    levels: NDArray[np.float64] | None = COCO_LEVELS,
) -> NDArray[np.float64]:
    """Computes AP per class and IoU.

    Args:
        matches: the assignment.
        weights: (B, I) int, how often each image counts, not negative; None counts each once.
        levels: (R,) float64, the recalls at which precision is averaged; None takes the area
            under the interpolated curve (VOC 2010 on).

    Returns:
        (K, T) float64 in [0, 1], or (B, K, T) with weights; nan without objects.

    Raises:
        ValueError: the weights have another shape or type, or one is negative.
    """
    counts = _counts(matches, weights)
    result = np.full((len(counts), *matches.objects.shape[:1], len(matches.ious)), np.nan)
    for k in range(len(matches.class_names)):
        for t, (gained, precision, objects) in enumerate(_curves(matches, counts, k)):
            if levels is None:
                with np.errstate(invalid="ignore"):
                    area = (gained * precision).sum(axis=1) / objects
                result[:, k, t] = area
            else:
                result[:, k, t] = _interpolate(gained, precision, objects, levels).mean(axis=1)
    return result if weights is not None else result[0]


def interpolated_precision(
    matches: Matches, levels: NDArray[np.float64] = COCO_LEVELS
) -> NDArray[np.float64]:
    """Computes the interpolated precision at each recall level.

    Args:
        matches: the assignment.
        levels: (R,) float64, recalls in [0, 1].

    Returns:
        (K, T, R) float64 in [0, 1]; nan without objects.
    """
    counts = _counts(matches, None)
    result = np.empty((len(matches.class_names), len(matches.ious), len(levels)))
    for k in range(len(matches.class_names)):
        for t, curve in enumerate(_curves(matches, counts, k)):
            result[k, t] = _interpolate(*curve, levels)[0]
    return result


def mean_precision(precision: NDArray[np.float64]) -> float:
    """The mean over the classes and thresholds with objects; nan if there are none."""
    present = precision[~np.isnan(precision)]
    return float(present.mean()) if present.size else float("nan")


def _counts(matches: Matches, weights: NDArray[np.integer] | None) -> NDArray[np.int64]:
    images = len(matches.image_ids)
    if weights is None:
        return np.ones((1, images), np.int64)
    if weights.ndim != 2 or weights.shape[1] != images:
        raise ValueError(f"weights: expected shape (B, {images}), got {weights.shape}")
    if not np.issubdtype(weights.dtype, np.integer) or (weights < 0).any():
        raise ValueError(f"weights: expected whole numbers from 0, got {weights.dtype}")
    return weights.astype(np.int64, copy=False)


def _curves(
    matches: Matches, counts: NDArray[np.int64], k: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
    """Returns for each threshold the objects gained (B, P), the precision (B, P), objects (B,)."""
    rows = slice(*matches.offsets[k : k + 2].tolist())
    of_detection = counts[:, matches.images[rows]]
    objects = counts @ matches.objects[k]
    cumulative = of_detection.cumsum(axis=1)
    curves = []
    for t in range(len(matches.ious)):
        ignored = matches.ignored[rows, t]
        hits = np.flatnonzero((matches.matched[rows, t] >= 0) & ~ignored)
        gained, counted = of_detection[:, hits], cumulative[:, hits]
        if ignored.any():
            absent = np.flatnonzero(ignored)
            before = np.searchsorted(absent, hits)
            uncounted = of_detection[:, absent].cumsum(axis=1)
            counted = counted - np.pad(uncounted, ((0, 0), (1, 0)))[:, before]
        # COCO's guard against 0 / 0, which an image of weight 0 brings
        precision = gained.cumsum(axis=1) / (counted + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        curves.append((gained, envelope, objects))
    return curves


def _interpolate(
    gained: NDArray[np.int64],
    precision: NDArray[np.float64],
    objects: NDArray[np.int64],
    levels: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Returns the precision at the first true positive that reaches each level: (B, R)."""
    found = gained.cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.ceil(levels * objects[:, None])
        needed -= (needed - 1) / objects[:, None] >= levels  # what the product rounded
        needed += needed / objects[:, None] < levels
    # One search over all rows: each row's counts are lifted above those of the row before.
    lift = np.arange(len(found))[:, None] * (objects.max(initial=0) + 2)
    index = np.searchsorted((found + lift).ravel(), needed.astype(np.int64) + lift)
    index -= np.arange(len(found))[:, None] * found.shape[1]
    padded = np.pad(precision, ((0, 0), (0, 1)))
    values = np.take_along_axis(padded, index, axis=1)
    return np.where(objects[:, None] > 0, values, np.nan)
