import math
import statistics

import numpy as np
import pytest

from detection.evaluation.seeds import class_differences, seed_spread, seeds_needed


def test_one_run_has_no_spread():
    mean, std, low, high, runs = seed_spread([76.4])
    assert (mean, runs) == (76.4, 1)
    assert math.isnan(std)
    assert math.isnan(low)
    assert math.isnan(high)


def test_spread_by_hand():
    # t(4) at .975 is 2.776 in every table
    figures = [69.1, 70.2, 69.7, 69.9, 69.6]
    spread = seed_spread(figures)
    half = 2.776 * statistics.stdev(figures) / math.sqrt(5)
    assert spread.mean == pytest.approx(69.7)
    assert spread.std == pytest.approx(statistics.stdev(figures))
    assert (spread.low, spread.high) == pytest.approx((69.7 - half, 69.7 + half), abs=1e-3)
    # t(4) at .95 is 2.132
    narrow = seed_spread(figures, confidence=0.9)
    assert narrow.high - narrow.mean == pytest.approx(half * 2.132 / 2.776, abs=1e-3)


@pytest.mark.parametrize("figures", [[], [math.nan, 1.0]])
def test_bad_figures_are_refused(figures):
    with pytest.raises(ValueError, match="finite numbers, at least one"):
        seed_spread(figures)


@pytest.mark.parametrize(
    ("effect", "power", "alpha", "expected"),
    [
        # Cohen 1988, table 2.4.1, two-sided; G*Power and statsmodels' TTestIndPower say the same
        (0.2, 0.8, 0.05, 394),
        (0.5, 0.8, 0.05, 64),
        (0.8, 0.8, 0.05, 26),
        (1.0, 0.8, 0.05, 17),
        (0.5, 0.9, 0.05, 86),
        (0.5, 0.8, 0.01, 96),
    ],
)
def test_textbook_sample_sizes(effect, power, alpha, expected):
    assert seeds_needed(effect, 1.0, power, alpha) == expected
    assert seeds_needed(-effect * 0.39, 0.39, power, alpha) == expected


def test_seeds_for_one_point_at_the_published_spread():
    needed = seeds_needed(1.0, 0.39)
    assert needed == 4
    # simulated: the power is reached with 4 seeds, not with 3; t(6) and t(4) at .975
    rng = np.random.default_rng(0)
    for n, critical, enough in ((needed, 2.447, True), (needed - 1, 2.776, False)):
        a, b = rng.normal(0, 0.39, (20000, n)), rng.normal(1, 0.39, (20000, n))
        pooled = np.sqrt((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / n)
        power = np.mean(np.abs(b.mean(axis=1) - a.mean(axis=1)) > critical * pooled)
        assert (power >= 0.8) == enough


def test_at_least_two():
    assert seeds_needed(1.0, 0.0) == seeds_needed(100.0, 0.39) == 2


@pytest.mark.parametrize(
    "numbers", [(0, 1), (math.nan, 1), (1, -1), (1, 1, 1.0), (1, 1, 0.05), (1, 1, 0.8, 0.0)]
)
def test_bad_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match="a difference other than 0"):
        seeds_needed(*numbers)


def test_class_differences():
    assert class_differences([], [], []) == ()
    rows = class_differences(["a", "b", "c"], [50.0, math.nan, 60.0], [51.0, 1.0, 57.5])
    assert [row.name for row in rows] == ["c", "a", "b"]
    assert rows[0] == ("c", 60.0, 57.5, -2.5)
    with pytest.raises(ValueError, match="shorter"):
        class_differences(["a", "b"], [1.0], [2.0])
