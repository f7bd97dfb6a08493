"""Long files, read as head, rows and tail, against the same files decoded at once."""

import json
import random
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from detection import json_rows
from detection.data import coco_file
from detection.data.coco_file import load, load_categories
from detection.data.records import DataError

IMAGES = [{"id": i, "file_name": f"{i}.jpg", "height": 20, "width": 30} for i in range(9)]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}]
NESTED = 40
TABLES = ("info", "images", "annotations", "categories")


def content(n: int) -> dict:
    """A file of n annotations, some with polygons, some with masks."""
    masks = ([[1.5, 2, 3, 4, 5, 6]], {"size": [20, 30], "counts": [1, 2]})
    rows = [
        {"id": i, "image_id": i % 9, "category_id": 3, "bbox": [1, 2.5, 3, 4]}
        | {"segmentation": masks[i % 2], "area": 2.5, "iscrowd": i % 2}
        for i in range(n)
    ]
    if n == NESTED:  # may be cut in the wrong place
        rows[n // 2]["parts"] = [{"x": 1}, {"x": 2}]
    return {"info": {"year": 2017}, "images": IMAGES, "annotations": rows, "categories": CATEGORIES}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is long, and ends in 600 bytes."""
    monkeypatch.setattr(coco_file, "LONG", 0)
    monkeypatch.setattr(coco_file, "TAIL", 600)
    monkeypatch.setattr(json_rows, "PIECE", 500)


def refuse_else(monkeypatch: pytest.MonkeyPatch, *others: str) -> None:
    """From here on, other ways of reading fail."""
    for name in others:
        monkeypatch.setattr(coco_file, name, None)


def both(images: list, categories: list) -> tuple[list, list]:
    return msgspec.to_builtins(images), categories


def outcome(path: Path) -> tuple:
    """What `load` returns, or its error."""
    try:
        (images, categories), annotations = load(path, both)
    except DataError as error:
        return (str(error),)
    if not isinstance(annotations, list):
        annotations = [array.tolist() for array in annotations]
    return images, categories, json.dumps(annotations)


def same(path: Path) -> tuple:
    """What reading in pieces and at once both give."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_file, "LONG", 2**60)
        expected = outcome(path)
    assert outcome(path) == expected
    return expected


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("order", [TABLES, ("annotations", "categories", "images", "info")])
@pytest.mark.parametrize("n", [3, NESTED, 300])
def test_the_usual_layouts(n, order, indent, tmp_path, long, monkeypatch):
    path = tmp_path / "instances.json"
    tables = content(n)
    path.write_text(json.dumps({name: tables[name] for name in order}, indent=indent))
    images, categories, rows = same(path)
    assert (images, categories) == (IMAGES, CATEGORIES)
    assert json.loads(rows)[0] == list(range(n))
    # The tail is long enough for the tables after the annotations in these.
    if n == 300 and order is TABLES:
        refuse_else(monkeypatch, "_at_once", "_whole", "load_records")
        assert outcome(path) == (images, categories, rows)
        assert load_categories(path) == CATEGORIES


def test_by_several_processes(tmp_path, long, monkeypatch):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content(300)))
    expected = same(path)
    monkeypatch.setattr(json_rows, "SHARE", 10_000)
    monkeypatch.setattr(json_rows, "processes", lambda: 3)
    refuse_else(monkeypatch, "_at_once", "load_records")
    assert outcome(path) == expected


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("order", [TABLES, ("categories", "images", "annotations")])
def test_few_annotations(n, order, tmp_path, long):
    path = tmp_path / "instances.json"
    tables = content(n)
    path.write_text(json.dumps({name: tables[name] for name in order}))
    assert json.loads(same(path)[2])[0] == list(range(n))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"year": 2017', '"annotations": [{"id": 1}, {"id": 2}]'),
        ('"year": 2017', '"note": "\\"annotations\\": [", "annotations": [7]'),
        ('"images": ', '"annotations": [{"id": 1}], "images": '),
        ('"images": ', '"annotations": {}, "images": '),
        ('"categories": ', '"annotations": [], "categories": '),
        ('"categories": ', '"ann\\u006ftations": [], "categories": '),
        ('"categories": ', '"images": [], "categories": '),
        ('"categories": ', '"more": [{"id": 1}, {"id": 2}], "categories": '),
        ('"categories": ', '"classes": '),
        ('"images": ', '"pictures": '),
        ('"height": 20', '"height": 20.0'),
        ('"file_name": "8.jpg", ', ""),
        ('{"id": 8, "file_name"', '7, {"id": 8, "file_name"'),
        ('"annotations": [', '"annotations": [5, '),
        ('"annotations": [', '"annotations": ['),
        ('}], "categories"', '}, 5], "categories"'),
        ('}], "categories"', '}, ], "categories"'),
        ('}], "categories"', '}, "categories"'),
        ('"id": 100, ', '"id": "100", '),
        ('"id": 299, ', '"id": "299", '),
        ('"id": 100, ', f'"id": {2**70}, '),
        ('"id": 100, ', '"id": NaN, '),
        ('"id": 100, ', ""),
        ('{"id": 100, ', '[{"id": 100, '),
    ],
)
def test_odd_and_broken_files(old, new, tmp_path, long):
    text = json.dumps(content(300))
    assert old in text
    path = tmp_path / "instances.json"
    path.write_text(text.replace(old, new, 1))
    same(path)


def test_cut_and_pasted_files(tmp_path, long):
    generator = random.Random(0)
    text = json.dumps(content(NESTED))
    path = tmp_path / "instances.json"
    errors = 0
    for _ in range(300):
        first, last = sorted(generator.choices(range(len(text)), k=2))
        place = generator.randrange(len(text))
        if generator.random() < 0.5:  # whole rows
            first, last, place = (text.find("{", at) for at in (first, last, place))
        changed = text[:place] + text[first:last] + text[place:]
        path.write_text(changed if generator.random() < 0.5 else text[:first] + text[last:])
        errors += len(same(path)) == 1
    assert 50 < errors < 290


def test_a_file_that_cannot_be_read(tmp_path, long):
    for read in (partial(load, prepare=both), load_categories):
        with pytest.raises(DataError, match="No such file"):
            read(tmp_path / "none.json")
        with pytest.raises(DataError, match="directory"):
            read(tmp_path)


def test_columns(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content(2)))
    identity, image, category, crowd, area, boxes = load(path, both).annotations
    assert (identity.tolist(), image.tolist(), category.tolist()) == ([0, 1], [0, 1], [3, 3])
    assert (crowd.tolist(), area.tolist()) == ([0, 1], [2.5, 2.5])
    np.testing.assert_array_equal(boxes, [1, 2.5, 3, 4, 1, 2.5, 3, 4])
