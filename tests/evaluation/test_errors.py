import math
import re

import pytest

from detection.evaluation.errors import ErrorType, classify_errors, error_costs
from detection.evaluation.matches import match_detections

A = (0.0, 0.0, 100.0, 100.0)
B = (200.0, 200.0, 300.0, 300.0)
FAR = (500.0, 500.0, 600.0, 600.0)
LOOSE = (0.0, 0.0, 100.0, 30.0)  # IoU .3 with A
NONE, CLS, LOC, BOTH, DUP, BKG, MISS = ErrorType
ONE_OF_TWO = 51 / 101  # AP of a perfect detection of one of two objects


def explain(truth, found, objects, rows, **flags):
    annotations = truth({1: objects}, **flags)
    matches = match_detections(annotations, found([(1, *row) for row in rows]), ["c", "d"])
    errors = classify_errors(annotations, matches)
    return errors, error_costs(annotations, matches, errors)


def test_nothing(truth, found):
    matches = match_detections(truth({}), found(), ["c"])
    errors = classify_errors(truth({}), matches)
    assert all(len(column) == 0 for column in errors[:5])
    costs = error_costs(truth({}), matches, errors)
    assert set(costs.counts.values()) == {0}
    assert set(costs.counts) == set(costs.costs) == set(ErrorType) - {NONE}
    figures = [costs.ap, *costs.costs.values(), costs.false_positives, costs.false_negatives]
    assert all(math.isnan(value) for value in figures)


@pytest.mark.parametrize(
    ("objects", "rows", "types", "truths", "missed", "ap", "costs"),
    [
        pytest.param(
            # class 1: AP 0, mended 1; class 2: false, hit: 1/2, mended 1
            [(A, 1), (B, 2)],
            [(A, 0.9, 2), (B, 0.8, 2)],
            [CLS, NONE],
            [0, 1],
            [],
            0.25,
            # class 1 is not missed, but is left out where nothing unmatched is looked for
            {CLS: 0.75, "fp": 0.25, "fn": 0.25},
            id="classification",
        ),
        pytest.param(
            # false, hit: precision 1/2 up to recall 1/2; mended both are hits
            [(A, 1), (B, 1)],
            [(LOOSE, 0.9, 1), (B, 0.8, 1)],
            [LOC, NONE],
            [0, 1],
            [],
            ONE_OF_TWO / 2,
            # without the false positive 51 levels at 1; with one object less 1/2 everywhere
            {LOC: 1 - ONE_OF_TWO / 2, "fp": ONE_OF_TWO / 2, "fn": 1 / 2 - ONE_OF_TWO / 2},
            id="localization",
        ),
        pytest.param(
            # hit, duplicate, hit: 51 levels at 1, 50 at 2/3
            [(A, 1), (B, 1)],
            [(A, 0.9, 1), (A, 0.8, 1), (B, 0.7, 1)],
            [NONE, DUP, NONE],
            [0, 0, 1],
            [],
            (51 + 50 * 2 / 3) / 101,
            {DUP: 50 / 3 / 101, "fp": 50 / 3 / 101, "fn": 0},
            id="duplicate",
        ),
        pytest.param(
            [(A, 1)],
            [(FAR, 0.9, 1), (A, 0.8, 1)],
            [BKG, NONE],
            [-1, 0],
            [],
            0.5,
            {BKG: 0.5, "fp": 0.5, "fn": 0},
            id="background",
        ),
        pytest.param(
            # Class 1 is missed; mended it has no objects and no detections left: mean of class 2.
            [(A, 1), (B, 2)],
            [(LOOSE, 0.9, 2), (B, 0.8, 2)],
            [BOTH, NONE],
            [0, 1],
            [0],
            0.25,
            {BOTH: 0.25, MISS: 0.25, "fp": 0.25, "fn": 0.25},
            id="both",
        ),
        pytest.param(
            [(A, 1), (B, 1)],
            [(A, 0.9, 1)],
            [NONE],
            [0],
            [1],
            ONE_OF_TWO,
            {MISS: 1 - ONE_OF_TWO, "fp": 0, "fn": 1 - ONE_OF_TWO},
            id="missed",
        ),
        pytest.param(
            # A class with false positives only, once its missed object is not looked for, has 0.
            [(A, 1), (B, 2)],
            [(A, 0.9, 1), (FAR, 0.5, 2)],
            [NONE, BKG],
            [0, -1],
            [1],
            0.5,
            {"fp": 0, "fn": 0},
            id="missed beside background",
        ),
        pytest.param(
            # Both mean the same free object: only the better score becomes a hit.
            [(A, 1)],
            [(LOOSE, 0.9, 1), (A, 0.8, 2)],
            [LOC, CLS],
            [0, 0],
            [],
            0.0,
            # one object not looked for leaves class 1 with a false positive
            {LOC: 1, "fp": 0, "fn": 0},
            id="two mean one object",
        ),
        pytest.param(
            # The object that was meant is taken: mending removes the error.
            [(A, 1), (B, 2)],
            [(A, 0.9, 1), (A, 0.8, 2), (B, 0.7, 2)],
            [NONE, CLS, NONE],
            [0, 0, 1],
            [],
            0.75,
            {CLS: 0.25, "fp": 0.25, "fn": 0},
            id="classification of a taken object",
        ),
        pytest.param(
            # The same class comes before the better box of another class, as in tidecv.
            [(A, 1), (A, 2)],
            [(LOOSE, 0.9, 1)],
            [LOC],
            [0],
            [1],
            0.0,
            # mended, class 1 is perfect and class 2 still missed; or class 2 is left out
            {LOC: 0.5, "fp": 0, "fn": 0},
            id="localization before classification",
        ),
    ],
)
def test_by_hand(objects, rows, types, truths, missed, ap, costs, truth, found):
    errors, got = explain(truth, found, objects, rows)
    by_class = sorted(range(len(rows)), key=lambda i: (rows[i][2], -rows[i][1]))
    assert errors.types.tolist() == [types[i] for i in by_class]
    assert errors.truths.tolist() == [truths[i] for i in by_class]
    assert errors.missed.tolist() == missed
    assert got.counts == {e: types.count(e) for e in (CLS, LOC, BOTH, DUP, BKG)} | {
        MISS: len(missed)
    }
    assert got.ap == pytest.approx(ap)
    expected = {error: costs.get(error, 0) for error in got.costs}
    assert got.costs == pytest.approx(expected, abs=1e-12)
    assert got.false_positives == pytest.approx(costs["fp"], abs=1e-12)
    assert got.false_negatives == pytest.approx(costs["fn"], abs=1e-12)


@pytest.mark.parametrize(
    ("height", "label", "expected"),
    [
        # of 100: IoU with A; another detection holds A
        (50, 1, LOC),  # paper and tidecv: t_b ≤ IoU ≤ t_f
        (51, 1, DUP),
        (10, 1, LOC),
        (9, 1, BKG),
        (50, 2, CLS),
        (49, 2, BOTH),
        (11, 2, BOTH),
        (10, 2, BKG),
    ],
)
def test_thresholds(height, label, expected, truth, found):
    rows = [(A, 0.9, 1), ((0, 0, 100, height), 0.5, label)]
    errors, _ = explain(truth, found, [(A, 1)], rows)
    assert errors.types.tolist() == [NONE, expected]


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_ignored_regions_explain_nothing(flag, truth, found):
    # IoU .3 with the region only; another one lies in it and counts neither way
    rows = [(A, 0.9, 1), (LOOSE, 0.8, 2)]
    errors, costs = explain(truth, found, [(A, 1), (B, 1)], rows, **{flag: [0]})
    assert errors.types.tolist() == [NONE, BKG]
    assert errors.missed.tolist() == errors.unmatched.tolist() == [1]
    assert costs.ap == 0


def test_errors_stay_in_their_image(truth, found):
    annotations = truth({1: [(A, 1)], 2: []})
    matches = match_detections(annotations, found([(2, A, 0.9, 1)]), ["c"])
    errors = classify_errors(annotations, matches)
    assert (errors.types.tolist(), errors.missed.tolist()) == ([BKG], [0])
    empty = truth({2: []})
    errors = classify_errors(empty, match_detections(empty, found([(2, A, 0.9, 1)]), ["c"]))
    assert (errors.types.tolist(), errors.missed.tolist()) == ([BKG], [])


def test_every_false_positive_has_one_type(random_case):
    seen = set()
    for seed in range(30):
        annotations, predictions, names = random_case(seed, crowds=0.1, difficult=0.1)
        matches = match_detections(annotations, predictions, names)
        errors = classify_errors(annotations, matches, 0.75, 0.2)
        t = matches.iou_index(0.75)
        false = (matches.matched[:, t] < 0) & ~matches.ignored[:, t]
        assert ((errors.types != NONE) == false).all()
        assert not errors.mendable[~false].any()
        costs = error_costs(annotations, matches, errors)
        assert all(cost >= 0 for cost in costs.costs.values())
        seen |= set(errors.types.tolist())
    assert seen == set(range(6))


@pytest.mark.parametrize("background", [0.0, 0.5, math.nan])
def test_bad_threshold_is_refused(background, truth, found):
    matches = match_detections(truth({}), found(), ["c"])
    with pytest.raises(ValueError, match=re.escape("a number in (0, 0.5)")):
        classify_errors(truth({}), matches, background=background)
