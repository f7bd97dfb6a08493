import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image

from detection.data.labels import LabelMap
from detection.data.records import DETECTION, SCORING, DataError
from detection.data.voc import read_voc, voc_labels

LABELS = LabelMap.from_names(["cat", "dog"])


def an_object(box=(3, 4, 10, 12), name="cat", extra="") -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bndbox = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    return f"<object><name>{name}</name>{extra}<bndbox>{bndbox}</bndbox></object>"


def an_annotation(*objects: str, size=(30, 20)) -> str:
    size_xml = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{size_xml}{''.join(objects)}</annotation>"


class Folder:
    """Writes a folder in VOC's layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / name).mkdir(parents=True)

    def add(self, name: str, xml: str | bytes | None, image: str | None = ".jpg") -> None:
        if xml is not None:
            content = xml.encode() if isinstance(xml, str) else xml
            (self.root / "Annotations" / f"{name}.xml").write_bytes(content)
        if image is not None:
            Image.new("RGB", (30, 20)).save(self.root / "JPEGImages" / f"{name}{image}")

    def split(self, lines: str, name: str = "train") -> None:
        (self.root / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


def read_one(folder: Folder, *objects: str, size=(30, 20)):
    folder.add("000012", an_annotation(*objects, size=size))
    folder.split("000012\n")
    return read_voc(folder.root, "train", LABELS)


def test_boxes_for_a_metric_stay_as_they_are(folder):
    given = [(-2, 1, 40, 9), (5, 5, 5, 9), (31, 2, 33, 4)]
    objects = [an_object(box) for box in given]
    folder.add("000012", an_annotation(*objects, an_object((9, 9, 8, 9))))
    folder.add("000013", an_annotation(an_object()), image=None)
    folder.split("000012\n000013\n")
    for use, images in ((DETECTION, 1), (SCORING, 2)):
        records = read_voc(folder.root, "train", LABELS, use)
        assert records.files.tolist() == ["JPEGImages/000012.jpg", "JPEGImages/000013.jpg"][:images]
        boxes = records.annotations.boxes[:3].tolist()
        assert boxes == [[x1 - 1, y1 - 1, x2, y2] for x1, y1, x2, y2 in given]
        assert "is empty or reversed" in records.skipped[0].reason
        assert len(records.skipped) == 3 - images


def test_the_plus_one_rule_by_hand(folder):
    # 1-based and inclusive: columns 3…10 are 8 pixels, [2, 10); rows 4…12 are 9, [3, 12).
    annotations = read_one(folder, an_object((3, 4, 10, 12))).annotations
    assert annotations.boxes.tolist() == [[2.0, 3.0, 10.0, 12.0]]
    assert annotations.areas.tolist() == [72.0]


def test_the_whole_image_by_hand(folder):
    annotations = read_one(folder, an_object((1, 1, 30, 20))).annotations
    assert annotations.boxes.tolist() == [[0.0, 0.0, 30.0, 20.0]]
    assert annotations.sizes.tolist() == [[20, 30]]


def test_an_image_without_objects_stays(folder):
    records = read_one(folder)
    assert records.annotations.boxes.shape == (0, 4)
    assert records.annotations.offsets.tolist() == [0, 0]
    assert records.skipped == ()


def test_fields_of_objects(folder):
    records = read_one(
        folder,
        an_object(name="dog", extra="<difficult>1</difficult>"),
        an_object((45.3 - 40, " 2 ", "1.5e1", 12), extra="<difficult>0</difficult>"),
        an_object(extra="<part><name>head</name><bndbox><xmin>5</xmin></bndbox></part>"),
    )
    annotations = records.annotations
    assert annotations.labels.tolist() == [2, 1, 1]
    assert annotations.difficult.tolist() == [True, False, False]
    assert annotations.crowd.tolist() == [False, False, False]
    np.testing.assert_allclose(annotations.boxes[1], [4.3, 1, 15, 12])
    assert records.root == folder.root
    assert records.files.tolist() == ["JPEGImages/000012.jpg"]
    assert records.path(0).is_file()


def test_boxes_over_the_border_are_clipped(folder):
    records = read_one(folder, an_object((0, -5, 35, 21)))
    assert records.annotations.boxes.tolist() == [[0, 0, 30, 20]]
    assert records.annotations.areas.tolist() == [600]
    assert records.skipped == ()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (an_object((5, 4, 5, 12)), "empty"),
        (an_object((5, 12, 10, 4)), "reversed"),
        (an_object((31, 4, 40, 12)), "outside"),
        (an_object((-9, 4, 0, 12)), "outside"),
        (an_object(("nan", 4, 10, 12)), "xmin is 'nan'"),
        (an_object((3, "inf", 10, 12)), "ymin is 'inf'"),
        (an_object((3, 4, "1e999", 12)), "xmax is '1e999'"),
        (an_object((3, 4, "1_0", 12)), "xmax is '1_0'"),
        (an_object((3, 4, "١٠", 12)), "xmax is '١٠'"),
        (an_object((3, 4, 10, "")), "ymax is ''"),
        ("<object><name>cat</name></object>", "xmin is ''"),
        (an_object(name=" "), "no name"),
        (an_object(extra="<difficult>maybe</difficult>"), "difficult is 'maybe'"),
    ],
)
def test_unusable_objects_are_left_out_and_counted(folder, bad, reason):
    records = read_one(folder, an_object(), bad, an_object())
    assert len(records.annotations.boxes) == 2
    (skipped,) = records.skipped
    assert skipped.file == str(folder.root / "Annotations" / "000012.xml")
    assert skipped.record == "object 2"
    assert reason in skipped.reason


def test_unknown_class(folder):
    with pytest.raises(DataError, match=r"000012\.xml: object 2: .*'cow'.*one of cat, dog"):
        read_one(folder, an_object(), an_object(name="cow"))


@pytest.mark.parametrize(
    "xml",
    [
        None,
        "",
        "<annotation><object>",
        "<html/>",
        '<?xml version="1.0" encoding="no-such"?><annotation/>',
        '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        b"\xff\xfe\x00",
        b"<annotation>" + b" " * 2**24 + b"</annotation>",
    ],
)
def test_unreadable_xml_leaves_the_image_out(folder, xml):
    folder.add("000001", an_annotation(an_object()))
    folder.add("000002", xml)
    folder.split("000002\n000001\n")
    records = read_voc(folder.root, "train")
    assert records.files.tolist() == ["JPEGImages/000001.jpg"]
    assert records.annotations.image_ids.tolist() == [1]
    (skipped,) = records.skipped
    assert skipped.file.endswith("000002.xml")
    assert skipped.record == "image"


def test_missing_image_leaves_the_image_out(folder):
    folder.add("000001", an_annotation(an_object()))
    folder.add("000002", an_annotation(an_object()), image=None)
    folder.split("000001\n000002\n../000001\n")
    records = read_voc(folder.root, "train", LABELS)
    assert len(records.files) == 1
    assert [entry.record for entry in records.skipped] == ["image", "image"]
    assert "no image 000002 in" in records.skipped[0].reason


def test_a_test_set_without_annotations(folder):
    folder.add("2008_000001", None)
    folder.add("2008_000002", None, image=None)
    folder.add("2008_000003", None)
    (folder.root / "JPEGImages" / "2008_000003.jpg").write_bytes(b"broken")
    folder.split("2008_000001\n2008_000002\n2008_000003\n", "test")
    records = read_voc(folder.root, "test", LABELS)
    assert records.annotations.image_ids.tolist() == [2008000001]
    assert records.annotations.sizes.tolist() == [[20, 30]]
    assert len(records.annotations.boxes) == 0
    assert "no image 2008_000002 in" in records.skipped[0].reason
    assert "2008_000003.jpg" in records.skipped[1].reason
    # One XML file, and the others are missing.
    folder.add("2008_000004", an_annotation(an_object()))
    folder.split("2008_000001\n2008_000004\n", "test")
    records = read_voc(folder.root, "test", LABELS)
    assert records.annotations.image_ids.tolist() == [2008000004]
    assert len(records.skipped) == 1


def test_nothing_usable(folder):
    folder.add("000001", "<annotation>")
    folder.add("000002", an_annotation(), image=None)
    folder.split("000001\n000002\n")
    with pytest.raises(DataError, match=r"train\.txt: none of 2 images .*000001\.xml: not well"):
        read_voc(folder.root, "train", LABELS)


@pytest.mark.parametrize("size", [None, (0, 0), (30, 0), ("a", "b"), (10**8, 10**8), (-30, 20)])
def test_size_comes_from_the_image_where_the_xml_has_none(folder, size):
    records = read_one(folder, an_object((1, 1, 30, 20)), size=size)
    assert records.annotations.sizes.tolist() == [[20, 30]]


def test_size_from_the_image_is_upright(folder):
    folder.add("000012", an_annotation(size=None))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 20)).save(folder.root / "JPEGImages" / "000012.jpg", exif=exif)
    folder.split("000012")
    assert read_voc(folder.root, "train", LABELS).annotations.sizes.tolist() == [[30, 20]]


def test_no_size_anywhere(folder):
    folder.add("1", an_annotation())
    folder.add("2", an_annotation(size=None))
    (folder.root / "JPEGImages" / "2.jpg").write_text("no image")
    folder.split("1\n2\n")
    (skipped,) = read_voc(folder.root, "train", LABELS).skipped
    assert "2.jpg: not an image" in skipped.reason


@pytest.mark.parametrize("extension", [".jpeg", ".png", ".JPG"])
def test_image_extensions(folder, extension):
    folder.add("1", an_annotation(), image=extension)
    folder.split("1")
    assert read_voc(folder.root, "train", LABELS).files.tolist() == [f"JPEGImages/1{extension}"]


def test_jpg_comes_first(folder):
    folder.add("1", an_annotation(), image=".png")
    folder.add("1", an_annotation(), image=".jpg")
    folder.split("1")
    assert read_voc(folder.root, "train", LABELS).files.tolist() == ["JPEGImages/1.jpg"]


class TestSplits:
    def test_extra_column_and_blank_lines(self, folder):
        for name in ("000001", "000002", "000003"):
            folder.add(name, an_annotation())
        folder.split("\ufeff000003 -1\n\n000001  1\r\n  000002  0  \n\n")
        assert read_voc(folder.root, "train", LABELS).annotations.image_ids.tolist() == [3, 1, 2]

    def test_names_with_spaces(self, folder):
        folder.add("my photo 12", an_annotation())
        folder.split("my photo 12\n")
        assert len(read_voc(folder.root, "train", LABELS).files) == 1

    @pytest.mark.parametrize("absent", ["", "Annotations", "JPEGImages"])
    def test_names_that_end_like_a_flag(self, folder, absent):
        for name in ("photo 0", "photo 1", "photo"):
            folder.add(name, an_annotation())
        folder.split("photo 1\nphoto 0 1\nphoto -1\n")
        if absent:
            shutil.rmtree(folder.root / absent)
        found = read_voc(folder.root, "train", LABELS, SCORING)
        assert [Path(file).stem for file in found.files] == ["photo 1", "photo 0", "photo"]

    def test_missing_names_the_others(self, folder):
        folder.split("a", "val")
        folder.split("a", "test")
        with pytest.raises(DataError, match=r"train\.txt: .* there are: test, val"):
            read_voc(folder.root, "train", LABELS)

    @pytest.mark.parametrize("lines", ["", "\n \n"])
    def test_empty(self, folder, lines):
        folder.split(lines)
        with pytest.raises(DataError, match=r"train\.txt: the split is empty"):
            read_voc(folder.root, "train", LABELS)

    def test_repeated_name(self, folder):
        folder.split("000001\n000002\n000001 -1\n")
        with pytest.raises(DataError, match=r"train\.txt: 000001 is listed twice"):
            read_voc(folder.root, "train", LABELS)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["2007_000027", "2008_000002"], [2007000027, 2008000002]),
        (["000012", "000007"], [12, 7]),
        (["BloodImage_00338", "BloodImage_00000"], [338, 0]),
        (["a1", "b1"], [1, 2]),
        (["x7", "nothing"], [1, 2]),
        (["x7", "9007199254740992"], [1, 2]),
        (["x7", "000000000000000009007199254740991"], [7, 2**53 - 1]),
        (["x٣", "x5"], [1, 2]),
    ],
)
def test_image_ids(folder, names, ids):
    for name in names:
        folder.add(name, an_annotation())
    folder.split("\n".join(names))
    assert read_voc(folder.root, "train", LABELS).annotations.image_ids.tolist() == ids


def test_image_ids_do_not_move_when_an_image_is_left_out(folder):
    folder.add("a", None)
    folder.add("b", an_annotation())
    folder.split("a\nb\n")
    assert read_voc(folder.root, "train", LABELS).annotations.image_ids.tolist() == [2]


def test_labels_are_those_of_all_splits(folder):
    folder.add("1", an_annotation(an_object(name="zebra")))
    folder.add("2", an_annotation(an_object(name="ant"), an_object(name=" cat ")))
    folder.add("3", "broken")
    folder.split("1")
    folder.split("2", "val")
    names = ("ant", "cat", "zebra")
    assert voc_labels(folder.root) == LabelMap(names, (1, 2, 3))
    assert read_voc(folder.root, "train").labels.names == names
    assert read_voc(folder.root, "val").annotations.labels.tolist() == [1, 2]


def test_labels_of_a_folder_without_objects(folder):
    folder.add("1", an_annotation())
    with pytest.raises(DataError, match="Annotations: no XML file with a named object"):
        voc_labels(folder.root)


@pytest.fixture
def data() -> Path:
    if "RESDET_DATA" not in os.environ:
        pytest.skip("RESDET_DATA is not set")
    return Path(os.environ["RESDET_DATA"])


@pytest.mark.parametrize(("split", "images"), [("train", 480), ("val", 240), ("trainval", 720)])
def test_real_voc_agrees_with_a_naive_reading(data, split, images):
    root = data / "VOCdevkit" / "VOC2012"
    records = read_voc(root, split)
    annotations = records.annotations
    assert len(records.files) == images
    assert records.skipped == ()
    for index, file in enumerate(records.files):
        with Image.open(root / file) as image:
            assert tuple(annotations.sizes[index]) == (image.height, image.width)
        xml = ElementTree.parse(root / "Annotations" / f"{Path(file).stem}.xml").getroot()
        first, last = annotations.offsets[index : index + 2]
        objects = xml.findall("object")
        assert last - first == len(objects)
        for row, element in zip(range(first, last), objects, strict=True):
            xmin, ymin, xmax, ymax = (
                float(element.find("bndbox").find(corner).text)
                for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            assert annotations.boxes[row].tolist() == [xmin - 1, ymin - 1, xmax, ymax]
            assert annotations.difficult[row] == (element.find("difficult").text == "1")
            name = records.labels.names[annotations.labels[row] - 1]
            assert name == element.find("name").text


def test_real_voc_figures(data):
    annotations = read_voc(data / "VOCdevkit" / "VOC2012", "trainval").annotations
    assert (len(annotations.boxes), annotations.difficult.sum()) == (1581, 232)
    assert annotations.image_ids[0] == 2008000008


def test_bccd_leaves_out_the_two_boxes_without_area(data):
    counts, skipped, total = [], [], np.zeros(4, int)
    for split in ("train", "val", "test"):
        records = read_voc(data / "bccd", split)
        assert records.labels.names == ("Platelets", "RBC", "WBC")
        counts.append(len(records.files))
        skipped += records.skipped
        total += np.bincount(records.annotations.labels, minlength=4)
    assert counts == [205, 87, 72]
    assert total.tolist() == [0, 361, 4155 - 2, 372]
    assert {(Path(entry.file).name, entry.record) for entry in skipped} == {
        ("BloodImage_00338.xml", "object 13"),
        ("BloodImage_00343.xml", "object 4"),
    }
