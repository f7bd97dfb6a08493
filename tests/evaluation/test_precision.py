import contextlib
import io
import math
import re

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.evaluation.checks import select
from detection.evaluation.curves import SIZES
from detection.evaluation.matches import match_detections, match_voc
from detection.evaluation.precision import (
    VOC07_LEVELS,
    average_precision,
    interpolated_precision,
    mean_precision,
)
from detection.evaluation.voc import evaluate_voc
from detection.structures import Annotations

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)


def official_precision(annotations, predictions, classes, most=100):
    """pycocotools' precision: (T, R, K, A), -1 without objects."""
    image_ids = np.repeat(annotations.image_ids, np.diff(annotations.offsets)).tolist()
    columns = (image_ids, annotations.labels.tolist(), annotations.boxes.tolist())
    flags = (annotations.areas.tolist(), annotations.crowd.tolist())
    entries = [
        {"id": n, "image_id": i, "category_id": k, "bbox": [x, y, x2 - x, y2 - y]}
        | {"area": area, "iscrowd": int(crowd)}
        for n, (i, k, (x, y, x2, y2), area, crowd) in enumerate(
            zip(*columns, *flags, strict=True), start=1
        )
    ]
    rows = sorted(
        (i, k, -s, box)
        for i, box, s, k in zip(*(column.tolist() for column in predictions[:4]), strict=True)
    )
    results = [
        {"image_id": i, "category_id": k, "score": -s, "bbox": [x, y, x2 - x, y2 - y]}
        for i, k, s, (x, y, x2, y2) in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in annotations.image_ids.tolist()],
            "categories": [{"id": k} for k in range(1, classes + 1)],
            "annotations": entries,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 2, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def replicated(annotations, predictions, weights):
    """The data set with as many copies of each image as its weight says."""
    rows, ids, counts, found, found_ids = [], [], [], [], []
    for i, image_id in enumerate(annotations.image_ids.tolist()):
        position = np.searchsorted(np.sort(annotations.image_ids), image_id)
        for copy in range(weights[position]):
            new = 1000 * image_id + copy
            rows += range(annotations.offsets[i], annotations.offsets[i + 1])
            ids.append(new)
            counts.append(annotations.offsets[i + 1] - annotations.offsets[i])
            of_image = np.flatnonzero(predictions.image_ids == image_id).tolist()
            found += of_image
            found_ids += [new] * len(of_image)
    columns = [getattr(annotations, name)[rows] for name in Annotations._fields[3:8]]
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    truth = Annotations(np.array(ids, np.int64), np.zeros((len(ids), 2)), offsets, *columns)
    copies = select(predictions, np.array(found, np.int64))
    return truth, copies._replace(image_ids=np.array(found_ids, np.int64))


@pytest.mark.parametrize(
    ("objects", "rows", "expected"),
    [
        ([], [], math.nan),
        ([], [(A, 0.9)], math.nan),
        ([A], [], 0.0),
        ([A], [(B, 0.9)], 0.0),
        ([A], [(A, 0.9)], 1.0),
        # hit, miss, hit of two objects: precision 1 for 51 levels, 2/3 for 50
        ([A, B], [(A, 0.9), (A, 0.8), (B, 0.7)], (51 + 50 * 2 / 3) / 101),
    ],
)
def test_by_hand(objects, rows, expected, truth, found):
    annotations = truth({4: [(box, 1) for box in objects]})
    matches = match_detections(annotations, found([(4, b, s, 1) for b, s in rows]), ["c"], (0.5,))
    assert average_precision(matches)[0, 0] == pytest.approx(expected, nan_ok=True)
    assert mean_precision(average_precision(matches)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("most", [100, 3])
def test_equals_pycocotools_on_random_sets(most, random_case):
    compared = 0
    for seed in range(20):
        annotations, predictions, names = random_case(seed, crowds=0.2 * (seed % 2))
        official = official_precision(annotations, predictions, len(names), most)
        official = np.where(official == -1, np.nan, official).transpose(3, 2, 0, 1)
        for expected, area_range in zip(official, SIZES.values(), strict=True):
            matches = match_detections(
                annotations, predictions, names, max_detections=most, area_range=area_range
            )
            np.testing.assert_array_equal(interpolated_precision(matches), expected)
            ap = average_precision(matches)
            np.testing.assert_allclose(ap, expected.mean(axis=-1), rtol=0, atol=1e-12)
            compared += np.count_nonzero(ap > 0)
    assert compared > 300


def test_equals_voc_on_random_sets(random_case):
    for seed in range(100):
        annotations, predictions, names = random_case(seed, crowds=0.05, difficult=0.2)
        matches = match_voc(annotations, predictions, names, 0.6)
        expected = [f[2:] for f in evaluate_voc(annotations, predictions, names, 0.6).per_class]
        got = [average_precision(matches, None, levels)[:, 0] for levels in (VOC07_LEVELS, None)]
        np.testing.assert_allclose(np.transpose(got), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [np.linspace(0, 1, 101), None])
def test_weights_are_copies_of_images(levels, random_case):
    rng = np.random.default_rng(0)
    for seed in range(40):
        annotations, predictions, names = random_case(seed, crowds=0.1, difficult=0.1)
        scores = rng.permutation(len(predictions.scores)).astype(np.float32)
        predictions = predictions._replace(scores=scores)
        weights = rng.integers(0, 4, (3, len(annotations.image_ids)))
        weights[0] = 1
        matches = match_detections(annotations, predictions, names)
        got = average_precision(matches, weights, levels)
        np.testing.assert_allclose(got[0], average_precision(matches, None, levels), atol=1e-15)
        for ap, row in zip(got, weights, strict=True):
            copies = match_detections(*replicated(annotations, predictions, row), names)
            expected = average_precision(copies, None, levels)
            np.testing.assert_allclose(ap, expected, rtol=0, atol=1e-12)


def test_recall_levels_are_reached_as_in_floating_point(truth, found):
    # 29 / 50 is below the level 0.58 of linspace for some roundings; counts decide as pycocotools
    boxes = [(20.0 * i, 0.0, 20.0 * i + 10, 10.0) for i in range(50)]
    annotations = truth({1: [(box, 1) for box in boxes]})
    for n in range(51):
        predictions = found([(1, box, 0.5, 1) for box in boxes[:n]])
        matches = match_detections(annotations, predictions, ["c"], (0.5,))
        expected = np.searchsorted(np.linspace(0, 1, 101), n / 50, side="right") if n else 0
        assert average_precision(matches)[0, 0] == pytest.approx(expected / 101)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(2, np.int64), "expected shape (B, 2), got (2,)"),
        (np.ones((1, 3), np.int64), "expected shape (B, 2), got (1, 3)"),
        (np.ones((1, 2)), "whole numbers from 0"),
        (np.full((1, 2), -1), "whole numbers from 0"),
    ],
)
def test_bad_weights_are_refused(weights, message, truth, found):
    matches = match_detections(truth({1: [], 2: []}), found(), ["c"])
    with pytest.raises(ValueError, match=re.escape(message)):
        average_precision(matches, weights)
