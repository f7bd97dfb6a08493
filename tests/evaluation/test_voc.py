import math
import re

import numpy as np
import pytest

from detection.evaluation.checks import select
from detection.evaluation.voc import evaluate_voc
from detection.structures import Annotations, Predictions

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
LINE = (3.0, 3.0, 3.0, 9.0)
ROW = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(10)]


def naive_outcomes(
    annotations: Annotations, predictions: Predictions, label: int, threshold: float
):
    """VOCevaldet.m, in its 1-based inclusive pixels: true, false positives and object count."""
    truth: dict[int, list[dict]] = {}
    for i, image_id in enumerate(annotations.image_ids.tolist()):
        truth[image_id] = []
        for row in range(annotations.offsets[i], annotations.offsets[i + 1]):
            if annotations.labels[row] == label:
                x1, y1, x2, y2 = annotations.boxes[row].tolist()
                ignored = annotations.difficult[row] or annotations.crowd[row]
                voc = (x1 + 1, y1 + 1, x2, y2)
                truth[image_id].append({"bb": voc, "diff": bool(ignored), "det": False})
    rows = zip(*(array.tolist() for array in predictions[:4]), strict=True)
    found = sorted((-s, i, tuple(b)) for i, b, s, k in rows if k == label)
    tp, fp = np.zeros(len(found)), np.zeros(len(found))
    for d, (_, image_id, (x1, y1, x2, y2)) in enumerate(found):
        bb = (x1 + 1, y1 + 1, x2, y2)
        ovmax, best = -math.inf, {}
        for gt in truth[image_id]:
            bbgt = gt["bb"]
            iw = min(bb[2], bbgt[2]) - max(bb[0], bbgt[0]) + 1
            ih = min(bb[3], bbgt[3]) - max(bb[1], bbgt[1]) + 1
            if iw > 0 and ih > 0:
                ua = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                ua += (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1) - iw * ih
                if iw * ih / ua > ovmax:
                    ovmax, best = iw * ih / ua, gt
        if ovmax >= threshold:
            if not best["diff"]:
                if not best["det"]:
                    tp[d], best["det"] = 1, True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    return tp, fp, sum(not gt["diff"] for group in truth.values() for gt in group)


def naive_ap(tp: np.ndarray, fp: np.ndarray, npos: int) -> tuple[float, float]:
    """The 11-point AP of VOC 2007 and VOCap.m of VOC 2010."""
    if npos == 0:
        return math.nan, math.nan
    with np.errstate(invalid="ignore"):  # detections that count neither way may come first
        tp, fp = np.cumsum(tp), np.cumsum(fp)
        rec, prec = tp / npos, np.nan_to_num(tp / (fp + tp))
    by_points = sum(max(prec[rec >= k / 10], default=0.0) / 11 for k in range(11))
    mrec, mpre = [0.0, *rec, 1.0], [0.0, *prec, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    by_area = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return by_points, by_area


@pytest.mark.parametrize(
    ("case", "voc07", "voc10"),
    [
        pytest.param(([], {}, []), math.nan, math.nan, id="nothing"),
        pytest.param(([], {}, [(A, 0.9)]), math.nan, math.nan, id="no ground truth"),
        pytest.param(([A], {}, []), 0.0, 0.0, id="no detections"),
        pytest.param(
            ([A], {"difficult": [0]}, [(A, 0.9)]), math.nan, math.nan, id="only difficult"
        ),
        pytest.param(([A], {}, [(A, 0.9)]), 1.0, 1.0, id="perfect"),
        pytest.param(([A], {}, [(B, 0.9)]), 0.0, 0.0, id="elsewhere"),
        # 50 / 100 is a hit; 49 / 100 is not.
        pytest.param(([A], {}, [((0, 0, 10, 5), 0.9)]), 1.0, 1.0, id="IoU of exactly 0.5"),
        pytest.param(([A], {}, [((0, 0, 7, 7), 0.9)]), 0.0, 0.0, id="IoU of 0.49"),
        pytest.param(([LINE], {}, [(LINE, 0.9)]), 0.0, 0.0, id="no area"),
        # hit, duplicate, hit: recall .5 .5 1, precision 1 1/2 2/3
        pytest.param(
            ([A, B], {}, [(A, 0.9), (A, 0.8), (B, 0.7)]),
            (6 + 5 * 2 / 3) / 11,
            (1 + 2 / 3) / 2,
            id="second detection of an object",
        ),
        pytest.param(
            ([A, B], {"difficult": [0]}, [(A, 0.9), (A, 0.8), (B, 0.7)]),
            1.0,
            1.0,
            id="difficult counts neither way",
        ),
        pytest.param(
            ([A, B], {"crowd": [0]}, [(A, 0.9), (A, 0.8), (B, 0.7)]), 1.0, 1.0, id="nor crowd"
        ),
        # The second detection overlaps the free object by 0.84, but the taken one by 0.95.
        pytest.param(
            ([A, (0, 0, 10, 8)], {}, [(A, 0.9), ((0, 0, 10, 9.5), 0.8)]),
            6 / 11,
            0.5,
            id="only the highest IoU is matched",
        ),
        pytest.param((ROW, {}, [(box, 0.9) for box in ROW[:3]]), 4 / 11, 0.3, id="recall of 0.3"),
    ],
)
def test_by_hand(case, voc07, voc10, truth, found):
    objects, flags, rows = case
    annotations = truth({4: [(box, 1) for box in objects]}, **flags)
    predictions = found([(4, box, score, 1) for box, score in rows])
    figures = evaluate_voc(annotations, predictions, ["cat"])
    assert (figures.voc07, figures.voc10) == pytest.approx((voc07, voc10), nan_ok=True)
    assert figures.per_class[0][2:] == pytest.approx((voc07, voc10), nan_ok=True)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_equals_the_devkit_on_random_sets(threshold, random_case):
    compared = 0
    for seed in range(300):
        annotations, predictions, names = random_case(seed, crowds=0.05, difficult=0.15)
        figures = evaluate_voc(annotations, predictions, names, threshold)
        assert figures.iou_threshold == threshold
        for label, (name, objects, *aps) in enumerate(figures.per_class, start=1):
            tp, fp, npos = naive_outcomes(annotations, predictions, label, threshold)
            assert (name, objects) == (names[label - 1], npos)
            assert aps == pytest.approx(naive_ap(tp, fp, npos), nan_ok=True, abs=1e-12)
            compared += npos > 0
        present = [f[2:] for f in figures.per_class if f.objects]
        expected = np.mean(present, axis=0) if present else [math.nan] * 2
        assert figures[:2] == pytest.approx(tuple(expected), nan_ok=True)
    assert compared > 500


def test_mean_skips_classes_without_objects(truth, found):
    annotations = truth({4: [(A, 1)], 5: [(B, 3)], 6: []})
    predictions = found([(4, A, 0.9, 1), (4, A, 0.9, 2)])
    figures = evaluate_voc(annotations, predictions, ["cat", "dog", "cow"])
    assert (figures.voc07, figures.voc10, figures.images) == (0.5, 0.5, 3)
    assert math.isnan(figures.per_class[1].voc07)


def test_input_order_changes_nothing(random_case):
    annotations, predictions, names = random_case(8, difficult=0.1)
    expected = repr(evaluate_voc(annotations, predictions, names))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(predictions.scores))
        again = select(predictions, order)
        assert repr(evaluate_voc(annotations, again, names)) == expected


@pytest.mark.parametrize("threshold", [0.0, 1.5, math.nan])
def test_threshold_outside_its_range_is_refused(threshold, truth, found):
    with pytest.raises(ValueError, match=re.escape("in (0, 1]")):
        evaluate_voc(truth({}), found(), ["cat"], threshold)
