import numpy as np
import pytest

from detection.evaluation.confusion import confusion_matrix

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)
FAR = (200.0, 200.0, 210.0, 210.0)


def test_nothing(truth, found):
    assert confusion_matrix(truth({}), found(), []).counts.tolist() == [[0]]
    missed = confusion_matrix(truth({1: [(A, 2)]}), found(), ["c", "d"])
    assert missed.counts.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    invented = confusion_matrix(truth({1: []}), found([(1, A, 0.5, 2)]), ["c", "d"])
    assert invented.counts.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_by_hand(truth, found):
    annotations = truth({1: [(A, 1), (B, 2)], 2: [(A, 2), (B, 1)]})
    rows = [
        (1, A, 0.9, 1),  # right
        (1, B, 0.8, 1),  # object of class 2 taken for 1
        (1, B, 0.7, 2),  # right, but the object is taken
        (2, A, 0.4, 2),  # below the score
        (2, B, 0.6, 2),  # object of class 1 taken for 2
        (2, FAR, 0.6, 2),
    ]
    confusion = confusion_matrix(annotations, found(rows), ["c", "d"])
    assert confusion.counts.tolist() == [[0, 0, 2], [0, 1, 1], [1, 1, 0]]
    assert (confusion.score, confusion.iou) == (0.5, 0.5)
    more = confusion_matrix(annotations, found(rows), ["c", "d"], score=0.4)
    assert more.counts.tolist() == [[0, 0, 2], [0, 1, 1], [0, 1, 1]]


def test_iou_threshold(truth, found):
    annotations, predictions = truth({1: [(A, 1)]}), found([(1, (0, 0, 10, 6), 0.9, 1)])
    assert confusion_matrix(annotations, predictions, ["c"]).counts.tolist() == [[0, 0], [0, 1]]
    strict = confusion_matrix(annotations, predictions, ["c"], iou=0.7)
    assert strict.counts.tolist() == [[0, 1], [1, 0]]


def test_ignored_regions_are_neither_objects_nor_background(truth, found):
    annotations = truth({1: [(A, 1), (B, 2)]}, crowd=[0], difficult=[1])
    rows = [(1, A, 0.9, 2), (1, A, 0.8, 1), (1, B, 0.7, 1), (1, B, 0.6, 2)]
    # the difficult object takes one detection, the crowd region any number
    assert confusion_matrix(annotations, found(rows), ["c", "d"]).counts.tolist() == [
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_rows_count_objects_and_columns_detections(random_case):
    for seed in range(20):
        annotations, predictions, names = random_case(seed)
        counts = confusion_matrix(annotations, predictions, names, 0.3).counts
        objects = np.bincount(annotations.labels, minlength=len(names) + 1)
        kept = predictions.labels[predictions.scores >= np.float32(0.3)]
        assert counts.sum(axis=1)[1:].tolist() == objects[1:].tolist()
        assert counts.sum(axis=0)[1:].tolist() == np.bincount(kept, minlength=4)[1:].tolist()


def test_bad_input_is_refused(truth, found):
    with pytest.raises(ValueError, match="label is outside 1…1"):
        confusion_matrix(truth({1: []}), found([(1, A, 0.5, 2)]), ["c"])
    with pytest.raises(ValueError, match="label is outside 1…1"):
        confusion_matrix(truth({1: [(A, 2)]}), found(), ["c"])
    with pytest.raises(ValueError, match="rising thresholds"):
        confusion_matrix(truth({}), found(), ["c"], iou=0)
