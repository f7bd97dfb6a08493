"""How far the scores are probabilities: reliability bins and the detection calibration error."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.matches import Matches


class Calibration(NamedTuple):
    """Detections binned by score (Küppers et al. 2020, D-ECE of the score alone).

    Attributes:
        edges: (bins + 1,) float64, from 0 to 1; a score on an edge belongs to the bin above.
        counts: (bins,) int64, detections that count.
        confidence: (bins,) float64, their mean score; nan in an empty bin.
        precision: (bins,) float64, their share of true positives; nan in an empty bin.
        error: the mean over detections of ``|precision - confidence|`` of their bins; nan without.
        worst: the largest ``|precision - confidence|`` of a bin; nan without detections.
        iou: the threshold of a true positive.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    error: float
    worst: float
    iou: float


def calibrate(matches: Matches, iou: float = 0.5, bins: int = 10) -> Calibration:
    """Compares scores with how often detections of such scores are true positives.

    Args:
        matches: the assignment; detections that count neither way are left out.
        iou: one of the matches' thresholds.
        bins: number of bins of equal width.

    Returns:
        The bins and their errors.

    Raises:
        ValueError: a score is outside [0, 1], ``bins`` is below 1, or there are no matches at
            this threshold.
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    t = matches.iou_index(iou)
    counted = ~matches.ignored[:, t]
    scores = matches.scores[counted].astype(np.float64)
    outside = scores[(scores < 0) | (scores > 1)]
    if outside.size:
        raise ValueError(f"calibration: expected scores in [0, 1], got {outside[0]}")
    bin_of = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_of, scores, bins) / counts
        precision = np.bincount(bin_of, matches.hits(t)[counted], bins) / counts
    gaps = np.abs(precision - confidence)[counts > 0]
    error = float(np.average(gaps, weights=counts[counts > 0])) if gaps.size else float("nan")
    worst = float(gaps.max()) if gaps.size else float("nan")
    edges = np.linspace(0.0, 1.0, bins + 1)
    return Calibration(edges, counts, confidence, precision, error, worst, iou)
