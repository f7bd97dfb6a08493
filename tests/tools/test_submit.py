import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from detection.data.folder import read_folder
from detection.evaluation.results import write_results
from detection.structures import Predictions
from resdet.tools import evaluate, submit


@pytest.fixture
def run(shapes: Path, tmp_path: Path) -> Path:
    """An evaluated run whose detections are the objects themselves."""
    records = read_folder(shapes, "val")
    truth = records.annotations
    image_ids = np.repeat(truth.image_ids, np.diff(truth.offsets))
    scores = np.linspace(0.9, 0.5, len(truth.boxes))
    file = tmp_path / "found.json"
    write_results(
        file, Predictions(image_ids, truth.boxes, scores, truth.labels), records.labels.ids
    )
    own = ["--predictions", str(file), "--data", str(shapes), "--output", str(tmp_path / "run")]
    assert evaluate.main(own) == 0
    return tmp_path / "run"


def test_coco(run: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    own = ["--server", "coco", "--split", "test-dev2017", "--name", "mine"]
    assert submit.main([str(run), *own]) == 0
    path = run / "detections_test-dev2017_mine_results.zip"
    assert capsys.readouterr().out == f"{path}\n"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["detections_test-dev2017_mine_results.json"]
        content = json.loads(archive.read(archive.namelist()[0]))
    assert content == json.loads((run / "predictions.json").read_text())


def test_voc_scores_the_same(run: Path, shapes: Path, tmp_path: Path):
    (tmp_path / "sent").mkdir()
    assert submit.main([str(run), "--server", "voc", "--output", str(tmp_path / "sent")]) == 0
    with tarfile.open(tmp_path / "sent" / "comp4_det_val.tar.gz") as archive:
        archive.extractall(tmp_path / "server", filter="data")
    files = sorted((tmp_path / "server" / "results" / "VOC2012" / "Main").iterdir())
    assert files[0].name.startswith("comp4_det_val_")
    own = ["--data", str(shapes), "--output", str(tmp_path / "scored")]
    assert evaluate.main(["--predictions", *map(str, files), *own]) == 0
    scored = [(folder / "figures.csv").read_text() for folder in (run, tmp_path / "scored")]
    assert scored[0] == scored[1]


def test_the_year_is_the_splits_folder(shapes: Path, tmp_path: Path):
    (tmp_path / "found.json").write_text("[]")
    own = ["--data", str(shapes.parent), "--split", f"{shapes.name}/val", "--output", str(tmp_path)]
    assert evaluate.main(["--predictions", str(tmp_path / "found.json"), *own]) == 0
    assert submit.main([str(tmp_path), "--server", "voc"]) == 0
    assert (tmp_path / "results" / shapes.name / "Main").is_dir()


def test_errors_are_one_line(run: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert submit.main([str(run), "--server", "coco", "--name", "a/b"]) == 1
    assert submit.main([str(run / "none"), "--server", "voc"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("resdet submit: algorithm")
    assert second.endswith("none: no figures.json, expected a folder of `resdet evaluate`")
