"""Single shapes for pre-training: what is in a picture, and that a classifier's data reads them."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from backbones.classification.data import ClassificationData
from detection.data import shape_crops
from detection.data.records import DataError
from detection.data.shape_crops import draw_crops, ensure_crops
from detection.data.shape_drawing import DrawnObject
from detection.data.shape_variants import HARD, PLAIN
from detection.data.shapes import draw_shapes


def item(*box: int) -> DrawnObject:
    return DrawnObject("star", box, 100, 1.0, False, False)


@pytest.mark.parametrize("box", [(50, 40, 70, 80), (0, 0, 20, 10), (90, 85, 160, 120)])
def test_the_window_is_a_square_in_the_image_around_the_object(box):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        left, top, right, bottom = shape_crops._window(rng, item(*box), (160, 120))
        assert right - left == pytest.approx(bottom - top)
        assert 0 <= left < right <= 160
        assert 0 <= top < bottom <= 120
        x1, y1, x2, y2 = box
        longer = max(x2 - x1, y2 - y1)
        assert 1.15 * longer <= right - left <= 1.6 * longer
        # At least nine tenths of it, each way.
        width, height = (min(right, x2) - max(left, x1)), (min(bottom, y2) - max(top, y1))
        assert width >= 0.9 * (x2 - x1)
        assert height >= 0.9 * (y2 - y1)


def test_the_window_of_an_object_as_large_as_the_image_is_the_largest_square():
    window = shape_crops._window(np.random.default_rng(0), item(10, 0, 150, 120), (160, 120))
    assert window[1::2] == (0, 120)
    assert window[2] - window[0] == pytest.approx(120)


def test_pictures_are_objects_of_images_that_the_data_set_lacks():
    drawn = [draw_shapes("single train", index, variant=HARD) for index in range(2)]
    objects = [one.name for image in drawn for one in image.objects if not one.difficult]
    found = list(islice(draw_crops("train", variant=HARD), len(objects)))
    assert [name for name, _ in found] == objects
    assert {picture.size for _, picture in found} == {(72, 72)}
    own = draw_shapes("train", 0, variant=HARD)
    assert own.image.tobytes() != drawn[0].image.tobytes()


@pytest.mark.parametrize("hard", [False, True])
def test_a_classifiers_data_reads_them(tmp_path, hard):
    calls = []
    splits = {"train": 100, "val": 70}
    ensure_crops(tmp_path / "c", splits, 3, lambda *x: calls.append(x), hard=hard)
    assert (calls[0], calls[-1], len(calls)) == ((1, 170), (170, 170), 170)
    data = ClassificationData(str(tmp_path / "c"), workers=0)
    variant = HARD if hard else PLAIN
    assert data.class_names == tuple(sorted(variant.classes))
    for split, count in splits.items():
        images = data.split(split).images
        expected = Counter(name for name, _ in islice(draw_crops(split, 3, variant), count))
        assert Counter(data.class_names[label] for label in images.labels) == expected
        assert images.read(0).shape == (72, 72, 3)


def test_drawn_once_and_never_over_something_else(tmp_path):
    calls = []
    for _ in range(2):
        ensure_crops(tmp_path / "c", {"train": 5}, progress=lambda *x: calls.append(x))
    assert len(calls) == 5
    for arguments in ({"splits": {"train": 6}}, {"splits": {"train": 5}, "hard": True}):
        with pytest.raises(DataError, match=r"c: holds shapes made from .*expected"):
            ensure_crops(tmp_path / "c", **arguments)
    assert len(list((tmp_path / "c" / "train").rglob("*.jpg"))) == 5
    with Image.open(next((tmp_path / "c").rglob("*.jpg"))) as file:
        assert file.format == "JPEG"


@pytest.mark.parametrize("splits", [{}, {"train": 0}, {"a/b": 1}])
def test_impossible_splits_are_refused(tmp_path, splits):
    with pytest.raises(ValueError, match="split"):
        ensure_crops(tmp_path / "c", splits)
    assert list(tmp_path.iterdir()) == []
