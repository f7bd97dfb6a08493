import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.data.folder import read_folder
from detection.evaluation.results import write_results
from detection.structures import Predictions
from resdet.tools.report import main


def write_run(folder: Path, root: Path, shift: float = 2.0, **changes: Any) -> Path:
    """What `resdet evaluate` leaves of a detector whose boxes are shifted, the first one far."""
    folder.mkdir()
    records = read_folder(root, "val")
    truth = records.annotations
    n = len(truth.labels)
    image_ids = np.repeat(truth.image_ids, np.diff(truth.offsets))
    boxes = truth.boxes + shift
    boxes[0] += 1000
    predictions = Predictions(image_ids, boxes, np.linspace(0.9, 0.1, n), truth.labels)
    write_results(folder / "predictions.json", predictions, records.labels.ids)
    content = (folder / "predictions.json").read_bytes()
    figures = {
        "definitions": ["COCO AP, boxes"],
        "coco": {},
        "voc": {},
        "data": str(root),
        "split": "val",
        "images": len(truth.image_ids),
        "labels": {"names": list(records.labels.names), "ids": list(records.labels.ids)},
        "predictions_sha256": hashlib.sha256(content).hexdigest(),
        "checkpoint": None,
        "command": "resdet evaluate",
        "environment": {"torch": "2.14.0"},
        "cost": {"parameters": 1234567, "multiply_adds": None, "images_per_second": 12.5},
        "configuration": None,
    }
    figures |= changes
    (folder / "figures.json").write_text(json.dumps(figures))
    return folder


@pytest.fixture
def evaluated(shapes: Path, tmp_path: Path) -> Path:
    return write_run(tmp_path / "first", shapes)


def test_a_run_becomes_a_page(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "pages" / "page.html"
    assert main([str(evaluated), "--output", str(page), "--resamples", "20"]) == 0
    output, error = capsys.readouterr()
    assert output.startswith(f"{page}: ")
    for step in ("reading", "matching", "bootstrap", "pictures"):
        assert step in error
    text = page.read_text(encoding="utf-8")
    assert "<title>first: detection report</title>" in text
    assert "Split val, 5 images." in text
    assert "1,234,567" in text
    assert 0 < text.count('src="data:image/jpeg;base64,') <= 24
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_runs_are_compared(evaluated: Path, shapes: Path, tmp_path: Path):
    other = write_run(tmp_path / "second", shapes, 4.0)
    page = tmp_path / "page.html"
    options = ["--output", str(page), "--resamples", "20", "--pictures", "6"]
    assert main([str(evaluated), str(other), *options]) == 0
    text = page.read_text(encoding="utf-8")
    assert "Comparison" in text
    assert text.count('class="worse"') >= 1
    assert text.count('src="data:image/jpeg;base64,') <= 6
    assert main([str(evaluated), str(other), *options[:2], "--resamples=0", "--pictures=0"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in text
    assert "interval" not in text.split("</style>")[1].split("<script>")[0]


def test_only_data_split_and_labels_are_needed(evaluated: Path, tmp_path: Path):
    figures = json.loads((evaluated / "figures.json").read_text())
    least = {name: figures[name] for name in ("data", "split", "labels")}
    (evaluated / "figures.json").write_text(json.dumps(least))
    page = tmp_path / "page.html"
    assert main([str(evaluated), "--output", str(page), "--resamples", "5"]) == 0
    assert "Configuration" not in page.read_text(encoding="utf-8")


def test_moved_data_and_an_unreadable_image(shapes: Path, tmp_path: Path):
    data = tmp_path / "moved"
    shutil.copytree(shapes, data)
    folder = write_run(tmp_path / "run", data, data="/nowhere")
    image = read_folder(data, "val").path(0)
    image.write_bytes(b"no image")
    page = tmp_path / "page.html"
    options = [str(folder), "--output", str(page), "--resamples", "5"]
    assert main(options) == 1
    assert main([*options, "--data", str(data)]) == 0
    assert "cannot be read" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": None}, "figures.json: data: expected str, got None"),
        ({"split": "other"}, "no such split"),
        ({"labels": {"names": ["a"], "ids": []}}, "labels: expected as many names as ids"),
        ({"labels": {"names": ["a"], "ids": [1]}}, "unknown class"),
        ({"images": 4}, "evaluated on 4 images, but "),
        ({"predictions_sha256": "0"}, "not the file that figures.json was made of"),
    ],
)
def test_bad_input_is_one_line(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    reason: str,
):
    folder = write_run(tmp_path / "run", shapes, **changes)
    assert main([str(folder), "--output", str(tmp_path / "page.html")]) == 1
    output, error = capsys.readouterr()
    assert output == ""
    last = error.strip().splitlines()[-1]
    assert last.startswith("resdet report: ")
    assert reason in last
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no figures.json"), ("{", "not JSON"), ("[]", "expected an object, got list")],
)
def test_a_folder_without_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, reason: str
):
    if content is not None:
        (tmp_path / "figures.json").write_text(content)
    assert main([str(tmp_path)]) == 1
    assert reason in capsys.readouterr().err


def test_different_data_is_refused(
    evaluated: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = tmp_path / "other"
    shutil.copytree(shapes, data, ignore=shutil.ignore_patterns("annotations"))
    file = read_folder(data, "val").path(0).stem
    annotation = data / "Annotations" / f"{file}.xml"
    annotation.write_text(annotation.read_text().replace("<xmin>", "<xmin>1", 1))
    other = write_run(tmp_path / "second", data, images=5)
    assert main([str(evaluated), str(other), "--output", str(tmp_path / "page.html")]) == 1
    assert "second and first are of different data or classes" in capsys.readouterr().err


def test_no_model_is_needed(evaluated: Path, tmp_path: Path):
    code = (
        "import sys; from resdet.tools.report import main\n"
        f"assert main([{str(evaluated)!r}, '--output', {str(tmp_path / 'p.html')!r}]) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    loaded = finished.stderr.split()
    assert "jinja2" in loaded
    assert {"torch", "matplotlib", "pytorch_lightning", "backbones"}.isdisjoint(loaded)
