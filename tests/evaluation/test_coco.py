import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from detection.evaluation.checks import select
from detection.evaluation.coco import evaluate_coco
from detection.structures import Annotations, Predictions

BOX = (10.0, 10.0, 50.0, 50.0)
OTHER = (100.0, 100.0, 180.0, 180.0)


@pytest.fixture(params=["hotcoco", "pycocotools"])
def evaluate(request):
    return partial(evaluate_coco, engine=request.param)


def shuffled(predictions: Predictions, seed: int) -> Predictions:
    order = np.random.default_rng(seed).permutation(len(predictions.scores))
    return select(predictions, order)


def test_no_ground_truth_is_nan_and_no_detections_is_zero(evaluate, truth, found):
    nothing = evaluate(truth({}), found(), ["cat"])
    assert all(math.isnan(value) for value in nothing.scalars().values())
    no_objects = evaluate(truth({3: []}), found([(3, BOX, 0.9, 1)]), ["cat"])
    assert all(math.isnan(value) for value in no_objects.scalars().values())
    assert math.isnan(no_objects.per_class[0].ap)
    assert no_objects.per_class[0].objects == 0

    missed = evaluate(truth({3: [(BOX, 1)]}), found(), ["cat", "dog"])
    assert missed.ap == missed.ap50 == missed.ap75 == missed.ap_medium == 0.0
    assert missed.ar1 == missed.ar10 == missed.ar100 == missed.ar_medium == 0.0
    for absent in (missed.ap_small, missed.ap_large, missed.ar_small, missed.ar_large):
        assert math.isnan(absent)
    assert missed.per_class[0] == ("cat", 1, 0.0, 0.0)
    assert math.isnan(missed.per_class[1].ap50)


def test_one_perfect_detection(evaluate, truth, found):
    # A renumbering from 0 would lose the only annotation (pycocotools never matches id 0).
    figures = evaluate(truth({0: [(BOX, 1)]}), found([(0, BOX, 0.9, 1)]), ["cat"])
    assert (figures.ap, figures.ap_medium, figures.ar100) == pytest.approx((1, 1, 1))
    assert figures.per_class[0].objects == 1
    assert (figures.images, figures.max_detections) == (1, (1, 10, 100))
    assert tuple(figures.scalars()) == figures._fields[:12]
    assert list(figures.scalars().values()) == list(figures[:12])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("max_detections", [(1, 10, 100), (1, 2, 3)])
def test_equals_pycocotools(evaluate, seed, max_detections, random_case, pycocotools):
    annotations, predictions, names = random_case(seed, crowds=0.15)
    stats, _ = pycocotools(annotations, predictions, len(names), max_detections)
    expected = np.array(stats)
    figures = evaluate(annotations, predictions, names, max_detections)
    got = np.array(list(figures.scalars().values()))
    if max_detections[2] != 100:  # summarize looks for a limit of 100 in its first figure
        assert expected[0] == -1
        got, expected = got[1:], expected[1:]
    np.testing.assert_array_equal(got, np.where(expected == -1, np.nan, expected))


def test_more_than_a_hundred_detections(evaluate, truth, found, pycocotools):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 100, (150, 2)).tolist()
    boxes = [(x, y, x + 30, y + 30) for x, y in corners]
    annotations = truth({1: [(box, 1) for box in boxes[::5]], 2: []})
    predictions = found([(1, box, float(rng.random()), 1) for box in boxes])
    expected, _ = pycocotools(annotations, predictions, 1)
    got = list(evaluate(annotations, predictions, ["cat"]).scalars().values())
    np.testing.assert_array_equal(got, [v if v != -1 else math.nan for v in expected])


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_equals_pycocotools_on_coco(split, pycocotools):
    folder = os.environ.get("RESDET_DATA")
    if not folder:
        pytest.skip("RESDET_DATA is not set")
    path = Path(folder, "coco_tiny", "annotations", f"instances_{split}.json")
    dataset = json.loads(path.read_text())
    ids = sorted(category["id"] for category in dataset["categories"])
    by_image = {image["id"]: [] for image in dataset["images"]}
    for entry in dataset["annotations"]:
        by_image[entry["image_id"]].append(entry)
    entries = [entry for group in by_image.values() for entry in group]
    xywh = np.array([entry["bbox"] for entry in entries])
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    annotations = Annotations(
        np.array(list(by_image)),
        np.array([[image["height"], image["width"]] for image in dataset["images"]]),
        np.cumsum([0, *map(len, by_image.values())]),
        boxes,
        np.array([ids.index(entry["category_id"]) + 1 for entry in entries]),
        np.array([entry["area"] for entry in entries]),
        np.array([bool(entry["iscrowd"]) for entry in entries]),
        np.zeros(len(entries), bool),
    )
    rng = np.random.default_rng(1)
    image_ids = np.array([entry["image_id"] for entry in entries])
    moved = np.concatenate([boxes + rng.normal(0, s * xywh[:, [2, 3, 2, 3]]) for s in (0.05, 0.2)])
    moved[:, 2:] = np.maximum(moved[:, :2], moved[:, 2:])
    predictions = Predictions(
        np.tile(image_ids, 2),
        moved.astype(np.float32),
        rng.random(2 * len(entries)).round(1).astype(np.float32),
        np.tile(annotations.labels, 2),
    )
    expected, _ = pycocotools(annotations, predictions, len(ids), dataset=dataset, ids=ids)
    names = [str(i) for i in ids]
    figures = evaluate_coco(annotations, shuffled(predictions, 2), names)
    assert 0.05 < figures.ap < 0.95
    np.testing.assert_allclose(list(figures.scalars().values()), expected, rtol=0, atol=1e-12)
    assert sum(c.objects for c in figures.per_class) == np.count_nonzero(~annotations.crowd)


def test_input_order_changes_nothing(evaluate, random_case, truth, found):
    annotations, predictions, names = random_case(3, crowds=0.1, difficult=0.1)
    expected = repr(evaluate(annotations, predictions, names))
    for seed in range(5):
        assert repr(evaluate(annotations, shuffled(predictions, seed), names)) == expected
    # Two tied scores, one hit: pycocotools gives 1 or 0.5 by input order.
    tied = [(1, BOX, 0.5, 1), (1, OTHER, 0.5, 1)]
    annotations = truth({1: [(OTHER, 1)]})
    aps = [evaluate(annotations, found(rows), ["cat"]).ap for rows in (tied, tied[::-1])]
    assert aps == pytest.approx([0.5, 0.5])


def test_crowd_absorbs_any_number(evaluate, truth, found):
    crowd = (100.0, 100.0, 200.0, 200.0)
    rows = [(1, (100, 100, 140, 140), 0.9, 1), (1, (120, 120, 150, 150), 0.8, 1), (1, BOX, 0.7, 1)]
    figures = evaluate(truth({1: [(crowd, 1), (BOX, 1)]}, crowd=[0]), found(rows), ["cat"])
    assert figures.ap == pytest.approx(1.0)
    assert figures.per_class[0].objects == 1


def test_difficult_objects_are_ignored_one_to_one(evaluate, truth, found):
    annotations = truth({1: [(OTHER, 1), (BOX, 1)]}, difficult=[0])
    once = [(1, OTHER, 0.9, 1), (1, BOX, 0.7, 1)]
    figures = evaluate(annotations, found(once), ["cat"])
    assert (figures.ap, figures.ar100) == pytest.approx((1, 1))
    assert figures.per_class[0].objects == 1
    assert math.isnan(figures.ap_large)
    # Not missed when undetected, and its second detection is a false positive.
    assert evaluate(annotations, found(once[1:]), ["cat"]).ap == pytest.approx(1.0)
    twice = [(1, OTHER, 0.8, 1), *once]
    assert evaluate(annotations, found(twice), ["cat"]).ap == pytest.approx(0.5)


def test_limits_must_rise(evaluate, truth, found):
    with pytest.raises(ValueError, match="three rising positives"):
        evaluate(truth({}), found(), [], (1, 100, 10))


def test_prints_nothing(evaluate, truth, found, capfd):
    evaluate(truth({1: [(BOX, 1)]}), found([(1, BOX, 0.9, 1)]), ["cat"])
    assert capfd.readouterr() == ("", "")
