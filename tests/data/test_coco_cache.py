import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest

from detection.data import coco_cache, coco_file
from detection.data.coco import coco_labels, read_coco
from detection.data.labels import LabelMap
from detection.data.records import DETECTION, SCORING, TRAINING, DataError, Use

CONTENT = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in (7, 90, 5)],
    "categories": [{"id": 17, "name": "dög"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 17, "bbox": [1.5, 2, 3, 4], "area": 5.5},
        {"id": 2, "image_id": 90, "category_id": 3, "bbox": [0, 0, 30, 20], "iscrowd": 1},
        {"id": 2, "image_id": 90, "category_id": 3, "bbox": [0, 0, 3, 2]},
    ],
}


class Folder:
    """An annotation file and its images, all changed a while ago."""

    def __init__(self, root: Path) -> None:
        self.file, self.images = root / "instances.json", root / "images"
        self.images.mkdir()
        for name in ("7.jpg", "90.jpg"):
            (self.images / name).touch()
        self.seconds = 1000
        self.write(CONTENT)

    def write(self, content: object) -> None:
        self.file.write_text(json.dumps(content))
        self.settle()

    def settle(self) -> None:
        self.seconds += 10
        for path in (self.file, self.images):
            os.utime(path, (self.seconds, self.seconds))

    def read(self, use: Use = TRAINING):
        return read_coco(self.file, self.images, use=use)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_cache, "SMALLEST", 1)
    return tmp_path / "cache" / "resdet"


@pytest.fixture
def folder(tmp_path, cache) -> Folder:
    return Folder(tmp_path)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def unread(monkeypatch) -> None:
    """From here on, reading a file fails."""

    def refuse(path: Path, way: object) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(coco_file, "_read", refuse)


def test_the_second_reading_is_the_first(folder, cache, monkeypatch):
    first, labels = folder.read(), coco_labels(folder.file)
    assert len(first.skipped) == 2
    (entry,) = entries(cache)
    assert entry.suffix == ".npz"
    unread(monkeypatch)
    second = folder.read()
    assert (second.root, second.labels, second.skipped) == (folder.images, *first[3:5])
    assert coco_labels(folder.file) == second.labels == labels
    np.testing.assert_array_equal(second.files, first.files, strict=True)
    for own, other in zip(second.annotations, first.annotations, strict=True):
        np.testing.assert_array_equal(own, other, strict=True)
    with pytest.raises(DataError, match=r"instances\.json: categories differ"):
        read_coco(folder.file, folder.images, LabelMap(("cat",), (3,)))


def test_each_use_has_an_entry_of_its_own(folder, cache, monkeypatch):
    uses = (TRAINING, DETECTION, SCORING)
    (folder.images / "90.jpg").unlink()
    folder.settle()
    first = [folder.read(use) for use in uses]
    assert len(entries(cache)) == 3
    unread(monkeypatch)
    for use, one in zip(uses, first, strict=True):
        second = folder.read(use)
        assert second.skipped == one.skipped
        assert second.files.tolist() == one.files.tolist()
        for own, other in zip(second.annotations, one.annotations, strict=True):
            np.testing.assert_array_equal(own, other, strict=True)
    assert [len(one.files) for one in first] == [1, 1, 3]
    assert [one.annotations.extents is None for one in first] == [True, False, False]


def test_another_text_is_read_anew(folder, cache):
    folder.read()
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["bbox"][0] = 2.5  # of the same length
    folder.write(content)
    assert folder.read().annotations.boxes[0].tolist() == [2.5, 2, 5.5, 6]
    assert folder.read().annotations.boxes[0].tolist() == [2.5, 2, 5.5, 6]
    content["categories"][0]["name"] = "cow"
    folder.write(content)
    assert coco_labels(folder.file).names == ("cat", "cow")
    assert len(entries(cache)) == 1


def test_images_that_come_and_go_are_noticed(folder):
    assert len(folder.read().files) == 2
    (folder.images / "5.jpg").touch()
    folder.settle()
    assert len(folder.read().files) == 3
    (folder.images / "7.jpg").unlink()
    records = folder.read()
    assert records.files.tolist() == ["90.jpg", "5.jpg"]
    assert records.skipped[0].reason.endswith("7.jpg: no such file")


def test_another_root_is_another_reading(folder, tmp_path):
    folder.read()
    other = tmp_path / "other"
    other.mkdir()
    (other / "90.jpg").touch()
    os.utime(other, (1000, 1000))
    assert read_coco(folder.file, other).files.tolist() == ["90.jpg"]
    assert folder.read().files.tolist() == ["7.jpg", "90.jpg"]


def test_what_changed_just_now_is_not_kept(folder, cache):
    folder.file.touch()
    folder.read()
    folder.settle()
    folder.images.touch()
    os.utime(folder.images)
    folder.read()
    assert entries(cache) == []


def test_links_are_not_kept(folder, cache):
    # Where a link leads is no matter of the folder's time of modification.
    (folder.images / "5.jpg").symlink_to(folder.images / "7.jpg")
    folder.settle()
    assert folder.read().files.tolist() == ["7.jpg", "90.jpg", "5.jpg"]
    assert entries(cache) == []


def test_small_files_are_not_kept(folder, cache, monkeypatch):
    monkeypatch.setattr(coco_cache, "SMALLEST", 2**20)
    folder.read()
    assert entries(cache) == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other", "pickle", "folder"])
def test_a_broken_cache_is_written_anew(folder, cache, damage, monkeypatch):
    first = folder.read()
    (entry,) = entries(cache)
    data = entry.read_bytes()
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    elif damage == "pickle":
        np.savez(entry, head=np.array([{}], object))
    elif damage == "other":
        np.savez(entry, head=np.frombuffer(b"[]", np.uint8))
    else:
        entry.write_bytes({"truncate": data[:99], "flip": bytes(broken), "empty": b""}[damage])
    again = folder.read()
    np.testing.assert_array_equal(again.annotations.boxes, first.annotations.boxes)
    assert coco_labels(folder.file) == first.labels
    if damage != "folder":
        assert len(entries(cache)) == 1
        unread(monkeypatch)
        folder.read()


def test_a_cache_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(folder.read().files) == 2


def test_no_home(folder, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert len(folder.read().files) == 2
    assert len(coco_labels(folder.file).names) == 2
