import math
import re

import numpy as np
import pytest

from detection.evaluation.calibration import calibrate
from detection.evaluation.matches import match_detections

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def test_nothing(truth, found):
    calibration = calibrate(match_detections(truth({}), found(), ["c"]))
    assert calibration.counts.tolist() == [0] * 10
    assert np.isnan(calibration.confidence).all()
    assert math.isnan(calibration.error)
    assert math.isnan(calibration.worst)


def test_by_hand(truth, found):
    # [0, .5): .25 false. [.5, 1]: .5 hit, .75 false, 1 hit. The crowd's detection is left out.
    annotations = truth({1: [(A, 1), (B, 1), (FAR, 1)]}, crowd=[2])
    rows = [(1, A, 0.5, 1), (1, A, 0.25, 1), (1, (0, 50, 9, 59), 0.75, 1), (1, B, 1.0, 1)]
    matches = match_detections(annotations, found([*rows, (1, FAR, 0.9, 1)]), ["c"])
    calibration = calibrate(matches, bins=2)
    assert calibration.edges.tolist() == [0, 0.5, 1]
    assert calibration.counts.tolist() == [1, 3]
    assert calibration.confidence.tolist() == [0.25, 0.75]
    assert calibration.precision.tolist() == pytest.approx([0, 2 / 3])
    assert calibration.error == pytest.approx((0.25 + 3 * (0.75 - 2 / 3)) / 4)
    assert (calibration.worst, calibration.iou) == (0.25, 0.5)


def test_bad_input_is_refused(truth, found):
    matches = match_detections(truth({1: []}), found([(1, A, 1.5, 1)]), ["c"])
    with pytest.raises(ValueError, match=re.escape("scores in [0, 1], got 1.5")):
        calibrate(matches)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        calibrate(matches, bins=0)
