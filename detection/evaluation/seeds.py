"""Figures of several trainings: their spread, how many show a difference, and class by class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]


class Spread(NamedTuple):
    """The spread of a figure over independent trainings.

    Attributes:
        mean: over runs.
        std: sample standard deviation (n - 1); nan for one run.
        low: lower end of the t interval of the mean; nan for one run.
        high: upper end.
        runs: how many.
    """

    mean: float
    std: float
    low: float
    high: float
    runs: int


class ClassDifference(NamedTuple):
    """A class's figures in two runs, or in a run and in a paper.

    Attributes:
        name: the class.
        a: the first figure.
        b: the second figure.
        difference: b - a.
    """

    name: str
    a: float
    b: float
    difference: float


def seed_spread(figures: Sequence[float], confidence: float = 0.95) -> Spread:
    """Computes mean, standard deviation and t interval of a figure over trainings.

    Args:
        figures: the figure of each run, in any unit.
        confidence: of the interval, in (0, 1).

    Returns:
        The spread, in the same unit.

    Raises:
        ValueError: there is no figure, or one is not finite.
    """
    values = np.array(figures, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"figures: expected finite numbers, at least one, got {list(figures)}")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Spread(mean, math.nan, math.nan, math.nan, 1)
    std = float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * std / math.sqrt(n)
    return Spread(mean, std, mean - half, mean + half, n)


def seeds_needed(difference: float, sigma: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Computes how many trainings of each of two recipes can show a difference.

    The two-sided two-sample t test of equal variances, by the noncentral t distribution (Cohen
    1988, chapter 2).

    Args:
        difference: the true difference to be shown, in points; not 0.
        sigma: standard deviation over seeds, in points.
        power: how probable it is that the test shows it, in (alpha, 1).
        alpha: how probable it is that the test shows a difference where there is none.

    Returns:
        The least number of seeds for each recipe, at least 2.

    Raises:
        ValueError: a number is out of its range.
    """
    if not (difference and math.isfinite(difference) and sigma >= 0 and 0 < alpha < power < 1):
        raise ValueError(
            "expected a difference other than 0, sigma from 0 and 0 < alpha < power < 1, "
            f"got {difference}, {sigma}, {alpha}, {power}"
        )
    if sigma == 0 or _power(2, abs(difference) / sigma, alpha) >= power:
        return 2
    effect = abs(difference) / sigma
    low, high = 2, 4
    while _power(high, effect, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, effect, alpha) >= power else (middle, high)
    return high


def class_differences(
    class_names: Sequence[str], a: Sequence[float], b: Sequence[float]
) -> tuple[ClassDifference, ...]:
    """Sets per-class figures side by side, the greatest loss first and nan last.

    Args:
        class_names: the K names.
        a: K figures.
        b: K figures, in the same unit.

    Returns:
        A row per class.

    Raises:
        ValueError: the lengths differ.
    """
    rows = [ClassDifference(*row, row[2] - row[1]) for row in zip(class_names, a, b, strict=True)]
    return tuple(sorted(rows, key=lambda row: (math.isnan(row.difference), row.difference)))


def _power(n: int, effect: float, alpha: float) -> float:
    """Power of the two-sided t test of two groups of n, for an effect in standard deviations."""
    freedom, shift = 2 * n - 2, effect * math.sqrt(n / 2)
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    upper = 1 - float(nctdtr(freedom, shift, critical))
    return upper + float(nctdtr(freedom, shift, -critical))
