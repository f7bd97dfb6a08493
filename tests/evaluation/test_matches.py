import re

import numpy as np
import pytest

from detection.evaluation.checks import select
from detection.evaluation.matches import COCO_IOUS, class_agnostic, match_detections, match_voc

A = (0.0, 0.0, 10.0, 10.0)
B = (50.0, 50.0, 70.0, 70.0)


def outcomes(matches, iou=0.5):
    t = matches.iou_index(iou)
    rows = zip(matches.matched[:, t].tolist(), matches.ignored[:, t].tolist(), strict=True)
    return list(rows)


@pytest.mark.parametrize("match", [match_detections, match_voc])
def test_nothing(match, truth, found):
    for annotations, names in ((truth({}), []), (truth({}), ["cat"]), (truth({4: []}), ["cat"])):
        matches = match(annotations, found(), names)
        assert matches.scores.shape == (0,)
        assert matches.matched.shape == matches.ignored.shape == (0, len(matches.ious))
        assert matches.objects.shape == (len(names), len(annotations.image_ids))
        assert matches.offsets.tolist() == [0] * (len(names) + 1)


def test_layout(truth, found):
    annotations = truth({7: [(A, 2)], 5: [(A, 1), (B, 1)]})
    rows = [(7, A, 0.5, 2), (5, B, 0.3, 1), (7, A, 0.9, 1), (5, A, 0.6, 1), (5, B, 0.7, 2)]
    matches = match_detections(annotations, found(rows), ["cat", "dog"])
    assert matches.image_ids.tolist() == [5, 7]
    np.testing.assert_array_equal(matches.ious, COCO_IOUS)
    assert matches.offsets.tolist() == [0, 3, 5]
    assert matches.labels.tolist() == [1, 1, 1, 2, 2]
    assert matches.scores.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.7, 0.5])
    assert matches.images.tolist() == [1, 0, 0, 0, 1]
    assert matches.ranks.tolist() == [0, 0, 1, 0, 0]
    assert matches.matched[:, 0].tolist() == [-1, 1, 2, -1, 0]
    assert matches.hits(0).tolist() == [False, True, True, False, True]
    assert matches.objects.tolist() == [[2, 0], [0, 1]]


def test_greedy_by_score_then_best_free_overlap(truth, found):
    # The better box has the lower score and finds its object taken; the next one is too far off.
    near = (0.0, 0.0, 10.0, 9.0)
    matches = match_detections(
        truth({1: [(A, 1)]}), found([(1, near, 0.9, 1), (1, A, 0.8, 1)]), ["c"]
    )
    assert outcomes(matches) == [(0, False), (-1, False)]
    assert outcomes(matches, 0.95) == [(-1, False), (0, False)]
    # Of two objects, the taken one overlaps by .95 and the free one by .84: COCO takes the free.
    annotations = truth({1: [(A, 1), ((0, 0, 10, 8), 1)]})
    predictions = found([(1, A, 0.9, 1), (1, (0, 0, 10, 9.5), 0.8, 1)])
    assert outcomes(match_detections(annotations, predictions, ["c"])) == [(0, False), (1, False)]
    assert outcomes(match_voc(annotations, predictions, ["c"])) == [(0, False), (-1, False)]


def test_last_of_equal_overlaps(truth, found):
    # pycocotools goes on while the IoU is not lower
    annotations = truth({1: [(A, 1), (A, 1)]})
    matches = match_detections(annotations, found([(1, A, 0.9, 1)]), ["c"])
    assert outcomes(matches) == [(1, False)]


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("crowd", [(1, False), (0, True), (0, True)]),
        ("difficult", [(1, False), (0, True), (-1, False)]),
    ],
)
def test_ignored_regions(flag, expected, truth, found):
    # The object comes first for all, although the region overlaps as well.
    annotations = truth({1: [(A, 1), ((0, 0, 10, 9), 1)]}, **{flag: [0]})
    predictions = found([(1, A, s, 1) for s in (0.9, 0.8, 0.7)])
    matches = match_detections(annotations, predictions, ["c"])
    assert outcomes(matches) == expected
    assert matches.objects.tolist() == [[1]]


def test_crowd_overlap_is_over_the_detection(truth, found):
    annotations = truth({1: [((0, 0, 100, 100), 1)]}, crowd=[0])
    matches = match_detections(annotations, found([(1, A, 0.9, 1)]), ["c"])
    assert outcomes(matches) == outcomes(matches, 0.95) == [(0, True)]


def test_area_range_ignores_objects_and_detections_outside(truth, found):
    annotations = truth({1: [(A, 1), (B, 1)]})  # areas 100 and 400
    rows = [(1, A, 0.9, 1), (1, B, 0.8, 1), (1, (200, 0, 210, 10), 0.7, 1)]
    rows += [(1, (200, 0, 220, 20), 0.6, 1)]
    matches = match_detections(annotations, found(rows), ["c"], area_range=(100.5, 1e9))
    assert outcomes(matches) == [(0, True), (1, False), (-1, True), (-1, False)]
    at_the_edge = match_detections(annotations, found(rows), ["c"], area_range=(100.0, 400.0))
    assert not at_the_edge.ignored.any()


def test_limit_is_per_image_and_class(truth, found):
    rows = [(i, A, 0.1 * s, c) for i in (1, 2) for c in (1, 2) for s in (3, 1, 2)]
    annotations = truth({1: [], 2: []})
    matches = match_detections(annotations, found(rows), ["c", "d"], max_detections=2)
    assert matches.scores.tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2] * 2)
    assert len(match_voc(annotations, found(rows), ["c", "d"]).scores) == 12


def test_input_order_changes_nothing(random_case):
    annotations, predictions, names = random_case(5, crowds=0.1, difficult=0.1)
    order = np.random.default_rng(0).permutation(len(predictions.scores))
    again = select(predictions, order)
    for a, b in zip(
        match_detections(annotations, predictions, names),
        match_detections(annotations, again, names),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_class_agnostic(truth, found):
    annotations, predictions = class_agnostic(truth({1: [(A, 2)]}), found([(1, A, 0.9, 3)]))
    assert outcomes(match_detections(annotations, predictions, ["object"])) == [(0, False)]


@pytest.mark.parametrize("ious", [(), (0.0,), (0.5, 0.5), (0.7, 0.5), (0.5, 1.5), (float("nan"),)])
def test_bad_thresholds_are_refused(ious, truth, found):
    with pytest.raises(ValueError, match=re.escape("rising thresholds in (0, 1]")):
        match_detections(truth({}), found(), ["c"], ious)


def test_other_bad_input_is_refused(truth, found):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        match_detections(truth({}), found(), ["c"], max_detections=0)
    with pytest.raises(ValueError, match="image 9: this image id"):
        match_detections(truth({}), found([(9, A, 0.5, 1)]), ["c"])
    with pytest.raises(ValueError, match=r"iou: expected one of \[0.5\], got 0.75"):
        match_detections(truth({}), found(), ["c"], (0.5,)).iou_index(0.75)
