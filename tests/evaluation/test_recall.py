import math

import numpy as np
import pytest

from detection.evaluation.coco import evaluate_coco
from detection.evaluation.matches import match_detections
from detection.evaluation.precision import mean_precision
from detection.evaluation.recall import LIMITS, proposal_recall, recall_at

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def test_nothing(truth, found):
    assert recall_at(match_detections(truth({}), found(), []), (1,)).shape == (0, 10, 1)
    assert np.isnan(recall_at(match_detections(truth({1: []}), found(), ["c"]), (1, 2))).all()
    recall = proposal_recall(truth({}), found())
    assert recall.shape == (10, len(LIMITS))
    assert np.isnan(recall).all()
    assert (proposal_recall(truth({1: [(A, 1)]}), found()) == 0).all()


def test_by_hand(truth, found):
    # The labels of proposals do not matter; the hit on B has IoU .8 and is the third box.
    annotations = truth({1: [(A, 2), (B, 1)], 2: [(A, 3)]})
    rows = [(1, A, 0.9, 1), (1, FAR, 0.8, 1), (1, (50, 50, 70, 66), 0.7, 1), (2, FAR, 0.9, 1)]
    recall = proposal_recall(annotations, found(rows), (0.5, 0.8, 0.85), (1, 2, 3))
    np.testing.assert_allclose(recall * 3, [[1, 1, 2], [1, 1, 2], [1, 1, 1]])


def test_equals_coco_average_recall(random_case):
    for seed in range(10):
        annotations, predictions, names = random_case(seed, crowds=0.1, difficult=0.1)
        figures = evaluate_coco(annotations, predictions, names, (1, 2, 100))
        recall = recall_at(match_detections(annotations, predictions, names), (1, 2, 100))
        got = [mean_precision(recall[..., limit]) for limit in range(3)]
        expected = [figures.ar1, figures.ar10, figures.ar100]
        assert got == pytest.approx(expected, nan_ok=True, abs=1e-12)
        assert not math.isnan(got[0])


@pytest.mark.parametrize("limits", [(), (0, 10)])
def test_bad_limits_are_refused(limits, truth, found):
    with pytest.raises(ValueError, match="numbers from 1"):
        proposal_recall(truth({}), found(), limits=limits)
