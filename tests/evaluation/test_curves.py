import math
import re

import numpy as np
import pytest

from detection.evaluation.coco import evaluate_coco
from detection.evaluation.curves import (
    SIZES,
    f1_threshold,
    operating_points,
    precision_by_size,
    precision_recall,
    recognition,
)
from detection.evaluation.matches import match_detections
from detection.evaluation.precision import mean_precision

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def test_nothing(truth, found):
    matches = match_detections(truth({}), found(), ["cat"])
    assert all(len(column) == 0 for column in precision_recall(matches, 1))
    assert all(len(column) == 0 for column in f1_threshold(matches, 1))
    (point,) = operating_points(matches)
    assert point.name == "cat"
    assert all(math.isnan(value) for value in point[1:])
    assert all(math.isnan(value) for value in recognition(truth({}), found(), ["cat"]))
    sizes = precision_by_size(truth({}), found(), ["cat"])
    assert list(sizes) == list(SIZES)
    assert all(np.isnan(ap).all() and ap.shape == (1, 10) for ap in sizes.values())


def test_curve_by_hand(truth, found):
    # hit, false, hit; the crowd's detection is no point of the curve
    crowd = (300.0, 300.0, 390.0, 390.0)
    annotations = truth({1: [(A, 1), (B, 1), (crowd, 1), (A, 2)]}, crowd=[2])
    rows = [(1, A, 0.9, 1), (1, FAR, 0.7, 1), (1, B, 0.5, 1), (1, crowd, 0.8, 1)]
    matches = match_detections(annotations, found(rows), ["cat", "dog"])
    curve = precision_recall(matches, 1)
    assert curve.scores.tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == pytest.approx([1 / 2, 1 / 2, 1])
    assert curve.f1.tolist() == pytest.approx([2 / 3, 1 / 2, 4 / 5])
    cat, dog = operating_points(matches)
    assert cat[1:] == pytest.approx((0.5, 0.8, 2 / 3, 1))
    assert all(math.isnan(value) for value in dog[1:])  # no detections


def test_tied_scores_are_kept_together(truth, found):
    annotations = truth({1: [(A, 1)]})
    matches = match_detections(annotations, found([(1, A, 0.5, 1), (1, FAR, 0.5, 1)]), ["c"])
    assert len(precision_recall(matches, 1).f1) == 2
    curve = f1_threshold(matches, 1)
    assert (curve.scores.tolist(), curve.precision.tolist()) == ([0.5], [0.5])
    assert operating_points(matches)[0].f1 == pytest.approx(2 / 3)


def test_without_objects_recall_is_nan(truth, found):
    matches = match_detections(truth({1: []}), found([(1, A, 0.5, 1)]), ["c"])
    curve = precision_recall(matches, 1)
    assert curve.precision.tolist() == [0]
    assert math.isnan(curve.recall[0])
    assert math.isnan(operating_points(matches)[0].threshold)


@pytest.mark.parametrize("label", [0, 2])
def test_unknown_label_is_refused(label, truth, found):
    matches = match_detections(truth({}), found(), ["c"])
    with pytest.raises(ValueError, match=re.escape(f"expected 1…1, got {label}")):
        precision_recall(matches, label)


def test_sizes_and_recognition_agree_with_coco(random_case):
    for seed in range(10):
        annotations, predictions, names = random_case(seed, crowds=0.1, difficult=0.1)
        figures = evaluate_coco(annotations, predictions, names)
        sizes = precision_by_size(annotations, predictions, names)
        got = [mean_precision(sizes[size]) for size in SIZES]
        expected = [figures.ap, figures.ap_small, figures.ap_medium, figures.ap_large]
        assert got == pytest.approx(expected, nan_ok=True, abs=1e-12)
        beside = recognition(annotations, predictions, names)
        assert beside[:3] == pytest.approx(figures[:3], nan_ok=True, abs=1e-12)


def test_recognition_against_localization(truth, found):
    annotations = truth({1: [(A, 1), (B, 2)]})
    # Boxes perfect, labels exchanged: nothing is recognised, everything is found.
    swapped = recognition(annotations, found([(1, A, 0.9, 2), (1, B, 0.8, 1)]), ["c", "d"])
    assert swapped == pytest.approx((0, 0, 0, 1, 1, 1))
    # Labels right, IoU .7 each: 5 of the 10 thresholds, and not .75.
    loose = [(1, (0, 0, 10, 7), 0.9, 1), (1, (50, 50, 70, 64), 0.8, 2)]
    assert recognition(annotations, found(loose), ["c", "d"]) == pytest.approx(
        (0.5, 1, 0, 0.5, 1, 0)
    )
