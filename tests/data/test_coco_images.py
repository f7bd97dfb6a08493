"""Images with the right types against the reader of single records, which test_coco.py tests."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from detection.data import coco_images
from detection.data.coco_images import ImageRow, Images, read_images
from detection.data.image_files import ImageFiles
from detection.data.records import DataError

FILE = Path("x.json")
ROWS = [ImageRow(90, "b.jpg", 20, 30), ImageRow(-7, "a.jpg", 480, 640)]
ODD = {
    "id": [90, 2**53, -(2**53), 2**60, -(2**63), 2**70],
    "file_name": ["c.jpg", "", "sub/d.jpg", "link.jpg", "../e.jpg"],
    "height": [0, -1, 10**9, 2**62, -(2**63), 2**70],
    "width": [0, -1, 10**9, 2**62, -(2**63), 2**70],
}


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/d.jpg"):
        (root / name).touch()
    (root / "link.jpg").symlink_to("a.jpg")
    return ImageFiles(root)


def outcome(table: list, files: ImageFiles) -> tuple:
    try:
        images, skipped = read_images(table, FILE, ImageFiles(files.root))
    except DataError as error:
        return (str(error),)
    return images.ids.tolist(), images.sizes.tolist(), images.files.tolist(), skipped


@pytest.mark.parametrize(("field", "value"), [(key, one) for key in ODD for one in ODD[key]])
def test_what_is_odd_is_read_as_single_records_are(field, value, files):
    rows = [ROWS[0], msgspec.structs.replace(ROWS[1], **{field: value}), ImageRow(5, "a.jpg", 8, 9)]
    expected = outcome([msgspec.structs.asdict(row) for row in rows], files)
    assert outcome(rows, files) == expected
    sound = field == "file_name" and value in ("sub/d.jpg", "link.jpg")
    assert sound or len(expected) == 1 or expected[3]


def test_sound_images_are_not_read_one_by_one(files, monkeypatch):
    monkeypatch.setattr(coco_images, "_one_by_one", None)
    images, skipped = read_images(ROWS, FILE, files)
    assert images.ids.tolist() == [90, -7]
    assert images.sizes.tolist() == [[20, 30], [480, 640]]
    assert images.files.tolist() == ["b.jpg", "a.jpg"]
    assert not skipped


def test_the_largest_image(files):
    side = int(coco_images.MAX_PIXELS**0.5)
    for width, left_out in ((coco_images.MAX_PIXELS // side, 0), (side + 1000, 1)):
        _, skipped = read_images([ImageRow(1, "a.jpg", side, width)], FILE, files)
        assert len(skipped) == left_out


def test_by_id():
    images = Images(np.array([7, 3]), np.array([(20, 30), (-1, -1)]), np.array(["a.jpg"]))
    assert images.by_id() == {7: (20, 30), 3: None}


def test_no_images(files):
    assert outcome([], files) == ([], [], [], [])
