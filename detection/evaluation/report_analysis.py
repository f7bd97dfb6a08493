"""All that a report says of a run, computed from its detections and the ground truth."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.calibration import Calibration, calibrate
from detection.evaluation.coco import CocoFigures, evaluate_coco
from detection.evaluation.confusion import Confusion, confusion_matrix
from detection.evaluation.curves import (
    OperatingPoint,
    Recognition,
    operating_points,
    precision_by_size,
    recognition,
)
from detection.evaluation.definitions import Score, side_by_side
from detection.evaluation.errors import ErrorCosts, Errors, classify_errors, error_costs
from detection.evaluation.matches import COCO_IOUS, Matches, match_detections
from detection.evaluation.recall import proposal_recall, recall_at
from detection.evaluation.significance import Bootstrap, bootstrap
from detection.evaluation.voc import VocFigures, evaluate_voc
from detection.structures import Annotations, Predictions

LIMITS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
MAX_DETECTIONS = 100
STEPS = 9
"""How often `analyse` reports progress."""


class Analysis(NamedTuple):
    """A run's figures and explanations.

    Attributes:
        annotations: the ground truth.
        coco: COCO's figures.
        voc: VOC's figures.
        scores: the detections under every definition.
        matches: COCO's assignment, over all areas, IoU .50:.05:.95.
        by_size: (K, T) AP for each of COCO's sizes.
        recall: (K, T) float64, with 100 detections per image and class.
        limits: the L numbers of detections of ``proposals``.
        proposals: (T, L) float64, class-agnostic recall.
        recognition: AP beside class-agnostic AP.
        points: each class's best score threshold, at IoU .50.
        score: the threshold of the highest F1 over all classes, at IoU .50; 0 without a hit.
        errors: TIDE's types, at IoU .50.
        costs: what they cost.
        confusion: at ``score`` and IoU .50.
        calibration: at IoU .50; None if a score is outside [0, 1].
    """

    annotations: Annotations
    coco: CocoFigures
    voc: VocFigures
    scores: tuple[Score, ...]
    matches: Matches
    by_size: dict[str, NDArray[np.float64]]
    recall: NDArray[np.float64]
    limits: tuple[int, ...]
    proposals: NDArray[np.float64]
    recognition: Recognition
    points: tuple[OperatingPoint, ...]
    score: float
    errors: Errors
    costs: ErrorCosts
    confusion: Confusion
    calibration: Calibration | None


def analyse(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    advance: Callable[[], None] = lambda: None,
) -> Analysis:
    """Computes all that a report says of a run.

    Args:
        annotations: the ground truth.
        predictions: detections, in any order.
        class_names: the K names of labels 1…K.
        advance: called ``STEPS`` times on the way.

    Returns:
        The analysis.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`.
    """
    case = annotations, predictions, class_names
    coco = evaluate_coco(*case, max_detections=(1, 10, MAX_DETECTIONS))
    advance()
    voc = evaluate_voc(*case)
    advance()
    scores = side_by_side(*case, coco, voc)
    advance()
    matches = match_detections(*case, COCO_IOUS, MAX_DETECTIONS)
    advance()
    by_size = precision_by_size(*case)
    advance()
    limits = _limits(predictions)
    proposals = proposal_recall(annotations, predictions, COCO_IOUS, limits)
    advance()
    boxes_alone = recognition(*case)
    advance()
    errors = classify_errors(annotations, matches)
    costs = error_costs(annotations, matches, errors)
    advance()
    score = _best_score(matches)
    confusion = confusion_matrix(*case, score=score)
    advance()
    return Analysis(
        annotations=annotations,
        coco=coco,
        voc=voc,
        scores=scores,
        matches=matches,
        by_size=by_size,
        recall=recall_at(matches, (MAX_DETECTIONS,))[:, :, 0],
        limits=limits,
        proposals=proposals,
        recognition=boxes_alone,
        points=operating_points(matches),
        score=score,
        errors=errors,
        costs=costs,
        confusion=confusion,
        calibration=_calibration(matches),
    )


def compare(runs: Sequence[Analysis], resamples: int = 1000) -> list[Bootstrap]:
    """Resamples the images of all runs: the first run alone, then each other one against it.

    Args:
        runs: analyses on the same ground truth and classes, at least one.
        resamples: how often the images are drawn anew.

    Returns:
        For a single run its own intervals; else one paired bootstrap for each run but the first.

    Raises:
        ValueError: the runs are of different ground truth or classes.
    """
    first, *others = (run.matches for run in runs)
    if not others:
        return [bootstrap(first, resamples=resamples)]
    return [bootstrap(first, other, resamples) for other in others]


def _limits(predictions: Predictions) -> tuple[int, ...]:
    """Numbers of detections per image, up to the first that leaves none out."""
    most = int(np.unique(predictions.image_ids, return_counts=True)[1].max(initial=1))
    needed = 1 + sum(limit < most for limit in LIMITS)
    return LIMITS[: max(needed, 4)]


def _best_score(matches: Matches) -> float:
    t = matches.iou_index(0.5)
    rows = np.flatnonzero(~matches.ignored[:, t])
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
    scores, hits = matches.scores[rows], np.cumsum(matches.matched[rows, t] >= 0)
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # ties are kept or dropped together
    f1 = 2 * hits[last] / (last + 1 + matches.objects.sum())
    return float(scores[last[np.argmax(f1)]]) if f1.any() else 0.0


def _calibration(matches: Matches) -> Calibration | None:
    scores = matches.scores
    inside = scores.size == 0 or (scores.min() >= 0 and scores.max() <= 1)
    return calibrate(matches) if inside else None
