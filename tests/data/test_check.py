import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.data.check import check_folder
from detection.data.folder import read_folder
from detection.data.images import image_size
from detection.data.records import DataError, Skipped
from detection.data.repair import write_repaired
from detection.data.shapes import write_shapes

DATA = os.environ.get("RESDET_DATA")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, {"train": 8, "val": 3}, (64, 64))
    return root


@pytest.fixture(params=["VOC", "COCO"])
def sound(request: pytest.FixtureRequest, drawn: Path, tmp_path: Path) -> Path:
    """A folder of one layout, without a fault."""
    root = tmp_path / request.param
    shutil.copytree(drawn, root)
    if request.param == "VOC":
        shutil.rmtree(root / "annotations")
    else:
        for folder in ("Annotations", "ImageSets"):
            shutil.rmtree(root / folder)
        (root / "JPEGImages").rename(root / "images")
    return root


def image(root: Path, number: int) -> Path:
    folder = "JPEGImages" if root.name == "VOC" else "images"
    return root / folder / f"train_{number:06d}.jpg"


def edit_objects(root: Path, number: int, edit: Callable[[list], None]) -> None:
    """Edits an image's objects: XML texts for VOC, dictionaries for COCO."""
    if root.name == "VOC":
        file = root / "Annotations" / f"train_{number:06d}.xml"
        head, *objects = file.read_text().removesuffix("</annotation>\n").split("\t<object>")
        edit(objects)
        file.write_text("\t<object>".join([head, *objects]) + "</annotation>\n")
    else:
        file = root / "annotations/instances_train.json"
        content = json.loads(file.read_bytes())
        own = [it for it in content["annotations"] if it["image_id"] == number]
        others = [it for it in content["annotations"] if it["image_id"] != number]
        edit(own)
        content["annotations"] = own + others
        file.write_text(json.dumps(content))


def empty_box(item):
    """Returns an object whose box has no extent."""
    if isinstance(item, str):
        start, end = item.index("<xmin>"), item.index("</bndbox>")
        box = "<xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>12</ymax>"
        return item[:start] + box + item[end:]
    return item | {"id": 900 + item["id"], "bbox": [8, 8, 0, 4]}


def counts(kinds: dict[str, list[Skipped]]) -> list[int]:
    return [len(found) for found in kinds.values()]


def test_nothing_is_wrong_with_the_embedded_data(sound):
    train, val = check_folder(sound, ["train", "val"])
    assert (train.split, val.split) == ("train", "val")
    assert counts(train.wrong()) == counts(val.wrong()) == [0, 0, 0, 0]
    assert counts(train.noted())[1] == 0


def test_what_the_reader_leaves_out(sound):
    edit_objects(sound, 2, lambda objects: objects.insert(1, empty_box(objects[0])))
    (found,) = check_folder(sound, ["train"])
    left_out = found.wrong()["left out by the reader"]
    voc = "box (xmin 9, ymin 9, xmax 9, ymax 12) is empty or reversed"
    coco = "expected a positive width and height"
    assert [entry.reason.endswith((voc, coco)) for entry in left_out] == [True]
    assert counts(found.wrong()) == [1, 0, 0, 0]


def test_image_files(sound):
    height, width = image_size(image(sound, 3))
    Image.new("RGB", (width + 1, height)).save(image(sound, 3))
    image(sound, 5).write_bytes(image(sound, 5).read_bytes()[:400])
    (found,) = check_folder(sound, ["train"])
    assert counts(found.wrong()) == [0, 2, 0, 0]
    wrong_size, truncated = found.wrong()["image file is not as annotated"]
    assert (wrong_size.file, truncated.file) == (str(image(sound, 3)), str(image(sound, 5)))
    expected, got = (height, width), (height, width + 1)
    assert wrong_size.reason == f"expected (height, width) {expected} as annotated, got {got}"
    assert "truncated" in truncated.reason.lower()
    assert found.broken.keys() == {2, 4}
    (unread,) = check_folder(sound, ["train"], images=False)
    assert counts(unread.wrong()) == [0, 0, 0, 0]


def test_exchanged_sides_are_named(sound):
    height, width = image_size(image(sound, 1))
    assert height != width
    Image.new("RGB", (height, width)).save(image(sound, 1))
    (found,) = check_folder(sound, ["train"])
    assert found.broken[0].endswith(", the sides exchanged")


def test_objects_that_stand_twice(sound):
    def repeat(objects):
        again = objects[0] if sound.name == "VOC" else objects[0] | {"id": 901}
        objects += [again, again if sound.name == "VOC" else again | {"id": 902}]

    edit_objects(sound, 4, repeat)
    (found,) = check_folder(sound, ["train"])
    assert counts(found.wrong()) == [0, 0, 2, 0]
    offsets = found.records.annotations.offsets
    assert np.flatnonzero(found.repeated).tolist() == [offsets[4] - 2, offsets[4] - 1]
    first = found.wrong()["object stands twice"][0]
    assert first.file == str(image(sound, 4))
    assert first.reason == "stands before"


def test_tiny_boxes_and_empty_images_are_noted(sound):
    def tiny(objects):
        if sound.name == "VOC":
            start, end = objects[0].index("<xmin>"), objects[0].index("</bndbox>")
            box = "<xmin>9</xmin><ymin>9</ymin><xmax>20</xmax><ymax>9.5</ymax>"
            objects[0] = objects[0][:start] + box + objects[0][end:]
        else:
            objects[0]["bbox"] = [8, 8, 12, 1.5]

    edit_objects(sound, 2, tiny)
    edit_objects(sound, 6, list.clear)
    (train,) = check_folder(sound, ["train"], images=False)
    small, _, empty = train.noted().values()
    box = "(8, 8, 20, 9.5)"
    assert [(it.file, it.record.split(" ", 1)[1]) for it in small] == [(str(image(sound, 2)), box)]
    assert Skipped(str(image(sound, 6)), "image", "no objects") in empty
    assert counts(train.wrong())[0] == 0


def test_copies_of_an_image_are_noted(tmp_path):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    for name, color in (("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")):
        Image.new("RGB", (20, 30), color).save(tmp_path / "JPEGImages" / f"{name}.png")
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("d\na\n")
    train, val = check_folder(tmp_path, ["train", "val"])
    first = f"{tmp_path / 'JPEGImages/a.png'} of train"
    assert train.copies == {2: first}
    assert val.copies == {0: first, 1: first}  # the same file, listed in both, too
    assert counts(val.noted()) == [0, 2, 0]
    assert counts(val.wrong()) == [0, 0, 0, 0]


def test_classes_are_counted(drawn):
    for split in ("train", "val"):
        (found,) = check_folder(drawn, [split], images=False)
        truth = read_folder(drawn, split).annotations
        ignored = truth.crowd | truth.difficult
        for label, row in enumerate(found.classes(), start=1):
            assert row.name == found.records.labels.names[label - 1]
            own = truth.labels == label
            assert (row.objects, row.ignored) == ((own & ~ignored).sum(), (own & ignored).sum())
            with_one = [
                bool((own & ~ignored)[first:last].any())
                for first, last in zip(truth.offsets, truth.offsets[1:], strict=False)
            ]
            assert row.images == sum(with_one)


def test_a_split_without_objects(tmp_path):
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (8, 9)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 8}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "annotations/test.json").write_text(json.dumps(content))
    (found,) = check_folder(tmp_path, ["test"])
    assert counts(found.wrong()) == [0, 0, 0, 0]
    assert counts(found.noted()) == [0, 0, 1]
    assert found.classes() == (("cat", 0, 0, 0),)


def test_parts_of_a_union_are_checked_once_each(sound):
    parts = [found.split for found in check_folder(sound, ["train + val", "val"], images=False)]
    assert parts == ["train", "val"]


def test_progress(sound):
    seen = []
    check_folder(sound, ["val"], workers=1, progress=lambda *news: seen.append(news))
    assert seen == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


def test_plain_values_are_json(sound):
    edit_objects(sound, 2, lambda objects: objects.insert(1, empty_box(objects[0])))
    (found,) = check_folder(sound, ["train"])
    plain = json.loads(json.dumps(found.to_plain()))
    assert plain["images"] == 8
    assert len(plain["wrong"]["left out by the reader"]) == 1
    assert sum(row["objects"] + row["ignored"] for row in plain["classes"]) == plain["objects"]


def test_what_cannot_be_read_at_all_is_refused(sound):
    with pytest.raises(DataError, match="test"):
        check_folder(sound, ["test"])


class TestRepair:
    def plant(self, root: Path) -> None:
        """A bad box, an image of another size, a truncated one, and an object twice."""

        def twice(objects):
            bad = empty_box(objects[0])
            again = objects[0] if root.name == "VOC" else objects[0] | {"id": 901, "area": 3.0}
            objects[1:1] = [bad, again]

        edit_objects(root, 2, twice)
        Image.new("RGB", (9, 9)).save(image(root, 3))
        image(root, 5).write_bytes(image(root, 5).read_bytes()[:400])

    def test_the_copy_is_sound_and_keeps_the_rest(self, sound, drawn, tmp_path):
        before = read_folder(sound, "train")
        self.plant(sound)
        findings = check_folder(sound, ["train", "val"])
        seen = []
        output = tmp_path / "new" / "repaired"
        write_repaired(findings, sound, output, lambda *news: seen.append(news))
        assert seen[5] == ("train", 6, 6)
        assert seen[-1] == ("val", 3, 3)
        train, val = check_folder(output, ["train", "val"])
        assert counts(train.wrong()) == counts(val.wrong()) == [0, 0, 0, 0]
        kept = [0, 1, 3, 5, 6, 7]
        assert [Path(file).name for file in train.records.files] == [
            Path(before.files[row]).name for row in kept
        ]
        offsets = before.annotations.offsets
        rows = np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in kept])
        for column in ("boxes", "labels", "crowd", "difficult"):
            np.testing.assert_array_equal(
                getattr(train.records.annotations, column),
                getattr(before.annotations, column)[rows],
            )
        assert os.path.samefile(train.records.path(0), image(sound, 1))
        assert read_folder(output, "val").files.tolist() == read_folder(sound, "val").files.tolist()
        assert [path.name for path in output.parent.iterdir()] == ["repaired"]

    def test_other_fields_stay(self, sound, tmp_path):
        self.plant(sound)
        if sound.name == "VOC":
            file = sound / "Annotations/train_000002.xml"
            file.write_text(file.read_text().replace("<difficult>", "<mood>é</mood><difficult>"))
        else:
            edit_objects(sound, 2, lambda objects: objects[0].update(segmentation=[[1, 2, 3]]))
        write_repaired(check_folder(sound, ["train"]), sound, tmp_path / "out")
        if sound.name == "VOC":
            text = (tmp_path / "out/Annotations/train_000002.xml").read_text("utf-8")
            assert text.count("<mood>é</mood>") == text.count("<object>") > 0
            assert "<xmax>9</xmax>" not in text
            same = "Annotations/train_000001.xml"
            assert (tmp_path / "out" / same).read_bytes() == (sound / same).read_bytes()
        else:
            old, new = (
                json.loads((root / "annotations/instances_train.json").read_bytes())
                for root in (sound, tmp_path / "out")
            )
            assert new["info"] == old["info"]
            assert new["categories"] == old["categories"]
            assert all(entry in old["annotations"] for entry in new["annotations"])
            assert [1, 2, 3] in [
                entry["segmentation"][0:1][0]
                for entry in new["annotations"]
                if entry["segmentation"]
            ]

    def test_ids_used_before(self, drawn, tmp_path):
        root = tmp_path / "COCO"
        shutil.copytree(drawn / "annotations", root / "annotations")
        shutil.copytree(drawn / "JPEGImages", root / "images")

        def plant(objects):
            bad = empty_box(objects[0])
            objects[:0] = [bad, objects[0] | {"id": bad["id"], "bbox": [1, 1, 5, 5]}]
            objects.append(objects[2] | {"bbox": [0, 0, 3, 3]})  # its id again
            objects.append({"id": "x"})
            objects[0]["image_id"] = objects[1]["image_id"]

        edit_objects(root, 2, plant)
        (found,) = check_folder(root, ["train"])
        assert counts(found.wrong()) == [4, 0, 0, 0]
        write_repaired([found], root, tmp_path / "out")
        (again,) = check_folder(tmp_path / "out", ["train"])
        assert counts(again.wrong()) == [0, 0, 0, 0]
        for one, other in zip(found.records.annotations, again.records.annotations, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_linked_where_possible_else_copied(self, sound, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError("another file system")

        monkeypatch.setattr(os, "link", refuse)
        write_repaired(check_folder(sound, ["val"]), sound, tmp_path / "out")
        (found,) = check_folder(tmp_path / "out", ["val"])
        first = found.records.path(0)
        own = image(sound, 1).with_name(first.name)
        assert first.read_bytes() == own.read_bytes()
        assert not os.path.samefile(first, own)

    def test_a_folder_in_use_is_refused(self, sound, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").touch()
        findings = check_folder(sound, ["val"])
        with pytest.raises(DataError, match="expected a new or an empty folder"):
            write_repaired(findings, sound, tmp_path / "out")
        (tmp_path / "out/mine").unlink()
        write_repaired(findings, sound, tmp_path / "out")
        assert len(read_folder(tmp_path / "out", "val").files) == 3

    def test_nothing_left_is_refused(self, sound, tmp_path):
        (found,) = check_folder(sound, ["val"])
        found = found._replace(broken=dict.fromkeys(range(3), "gone"))
        with pytest.raises(DataError, match="split val: not one image is left"):
            write_repaired([found], sound, tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == [sound.name]

    def test_a_secret_test_set(self, drawn, tmp_path):
        root = tmp_path / "VOC"
        shutil.copytree(drawn / "ImageSets", root / "ImageSets")
        shutil.copytree(drawn / "JPEGImages", root / "JPEGImages")
        (root / "Annotations").mkdir()
        kept = drawn / "Annotations/val_000001.xml"  # its classes are needed
        shutil.copy(kept, root / "Annotations")
        image(root, 2).write_bytes(b"")
        (found,) = check_folder(root, ["train"])
        left_out = 1 if found.records.skipped else len(found.broken)
        assert left_out == 1
        write_repaired([found], root, tmp_path / "out")
        names = (tmp_path / "out/ImageSets/Main/train.txt").read_text().split()
        assert names == [f"train_{number:06d}" for number in (1, 3, 4, 5, 6, 7, 8)]


@pytest.mark.skipif(DATA is None, reason="RESDET_DATA is not set")
class TestPhotos:
    def test_bccd_has_two_boxes_without_area(self, tmp_path):
        root = Path(DATA) / "bccd"
        findings = check_folder(root, ["train", "val", "test"])
        left_out = [it for found in findings for it in found.wrong()["left out by the reader"]]
        assert [Path(it.file).stem[-5:] for it in left_out] == ["00343", "00338"]
        assert sum(sum(counts(found.wrong())) for found in findings) == 2
        write_repaired(findings, root, tmp_path / "bccd")
        again = check_folder(tmp_path / "bccd", ["train", "val", "test"], images=False)
        assert [len(found.records.files) for found in again] == [205, 87, 72]
        assert sum(sum(counts(found.wrong())) for found in again) == 0
        objects = [len(found.records.annotations.labels) for found in findings]
        assert [len(found.records.annotations.labels) for found in again] == objects

    def test_a_part_of_coco_is_not_complete(self):
        for found in check_folder(Path(DATA) / "coco_tiny", ["train2017", "val2017"]):
            assert counts(found.wrong()) == [0, 0, 0, 1]
            assert found.shortfall.startswith("80 of ")
            assert sum(row.ignored for row in found.classes()) in (6, 11)
