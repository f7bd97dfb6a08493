import re

import numpy as np
import pytest

from detection.evaluation.checks import _stable_order, canonical_predictions
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.voc import evaluate_voc
from detection.structures import Predictions

BOX = (10.0, 10.0, 50.0, 50.0)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("evaluate", [evaluate_coco, evaluate_voc])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((5, (NAN, 10, 50, 50), 0.5, 1), "image 5: the box is not finite"),
        ((5, (10, 10, INF, 50), 0.5, 1), "image 5: the box is not finite"),
        ((5, BOX, NAN, 1), "image 5: the score is not finite"),
        ((5, BOX, INF, 1), "image 5: the score is not finite"),
        ((5, (50, 10, 10, 50), 0.5, 1), "image 5: the box has a negative size"),
        ((5, BOX, 0.5, 0), "image 5: the label is outside 1…2, got 0"),
        ((5, BOX, 0.5, 3), "image 5: the label is outside 1…2, got 3"),
        ((9, BOX, 0.5, 1), "image 9: this image id is not among"),
    ],
)
def test_bad_detection_is_refused_by_name(evaluate, row, message, truth, found):
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(truth({5: [(BOX, 1)]}), found([(5, BOX, 0.9, 1), row]), ["cat", "dog"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("boxes", [[NAN, 0, 1, 1]], "image 5: the box is not finite"),
        ("boxes", [[2.0, 0, 1, 1]], "image 5: the box has a negative size"),
        ("labels", [2], "image 5: the label is outside 1…1"),
        ("areas", [NAN], "image 5: the area must be finite"),
        ("areas", [-1.0], "image 5: the area must be finite and not negative"),
        ("image_ids", [5, 5], "image 5: an image id must be listed once"),
        ("offsets", [0, 1, 0], "offsets must rise"),
        ("offsets", [0, 1], "offsets of shape (3,), got (2,)"),
        ("crowd", [True, True], "crowd of shape (1,), got (2,)"),
        ("labels", [1.0], "expected integers in labels"),
    ],
)
def test_bad_ground_truth_is_refused_by_name(field, value, message, truth, found):
    annotations = truth({5: [(BOX, 1)], 6: []})._replace(**{field: np.array(value)})
    with pytest.raises(ValueError, match=re.escape(message)):
        canonical_predictions(annotations, found(), ["cat"])


def test_detections_of_unequal_length_are_refused(truth, found):
    predictions = found([(5, BOX, 0.9, 1)])._replace(scores=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"scores of shape \(1,\), got \(2,\)"):
        canonical_predictions(truth({5: []}), predictions, ["cat"])


def test_canonical_order(truth, found):
    rows = [
        (2, BOX, 0.5, 1),
        (5, BOX, 0.9, 1),
        (5, (11, 10, 50, 50), 0.5, 1),
        (5, (10, 11, 50, 50), 0.5, 1),
        (5, BOX, 0.7, 2),
    ]
    canonical = found([rows[0], rows[1], rows[3], rows[2], rows[4]])
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        got = canonical_predictions(
            truth({5: [], 2: []}), found([rows[i] for i in order]), ["cat", "dog"]
        )
        for array, expected in zip(got, canonical, strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("seed", range(10))
def test_canonical_order_is_that_of_the_keys(seed, truth):
    rng = np.random.default_rng(seed)
    n = int(rng.choice([0, 1, 2, 300]))
    corners = rng.integers(0, 2, (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 2, (n, 2))], axis=1)
    ids, labels = rng.choice([-7, 2, 2**40], n), rng.integers(1, 3, n)
    extents = rng.integers(0, 2, (n, 2)) * 1.0 if seed % 2 else None
    predictions = Predictions(ids, boxes * 1.0, rng.choice([-0.5, 0.0, 0.25], n), labels, extents)
    got = canonical_predictions(truth({2: [], 2**40: [], -7: []}), predictions, ["cat", "dog"])
    x1, y1, x2, y2 = boxes.T
    sides = () if extents is None else tuple(extents.T)
    order = np.lexsort((*sides, y2, x2, y1, x1, -predictions.scores, labels, ids))
    for array, expected in zip(got, predictions, strict=True):
        np.testing.assert_array_equal(array, None if expected is None else expected[order])


@pytest.mark.parametrize("step", [1, 2**61])  # the keys of the second do not fit 64 bits
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_stable_order(n, step):
    groups = np.random.default_rng(0).integers(0, 4, n) * step
    np.testing.assert_array_equal(_stable_order(groups), np.argsort(groups, kind="stable"))
