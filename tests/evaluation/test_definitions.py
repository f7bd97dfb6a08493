"""Definitions that differ by one rule each, on cases that only that rule decides."""

import numpy as np
import pytest

from detection.evaluation.coco import evaluate_coco
from detection.evaluation.definitions import side_by_side
from detection.evaluation.voc import evaluate_voc
from detection.structures import Annotations, Predictions


def truth(boxes: list[list[float]], difficult: list[bool], crowd: list[bool]) -> Annotations:
    array = np.array(boxes, np.float64)
    return Annotations(
        image_ids=np.array([1]),
        sizes=np.array([[100, 100]]),
        offsets=np.array([0, len(boxes)]),
        boxes=array,
        labels=np.ones(len(boxes), np.int64),
        areas=(array[:, 2] - array[:, 0]) * (array[:, 3] - array[:, 1]),
        crowd=np.array(crowd),
        difficult=np.array(difficult),
    )


def found(boxes: list[list[float]], scores: list[float]) -> Predictions:
    n = len(boxes)
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return Predictions(np.ones(n, np.int64), array, np.array(scores), np.ones(n, np.int64))


def values(annotations: Annotations, predictions: Predictions) -> dict[str, float]:
    case = annotations, predictions, ["thing"]
    scores = side_by_side(*case, evaluate_coco(*case), evaluate_voc(*case))
    assert len({score[2:] for score in scores if score.name.startswith("VOC")}) == 5
    return {score.name: score.value for score in scores}


def test_an_iou_of_exactly_a_half():
    # (0, 0, 10, 10) and (0, 0, 10, 5): intersection 50, union 100.
    got = values(truth([[0, 0, 10, 10]], [False], [False]), found([[0, 0, 10, 5]], [0.9]))
    assert (got["VOC07"], got["VOC10"], got["AP50"]) == (1.0, 1.0, pytest.approx(1.0))
    assert (got["VOC07 >"], got["VOC10 >"]) == (0.0, 0.0)


def test_difficult_objects():
    # Found: the difficult object. Missed: the other one.
    annotations = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [True, False], [False, False])
    got = values(annotations, found([[0, 0, 10, 10]], [0.9]))
    assert (got["VOC10"], got["VOC10 >"], got["AP50"]) == (0.0, 0.0, 0.0)
    assert got["VOC10 all"] == 0.5
    assert got["AP50 all"] == pytest.approx(51 / 101)  # recalls 0, 0.01, … 0.5


def test_crowd_absorbs_in_coco_and_takes_one_in_voc():
    # A crowd of 40 × 40 holds two detections of 20 × 20: by intersection over the detection's area
    # COCO lets it absorb both; in VOC their IoU with it is 0.25, and they are false.
    annotations = truth([[0, 0, 40, 40], [50, 50, 60, 60]], [False, False], [True, False])
    boxes = [[0, 0, 20, 20], [20, 20, 40, 40], [50, 50, 60, 60]]
    got = values(annotations, found(boxes, [0.9, 0.8, 0.7]))
    assert got["AP50"] == pytest.approx(1.0)
    assert got["VOC10"] == pytest.approx(1 / 3)


def test_points_and_area():
    # One of two objects found, first: precision 1 up to recall 0.5.
    annotations = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [False] * 2, [False] * 2)
    got = values(annotations, found([[0, 0, 10, 10]], [0.9]))
    assert got["VOC07"] == pytest.approx(6 / 11)
    assert got["VOC10"] == pytest.approx(1 / 2)
    assert got["AP50"] == pytest.approx(51 / 101)


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_the_official_figures_are_the_metrics_own(engine: str):
    annotations = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [True, False], [False, False])
    predictions = found([[1, 0, 10, 10], [50, 51, 60, 60]], [0.9, 0.8])
    coco = evaluate_coco(annotations, predictions, ["thing"])
    voc = evaluate_voc(annotations, predictions, ["thing"])
    scores = side_by_side(annotations, predictions, ["thing"], coco, voc, engine)
    expected = [coco.ap, coco.ap50, coco.ap75, voc.voc07, voc.voc10]
    assert [score.value for score in scores[:5]] == expected
