"""Our figure beside a paper's: how sure ours is, and what that says of theirs.

All figures and differences are in percent, or points of it.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from detection.evaluation.seeds import seed_spread
from detection.evaluation.significance import Interval

TOO_FEW: Final = "too few images"  # an interval beside its own figure says nothing of another one
Verdict = Literal["within", "above", "below", "no interval", "too few images"]
Direction = Literal["same direction", "not shown", "opposite direction", "too few images"]

ENOUGH = 3  # trainings; of two the t interval is 13 standard errors wide


class Measured(NamedTuple):
    """A figure, or a difference of two, with its 95% interval.

    Attributes:
        value: mean over the runs.
        low: lower end; nan if there is none.
        high: upper end.
        basis: what the interval is over.
        runs: the figure of each run.
    """

    value: float
    low: float
    high: float
    basis: str
    runs: tuple[float, ...]


def measured(
    figures: Sequence[float], over_images: Interval | None = None, of: str = ""
) -> Measured:
    """Makes a figure of its runs.

    From three trainings on it has the t interval of their mean, which says what other seeds would
    have given on these images: the papers' test images are ours, their seeds are not. Fewer have
    only the interval over images, which says less.

    Args:
        figures: of each run, percent; at least one.
        over_images: the bootstrap interval of their mean, in [0, 1]; used below three runs.
        of: what the figures are of, for the basis; their number of seeds if empty.

    Raises:
        ValueError: there is no figure, or one is not finite.
    """
    spread = seed_spread(figures)
    runs = of or (f"{spread.runs} seeds" if spread.runs > 1 else "one run")
    if spread.runs >= ENOUGH:
        low, high, basis = spread.low, spread.high, f"{runs}, t interval"
    elif over_images is None:
        low, high, basis = math.nan, math.nan, runs
    else:
        low, high = 100 * over_images.low, 100 * over_images.high
        basis = f"{runs}, bootstrap over images"
    return Measured(spread.mean, low, high, basis, tuple(figures))


def difference(
    a: Sequence[float], b: Sequence[float], over_images: Interval | None = None
) -> Measured:
    """Makes the difference b - a, seed by seed, or of the means where the numbers of runs differ.

    Args:
        a: figures of the first method's runs, percent.
        b: of the second's.
        over_images: the paired bootstrap interval of the means' difference, in [-1, 1].

    Raises:
        ValueError: a side has no figure, or one is not finite.
    """
    if len(a) != len(b):
        first, second = (seed_spread(side).mean for side in (a, b))
        return measured([second - first], over_images, f"{len(a)} and {len(b)} runs")
    return measured([y - x for x, y in zip(a, b, strict=True)], over_images)


def judge(paper: float, ours: Measured) -> Verdict:
    """Says where our interval lies: around the paper's figure (within), above or below it.

    Args:
        paper: the paper's figure, percent.
        ours: ours; there is no such verdict without an interval that holds it.
    """
    if math.isnan(ours.low):
        return "no interval"
    if not _holds_value(ours):
        return TOO_FEW
    # Papers print one digit: a figure stands for all that round to it.
    if ours.low <= paper + 0.05 and ours.high >= paper - 0.05:
        return "within"
    return "above" if ours.low > paper else "below"


def judge_direction(paper: float, ours: Measured) -> Direction:
    """Says whether our difference has the sign of the paper's, where its interval excludes 0.

    Args:
        paper: the paper's difference, points.
        ours: ours; nothing is shown without an interval that holds it.
    """
    if not _holds_value(ours):
        return TOO_FEW
    if math.isnan(ours.low) or ours.low <= 0 <= ours.high:
        return "not shown"
    return "same direction" if (ours.value > 0) == (paper > 0) else "opposite direction"


def _holds_value(ours: Measured) -> bool:
    return Interval(ours.value, ours.low, ours.high).holds_value
