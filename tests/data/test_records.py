from pathlib import Path

import numpy as np
import pytest

from detection.data.labels import LabelMap
from detection.data.records import ImageRow, ObjectRow, Skipped, UnusableError, clip_box, pack

LABELS = LabelMap.from_names(["cat", "dog"])


def test_pack_without_objects_keeps_shapes_and_types():
    annotations = pack(Path("r"), [ImageRow("a.jpg", 7, (4, 5), [])], LABELS, []).annotations
    assert annotations.boxes.shape == (0, 4)
    assert annotations.offsets.tolist() == [0, 0]
    assert annotations.sizes.tolist() == [[4, 5]]
    *columns, extents = annotations
    assert extents is None
    kinds = [column.dtype for column in columns]
    assert kinds == [np.int64] * 3 + [np.float64, np.int64, np.float64, np.bool_, np.bool_]


def test_pack_orders_boxes_by_image():
    rows = [
        ImageRow("a.jpg", 7, (40, 50), [ObjectRow((0, 1, 2, 3), 1, 4.0, crowd=True)]),
        ImageRow("b.jpg", 3, (40, 50), []),
        ImageRow(
            "c.jpg",
            5,
            (40, 60),
            [ObjectRow((4, 5, 6, 7), 2, 4.0), ObjectRow((5, 5, 6, 6), 1, 1.0, difficult=True)],
        ),
    ]
    records = pack(Path("r"), rows, LABELS, [Skipped("x", "image", "y")])
    annotations = records.annotations
    assert records.path(2) == Path("r/c.jpg")
    assert records.skipped == (Skipped("x", "image", "y"),)
    assert annotations.image_ids.tolist() == [7, 3, 5]
    assert annotations.offsets.tolist() == [0, 1, 1, 3]
    assert annotations.labels.tolist() == [1, 2, 1]
    assert annotations.boxes[1].tolist() == [4, 5, 6, 7]
    assert annotations.crowd.tolist() == [True, False, False]
    assert annotations.difficult.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4)),
        ((-5, -6, 3, 4), (0, 0, 3, 4)),
        ((1, 2, 300, 400), (1, 2, 20, 10)),
        ((-1e308, -1, 1e308, 11), (0, 0, 20, 10)),
        ((19.5, 9.5, 20.5, 10.5), (19.5, 9.5, 20, 10)),
    ],
)
def test_clip_box(box, expected):
    assert clip_box(box, (10, 20)) == expected


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((1, 2, 1, 4), "empty"),
        ((1, 4, 3, 2), "reversed"),
        ((20, 2, 30, 4), "outside the image of 20 × 10"),
        ((1, -4, 3, 0), "outside"),
        ((float("nan"), 2, 3, 4), "not finite"),
        ((1, 2, 3, float("inf")), "not finite"),
    ],
)
def test_clip_box_says_why_a_box_is_unusable(box, reason):
    with pytest.raises(UnusableError, match=reason):
        clip_box(box, (10, 20))
