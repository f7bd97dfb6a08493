from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.classification.augmentation import Augmentation, center_crop, resize_short_side
from detection.data.labels import LabelMap
from detection.data.localization_views import (
    CropAugmentation,
    CropDataset,
    ViewDataset,
    collate_crops,
    collate_views,
    view,
)
from detection.data.records import DataError, ImageRow, ObjectRow, Records, pack

PLAIN = CropAugmentation(crop=40, short_side=(60, 60), flip=False, lighting=0)


def painted(boxes: list[tuple[int, int, int, int]], size: tuple[int, int]) -> np.ndarray:
    """White where a box is, black elsewhere."""
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


class Middle(np.random.Generator):
    """Draws the middle of every range, and flips."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def integers(self, low, high=None, *, endpoint=False):
        low, high = (0, low) if high is None else (low, high + endpoint)
        return (low + high - 1) // 2

    def random(self):
        return 0.0


def test_a_crop_by_hand():
    # 30 x 60 becomes 60 x 120; the crop of 40 starts at row 10, column 40.
    boxes = np.array([[25.0, 10, 35, 20], [10, 0, 30, 30], [50, 0, 60, 30]])
    _, found, visible = PLAIN.apply(np.zeros((30, 60, 3), np.uint8), boxes, Middle())
    # Inside; cut on three sides, 20 of 40 columns and 40 of 60 rows are left; outside.
    assert found[:2].tolist() == [[10, 10, 30, 30], [0, 0, 20, 40]]
    assert visible.tolist() == [1, 20 * 40 / (40 * 60), 0]


def test_a_mirrored_crop_by_hand():
    flipping = CropAugmentation(crop=40, short_side=(60, 60), flip=True, lighting=0)
    image, boxes = painted([(25, 10, 30, 20)], (30, 60)), np.array([[25.0, 10, 30, 20]])
    part, found, _ = flipping.apply(image, boxes, Middle())
    assert found.tolist() == [[20, 10, 30, 30]]
    rows, columns = np.nonzero(part[..., 0] > 127)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 10, 30, 30)


def test_boxes_follow_the_pixels():
    augmentation = CropAugmentation(crop=64, short_side=(70, 150), lighting=0)
    image, boxes = painted([(40, 30, 90, 80)], (120, 160)), np.array([[40.0, 30, 90, 80]])
    rng, tested = np.random.default_rng(0), 0
    for _ in range(50):
        part, found, visible = augmentation.apply(image, boxes, rng)
        assert part.shape == (64, 64, 3)
        if visible[0] > 0.2:
            rows, columns = np.nonzero(part[..., 0] > 127)
            wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found[0], wanted, atol=1)
            tested += 1
    assert tested > 30


def test_crops_are_those_of_the_classifiers_training():
    pixels = np.random.default_rng(1).integers(256, size=(50, 70, 3)).astype(np.uint8)
    ours = CropAugmentation(crop=32, short_side=(40, 60))
    theirs = Augmentation(crop=32, short_side=(40, 60))
    assert CropAugmentation().crop == Augmentation().crop == 224
    assert CropAugmentation().short_side == Augmentation().short_side == (256, 480)
    for seed in range(8):
        part, *_ = ours.apply(pixels, np.zeros((0, 4)), np.random.default_rng(seed))
        assert np.array_equal(part, theirs.apply(pixels, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    "values",
    [
        {"crop": 0},
        {"crop": 300},
        {"short_side": (300, 256)},
        {"lighting": -1},
        {"min_visible": 0},
        {"min_visible": 1.1},
    ],
)
def test_values_out_of_range(values: dict[str, object]):
    with pytest.raises(ValueError, match="expected 1 <= crop"):
        CropAugmentation(**values)


def test_the_centre_crop_by_hand():
    # 100 x 200 becomes 50 x 100; the crop of 40 starts at row 5, column 30: 10 and 60 before.
    pixels = np.random.default_rng(1).integers(256, size=(100, 200, 3)).astype(np.uint8)
    images, frames = view(pixels, 50, 40)
    assert frames.tolist() == [[60, 10, 140, 90]]
    wanted = center_crop(resize_short_side(pixels, 50), 40)
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), wanted)


def test_the_whole_image_by_hand():
    images, frames = view(np.zeros((100, 200, 3), np.uint8), 50, None)
    assert images.shape == (1, 3, 50, 100)
    assert frames.tolist() == [[0, 0, 200, 100]]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two images: a box at the left of 60 x 120 pixels, and two boxes, one of them difficult."""
    whole = [[(0, 0, 30, 60)], [(20, 20, 60, 60), (60, 20, 70, 60)]]
    rows = []
    for i, boxes in enumerate(whole):
        Image.fromarray(painted(boxes, (60, 120))).save(tmp_path / f"{i}.png")
        objects = [
            ObjectRow(tuple(map(float, box)), 2 - i, 1.0, difficult=n == 1)
            for n, box in enumerate(boxes)
        ]
        rows.append(ImageRow(f"{i}.png", i + 1, (60, 120), objects))
    return pack(tmp_path, rows, LabelMap.from_names(["a", "b"]), [])


def test_training_items(records: Records):
    dataset = CropDataset(records, PLAIN)
    seen = set()
    for epoch in range(40):
        images, labels, targets = collate_crops([dataset[0, 0, epoch], dataset[1, 0, epoch]])
        assert images.shape == (2, 3, 40, 40)
        assert labels.tolist() == [2, 1]
        for label, target in zip(labels, targets, strict=True):
            assert (target.labels == label).all()
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
        # Of the first image's box, 30 columns and 60 rows, the crop shows 40 rows at most.
        seen.add((len(targets[0].boxes), *targets[0].ignore.tolist()))
        if len(targets[1].boxes) == 2:
            assert targets[1].ignore[1]
    # Outside, too little, enough.
    assert seen == {(0,), (1, True), (1, False)}


def test_a_draw_is_always_the_same(records: Records):
    dataset = CropDataset(records, CropAugmentation(crop=40, short_side=(50, 80)))
    first, again, other = (dataset[1, 7, epoch] for epoch in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets[0].boxes, again.targets[0].boxes)
    assert not torch.equal(first.images, other.images)


def test_test_items(records: Records):
    dataset = ViewDataset(records, "1-crop", 40, [60])
    assert len(dataset) == 2
    views, labels, boxes = collate_views([dataset[0], dataset[1]])
    ((images, frames),) = views
    assert images.shape == (2, 3, 40, 40)
    assert frames.tolist() == [[40, 10, 80, 50]] * 2
    assert labels.tolist() == [2, 1]
    assert [one.tolist() for one in boxes] == [
        [[0, 0, 30, 60]],
        [[20, 20, 60, 60], [60, 20, 70, 60]],
    ]
    views, *_ = collate_views([ViewDataset(records, "dense", 40, [30, 90])[0]])
    assert [tuple(one.images.shape) for one in views] == [(1, 3, 30, 60), (1, 3, 90, 180)]
    assert [one.frames.tolist() for one in views] == [[[0, 0, 120, 60]]] * 2


@pytest.mark.parametrize(
    ("testing", "scales"), [("1-crop", [39]), ("1-crop", [60, 80]), ("dense", []), ("dense", [0])]
)
def test_scales_that_do_not_fit(records: Records, testing: str, scales: list[int]):
    with pytest.raises(ValueError, match=r"expected .*scale"):
        ViewDataset(records, testing, 40, scales)


def test_an_image_that_has_changed(records: Records):
    Image.new("RGB", (50, 50)).save(records.path(0))
    with pytest.raises(
        DataError, match=r"0\.png: expected \(height, width\) \(60, 120\), got \(50"
    ):
        CropDataset(records, PLAIN)[0, 0, 0]
