import contextlib
import hashlib
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

import detection.checkpoint
from detection.checkpoint import KEY, load_detector
from detection.data.datamodule import DetectionData
from detection.data.folder import read_folder
from detection.evaluation.gather import PredictionBuffer
from detection.evaluation.results import read_results
from detection.model.improved import ImprovedDetector, Improvements
from detection.structures import Annotations, Batch, Detections
from resdet.tools.evaluate import main


@pytest.fixture(scope="module")
def voc(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes in VOC's layout alone, with nothing difficult, which COCO cannot say."""
    root = tmp_path_factory.mktemp("layouts") / "voc"
    shutil.copytree(shapes, root, ignore=shutil.ignore_patterns("annotations"))
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<difficult>1<", "<difficult>0<"))
    return root


@pytest.fixture(scope="module")
def coco(voc: Path, shapes: Path) -> Path:
    """The same images and boxes in COCO's layout alone, and what VOC knows of them.

    That is: other areas and crowds there are none, and classes are numbered by the alphabet.
    """
    root = voc.with_name("coco")
    shutil.copytree(shapes / "JPEGImages", root / "images")
    (root / "annotations").mkdir()
    for file in (shapes / "annotations").iterdir():
        write_coco(root / "annotations" / file.name, json.loads(file.read_text()))
    return root


def write_coco(file: Path, content: dict[str, Any], factor: int = 1) -> None:
    categories = sorted(content["categories"], key=lambda category: category["name"])
    new = {category["id"]: factor * n for n, category in enumerate(categories, start=1)}
    for item in content["categories"]:
        item["id"] = new[item["id"]]
    for item in content["annotations"]:
        item["category_id"] = new[item["category_id"]]
        item |= {"iscrowd": 0, "area": item["bbox"][2] * item["bbox"][3]}
    file.write_text(json.dumps(content))


class Oracle(nn.Module):
    """Finds the objects, somewhat shifted, and some of them in another class."""

    def __init__(self, truth: Annotations) -> None:
        super().__init__()
        self.truth = truth

    def forward(self, batch: Batch) -> Detections:
        boxes, scores, labels = torch.zeros(1, 9, 4), torch.zeros(1, 9), torch.zeros(1, 9).long()
        row = self.truth.image_ids.tolist().index(int(batch.image_ids[0]))
        for slot, n in enumerate(range(*self.truth.offsets[row : row + 2])):
            boxes[0, slot] = torch.from_numpy(self.truth.boxes[n]) + n % 4
            scores[0, slot] = 0.9 - 0.02 * slot - 0.03 * (n % 5)
            labels[0, slot] = 1 if n % 6 == 5 else int(self.truth.labels[n])
        return Detections(boxes, scores, labels)


@pytest.fixture
def oracle(voc: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the checkpoint be that of a good detector."""
    description = load_detector(run / "best.ckpt")[1]
    good = Oracle(read_folder(voc, "val").annotations), description
    monkeypatch.setattr(detection.checkpoint, "load_detector", lambda path: good)
    monkeypatch.setattr("resdet.tools._checkpoints._cost", lambda *_: {})  # it has no layers


def evaluate(run: Path, data: Path, output: Path, *options: str) -> int:
    own = ["--checkpoint", str(run / "best.ckpt"), "--data", str(data), "--output", str(output)]
    return main([*own, "--workers", "0", "--accelerator", "cpu", "--devices", "1", *options])


def entries(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "predictions.json").read_text())


TWELVE = r" Average (?:Precision|Recall) .*maxDets= *\d+ \] = (\S+)$"


def pycocotools_figures(file: Path, results: Path) -> list[str]:
    """What pycocotools makes of a result file: its twelve figures as it would print them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return ["n/a" if value == -1 else f"{value:.3f}" for value in evaluation.stats]


@pytest.mark.usefixtures("oracle")
def test_both_layouts_give_pycocotools_figures(
    run: Path, voc: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tables = []
    for root in (voc, coco):
        assert evaluate(run, root, tmp_path / root.name) == 0
        output = capsys.readouterr().out
        figures = re.findall(TWELVE, output, re.MULTILINE)
        own = coco / "annotations" / "instances_val.json"
        assert figures == pycocotools_figures(own, tmp_path / root.name / "predictions.json")
        assert 0.2 < float(figures[0]) < float(figures[1]) < 1
        assert str(tmp_path / root.name / "predictions.json") in output
        tables.append((tmp_path / root.name / "figures.txt").read_text())
        assert tables[-1] in output
    assert tables[0] == tables[1]
    assert entries(tmp_path / "voc") == entries(tmp_path / "coco")
    assert {entry["image_id"] for entry in entries(tmp_path / "voc")} == {1, 2, 3, 4, 5}


@pytest.mark.usefixtures("oracle")
def test_the_table_has_a_line_per_class(
    run: Path, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    evaluate(run, voc, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class "))
    names = load_detector(run / "best.ckpt")[1].labels.names
    assert [line.split()[0] for line in lines[start + 1 : start + 11]] == [*names, "mean"]
    counts = np.bincount(read_folder(voc, "val").annotations.labels, minlength=10)[1:]
    counted = [int(line.split()[1]) for line in lines[start + 1 : start + 11]]
    assert counted == [*counts.tolist(), counts.sum()]


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_the_detections_are_the_checkpoints(
    run: Path, shapes: Path, tmp_path: Path, batch_size: str
):
    assert evaluate(run, shapes, tmp_path, "--batch-size", batch_size) == 0
    detector, description = load_detector(run / "best.ckpt")
    data = DetectionData(str(shapes), workers=0, short_side=64, long_side=64)
    buffer = PredictionBuffer()
    with torch.inference_mode():
        for batch, _ in data.val_dataloader():
            buffer.add(detector(batch), batch.image_ids)
    found = read_results(tmp_path / "predictions.json", description.labels.ids)
    expected = buffer.predictions()
    assert len(found.scores) > 20
    for one, other in zip(found[:4], expected[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_the_category_ids_are_the_data_sets(run: Path, coco: Path, voc: Path, tmp_path: Path):
    """A COCO folder has ids of its own, and so has a checkpoint that was trained on it."""
    root = tmp_path / "coco"
    shutil.copytree(coco, root)
    for file in (root / "annotations").iterdir():
        write_coco(file, json.loads(file.read_text()), 10)
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    checkpoint[KEY]["ids"] = [10 * number for number in checkpoint[KEY]["ids"]]
    torch.save(checkpoint, tmp_path / "best.ckpt")
    assert evaluate(tmp_path, root, tmp_path / "own") == 0
    assert evaluate(run, coco, tmp_path / "other") == 0
    expected = [
        {**entry, "category_id": 10 * entry["category_id"]} for entry in entries(tmp_path / "other")
    ]
    assert entries(tmp_path / "own") == expected
    # VOC has names only: the ids are the checkpoint's.
    assert evaluate(tmp_path, voc, tmp_path / "voc") == 0
    assert entries(tmp_path / "voc") == expected


def test_results_lie_beside_the_checkpoint(run: Path, shapes: Path, tmp_path: Path):
    shutil.copy(run / "best.ckpt", tmp_path)
    own = ["--checkpoint", str(tmp_path / "best.ckpt"), "--data", str(shapes), "--split", "train"]
    assert main([*own, "--workers", "0", "--accelerator", "cpu", "--precision", "bf16-mixed"]) == 0
    folder = tmp_path / "evaluation-train"
    files = ["figures.csv", "figures.json", "figures.txt", "predictions.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert "8 images" in (folder / "figures.txt").read_text()


def test_figures_say_what_they_are_of(run: Path, shapes: Path, tmp_path: Path):
    assert evaluate(run, shapes, tmp_path) == 0
    content = json.loads((tmp_path / "figures.json").read_text())
    digest = hashlib.sha256((tmp_path / "predictions.json").read_bytes()).hexdigest()
    assert content["predictions_sha256"] == digest
    assert content["checkpoint"] == str(run / "best.ckpt")
    assert (content["data"], content["split"], content["images"]) == (str(shapes), "val", 5)
    assert content["labels"]["names"] == list(load_detector(run / "best.ckpt")[1].labels.names)
    assert content["cost"]["parameters"] > 10_000
    assert content["cost"]["images_per_second"] > 0
    assert content["configuration"]["detector"]["backbone"] == "resnet18"
    assert {"python", "torch", "hotcoco"} <= content["environment"].keys()
    assert f"--checkpoint {run}/best.ckpt" in content["command"]
    assert [score["name"] for score in content["definitions"]][:5] == [
        "AP",
        "AP50",
        "AP75",
        "VOC07",
        "VOC10",
    ]
    rows = (tmp_path / "figures.csv").read_text().splitlines()
    assert rows[0] == "class,objects,AP,AP50,VOC07,VOC10,split,COCO,VOC"
    assert rows[-1].startswith("mean,")
    assert len(rows) == 2 + len(content["labels"]["names"])


def test_figures_say_how_the_detector_was_trained(run: Path, shapes: Path, tmp_path: Path):
    """By the configuration that training left beside the checkpoint, if it is there."""
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        shutil.copy(run / "best.ckpt", tmp_path / name)
    (tmp_path / "with" / "config.yaml").write_text("seed_everything: 7\nmodel: {}\n")
    digest = hashlib.sha256(b"seed_everything: 7\nmodel: {}\n").hexdigest()
    contents = []
    for output, folders in (("a", ["with"]), ("b", ["without"]), ("c", ["with", "without"])):
        files = [str(tmp_path / folder / "best.ckpt") for folder in folders]
        own = ["--data", str(shapes), "--output", str(tmp_path / output), "--workers", "0"]
        own += ["--accelerator", "cpu", "--devices", "1"]
        assert main(["--checkpoint", *files, *own]) == 0
        contents.append(json.loads((tmp_path / output / "figures.json").read_text()))
        assert contents[-1]["checkpoint"] == (files if len(files) > 1 else files[0])
    values = [(content["config_sha256"], content["seed"]) for content in contents]
    assert values == [(digest, 7), (None, None), ([digest, None], [7, None])]
    assert [len(content["configuration"]["detector"]) for content in contents[1:]][1] == 2
    # A real one.
    assert evaluate(run, shapes, tmp_path / "d") == 0
    content = json.loads((tmp_path / "d" / "figures.json").read_text())
    expected = hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()
    assert content["config_sha256"] == expected
    assert isinstance(content["seed"], int)


def test_a_detector_is_improved_by_switches(run: Path, shapes: Path, tmp_path: Path):
    switches = ("--refine", "--vote", "--flip", "--scales", "48", "96", "--natural-side", "30")
    expected = Improvements(
        refinement=True, voting=True, flip=True, scales=(48, 96), natural_side=30.0
    )
    assert evaluate(run, shapes, tmp_path / "on", *switches) == 0
    assert evaluate(run, shapes, tmp_path / "off") == 0
    on, off = (json.loads((tmp_path / name / "figures.json").read_text()) for name in ("on", "off"))
    assert on["improvements"] == expected.to_plain()
    assert off["improvements"] == Improvements().to_plain()
    # The images come at the largest scale, their long side in proportion.
    assert [on["configuration"][side] for side in ("short_side", "long_side")] == [96, 96]
    assert on["cost"]["image"] == [96, 96]
    assert on["cost"]["parameters"] == off["cost"]["parameters"]
    assert on["cost"]["multiply_adds"] > 4 * off["cost"]["multiply_adds"]
    assert entries(tmp_path / "on") != entries(tmp_path / "off")

    trained = load_detector(run / "best.ckpt")
    detector = ImprovedDetector([trained[0]], [64], expected)
    data = DetectionData(str(shapes), workers=0, short_side=96, long_side=96)
    buffer = PredictionBuffer()
    with torch.inference_mode():
        for batch, _ in data.val_dataloader():
            buffer.add(detector(batch), batch.image_ids)
    found = read_results(tmp_path / "on" / "predictions.json", trained[1].labels.ids)
    for one, other in zip(found[:4], buffer.predictions()[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_several_checkpoints_are_an_ensemble(run: Path, shapes: Path, tmp_path: Path):
    file = str(run / "best.ckpt")
    assert evaluate(run, shapes, tmp_path / "one") == 0
    own = ["--data", str(shapes), "--workers", "0", "--accelerator", "cpu", "--devices", "1"]
    assert main(["--checkpoint", file, file, *own, "--output", str(tmp_path / "two")]) == 0
    one, two = (json.loads((tmp_path / x / "figures.json").read_text()) for x in ("one", "two"))
    assert two["cost"]["parameters"] == 2 * one["cost"]["parameters"]
    rows = [entries(tmp_path / name) for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1])
    for ours, wanted in zip(*rows, strict=True):
        assert ours["score"] == pytest.approx(wanted["score"], rel=1e-4)
        assert ours["bbox"] == pytest.approx(wanted["bbox"], rel=1e-3, abs=1e-2)


def test_an_ensemble_has_one_set_of_classes(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    checkpoint[KEY]["names"][0] = "banana"
    torch.save(checkpoint, tmp_path / "other.ckpt")
    files = [str(run / "best.ckpt"), str(tmp_path / "other.ckpt")]
    assert main(["--checkpoint", *files, "--data", str(shapes)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "must know the same classes: the first knows arrow" in error
    assert "number 2 banana" in error


@pytest.mark.parametrize("switch", [["--refine"], ["--vote"], ["--scales", "600"], ["--flip"]])
def test_result_files_cannot_be_improved(
    switch: list[str], shapes: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_:
        main(["--predictions", "a.json", "--data", str(shapes), *switch])
    assert exit_.value.code == 2
    assert "--refine, --vote, --scales, --flip, --fuse: not with --predictions" in (
        capsys.readouterr().err
    )


def score(files: list[Path], data: Path, output: Path, *options: str) -> int:
    own = ["--predictions", *map(str, files), "--data", str(data), "--output", str(output)]
    return main([*own, *options])


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_predictions_of_others_score_the_same(run: Path, voc: Path, tmp_path: Path, engine: str):
    assert evaluate(run, voc, tmp_path / "a") == 0
    results = tmp_path / "a" / "predictions.json"
    assert score([results], voc, tmp_path / "b", "--engine", engine) == 0
    assert entries(tmp_path / "b") == entries(tmp_path / "a")
    for name in ("figures.txt", "figures.csv"):
        assert (tmp_path / "b" / name).read_text() == (tmp_path / "a" / name).read_text()
    half = len(entries(tmp_path / "a")) // 2
    parts = [tmp_path / "one.json", tmp_path / "two.json"]
    parts[0].write_text(json.dumps(entries(tmp_path / "a")[:half]))
    parts[1].write_text(json.dumps(entries(tmp_path / "a")[half:]))
    assert score(parts, voc, tmp_path / "c") == 0
    assert (tmp_path / "c" / "figures.txt").read_text() == (
        tmp_path / "a" / "figures.txt"
    ).read_text()


@pytest.mark.usefixtures("oracle")
def test_voc_result_files_score_the_same(run: Path, voc: Path, tmp_path: Path):
    assert evaluate(run, voc, tmp_path / "a") == 0
    records = read_folder(voc, "val")
    ids = records.annotations.image_ids.tolist()
    stems = {i: Path(str(file)).stem for i, file in zip(ids, records.files, strict=True)}
    for entry in entries(tmp_path / "a"):
        name = records.labels.names[entry["category_id"] - 1]
        x, y, width, height = entry["bbox"]
        row = (entry["score"], x + 1, y + 1, x + width, y + height)
        with (tmp_path / f"comp4_det_val_{name}.txt").open("a") as file:
            print(stems[entry["image_id"]], *map(repr, row), file=file)
    files = sorted(tmp_path.glob("comp4_*.txt"))
    assert len(files) > 1
    assert score(files, voc, tmp_path / "b") == 0
    read = [(tmp_path / x / "figures.csv").read_text() for x in "ab"]
    assert read[0] == read[1]


def test_scoring_files_needs_no_torch(shapes: Path, tmp_path: Path):
    (tmp_path / "none.json").write_text("[]")
    own = ["--predictions", f"{tmp_path}/none.json", "--data", str(shapes), "--output"]
    code = f"import sys; from resdet.tools.evaluate import main; main({[*own, str(tmp_path)]!r});"
    code += "print({'torch', 'cv2', 'pytorch_lightning', 'torchvision'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert json.loads((tmp_path / "figures.json").read_text())["coco"]["ap"] == 0.0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pkl", "", "a.pkl: expected .json (COCO) or comp4_det_*.txt (VOC)"),
        ("a.json", "{", "a.json: not a valid result file"),
        (
            "a.json",
            '[{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]',
            "image 9",
        ),
        ("comp4_det_val_banana.txt", "", "comp4_det_val_banana.txt"),
        ("none", None, "none"),
    ],
)
def test_unusable_predictions_are_one_line(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str | None,
    reason: str,
):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert score([tmp_path / name], shapes, tmp_path / "output") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[0].startswith("val: 5 images, ")
    assert len(lines) == 2
    assert reason in lines[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--data", "nowhere"), "nowhere: neither VOC's layout"),
        (("--split", "nothing"), "nothing.txt: no such split; there are: train, val"),
        (("--checkpoint", "none.ckpt"), "none.ckpt: cannot be read: No such file"),
        (("--checkpoint", __file__), f"{__file__}: cannot be read as a checkpoint"),
        (("--batch-size", "0"), "val_batch_size >= 1, got 0"),
        (("--scales", "600", "600"), "different short sides, pixels, got (600, 600)"),
        (("--fuse",), "fuse: there are no scales"),
        (("--devices", "-1"), "--accelerator, --devices, --precision: `devices` selected"),
        (("--precision", "bf16-true"), "precision bf16-true: boxes need float32, as bf16-mixed"),
    ],
)
def test_errors_are_one_line(
    run: Path,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    reason: str,
):
    assert evaluate(run, shapes, tmp_path / "output", *options) == 1
    output, error = capsys.readouterr()
    lines = error.strip().splitlines()
    assert lines[-1].startswith("resdet evaluate: ")
    assert reason in lines[-1]
    assert "Traceback" not in error
    assert output == ""
    assert not (tmp_path / "output").exists()


def test_an_output_that_is_a_file_is_said_before_anything_is_run(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    for output in ("file", "file/inside"):
        assert evaluate(run, shapes, tmp_path / output) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{tmp_path}/file: expected a folder" in line


def test_what_is_left_out_is_said(
    run: Path,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in (("handlers", []), ("level", logging.WARNING)):  # as outside of pytest
        monkeypatch.setattr(logging.getLogger(), name, value)
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    (data / "JPEGImages" / "val_000002.jpg").unlink()
    assert evaluate(run, data, tmp_path / "output") == 0
    error = capsys.readouterr().err
    assert "split val: 4 images" in error
    assert "1 records skipped" in error
    assert "no image val_000002" in error


def test_other_classes_are_refused(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    checkpoint[KEY]["names"][0] = "banana"
    torch.save(checkpoint, tmp_path / "best.ckpt")
    assert evaluate(tmp_path, shapes, tmp_path / "output") == 1
    assert "arrow" in capsys.readouterr().err.splitlines()[-1]
