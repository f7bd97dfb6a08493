from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.data.labels import LabelMap
from detection.data.localization import image_labels, localization_labels, read_localization
from detection.data.records import DataError

ANNOTATIONS, IMAGES = Path("Annotations/CLS-LOC"), Path("Data/CLS-LOC")


def an_object(name: str, box: tuple[float, ...] = (3, 4, 10, 12)) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bndbox = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    return f"<object><name>{name}</name><bndbox>{bndbox}</bndbox></object>"


def add(
    image: Path | None, xml: Path | None, *objects: str, size: tuple[int, int] = (20, 30)
) -> None:
    """Writes an image of 20 x 30 pixels, and an XML file that states ``size``."""
    if image:
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(image, format="JPEG")
    if xml:
        xml.parent.mkdir(parents=True, exist_ok=True)
        height, width = size
        text = f"<size><width>{width}</width><height>{height}</height></size>{''.join(objects)}"
        xml.write_text(f"<annotation>{text}</annotation>")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two classes, of which one has two images, one of these with two boxes."""
    for split in ("train", "val"):
        for name, stem, count in (("dog", "a", 1), ("cat", "b", 2), ("cat", "a", 1)):
            path = tmp_path / split / name / stem
            boxes = [an_object(name, (1 + i, 1, 10, 10)) for i in range(count)]
            add(path.with_suffix(".jpg"), path.with_suffix(".xml"), *boxes)
    return tmp_path


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Path:
    """Train in folders of classes, val in one."""
    for name in ("n02", "n01"):
        stem = Path("train", name, f"{name}_7")
        add(
            tmp_path / IMAGES / stem.with_suffix(".JPEG"),
            tmp_path / ANNOTATIONS / stem.with_suffix(".xml"),
            an_object(name),
        )
        stem = Path("val", f"ILSVRC2012_val_{name}")
        add(
            tmp_path / IMAGES / stem.with_suffix(".JPEG"),
            tmp_path / ANNOTATIONS / stem.with_suffix(".xml"),
            an_object(name),
        )
    return tmp_path


def test_a_plain_folder_by_hand(plain: Path):
    records = read_localization(plain, "train")
    assert records.labels == LabelMap(("cat", "dog"), (1, 2))
    assert records.files.tolist() == ["train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg"]
    assert image_labels(records).tolist() == [1, 1, 2]
    assert records.annotations.offsets.tolist() == [0, 1, 3, 4]
    # The +1 rule is VOC's reader's.
    assert records.annotations.boxes[1:3].tolist() == [[0, 0, 10, 10], [1, 0, 10, 10]]
    assert records.annotations.image_ids.tolist() == [1, 2, 3]
    assert records.skipped == ()


def test_ilsvrc_by_hand(ilsvrc: Path):
    train, val = (read_localization(ilsvrc, split) for split in ("train", "val"))
    assert train.labels == val.labels == LabelMap.from_names(["n01", "n02"])
    assert train.files.tolist() == [f"Data/CLS-LOC/train/{n}/{n}_7.JPEG" for n in ("n01", "n02")]
    assert val.files.tolist() == [
        f"Data/CLS-LOC/val/ILSVRC2012_val_{n}.JPEG" for n in ("n01", "n02")
    ]
    assert all(val.path(index).is_file() for index in range(2))
    assert image_labels(train).tolist() == image_labels(val).tolist() == [1, 2]
    assert val.annotations.boxes.tolist() == [[2, 3, 10, 12]] * 2


def test_the_classes_come_from_val_where_there_is_no_train(ilsvrc: Path, tmp_path: Path):
    (ilsvrc / ANNOTATIONS / "train").rename(tmp_path / "elsewhere")
    assert localization_labels(ilsvrc).names == ("n01", "n02")


def test_the_progress_is_watched(plain: Path):
    seen = []

    def watch(entries):
        seen.append(len(entries))
        return iter(entries)

    read_localization(plain, "val", watch=watch)
    assert seen == [3]


def test_boxes_in_the_size_that_the_annotators_saw(plain: Path):
    # Twice as large; the corners are halved after the +1 rule: (2, 4) is (1, 3) from 0.
    path = plain / "train" / "dog" / "a.xml"
    add(None, path, an_object("dog", (2, 4, 20, 40)), size=(40, 60))
    records = read_localization(plain, "train")
    assert records.annotations.sizes.tolist() == [[20, 30]] * 3
    assert records.annotations.boxes[-1].tolist() == [0.5, 1.5, 10, 20]
    assert records.annotations.areas[-1] == 9.5 * 18.5


def test_a_size_of_other_proportions_is_no_scale(plain: Path):
    add(None, plain / "train" / "dog" / "a.xml", an_object("dog"), size=(30, 20))
    records = read_localization(plain, "train")
    assert len(records.files) == 2
    (skipped,) = records.skipped
    assert "(30, 20) in the XML file and (20, 30) in the image differ" in skipped.reason


def test_objects_of_other_classes_are_left_out_and_counted(plain: Path):
    path = plain / "train" / "dog" / "a.xml"
    add(None, path, an_object("cat"), an_object("dog"), an_object("person"))
    records = read_localization(plain, "train")
    assert image_labels(records).tolist() == [1, 1, 2]
    assert records.annotations.offsets[-1] == 4
    reasons = [(one.file, one.record, one.reason) for one in records.skipped]
    assert reasons == [
        (str(path), "object 1", "its class is 'cat', expected dog"),
        (str(path), "object 3", "its class is 'person', expected dog"),
    ]


def test_a_name_that_is_no_class_stands_for_the_folders_in_ilsvrc(ilsvrc: Path):
    path = ilsvrc / ANNOTATIONS / "train" / "n01" / "n01_7.xml"
    add(None, path, an_object("Scottish_deerhound"), an_object("n02"))
    records = read_localization(ilsvrc, "train")
    assert image_labels(records).tolist() == [1, 2]
    (skipped,) = records.skipped
    assert skipped.reason == "its class is 'n02', expected n01"
    # Where no folder says what it is, it is left out.
    add(
        None,
        ilsvrc / ANNOTATIONS / "val" / "ILSVRC2012_val_n01.xml",
        an_object("Scottish_deerhound"),
    )
    records = read_localization(ilsvrc, "val", localization_labels(ilsvrc))
    assert image_labels(records).tolist() == [2]


def test_several_classes_and_no_folder(ilsvrc: Path):
    path = ilsvrc / ANNOTATIONS / "val" / "ILSVRC2012_val_n01.xml"
    add(None, path, an_object("n01"), an_object("n02"))
    (skipped,) = read_localization(ilsvrc, "val").skipped
    assert skipped.file == str(path)
    assert "several classes" in skipped.reason


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ((), "there are no objects"),
        ((an_object("cat"),), "its class is 'cat', expected dog"),
        ((an_object("dog", (5, 4, 5, 12)),), "empty"),
        ((an_object("dog", ("nan", 4, 5, 12)),), "xmin is 'nan'"),
    ],
)
def test_an_image_without_a_box_of_its_class(plain: Path, objects, reason: str):
    add(None, plain / "train" / "dog" / "a.xml", *objects)
    records = read_localization(plain, "train")
    assert records.annotations.image_ids.tolist() == [1, 2]
    (skipped,) = records.skipped
    assert skipped.reason.startswith("no box of the image's class: ")
    assert reason in skipped.reason


def test_what_has_no_partner_is_counted(plain: Path):
    add(plain / "train" / "cat" / "x.jpg", None)
    add(plain / "train" / "cat" / "y.jpg", None)
    add(None, plain / "train" / "cat" / "z.xml", an_object("cat"))
    (plain / "train" / "dog" / "a.jpg").write_text("no image")
    records = read_localization(plain, "train")
    assert len(records.files) == 2
    found = [(Path(one.file).name, one.record) for one in records.skipped]
    assert found == [("z.xml", "image"), ("cat", "2 image(s)"), ("a.xml", "image")]
    assert "not an image" in records.skipped[-1].reason


def test_folders_of_other_classes(plain: Path):
    records = read_localization(plain, "train", LabelMap.from_names(["dog"]))
    assert records.files.tolist() == ["train/dog/a.jpg"]
    (skipped,) = records.skipped
    assert (Path(skipped.file).name, skipped.reason) == ("cat", "its name is no class")


def test_missing_split(plain: Path, ilsvrc: Path):
    with pytest.raises(DataError, match="CLS-LOC/test: no such folder; expected test/CLASS/"):
        read_localization(ilsvrc, "test")


def test_no_folder_at_all(tmp_path: Path):
    with pytest.raises(DataError, match="train: no such folder"):
        localization_labels(tmp_path)


def test_nothing_usable(plain: Path):
    with pytest.raises(
        DataError, match=r"train: none of 0 XML files can be used, first .*no class"
    ):
        read_localization(plain, "train", LabelMap.from_names(["cow"]))
    for path in (plain / "train").rglob("*.xml"):
        path.write_text("<annotation>")
    with pytest.raises(DataError, match=r"none of 3 XML files .*a\.xml: not well"):
        read_localization(plain, "train")


def test_arrays_are_those_of_every_reader(plain: Path):
    truth = read_localization(plain, "val").annotations
    assert truth.boxes.dtype == np.float64
    assert not truth.crowd.any()
    assert not truth.difficult.any()
