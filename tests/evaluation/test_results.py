import contextlib
import io
import json
import math
import re

import numpy as np
import pytest
from pycocotools.coco import COCO

from detection import json_rows
from detection.evaluation.results import read_results, write_results
from detection.structures import Predictions

IDS = [1, 18, 90]
ENTRY = {"image_id": 5, "category_id": 18, "bbox": [1.5, 2, 3, 4], "score": 0.5}


def random_predictions(n: int) -> Predictions:
    rng = np.random.default_rng(0)
    corners = np.exp(rng.normal(0, 6, (n, 4))).astype(np.float32)
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
    labels, ids = rng.integers(1, 4, n), rng.integers(0, 2**40, n)
    return Predictions(ids, boxes, rng.random(n).astype(np.float32), labels)


@pytest.mark.parametrize("n", [0, 1, 500])
def test_round_trip_is_exact(n, tmp_path):
    predictions = random_predictions(n)
    path = tmp_path / "results.json"
    path.write_text("an older file")
    write_results(path, predictions, IDS)
    for array, expected in zip(read_results(path, IDS)[:4], predictions[:4], strict=True):
        assert array.dtype == (np.int64 if expected.dtype == np.int64 else np.float64)
        np.testing.assert_array_equal(array.astype(expected.dtype), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_pycocotools_reads_it(tmp_path, found):
    write_results(tmp_path / "results.json", found([(5, (1.5, 2, 4.5, 6), 0.5, 2)]), IDS)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": 5}], "categories": [{"id": i} for i in IDS]}
        coco.dataset["annotations"] = []
        coco.createIndex()
        loaded = coco.loadRes(str(tmp_path / "results.json"))
    entry = loaded.loadAnns(loaded.getAnnIds(imgIds=[5], catIds=[18]))[0]
    assert {name: entry[name] for name in ENTRY} == ENTRY


def test_a_refused_write_leaves_the_old_file(tmp_path, found):
    path = tmp_path / "results.json"
    path.write_text("[]")
    for row, reason in [
        ((5, (0, 0, 1, 1), float("nan"), 1), "the score is not finite"),
        ((5, (0, 0, 1, 1), 0.5, 4), "the label is outside 1…3"),
    ]:
        with pytest.raises(ValueError, match=f"image 5: {reason}"):
            write_results(path, found([row]), IDS)
    assert path.read_text() == "[]"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, found):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(OSError, match=r"results\.json"):
        write_results(tmp_path / "results.json", found(), IDS)
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_reads_others_files(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY | {"score": 1, "id": 3, "segmentation": []}]))
    image_ids, boxes, scores, labels, extents = read_results(path, IDS)
    assert (image_ids.tolist(), scores.tolist(), labels.tolist()) == ([5], [1.0], [2])
    assert boxes.tolist() == [[1.5, 2.0, 4.5, 6.0]]
    assert extents.tolist() == [[3.0, 4.0]]


def test_scores_keep_their_double_precision(tmp_path):
    path = tmp_path / "results.json"
    scores = [0.1, 0.1 + 2**-40]
    path.write_text(json.dumps([ENTRY | {"score": score} for score in scores]))
    assert read_results(path, IDS).scores.tolist() == scores


@pytest.mark.parametrize("separator", [(",", ":"), (" , \n", ": ")])
@pytest.mark.parametrize("more", [{}, {"text": "}, {"}, {"inner": [{"a": 1}, {"b": 2}]}])
def test_long_files_are_read_in_pieces(separator, more, tmp_path, monkeypatch):
    predictions = random_predictions(300)
    path = tmp_path / "results.json"
    write_results(path, predictions, IDS)
    entries = [entry | more for entry in json.loads(path.read_text())]
    path.write_text(json.dumps(entries, separators=separator))
    whole = read_results(path, IDS)
    monkeypatch.setattr(json_rows, "PIECE", 1000)
    for array, expected in zip(read_results(path, IDS), whole, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert len(whole.scores) == 300


def test_long_files_are_read_by_several_processes(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(path, random_predictions(300), IDS)
    whole = read_results(path, IDS)
    monkeypatch.setattr(json_rows, "PIECE", 1000)
    monkeypatch.setattr(json_rows, "SHARE", 5000)
    monkeypatch.setattr(json_rows, "processes", lambda: 3)
    for array, expected in zip(read_results(path, IDS), whole, strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
    for place, field, message in [(280, "score", "missing score"), (5, "bbox", "missing bbox")]:
        entries = json.loads(path.read_text())
        del entries[place][field]
        path.write_text(json.dumps(entries))
        with pytest.raises(ValueError, match=rf"entry {place} \(image \d+\): {message}"):
            read_results(path, IDS)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("more", ["", ', "text": "x"', ', "\\u0073core": 0.25'])
def test_a_repeated_field_is_found_among_sound_entries(more, position, tmp_path):
    path = tmp_path / "results.json"
    entries = [json.dumps(ENTRY), json.dumps(ENTRY)]
    entries[position] = entries[position][:-1] + (more or ', "score": 0.25') + "}"
    path.write_text(f"[{', '.join(entries)}]")
    if "text" in more:
        assert read_results(path, IDS).scores.tolist() == [0.5, 0.5]
        return
    with pytest.raises(ValueError, match="a field is repeated"):
        read_results(path, IDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "5"}, "image_id must be an integer"),
        ({"image_id": True}, "image_id must be an integer"),
        ({"image_id": 2**63}, "image_id must be an integer of 64 bits"),
        ({"category_id": 2}, "unknown category_id 2"),
        ({"category_id": 1.0}, "unknown category_id 1.0"),
        ({"category_id": []}, "unknown category_id []"),
        ({"bbox": [1, 2, 3]}, "bbox must be [x, y, width, height]"),
        ({"bbox": [1, 2, 3, None]}, "bbox must hold finite numbers, got None"),
        ({"bbox": [3e38, 0, 3e38, 1]}, "bbox must hold finite numbers, got 6e+38"),
        ({"bbox": [1, 2, -3, 4]}, "bbox has a negative size"),
        ({"score": 10**400}, "score must hold finite numbers"),
        ({"score": "0.5"}, "score must hold finite numbers, got '0.5'"),
    ],
)
def test_a_bad_entry_is_named(change, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, ENTRY | change]))
    image = (ENTRY | change)["image_id"]
    with pytest.raises(
        ValueError, match=re.escape(f"{path}: entry 1 (image {image!r}): {message}")
    ):
        read_results(path, IDS)


@pytest.mark.parametrize("field", ENTRY)
def test_a_missing_field_is_named(field, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{name: ENTRY[name] for name in ENTRY if name != field}]))
    where = "entry 0" if field == "image_id" else "entry 0 (image 5)"
    with pytest.raises(ValueError, match=re.escape(f"{path}: {where}: missing {field}")):
        read_results(path, IDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a valid result file"),
        ('{"image_id": 5}', "expected a list of results, got dict"),
        ("[5]", "entry 0: expected an object, got int"),
        (json.dumps([ENTRY]).replace("0.5", "NaN"), "score must hold finite numbers, got nan"),
        (
            json.dumps([ENTRY]).replace("1.5", "-Infinity"),
            "bbox must hold finite numbers, got -inf",
        ),
        (json.dumps([ENTRY | {"other": math.nan}]), "not a valid result file: it holds NaN"),
        (json.dumps([ENTRY]).replace("0.5", "1e999"), "score must hold finite numbers, got inf"),
        ('[{"score": 1, "score": 2}]', "a field is repeated"),
        ("[" * 100_000, "not a valid result file"),
        ("[" + "9" * 5000 + "]", "not a valid result file"),
    ],
)
def test_a_bad_file_is_named(text, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read_results(path, IDS)
    assert message in str(caught.value)
