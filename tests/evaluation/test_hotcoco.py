"""hotcoco's own explanations beside ours: where they agree, and where they do not."""

import numpy as np
import pytest

from detection.evaluation.calibration import calibrate
from detection.evaluation.confusion import confusion_matrix
from detection.evaluation.errors import ErrorType, classify_errors, error_costs
from detection.evaluation.matches import match_detections

A = (0.0, 0.0, 100.0, 100.0)
B = (200.0, 200.0, 300.0, 300.0)
NAMES = {
    "Cls": ErrorType.CLASSIFICATION,
    "Loc": ErrorType.LOCALIZATION,
    "Both": ErrorType.BOTH,
    "Dupe": ErrorType.DUPLICATE,
    "Bkg": ErrorType.BACKGROUND,
    "Miss": ErrorType.MISSED,
}


def hotcoco_evaluation(annotations, predictions, classes):
    hotcoco = pytest.importorskip("hotcoco")
    images = [{"id": i, "width": 400, "height": 400} for i in annotations.image_ids.tolist()]
    categories = [{"id": k, "name": str(k)} for k in range(1, classes + 1)]
    owners = np.repeat(annotations.image_ids, np.diff(annotations.offsets))
    boxes = np.hstack(
        [annotations.boxes[:, :2], np.diff(annotations.boxes.reshape(-1, 2, 2), axis=1)[:, 0]]
    )
    truth = hotcoco.COCO.from_arrays(
        images,
        categories,
        owners,
        annotations.labels,
        boxes,
        area=annotations.areas,
        iscrowd=annotations.crowd.astype(int),
    )
    x1, y1, x2, y2 = predictions.boxes.astype(float).T
    columns = (predictions.image_ids, x1, y1, x2 - x1, y2 - y1, predictions.scores)
    found = truth.load_res(np.column_stack([*columns, predictions.labels]))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    return evaluation


def both(annotations, predictions, classes):
    """TIDE by hotcoco and by us: counts, then costs, by hotcoco's names."""
    theirs = hotcoco_evaluation(annotations, predictions, classes).tide_errors()
    matches = match_detections(annotations, predictions, [str(k) for k in range(1, classes + 1)])
    costs = error_costs(annotations, matches, classify_errors(annotations, matches))
    ours = {name: costs.costs[error] for name, error in NAMES.items()}
    ours |= {"FP": costs.false_positives, "FN": costs.false_negatives}
    counts = {name: costs.counts[error] for name, error in NAMES.items()}
    return (theirs["counts"], theirs["delta_ap"]), (counts, ours)


def untied(predictions, seed):
    order = np.random.default_rng(seed).permutation(len(predictions.scores))
    return predictions._replace(scores=((order + 1) / (len(order) + 1)).astype(np.float32))


def test_tide_agrees_without_crowds_and_ties(random_case):
    seen = dict.fromkeys(NAMES, 0)
    for seed in range(60):
        annotations, predictions, names = random_case(seed)
        theirs, ours = both(annotations, untied(predictions, seed), len(names))
        assert ours[0] == theirs[0]
        assert ours[1] == pytest.approx(theirs[1], abs=1e-9)
        seen = {name: n + (ours[1][name] > 0) for name, n in seen.items()}
    assert min(seen.values()) > 5


def test_tide_differs_with_crowds(truth, found):
    """Hotcoco takes a crowd for an object that was meant; tidecv and we leave crowds out."""
    annotations = truth({1: [(A, 1), (B, 1)]}, crowd=[0])
    predictions = found([(1, (-60, 0, 40, 100), 0.9, 1), (1, B, 0.8, 1)])
    theirs, ours = both(annotations, predictions, 1)
    assert (ours[0]["Bkg"], ours[0]["Loc"]) == (1, 0)
    assert (theirs[0]["Bkg"], theirs[0]["Loc"]) == (0, 1)


def test_tide_differs_where_all_objects_of_a_class_are_missed(truth, found):
    """Mended, class 2 has nothing left: tidecv and we leave it out, hotcoco counts it as 0."""
    annotations = truth({1: [(A, 1), (B, 2)]})
    theirs, ours = both(annotations, found([(1, A, 0.9, 1)]), 2)
    assert ours[0] == theirs[0]
    assert ours[1]["Miss"] == ours[1]["FN"] == pytest.approx(0.5)
    assert theirs[1]["Miss"] == theirs[1]["FN"] == 0


def test_confusion_agrees_without_crowds_and_ties(random_case):
    for seed in range(30):
        annotations, predictions, names = random_case(seed)
        predictions = untied(predictions, seed)
        evaluation = hotcoco_evaluation(annotations, predictions, len(names))
        theirs = evaluation.confusion_matrix(iou_thr=0.6, min_score=0.3)["matrix"]
        ours = confusion_matrix(annotations, predictions, names, 0.3, 0.6).counts
        np.testing.assert_array_equal(ours, np.roll(theirs.astype(int), 1, (0, 1)))


def test_calibration_agrees(random_case):
    for seed in range(20):
        annotations, predictions, names = random_case(seed, crowds=0.1)
        theirs = hotcoco_evaluation(annotations, predictions, len(names)).calibration(n_bins=7)
        ours = calibrate(match_detections(annotations, predictions, names), bins=7)
        assert (ours.error, ours.worst) == pytest.approx((theirs["ece"], theirs["mce"]))
        assert ours.counts.tolist() == [each["count"] for each in theirs["bins"]]
