import json
import re
import tarfile
import zipfile

import numpy as np
import pytest

from detection.evaluation import submission
from detection.evaluation.submission import (
    read_comp4,
    write_coco_submission,
    write_voc_submission,
)

A = (0.0, 0.0, 10.0, 10.0)
B = (0.1, 2.5, 7.3, 9.7)
NAMES = ["cat", "pottedplant"]
STEMS = {7: "2008_000001", 9: "2008_000042"}
IDS = {stem: image_id for image_id, stem in STEMS.items()}


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_coco_archive(tmp_path, found):
    predictions = found([(9, B, 0.1, 2), (7, A, 0.9, 1)])
    path = write_coco_submission(tmp_path, predictions, [3, 90], "resdet-r101")
    assert path == tmp_path / "detections_test-dev2017_resdet-r101_results.zip"
    assert list(tmp_path.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["detections_test-dev2017_resdet-r101_results.json"]
        entries = json.loads(archive.read(archive.namelist()[0]))
    assert [set(entry) for entry in entries] == [{"image_id", "category_id", "bbox", "score"}] * 2
    assert (entries[1]["image_id"], entries[1]["category_id"]) == (7, 3)
    assert entries[1]["bbox"] == [0, 0, 10, 10]
    assert np.float32(entries[0]["score"]) == np.float32(0.1)
    # nothing found is an archive, too
    write_coco_submission(tmp_path, found(), [3, 90], "resdet-r101")
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read(archive.namelist()[0])) == []


def test_voc_archive(tmp_path, found):
    predictions = found([(9, B, 0.1, 2), (7, A, 0.9, 1), (7, B, 0.3, 2)])
    path = write_voc_submission(tmp_path, predictions, [*NAMES, "cow"], STEMS)
    assert path == tmp_path / "comp4_det_test.tar.gz"
    folder = tmp_path / "results" / "VOC2012" / "Main"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "results"}
    files = [f"comp4_det_test_{name}.txt" for name in (*NAMES, "cow")]
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(files)
    with tarfile.open(path) as archive:
        members = {m.name: m for m in archive.getmembers() if m.isfile()}
        assert set(members) == {f"results/VOC2012/Main/{name}" for name in files}
        for name in files:
            inside = archive.extractfile(f"results/VOC2012/Main/{name}").read()
            assert inside == (folder / name).read_bytes()
        assert {m.uname for m in members.values()} == {""}
    # 1-based and inclusive: the first ten pixels are 1 to 10
    score = float(np.float32(0.9))
    assert (folder / files[0]).read_text() == f"2008_000001 {score!r} 1.0 1.0 10.0 10.0\n"
    assert (folder / files[2]).read_text() == ""
    again = read_comp4([folder / name for name in files], [*NAMES, "cow"], IDS)
    order = [1, 0, 2]
    for got, written in zip(again[:4], predictions[:4], strict=True):
        np.testing.assert_allclose(got, written[order], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(got.astype(written.dtype), written[order])


def test_random_detections_come_back(tmp_path, random_case):
    annotations, predictions, names = random_case(3)
    shift = np.random.default_rng(0).random((len(predictions.scores), 1)) / 3
    predictions = predictions._replace(boxes=(predictions.boxes + shift).astype(np.float32))
    stems = {i: f"img{i:04d}" for i in annotations.image_ids.tolist()}
    write_voc_submission(tmp_path, predictions, names, stems, "val", "VOC2007")
    files = [tmp_path / "results/VOC2007/Main" / f"comp4_det_val_{name}.txt" for name in names]
    got = read_comp4(files, names, {stem: i for i, stem in stems.items()})
    order = np.argsort(predictions.labels, kind="stable")
    assert_equal(
        (column.astype(np.float32) for column in got[:4]),
        (column[order].astype(np.float32) for column in predictions[:4]),
    )


@pytest.mark.parametrize("name", ["", "a/b", "a b", "é", "../x"])
def test_bad_names_are_refused(name, tmp_path, found):
    message = re.escape(f"got {name!r}")
    with pytest.raises(ValueError, match="algorithm: expected letters.*" + message):
        write_coco_submission(tmp_path, found(), [1], name)
    with pytest.raises(ValueError, match="class_name: expected letters.*" + message):
        write_voc_submission(tmp_path, found(), [name], STEMS)
    with pytest.raises(ValueError, match="stem: expected letters.*" + message):
        write_voc_submission(tmp_path, found(), ["cat"], {1: name})
    assert list(tmp_path.iterdir()) == []


def test_bad_detections_are_refused(tmp_path, found):
    for write in (
        lambda p: write_coco_submission(tmp_path, p, [1], "a"),
        lambda p: write_voc_submission(tmp_path, p, ["cat"], STEMS),
    ):
        with pytest.raises(ValueError, match="image 7: the score is not finite"):
            write(found([(7, A, float("nan"), 1)]))
    with pytest.raises(ValueError, match="image 8: no stem"):
        write_voc_submission(tmp_path, found([(8, A, 0.5, 1)]), ["cat"], STEMS)
    with pytest.raises(ValueError, match="two images have the same stem"):
        write_voc_submission(tmp_path, found(), ["cat"], {1: "a", 2: "a"})
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_read_back_is_not_left(tmp_path, found, monkeypatch):
    predictions = found([(7, A, 0.5, 1)])
    worse = predictions._replace(scores=predictions.scores / 2)
    monkeypatch.setattr(submission, "read_results", lambda *_: worse)
    monkeypatch.setattr(submission, "read_comp4", lambda *_: worse)
    with pytest.raises(ValueError, match="scores differ when read back"):
        write_coco_submission(tmp_path, predictions, [1], "a")
    with pytest.raises(ValueError, match="scores differ when read back"):
        write_voc_submission(tmp_path, predictions, ["cat"], STEMS)
    assert list(tmp_path.iterdir()) == []


def test_reads_what_others_wrote(tmp_path):
    # py-faster-rcnn's format, and a class whose name ends in another's
    path = tmp_path / "comp4_det_test_sea_cat.txt"
    path.write_text("000007 0.702 89.4 112.0 516.1 466.9\n000007 1e-3 1 1 1 1\n")
    got = read_comp4([path], ["cat", "sea_cat"], {"000007": 7})
    assert got.labels.tolist() == [2, 2]
    assert got.scores.tolist() == [0.702, 0.001]
    np.testing.assert_allclose(got.boxes, [[88.4, 111, 516.1, 466.9], [0, 0, 1, 1]])
    empty = read_comp4([], [], {})
    assert [column.shape for column in empty[:4]] == [(0,), (0, 4), (0,), (0,)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000007 0.5 1 1 9", "line 2: expected 6 fields, got 5"),
        ("000008 0.5 1 1 9 9", "line 2: unknown image '000008'"),
        ("000007 nan 1 1 9 9", "line 2: expected finite numbers, got nan"),
        ("000007 0.5 1 1 1e39 9", "line 2: expected finite numbers, got 1e+39"),
        ("000007 0.5 x 1 9 9", "line 2: could not convert string to float: 'x'"),
        ("000007 0.5 1 9 9 7", "line 2: the box has a negative size"),
    ],
)
def test_bad_lines_are_refused(line, message, tmp_path):
    path = tmp_path / "comp4_det_test_cat.txt"
    path.write_text(f"000007 0.5 1 1 9 9\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read_comp4([path], ["cat"], {"000007": 7})


def test_bad_files_are_refused(tmp_path):
    for name, message in [
        ("cat.txt", "expected a name like"),
        ("comp4_det_test_cat.csv", "expected a name like"),
        ("comp4_det_test_dog.txt", "unknown class, expected one of cat"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_comp4([tmp_path / name], ["cat"], {})
    files = [tmp_path / f"comp{n}_det_test_cat.txt" for n in (3, 4)]
    for file in files:
        file.write_text("")
    with pytest.raises(ValueError, match=r"comp4_det_test_cat\.txt: a second file of class cat"):
        read_comp4(files, ["cat"], {})
    files[0].write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        read_comp4(files[:1], ["cat"], {})
    with pytest.raises(FileNotFoundError):
        read_comp4([tmp_path / "comp4_det_val_cat.txt"], ["cat"], {})
