import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.data.coco import read_coco
from detection.data.folder import concatenate, folder_labels, read_folder
from detection.data.labels import LabelMap
from detection.data.records import DataError, ImageRow, ObjectRow, Skipped, pack
from detection.data.voc import read_voc


def voc(root: Path, classes: dict[str, str], **splits: str) -> Path:
    """Writes a VOC folder: one 30 × 20 image with one object for each name in ``classes``."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name, label in classes.items():
        Image.new("RGB", (30, 20)).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><object><name>{label}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    for split, lines in splits.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
    return root


def coco(file: Path, image: Path, image_id: int = 5, category: int = 3) -> None:
    """Writes a COCO file of one 30 × 20 image with one object."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.parent.mkdir(parents=True, exist_ok=True)
    image.touch()
    content = {
        "images": [{"id": image_id, "file_name": image.name, "height": 20, "width": 30}],
        "annotations": [
            {"id": 1, "image_id": image_id, "category_id": category, "bbox": [1, 2, 3, 4]}
        ],
        "categories": [{"id": category, "name": "cat"}],
    }
    file.write_text(json.dumps(content))


def assert_same(left, right) -> None:
    assert (left.root, left.labels, left.skipped) == (right.root, right.labels, right.skipped)
    np.testing.assert_array_equal(left.files, right.files)
    for one, other in zip(left.annotations, right.annotations, strict=True):
        np.testing.assert_array_equal(one, other)


class TestVoc:
    def test_split_of_the_root(self, tmp_path):
        voc(tmp_path, {"1": "dog", "2": "cat"}, train="1", val="2")
        assert_same(read_folder(tmp_path, "train"), read_voc(tmp_path, "train"))
        assert folder_labels(tmp_path, "val").names == ("cat", "dog")

    def test_split_of_a_folder_below(self, tmp_path):
        voc(tmp_path / "VOC2007", {"000001": "dog"}, test="000001")
        records = read_folder(tmp_path, "VOC2007/test")
        assert_same(records, read_voc(tmp_path / "VOC2007", "test"))

    def test_union_of_two_years(self, tmp_path):
        voc(tmp_path / "VOC2007", {"000001": "dog", "000002": "ant"}, trainval="000001")
        voc(tmp_path / "VOC2012", {"2008_000003": "cat"}, trainval="2008_000003")
        split = "VOC2007/trainval+VOC2012/trainval"
        records = read_folder(tmp_path, split)
        assert folder_labels(tmp_path, split) == records.labels
        assert records.labels == LabelMap(("ant", "cat", "dog"), (1, 2, 3))
        assert records.annotations.labels.tolist() == [3, 2]
        assert records.annotations.image_ids.tolist() == [1, 2008000003]
        assert records.annotations.offsets.tolist() == [0, 1, 2]
        assert records.files.tolist() == [
            "VOC2007/JPEGImages/000001.jpg",
            "VOC2012/JPEGImages/2008_000003.jpg",
        ]
        assert all(records.path(index).is_file() for index in range(2))

    def test_labels_given_hold_for_every_part(self, tmp_path):
        voc(tmp_path / "A", {"1": "dog"}, train="1")
        voc(tmp_path / "B", {"2": "cat"}, train="2")
        labels = LabelMap.from_names(["dog", "cat"])
        records = read_folder(tmp_path, "A/train + B/train", labels)
        assert records.annotations.labels.tolist() == [1, 2]
        with pytest.raises(DataError, match=r"2\.xml: object 1: unknown class 'cat'"):
            read_folder(tmp_path, "A/train+B/train", LabelMap.from_names(["dog"]))

    def test_overlapping_splits(self, tmp_path):
        voc(tmp_path, {"1": "dog", "2": "dog"}, train="1", trainval="1\n2")
        with pytest.raises(DataError, match=r"JPEGImages/1\.jpg: the image is in several splits"):
            read_folder(tmp_path, "train+trainval")


class TestCoco:
    @pytest.mark.parametrize("file", ["instances_val.json", "val.json"])
    @pytest.mark.parametrize("images", ["val", "images/val", "images", "."])
    def test_layouts(self, tmp_path, file, images):
        coco(tmp_path / "annotations" / file, tmp_path / images / "a.jpg")
        records = read_folder(tmp_path, "val")
        assert_same(
            records, read_coco(tmp_path / "annotations" / file, (tmp_path / images).absolute())
        )
        assert folder_labels(tmp_path, "val") == LabelMap(("cat",), (3,))

    def test_images_without_ground_truth(self, tmp_path):
        file = tmp_path / "annotations" / "image_info_test-dev2017.json"
        coco(file, tmp_path / "test2017" / "a.jpg")
        content = json.loads(file.read_text())
        del content["annotations"]
        content["images"][0]["file_name"] = "test2017/a.jpg"
        file.write_text(json.dumps(content))
        records = read_folder(tmp_path, "test-dev2017")
        assert records.annotations.offsets.tolist() == [0, 0]
        assert records.path(0).is_file()

    def test_union(self, tmp_path):
        coco(tmp_path / "annotations" / "train.json", tmp_path / "train" / "a.jpg", image_id=5)
        coco(tmp_path / "annotations" / "val.json", tmp_path / "val" / "a.jpg", image_id=9)
        records = read_folder(tmp_path, "train+val")
        assert records.files.tolist() == ["train/a.jpg", "val/a.jpg"]
        assert records.annotations.image_ids.tolist() == [5, 9]
        assert records.labels == folder_labels(tmp_path, "train+val")

    def test_union_of_different_categories(self, tmp_path):
        coco(tmp_path / "annotations" / "train.json", tmp_path / "train" / "a.jpg", category=3)
        coco(tmp_path / "annotations" / "val.json", tmp_path / "val" / "a.jpg", category=4)
        with pytest.raises(DataError, match=r"val\.json: categories differ"):
            read_folder(tmp_path, "train+val")
        with pytest.raises(DataError, match=r"val\.json: its categories are not those of .*train"):
            folder_labels(tmp_path, "train+val")

    def test_labels_given_that_differ(self, tmp_path):
        coco(tmp_path / "annotations" / "val.json", tmp_path / "a.jpg")
        with pytest.raises(DataError, match="categories differ"):
            read_folder(tmp_path, "val", LabelMap.from_names(["cat"]))


@pytest.mark.parametrize("read", [read_folder, folder_labels])
class TestRefusals:
    def test_neither_layout(self, tmp_path, read):
        with pytest.raises(
            DataError,
            match=r"neither VOC's .*Annotations/ and ImageSets/.* COCO's "
            r".*annotations/instances_val\.json, annotations/val\.json, .*image_info_val\.json",
        ):
            read(tmp_path, "val")

    def test_mixed_layouts(self, tmp_path, read):
        voc(tmp_path / "A", {"1": "cat"}, val="1")
        coco(tmp_path / "B" / "annotations" / "val.json", tmp_path / "B" / "a.jpg")
        with pytest.raises(DataError, match="mixes VOC and COCO"):
            read(tmp_path, "A/val+B/val")

    @pytest.mark.parametrize("split", ["", "val+", "A/"])
    def test_split_without_a_name(self, tmp_path, read, split):
        voc(tmp_path, {"1": "cat"}, val="1")
        with pytest.raises(DataError, match="has no name"):
            read(tmp_path, split)


def records_of(root: Path, ids: list[int], names=("cat",), skipped=()):
    rows = [
        ImageRow(f"{value}.jpg", value, (20, 30), [ObjectRow((0, 0, value, 1), 1, value)] * value)
        for value in ids
    ]
    return pack(root, rows, LabelMap.from_names(names), list(skipped))


class TestConcatenate:
    def test_one_is_returned_as_it_is(self, tmp_path):
        records = records_of(tmp_path, [1, 2])
        assert concatenate([records]) is records

    def test_boxes_stay_with_their_images(self, tmp_path):
        entry = Skipped("x", "image", "y")
        joined = concatenate(
            [records_of(tmp_path / "a", [2, 0]), records_of(tmp_path / "b", [3], skipped=[entry])]
        )
        annotations = joined.annotations
        assert annotations.image_ids.tolist() == [2, 0, 3]
        assert annotations.offsets.tolist() == [0, 2, 2, 5]
        assert annotations.offsets.dtype == np.int64
        assert annotations.boxes[:, 2].tolist() == [2, 2, 3, 3, 3]
        assert joined.root == tmp_path
        assert joined.files.tolist() == ["a/2.jpg", "a/0.jpg", "b/3.jpg"]
        assert joined.skipped == (entry,)

    def test_clashing_ids_are_renumbered_by_position(self, tmp_path):
        joined = concatenate([records_of(tmp_path / "a", [7, 2]), records_of(tmp_path / "b", [2])])
        assert joined.annotations.image_ids.tolist() == [1, 2, 3]

    def test_different_labels(self, tmp_path):
        with pytest.raises(DataError, match="labels are not those of"):
            concatenate([records_of(tmp_path, [1]), records_of(tmp_path, [2], names=("dog",))])

    def test_nothing(self):
        with pytest.raises(DataError, match="no records"):
            concatenate([])


def test_real_unions():
    if "RESDET_DATA" not in os.environ:
        pytest.skip("RESDET_DATA is not set")
    data = Path(os.environ["RESDET_DATA"])
    records = read_folder(data / "coco_tiny", "train2017+val2017")
    assert (len(records.files), len(records.annotations.boxes)) == (160, 705 + 815)
    records = read_folder(data / "VOCdevkit", "VOC2012/train+VOC2012/val")
    assert (len(records.files), len(records.annotations.boxes)) == (720, 1581)
    assert records.path(719).is_file()
