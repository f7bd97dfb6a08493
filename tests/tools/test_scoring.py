"""Result files of others, scored by `resdet evaluate --predictions` on small folders by hand."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resdet.tools import compare, evaluate, report

BOX = [218.9, 52.7, 160, 20]
NARROWER = [218.9, 52.7, 160, 18]  # an IoU below 0.9 by the last bit


def write(root: Path, boxes: dict[int, list[float]], split: str = "val") -> Path:
    """A COCO folder of an object an image, and without image files."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 400, "width": 400} for i in boxes]
    objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": box} for i, box in boxes.items()]
    categories = [{"id": 1, "name": "cat"}]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": objects, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return root


def found(file: Path, boxes: dict[int, list[float]]) -> Path:
    one = {"category_id": 1, "score": 0.5}
    file.write_text(json.dumps([one | {"image_id": i, "bbox": box} for i, box in boxes.items()]))
    return file


def score(data: Path, *files: Path, split: str = "val", output: Path | None = None) -> int:
    where = ["--output", str(output)] if output else []
    own = ["--data", str(data), "--split", split, *where]
    return evaluate.main(["--predictions", *map(str, files), *own])


def figures(folder: Path) -> dict:
    return json.loads((folder / "figures.json").read_text())


@pytest.mark.parametrize(("box", "ap"), [(NARROWER, 0.8), ([350, 350, 100, 100], 1.0)])
def test_boxes_count_as_the_files_have_them(tmp_path: Path, box: list[float], ap: float):
    """An overlap on a threshold, and a box over the border."""
    data = write(tmp_path / "data", {1: BOX if box == NARROWER else box})
    assert score(data, found(tmp_path / "x.json", {1: box}), output=tmp_path / "out") == 0
    assert figures(tmp_path / "out")["coco"]["ap"] == pytest.approx(ap, abs=1e-12)
    own = tmp_path / "out" / "predictions.json"
    assert json.loads(own.read_text())[0]["bbox"] == box
    assert score(data, own, output=tmp_path / "again") == 0
    assert figures(tmp_path / "again")["coco"] == figures(tmp_path / "out")["coco"]


def test_subjects_do_not_share_a_folder(tmp_path: Path):
    data = write(tmp_path / "data", {1: BOX})
    files = [found(tmp_path / name, {1: box}) for name, box in (("a.json", BOX), ("b.json", BOX))]
    for file in files:
        assert score(data, file) == 0
    assert (tmp_path / "evaluation-val-a" / "figures.json").is_file()
    assert (tmp_path / "evaluation-val-b" / "figures.json").is_file()


def test_the_subject_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write(tmp_path / "data", {1: BOX})
    subject = found(tmp_path / "predictions.json", {1: BOX})
    before = subject.read_bytes()
    assert score(data, subject, output=tmp_path) == 1
    assert "would be written over" in capsys.readouterr().err
    assert subject.read_bytes() == before


def test_ids_that_repeat_in_a_union_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data"
    for part in "xy":
        write(data / part, {1: BOX, 2: BOX})
    file = found(tmp_path / "a.json", {1: BOX})
    assert score(data, file, split="x/val+y/val", output=tmp_path / "out") == 1
    assert "a.json: image ids repeat in the splits" in capsys.readouterr().err
    write(data / "y", {3: BOX})
    assert score(data, file, split="x/val+y/val", output=tmp_path / "out") == 0


def test_stems_that_repeat_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data"
    write(data / "x", {1: BOX})
    write(data / "y", {1: BOX})
    file = tmp_path / "comp4_det_val_cat.txt"
    file.write_text("1 0.5 219.9 53.7 378.9 72.7\n\n")
    assert score(data, file, split="x/val+y/val", output=tmp_path / "out") == 1
    assert "two images of the split are called 1" in capsys.readouterr().err
    assert score(data / "x", file, output=tmp_path / "out") == 0
    assert figures(tmp_path / "out")["coco"]["ap50"] == pytest.approx(1.0)


def test_ground_truth_that_has_changed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = write(tmp_path / "data", {1: BOX})
    assert score(data, found(tmp_path / "a.json", {1: BOX}), output=tmp_path / "out") == 0
    page = ["--output", str(tmp_path / "page.html"), "--resamples", "0"]
    assert report.main([str(tmp_path / "out"), *page]) == 0
    write(data, {1: NARROWER})
    for tool, arguments in ((report, page), (compare, [str(tmp_path / "out")])):
        assert tool.main([str(tmp_path / "out"), *arguments]) == 1
        assert "is no longer what figures.json was made of" in capsys.readouterr().err


def test_a_comparison_without_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = write(tmp_path / "data", {1: BOX})
    content = json.loads((data / "annotations" / "val.json").read_text())
    (data / "annotations" / "val.json").write_text(json.dumps(content | {"annotations": []}))
    assert score(data, found(tmp_path / "a.json", {1: BOX}), output=tmp_path / "out") == 0
    run, file = str(tmp_path / "out"), tmp_path / "c.json"
    capsys.readouterr()
    assert compare.main([run, run, "--resamples", "5", "--output", str(file)]) == 0
    assert "n/a" in capsys.readouterr().out
    assert json.loads(file.read_text(), parse_constant=pytest.fail)["seeds"] == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_stopped_says_so(run: Path, shapes: Path, tmp_path: Path, name: str):
    # A shell that runs the tests in the background has SIGINT ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from resdet.tools.evaluate import main; sys.exit(main())"
    own = ["--checkpoint", str(run / "best.ckpt"), "--data", str(shapes), "--workers", "0"]
    slow = "import time; from detection.data import dataset as d; read = d.read_image; "
    slow += (
        "d.read_image = lambda path: (print('READS', flush=True), time.sleep(1), read(path))[2]; "
    )
    with subprocess.Popen(
        [sys.executable, "-c", slow + code, *own, "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    ) as process:
        while "READS" not in (process.stdout.readline() if process.stdout else ""):
            assert process.poll() is None
        process.send_signal(getattr(signal, name))
        assert process.wait(60) == 130
    assert not (tmp_path / "out").exists()
