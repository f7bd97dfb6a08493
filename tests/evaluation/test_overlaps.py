import numpy as np
from pycocotools import mask

from detection.evaluation import overlaps
from detection.evaluation.overlaps import Boxes, coco_iou, overlapping_pairs


def xywh(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def random_boxes(rng, n):
    corner = rng.uniform(0, 50, (n, 2))
    size = np.where(rng.random((n, 2)) < 0.05, 0, rng.uniform(1, 60, (n, 2)))
    return np.concatenate([corner, corner + size], axis=1)


def test_equals_pycocotools_to_the_last_bit():
    rng = np.random.default_rng(0)
    found, truth, crowd = random_boxes(rng, 80), random_boxes(rng, 60), rng.random(60) < 0.3
    # nan: 0 / 0, of two boxes without area; pycocotools answers 0
    expected = mask.iou(xywh(found), xywh(truth), crowd.astype(np.uint8).tolist())
    i, j = (index.ravel() for index in np.indices(expected.shape))
    np.testing.assert_array_equal(
        coco_iou(xywh(found)[i], xywh(truth)[j], crowd[j]), expected.ravel()
    )


def test_pairs_are_those_of_equal_keys_in_chunks_of_any_size(monkeypatch):
    rng = np.random.default_rng(1)
    found = Boxes(rng.integers(0, 5, 50), random_boxes(rng, 50))
    truth = Boxes(rng.integers(1, 6, 40), random_boxes(rng, 40))
    crowd = rng.random(40) < 0.2
    i, j = (index.ravel() for index in np.indices((50, 40)))
    iou = coco_iou(xywh(found.boxes)[i], xywh(truth.boxes)[j], crowd[j])
    kept = (iou >= 0.3) & (found.keys[i] == truth.keys[j])
    assert kept.sum() > 20
    for chunk in (1, 7, 10**6):
        monkeypatch.setattr(overlaps, "_CHUNK", chunk)
        pairs = overlapping_pairs(found, truth, crowd, 0.3)
        for got, expected in zip(pairs, (i, j, iou), strict=True):
            np.testing.assert_array_equal(got, expected[kept])


def test_no_boxes():
    none = Boxes(np.zeros(0, np.int64), np.zeros((0, 4)))
    one = Boxes(np.zeros(1, np.int64), np.array([[0.0, 0, 1, 1]]))
    for found, truth in ((none, none), (none, one), (one, none)):
        crowd = np.zeros(len(truth.keys), bool)
        assert all(len(column) == 0 for column in overlapping_pairs(found, truth, crowd, 0.5))
