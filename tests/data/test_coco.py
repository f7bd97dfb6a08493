import contextlib
import copy
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from detection.data import coco_file
from detection.data.coco import coco_labels, read_coco
from detection.data.labels import LabelMap
from detection.data.records import DETECTION, SCORING, TRAINING, DataError

# Two images of 20 × 30 (height × width), ids and categories with gaps and out of order.
CONTENT = {
    "images": [
        {"id": 90, "file_name": "b.jpg", "height": 20, "width": 30},
        {"id": 7, "file_name": "a.jpg", "height": 20, "width": 30},
    ],
    "categories": [{"id": 17, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 17, "bbox": [1.5, 2, 3, 4], "area": 5.5},
        {"id": 2, "image_id": 90, "category_id": 3, "bbox": [0, 0, 30, 20], "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [5, 5, 1, 1], "iscrowd": 0},
    ],
}
LABELS = LabelMap(("cat", "dog"), (3, 17))


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


def write(folder: Path, content) -> tuple[Path, Path]:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (images / name).touch()
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "instances.json").write_text(text)
    return folder / "instances.json", images


def read(folder: Path, content, labels=None, use=TRAINING):
    return read_coco(*write(folder, content), labels, use)


def test_by_hand(tmp_path, content):
    records = read(tmp_path, content)
    annotations = records.annotations
    assert records.labels == LABELS
    assert records.root == tmp_path / "images"
    assert records.files.tolist() == ["b.jpg", "a.jpg"]
    assert annotations.image_ids.tolist() == [90, 7]
    assert annotations.sizes.tolist() == [[20, 30], [20, 30]]
    assert annotations.offsets.tolist() == [0, 1, 3]
    assert annotations.boxes.tolist() == [[0, 0, 30, 20], [1.5, 2, 4.5, 6], [5, 5, 6, 6]]
    assert annotations.labels.tolist() == [1, 2, 1]
    assert annotations.areas.tolist() == [600, 5.5, 1]
    assert annotations.crowd.tolist() == [True, False, False]
    assert annotations.difficult.tolist() == [False, False, False]
    assert records.skipped == ()


def test_images_without_annotations_stay(tmp_path, content):
    content["annotations"] = []
    annotations = read(tmp_path, content).annotations
    assert annotations.offsets.tolist() == [0, 0, 0]
    assert annotations.boxes.shape == (0, 4)


def test_annotations_may_be_missing_beside_images_and_categories(tmp_path, content):
    del content["annotations"]  # as in test-dev's image_info files
    for text in (content, json.dumps(content).replace('"cat"', '"\\ud800"')):  # fast and slow
        records = read(tmp_path, text)
        assert records.annotations.image_ids.tolist() == [90, 7]
        assert records.annotations.offsets.tolist() == [0, 0, 0]
    assert coco_labels(write(tmp_path, content)[0]) == LABELS
    del content["categories"]
    with pytest.raises(DataError, match="table 'annotations': expected a list, got nothing"):
        read(tmp_path, content)


def test_annotation_0_is_one_like_others(tmp_path, content):
    content["annotations"][0]["id"] = 0
    assert len(read(tmp_path, content).annotations.boxes) == 3


def test_boxes_over_the_border_are_clipped(tmp_path, content):
    del content["annotations"][0]["area"]
    content["annotations"][0]["bbox"] = [-5, 15, 10, 10]
    content["annotations"][2].update(bbox=[25, 5, 10, 5], area=50)
    records = read(tmp_path, content)
    assert records.annotations.boxes[1:].tolist() == [[0, 15, 5, 20], [25, 5, 30, 10]]
    assert records.annotations.areas[1:].tolist() == [25, 50]
    assert records.skipped == ()


# Over the border, outside, without a width, and one whose x + width is rounded.
GIVEN = [[-3, 5, 40, 2.5], [30, 20, 1, 1], [4, 4, 0, 3], [218.9, 52.7, 160, 18]]


@pytest.mark.parametrize("use", [DETECTION, SCORING])
@pytest.mark.parametrize("odd", [[], [{"id": "x"}]])  # in columns, and one by one
def test_boxes_for_a_metric_stay_as_they_are(tmp_path, content, use, odd):
    one = {"image_id": 7, "category_id": 3}
    content["annotations"] = [{"id": i, "bbox": box, **one} for i, box in enumerate(GIVEN)]
    content["annotations"].append({"id": 9, "bbox": [1, 1, -1, 2], **one})
    records = read(tmp_path, {**content, "annotations": content["annotations"] + odd}, use=use)
    annotations = records.annotations
    assert annotations.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in GIVEN]
    assert annotations.extents.tolist() == [box[2:] for box in GIVEN]
    assert annotations.areas.tolist() == [w * h for _, _, w, h in GIVEN]
    assert "expected no negative width and height" in records.skipped[0].reason
    assert len(records.skipped) == 1 + len(odd)
    assert read(tmp_path, content).annotations.extents is None


def test_a_box_that_overflows_is_left_out(tmp_path, content):
    content["annotations"][0]["bbox"] = [1e308, 0, 1.7e308, 1]
    records = read(tmp_path, content, use=SCORING)
    assert len(records.annotations.boxes) == 2
    assert "which is not finite" in records.skipped[0].reason


@pytest.mark.parametrize("name", ["no.jpg", "no/such.jpg", "./no.jpg"])
def test_scoring_needs_no_image_files(tmp_path, content, name):
    content["images"][1]["file_name"] = name
    records = read(tmp_path, content, use=SCORING)
    assert records.files.tolist() == ["b.jpg", os.path.normpath(name)]
    assert len(records.annotations.boxes) == 3
    assert read(tmp_path, content, use=DETECTION).files.tolist() == ["b.jpg"]
    content["images"][1]["file_name"] = "../no.jpg"
    with pytest.raises(DataError, match="leads out of"):
        read(tmp_path, content, use=SCORING)


def test_scoring_needs_no_image_folder(tmp_path, content):
    file, images = write(tmp_path, content)
    for image in images.iterdir():
        image.unlink()
    images.rmdir()
    records = read_coco(file, images, use=SCORING)
    assert records.annotations.image_ids.tolist() == [90, 7]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 8}, "image_id 8 is unknown"),
        ({"image_id": "7"}, "image_id is '7'"),
        ({"category_id": 1}, "category_id 1 is unknown"),
        ({"category_id": True}, "category_id is True"),
        ({"id": 1}, "used before"),
        ({"id": None}, "id is None"),
        ({"bbox": [1, 2, 0, 4]}, "positive width and height"),
        ({"bbox": [1, 2, 3, -4]}, "positive width and height"),
        ({"bbox": [30, 2, 3, 4]}, "outside the image of 30 × 20"),
        ({"bbox": [1, -4, 3, 4]}, "outside"),
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3]"),
        ({"bbox": None}, "bbox is None"),
        ({"bbox": [1, 2, 3, "4"]}, "bbox holds '4'"),
        ({"bbox": [1, 2, 10**400, 4]}, "finite"),
        ({"bbox": [1e308, 2, 1e308, 4]}, "not finite"),
        ({"area": -1}, "area is -1"),
        ({"area": "5"}, "area holds '5'"),
        ({"iscrowd": 2}, "iscrowd is 2"),
    ],
)
def test_unusable_annotations_are_left_out_and_counted(tmp_path, content, change, reason):
    content["annotations"][2].update(change)
    records = read(tmp_path, content)
    assert len(records.annotations.boxes) == 2
    (skipped,) = records.skipped
    assert skipped.file == str(tmp_path / "instances.json")
    identity = content["annotations"][2]["id"]
    assert skipped.record == f"annotation {identity or 'at position 3'}"
    assert reason in skipped.reason


def test_overflowing_literal_is_not_finite(tmp_path, content):
    text = json.dumps(content).replace("[5, 5, 1, 1]", "[5, 5, 1e999, 1]")
    (skipped,) = read(tmp_path, text).skipped
    assert "bbox holds inf" in skipped.reason


def test_annotation_that_is_no_object(tmp_path, content):
    content["annotations"][0] = [1]
    (skipped,) = read(tmp_path, content).skipped
    assert skipped.record == "annotation at position 1"


def test_missing_image_takes_its_annotations_along(tmp_path, content):
    content["images"][1]["file_name"] = "c.jpg"
    records = read(tmp_path, content)
    assert records.files.tolist() == ["b.jpg"]
    assert records.annotations.boxes.tolist() == [[0, 0, 30, 20]]
    (skipped,) = records.skipped
    assert skipped.record == "image 7"
    assert skipped.reason == f"{tmp_path / 'images' / 'c.jpg'}: no such file"


@pytest.mark.parametrize("height", [0, -1, 20.0, "20", None, True, 10**9, 10**400])
def test_unusable_size_leaves_the_image_out(tmp_path, content, height):
    content["images"][1]["height"] = height
    records = read(tmp_path, content)
    assert records.annotations.image_ids.tolist() == [90]
    (skipped,) = records.skipped
    assert skipped.record == "image 7"


def test_nothing_usable(tmp_path, content):
    for image in content["images"]:
        image["file_name"] = "missing/" + image["file_name"]
    with pytest.raises(DataError, match=r"none of 2 images can be used, first image 90: .*b\.jpg"):
        read(tmp_path, content)
    content["images"] = []
    with pytest.raises(DataError, match="none of 0 images"):
        read(tmp_path, content)


def test_broken_json_is_said_before_missing_images(tmp_path, content, monkeypatch):
    monkeypatch.setattr(coco_file, "LONG", 0)
    for image in content["images"]:
        image["file_name"] = "missing/" + image["file_name"]
    content["annotations"] *= 3
    text = json.dumps(content).replace('"area"', "area", 2)
    with pytest.raises(DataError, match=r"instances\.json: not JSON: "):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["sub/../a.jpg", "./a.jpg"])
def test_file_names_are_normalised(tmp_path, content, name):
    content["images"][1]["file_name"] = name
    assert read(tmp_path, content).files.tolist() == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../instances.json", "sub/../../instances.json", "../images_2/a.jpg"]
)
def test_file_names_that_leave_the_root(tmp_path, content, name):
    content["images"][1]["file_name"] = name
    with pytest.raises(DataError, match=r"instances\.json: image 7: .* leads out of"):
        read(tmp_path, content)


def test_absolute_name_cannot_leave_by_way_of_the_root(tmp_path, content):
    content["images"][1]["file_name"] = f"{tmp_path}/images/../instances.json"
    with pytest.raises(DataError, match="leads out of"):
        read(tmp_path, content)


def test_images_may_be_links_out_of_the_root(tmp_path, content):
    content["images"][1]["file_name"] = "link.jpg"
    file, images = write(tmp_path, content)
    (tmp_path / "elsewhere.jpg").touch()
    (images / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert read_coco(file, images).path(1) == images / "link.jpg"


def test_root_may_be_a_link(tmp_path, content):
    file, images = write(tmp_path, content)
    (tmp_path / "link").symlink_to(images)
    assert read_coco(file, tmp_path / "link").path(0) == tmp_path / "link" / "b.jpg"


@pytest.mark.parametrize("name", [None, 5, "a\0.jpg", "\ud800.jpg"])
def test_file_names_that_are_no_paths(tmp_path, content, name):
    content["images"][1]["file_name"] = name
    with pytest.raises(DataError, match=r"image 7: file_name is .*, expected a relative path"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("identity", "reason"),
    [(90, "image 90: the id is used before"), ("7", "image '7': id is '7'"), (2**53, "id is 9007")],
)
def test_image_ids_must_be_unique_integers(tmp_path, content, identity, reason):
    content["images"][1]["id"] = identity
    with pytest.raises(DataError, match=reason):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"images": [NaN]}', "constant NaN"),
        ('{"images": [-Infinity]}', "constant -Infinity"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object with tables, got a list"),
        ('{"images": {}}', "table 'images': expected a list, got dict"),
        ('{"images": []}', "table 'annotations': expected a list, got nothing"),
        ('{"images": [], "annotations": [], "categories": 5}', "table 'categories'.*got int"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
    ],
)
def test_files_that_are_no_such_json(tmp_path, text, reason):
    file, images = write(tmp_path, text)
    with pytest.raises(DataError, match=rf"instances\.json: .*{reason}"):
        read_coco(file, images)
    with pytest.raises(DataError, match=reason):
        coco_labels(file)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: No such file"):
        read_coco(tmp_path / "none.json", tmp_path)


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ({"id": 17, "name": "cow"}, "category 17: id 17 or name 'cow' is used before"),
        ({"id": 4, "name": "dog"}, "category 4: id 4 or name 'dog' is used before"),
        ({"id": "4", "name": "cow"}, "category '4': id is '4'"),
        ({"id": 4}, "category 4: name is None"),
        ("cow", "category at position 3: id is None"),
    ],
)
def test_categories_must_be_unique(tmp_path, content, category, reason):
    content["categories"].append(category)
    with pytest.raises(DataError, match=reason):
        coco_labels(write(tmp_path, content)[0])


def test_labels_given(tmp_path, content):
    assert coco_labels(write(tmp_path, content)[0]) == LABELS
    assert read(tmp_path, content, LABELS).labels == LABELS


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (LabelMap(("cat",), (3,)), r"missing none, not expected \[\(17, 'dog'\)\]"),
        (LabelMap(("cat", "cow"), (3, 17)), r"missing \[\(17, 'cow'\)\], not expected \[\(17, 'd"),
        (LabelMap(("dog", "cat"), (17, 3)), "categories in another order"),
    ],
)
def test_labels_that_differ(tmp_path, content, labels, reason):
    with pytest.raises(DataError, match=reason):
        read(tmp_path, content, labels)


@pytest.fixture
def data() -> Path:
    if "RESDET_DATA" not in os.environ:
        pytest.skip("RESDET_DATA is not set")
    return Path(os.environ["RESDET_DATA"])


@pytest.mark.parametrize(
    ("split", "objects", "crowds"), [("train2017", 705, 6), ("val2017", 815, 11)]
)
def test_real_coco_agrees_with_pycocotools(data, split, objects, crowds):
    pycocotools = pytest.importorskip("pycocotools.coco")
    file = data / "coco_tiny" / "annotations" / f"instances_{split}.json"
    records = read_coco(file, data / "coco_tiny" / split)
    annotations = records.annotations
    assert records.skipped == ()
    assert (len(annotations.boxes), annotations.crowd.sum()) == (objects, crowds)
    with contextlib.redirect_stdout(io.StringIO()):
        peer = pycocotools.COCO(str(file))
    assert records.labels.ids == tuple(sorted(peer.getCatIds()))
    assert records.labels.names == tuple(
        entry["name"] for entry in peer.loadCats(records.labels.ids)
    )
    assert sorted(annotations.image_ids) == sorted(peer.getImgIds())
    for index, image_id in enumerate(annotations.image_ids):
        image = peer.loadImgs(int(image_id))[0]
        height, width = image["height"], image["width"]
        assert records.files[index] == image["file_name"]
        assert annotations.sizes[index].tolist() == [height, width]
        rows = slice(*annotations.offsets[index : index + 2])
        entries = peer.loadAnns(peer.getAnnIds(int(image_id)))
        boxes = np.array([entry["bbox"] for entry in entries], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(
            annotations.boxes[rows], boxes.clip(0, [width, height, width, height])
        )
        np.testing.assert_allclose(annotations.boxes[rows], boxes, rtol=0, atol=0.01)
        ids = [records.labels.ids[label - 1] for label in annotations.labels[rows]]
        assert ids == [entry["category_id"] for entry in entries]
        assert annotations.areas[rows].tolist() == [entry["area"] for entry in entries]
        assert annotations.crowd[rows].tolist() == [entry["iscrowd"] for entry in entries]
