"""The columns against the reader of single records, which tests/data/test_coco.py tests."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from detection.data import coco_columns, coco_file
from detection.data.coco import read_coco
from detection.data.coco_columns import pack_annotations, read_columns
from detection.data.coco_images import Images
from detection.data.coco_objects import read_objects

SIZES = np.array([(20, 30), (-1, -1), (480, 640)])
IMAGES = Images(np.array([7, 3, 90]), SIZES, np.array(["a.jpg", "b.jpg"]))
LABEL_OF = {17: 2, 3: 1}
NUMBERS = [-1, 0, 0.5, 1, 20, 30, 30.5, 1e-320, -1e308, 1e308, 1.7e308, 640]


def draw_table(rng: np.random.Generator, n: int) -> list[dict]:
    """Annotations of the right types, most of them sound, with all that can be wrong."""

    def pick(values: list, usual: object) -> object:
        return values[rng.integers(len(values))] if rng.random() < 0.2 else usual

    table = []
    for position in range(n):
        x, y, w, h = rng.uniform(0.1, 15, 4).tolist()
        box = [pick(NUMBERS, value) for value in (x, y, w, h)]
        entry = {"id": pick([0, 1, 2, -5, 2**53, 2**60, -(2**63)], 10 + position), "bbox": box}
        entry["image_id"] = pick([8, -(2**62), 2**53], [7, 3, 90][rng.integers(3)])
        entry["category_id"] = pick([1, 0, 18], [17, 3][rng.integers(2)])
        entry |= {"segmentation": [[1, 2.5]], "area": pick([-1, 0, 5, None], 2.5)}
        entry["iscrowd"] = pick([1, True, False, 2, -1], 0)
        if rng.random() < 0.3:
            del entry[["area", "iscrowd"][rng.integers(2)]]
        table.append(entry)
    return table


def same(ours, expected) -> None:
    for own, other in zip(ours[0], expected[0], strict=True):
        np.testing.assert_array_equal(own, other, strict=True)
    assert ours[1] == expected[1]


@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("dense", [0, 2**22])
@pytest.mark.parametrize("seed", range(20))
def test_columns_are_what_single_records_give(seed, dense, clipped, monkeypatch):
    monkeypatch.setattr(coco_columns, "DENSE", dense)
    rng = np.random.default_rng(seed)
    table = draw_table(rng, int(rng.choice([0, 1, 3, 200])))
    expected = read_objects(table, IMAGES, LABEL_OF, Path("x.json"), clipped)
    columns = pack_annotations(json.dumps(table).encode())
    same(read_columns(columns, IMAGES, LABEL_OF, Path("x.json"), clipped), expected)
    if len(table) == 200:
        assert len(expected[0].boxes) > 20
        assert len({entry.reason[:12] for entry in expected[1]}) >= 6 + 2 * clipped


@pytest.mark.parametrize("change", [{"id": "1"}, {"bbox": [1, 2, 3]}, {"area": math.inf}, 5])
def test_one_record_of_a_wrong_type_is_named(change, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()
    entry = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [entry, entry | change if isinstance(change, dict) else change],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content).replace("Infinity", "1e999"))
    assert [entry.file for entry in read_coco(file, tmp_path).skipped] == [str(file)]
    # Sound files never take the way of single records.
    monkeypatch.setattr(coco_file, "load_records", None)
    with pytest.raises(TypeError):
        read_coco(file, tmp_path)
    file.write_text(json.dumps(content | {"annotations": [entry]}))
    assert len(read_coco(file, tmp_path).annotations.boxes) == 1


# FINDINGS: a polygon around 1e9 and a mask of 2^20 × 2^20 take pycocotools down.
@pytest.mark.parametrize(
    "mask",
    [
        [[1e9, 1e9, -1e9, 1e9, 1e9, -1e9]],
        {"size": [2**20, 2**20], "counts": "0" * 100},
        {"size": [2**20, 2**20], "counts": [0, 2**40]},
    ],
)
@pytest.mark.parametrize("identity", [0, "0"])
def test_masks_are_never_built(mask, identity, tmp_path):
    (tmp_path / "a.jpg").touch()
    entry = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": mask}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [entry | {"id": 5}, entry | {"id": identity}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    records = read_coco(tmp_path / "instances.json", tmp_path)
    assert len(records.annotations.boxes) == (2 if identity == 0 else 1)
