"""How sure a figure and a difference are, by resampling the images.

It says what other test images would have given for the same weights; what another training would
have given is the matter of `detection.evaluation.seeds`. A claim about a method needs both.

Shape shorthand:
    I: images        K: classes        T: IoU thresholds        B: resamples
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.matches import Matches
from detection.evaluation.precision import COCO_LEVELS, average_precision

_BATCH = 2**22  # weights of detections held at once
_ROUNDING = 1e-9  # of a figure and an end that are the same number, summed in another order


class Interval(NamedTuple):
    """A figure and its percentile confidence interval; nan without objects.

    Attributes:
        value: the figure on all images.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def holds_value(self) -> bool:
        """Whether the figure lies in the interval, as it may not with few images; True for nan."""
        beside = self.low - self.value, self.value - self.high
        return not max(beside) > _ROUNDING


class Intervals(NamedTuple):
    """The intervals of one detector's AP, or of the difference of two.

    Attributes:
        ap: mean over classes and the matches' thresholds.
        ap50: mean over classes at IoU .50; nan if that is not among the thresholds.
        per_class: mean over thresholds, of classes 1…K.
    """

    ap: Interval
    ap50: Interval
    per_class: tuple[Interval, ...]


class Bootstrap(NamedTuple):
    """A bootstrap over images.

    Attributes:
        a: the first detector.
        b: the second detector, None without.
        difference: b - a on the same resamples, None without b.
        resamples: how often the images were drawn anew.
        confidence: of the intervals, in (0, 1).
        images: how many images there are.
    """

    a: Intervals
    b: Intervals | None
    difference: Intervals | None
    resamples: int
    confidence: float
    images: int


def bootstrap(
    matches_a: Matches | Sequence[Matches],
    matches_b: Matches | Sequence[Matches] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    levels: NDArray[np.float64] | None = COCO_LEVELS,
    advance: Callable[[int], None] | None = None,
) -> Bootstrap:
    """Draws the images anew, with replacement, and computes every AP each time.

    Nothing is matched again: an image counts as often as it was drawn. A class of which a resample
    has no objects keeps its figure on all images there: left out, as in COCO's AP, it would move
    the mean towards the other classes. A class in a handful of images has too narrow a share in
    the intervals for that.

    Resamples lie higher than the figure itself: interpolated precision is a maximum, and the images
    of a class that are drawn count more than once, unlike false positives elsewhere. That is little
    where classes have many images; where most have few it can exceed half the interval's width,
    and the figure lies outside, as `Interval.holds_value` says.

    Args:
        matches_a: the first detector's matches; several are trainings of one recipe, whose mean
            is the figure.
        matches_b: the second detector's, with the same images, classes, objects and thresholds.
        resamples: B.
        seed: of the draws.
        confidence: of the intervals, in (0, 1).
        levels: recall levels of AP, as in `precision.average_precision`; None for VOC's area.
        advance: told how many more resamples are done, for a progress bar.

    Returns:
        The intervals. Two detectors see the same draws, so the difference is a paired one.

    Raises:
        ValueError: the two are of different images, classes, objects or thresholds; ``resamples``
            is below 1 or ``confidence`` is outside (0, 1).
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            "expected resamples from 1 and a confidence in (0, 1), "
            f"got {resamples} and {confidence}"
        )
    sides = (matches_a,) if matches_b is None else (matches_a, matches_b)
    groups = [[one] if isinstance(one, Matches) else list(one) for one in sides]
    runs = [run for group in groups for run in group]
    for run in runs[1:]:
        _check_same_truth(runs[0], run)
    images = len(runs[0].image_ids)
    rng = np.random.default_rng(seed)
    widest = max([images, 1, *(int(np.diff(run.offsets).max(initial=0)) for run in runs)])
    drawn: list[list[NDArray[np.float64]]] = [[] for _ in groups]
    for start in range(0, resamples, max(1, _BATCH // widest)):
        size = min(resamples - start, max(1, _BATCH // widest))
        weights = _draw(rng, images, size)
        for group, parts in zip(groups, drawn, strict=True):
            parts.append(_mean_over_runs(group, weights, levels))
        if advance:
            advance(size)
    # (1 + B, K, T): first the figures on all images, then the resamples
    values = [
        np.concatenate([_mean_over_runs(group, None, levels)[None], *parts])
        for group, parts in zip(groups, drawn, strict=True)
    ]
    at_50 = np.isclose(runs[0].ious, 0.5)
    figures = [_figures(value, at_50) for value in values]
    a, *others = (_intervals(figure, confidence) for figure in figures)
    difference = _intervals(figures[1] - figures[0], confidence) if others else None
    return Bootstrap(a, others[0] if others else None, difference, resamples, confidence, images)


def _mean_over_runs(
    group: Sequence[Matches],
    weights: NDArray[np.int64] | None,
    levels: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    values = [average_precision(run, weights, levels) for run in group]
    mean: NDArray[np.float64] = np.mean(values, axis=0)
    return mean


def _check_same_truth(a: Matches, b: Matches) -> None:
    for field in ("class_names", "image_ids", "ious", "objects"):
        if not np.array_equal(getattr(a, field), getattr(b, field)):
            raise ValueError(f"bootstrap: the detectors' matches differ in {field}")


def _draw(rng: np.random.Generator, images: int, size: int) -> NDArray[np.int64]:
    """How often each image is drawn in each resample: (size, I) int64."""
    if not images:
        return np.zeros((size, 0), np.int64)
    return rng.multinomial(images, np.full(images, 1 / images), size)


def _figures(precision: NDArray[np.float64], at_50: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(1 + B, K, T) -> (1 + B, 2 + K): AP, AP50 and AP per class."""
    whole = np.where(np.isnan(precision), precision[:1], precision)
    whole = whole[:, ~np.isnan(precision[0]).any(axis=1)]  # a class without any objects has none
    with np.errstate(invalid="ignore"):
        ap, ap50 = (
            part.sum(axis=(1, 2)) / np.float64(part[0].size) for part in (whole, whole[:, :, at_50])
        )
    return np.column_stack([ap, ap50, precision.mean(axis=2)])


def _intervals(figures: NDArray[np.float64], confidence: float) -> Intervals:
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = []
    for column in figures.T:
        resampled = column[1:][~np.isnan(column[1:])]
        ends = np.quantile(resampled, tails) if resampled.size else np.full(2, np.nan)
        intervals.append(Interval(float(column[0]), float(ends[0]), float(ends[1])))
    ap, ap50, *per_class = intervals
    return Intervals(ap, ap50, tuple(per_class))
