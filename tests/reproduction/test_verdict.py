import math

import pytest

from detection.evaluation.significance import Interval
from detection.reproduction.verdict import Measured, difference, judge, judge_direction, measured


def test_several_runs_have_a_t_interval() -> None:
    ours = measured([70.0, 72.0, 74.0], Interval(0.7, 0.1, 0.9))
    # t(2, 97.5 %) = 4.302653, standard error 2 / sqrt(3)
    half = 4.302653 * 2 / math.sqrt(3)
    assert ours.value == 72
    assert (ours.low, ours.high) == pytest.approx((72 - half, 72 + half), abs=1e-5)
    assert ours.basis == "3 seeds, t interval"


def test_one_run_has_the_interval_over_images() -> None:
    ours = measured([73.2], Interval(0.732, 0.71, 0.75))
    assert ours == Measured(
        73.2, pytest.approx(71), pytest.approx(75), "one run, bootstrap over images", (73.2,)
    )


def test_two_runs_have_the_interval_of_their_mean_over_images() -> None:
    ours = measured([73.0, 74.0], Interval(0.735, 0.71, 0.75))
    assert ours == Measured(
        73.5, pytest.approx(71), pytest.approx(75), "2 seeds, bootstrap over images", (73, 74)
    )


def test_a_difference_is_of_seed_and_seed() -> None:
    ours = difference([70, 75, 71], [73, 78, 74])
    assert ours.runs == (3, 3, 3)
    assert (ours.low, ours.high) == (3, 3)


def test_an_ensemble_is_compared_with_the_mean_of_its_seeds() -> None:
    ours = difference([70, 75], [73], Interval(0.005, -0.01, 0.02))
    assert ours.runs == (0.5,)
    assert ours.basis == "2 and 1 runs, bootstrap over images"


def test_unequal_numbers_of_runs_have_no_interval_over_seeds() -> None:
    ours = difference([70, 71, 72], [73, 74, 75, 76])
    assert ours.basis == "3 and 4 runs"
    assert math.isnan(ours.low)
    assert judge_direction(3.2, ours) == "not shown"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (72.0, 74.0, "within"),
        (73.24, 75.0, "within"),  # 73.2 stands for all that round to it
        (73.26, 75.0, "above"),
        (70.0, 73.14, "below"),
    ],
)
def test_judge(low: float, high: float, expected: str) -> None:
    assert judge(73.2, Measured((low + high) / 2, low, high, "", ())) == expected


def test_without_an_interval_there_is_no_verdict() -> None:
    ours = Measured(73.4, math.nan, math.nan, "", ())
    assert judge(73.2, ours) == "no interval"
    assert judge_direction(3.2, ours) == "not shown"


def test_an_interval_beside_its_own_figure_shows_nothing() -> None:
    # AP50 of a real set of 50 photos: 43.7 [44.1, 51.4]
    ours = Measured(43.7, 44.1, 51.4, "", ())
    assert judge(48.4, ours) == judge(30, ours) == "too few images"
    assert judge_direction(3.2, ours) == judge_direction(-3.2, ours) == "too few images"
    rounded = Measured(100 + 1e-13, 100.0, 100.0, "", ())
    assert judge(73.2, rounded) == "above"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 4, "same direction"),
        (-0.1, 4, "not shown"),
        (0, 1, "not shown"),
        (-4, -1, "opposite direction"),
    ],
)
def test_direction(low: float, high: float, expected: str) -> None:
    ours = Measured((low + high) / 2, low, high, "", ())
    assert judge_direction(3.2, ours) == expected
    mirrored = Measured(-ours.value, -high, -low, "", ())
    assert judge_direction(-3.2, mirrored) == expected


def test_no_runs_and_nan_are_refused() -> None:
    for figures in ([], [math.nan]):
        with pytest.raises(ValueError, match="expected finite numbers"):
            measured(figures)
