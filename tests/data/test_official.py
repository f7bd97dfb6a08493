from pathlib import Path

from detection.data.folder import CocoSource, VocSource
from detection.data.labels import LabelMap
from detection.data.official import COCO_IDS, COUNTS, shortfall
from detection.data.records import ImageRow, ObjectRow, Records, Skipped, pack


def records(images, objects, ids=COCO_IDS, difficult=0, skipped=()) -> Records:
    box = (0.0, 0.0, 2.0, 2.0)
    kinds = [ObjectRow(box, 1, 4.0, difficult=row < difficult) for row in range(objects)]
    rows = [ImageRow(str(row), row, (9, 9), []) for row in range(images)]
    rows[0].objects.extend(kinds)
    names = tuple(map(str, ids))
    return pack(Path("root"), rows, LabelMap(names, tuple(ids)), list(skipped))


def test_figures_agree_with_each_other():
    for year in ("2007", "2012"):
        parts = [COUNTS[f"VOC{year}/{split}"] for split in ("train", "val")]
        whole = COUNTS[f"VOC{year}/trainval"]
        assert tuple(map(sum, zip(*parts, strict=True))) == whole
    for year in ("2014", "2017"):
        parts = [COUNTS[f"instances_{split}{year}"] for split in ("train", "val")]
        assert tuple(map(sum, zip(*parts, strict=True))) == (123287, 896782)


def test_voc():
    source = VocSource(Path("VOCdevkit/VOC2007"), "trainval")
    assert shortfall(source, records(10, 0)) == (
        "10 of 5,011 images of the official VOC2007/trainval"
    )
    whole = records(5011, 12608 + 7, difficult=7)
    assert shortfall(source, whole) == ""
    assert shortfall(source, records(5011, 12608)) == ""
    assert shortfall(source, records(5011, 12600)) == (
        "12,600 of 12,608 objects of the official VOC2007/trainval"
    )
    assert shortfall(source._replace(split="mine"), records(10, 0)) == ""
    assert shortfall(VocSource(Path("VOCdevkit/mine"), "trainval"), records(1, 0)) == ""


def test_what_a_reader_leaves_out_is_there():
    source = VocSource(Path("VOC2007"), "train")
    one = Skipped("a.xml", "object 2", "")
    assert shortfall(source, records(2501, 6300, skipped=[one])) == ""
    image = Skipped("a.xml", "image", "")
    assert shortfall(source, records(2500, 6290, skipped=[image])) == ""


def test_objects_of_a_secret_test_set_are_not_counted():
    assert shortfall(VocSource(Path("VOC2012"), "test"), records(10991, 0)) == ""


def test_coco():
    source = CocoSource(Path("annotations/instances_val2017.json"), Path("val2017"))
    assert "80 of 5,000 images" in shortfall(source, records(80, 1))
    assert shortfall(source, records(5000, 36781)) == ""
    assert shortfall(source, records(80, 1, ids=(1, 2))) == ""  # somebody else's
