import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.checkpoint import KEY, Description
from detection.data.folder import read_folder
from detection.data.labels import LabelMap
from detection.data.shapes import write_shapes
from detection.evaluation.checks import select
from detection.evaluation.results import write_results
from detection.model.build import DetectorSpec, faster_rcnn
from detection.reproduction.tables import VOC_CLASSES
from detection.structures import Predictions
from resdet.tools import reproduce


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC's folders with shapes in them."""
    root = tmp_path_factory.mktemp("voc") / "VOCdevkit"
    write_shapes(root / "VOC2007", {"test": 8, "trainval": 1}, (96, 96))
    write_shapes(root / "VOC2012", {"trainval": 1}, (96, 96))
    return root


def results(voc: Path, file: Path, kept: float, seed: int = 0) -> Path:
    """The ground truth as detections, a share of it."""
    records = read_folder(voc, "VOC2007/test")
    truth = records.annotations
    ids = np.repeat(truth.image_ids, np.diff(truth.offsets))
    rng = np.random.default_rng(seed)
    whole = Predictions(ids, truth.boxes, rng.random(len(ids)), truth.labels)
    chosen = rng.random(len(ids)) < kept
    write_results(file, select(whole, np.flatnonzero(chosen)), records.labels.ids)
    return file


def test_a_table_from_prediction_files_alone(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vgg = results(voc, tmp_path / "vgg.json", 0.5)
    resnet = results(voc, tmp_path / "resnet.json", 1.0)
    out = tmp_path / "out"
    given = [f"voc0712-vgg16={vgg}", f"voc0712-resnet101={resnet}"]
    arguments = ["table7", "--data", str(voc), "--output", str(out), "--from", *given]
    assert reproduce.main([*arguments, "--resamples", "20"]) == 0
    found = json.loads((out / "table7.json").read_text())
    first, second, *hidden = found["rows"]
    assert [row["figures"][0]["paper"] for row in found["rows"]] == [73.2, 76.4, 70.4, 73.8]
    assert second["figures"][0]["ours"]["value"] == 100
    assert second["figures"][0]["verdict"] == "above"
    assert first["figures"][0]["ours"]["value"] < 100
    assert all("needs a server" in row["figures"][0]["verdict"] for row in hidden)
    (gap,) = found["gaps"]
    assert gap["paper"] == 3.2
    assert gap["ours"]["value"] == pytest.approx(100 - first["figures"][0]["ours"]["value"])
    assert gap["verdict"] == "same direction"
    assert 0 < max(found["seconds"].values()) <= found["wall_seconds"] + 0.1
    figures = json.loads((out / "evaluations/given-voc0712-vgg16-0/figures.json").read_text())
    hashes = found["predictions_sha256"]
    assert hashes["voc0712-vgg16"] == [figures["predictions_sha256"]]
    assert found["command"].startswith("resdet reproduce table7 ")
    assert found["environment"]["python"]
    text = capsys.readouterr().out
    assert "| ResNet-101 | 07+12 | VOC07 | 76.4 | 100.0 [100.0, 100.0] | above |" in text
    assert text.count("needs a server") == 2
    page = (out / "table7.html").read_text()
    assert "://" not in page  # it fetches nothing
    assert "100.0 [100.0, 100.0]" in page
    assert (out / "table7-runs.html").is_file()
    assert found["seeds"] is None

    assert reproduce.main([*arguments, "--resamples", "20"]) == 0
    resumed = json.loads((out / "table7.json").read_text())
    assert resumed["rows"] == found["rows"]
    assert resumed["wall_seconds"] is None  # the last step alone was left

    # Several runs of a row are its seeds; evaluated folders serve as they are.
    both = out / "evaluations/given-voc0712-vgg16-0", out / "evaluations/given-voc0712-resnet101-0"
    given = [f"voc0712-vgg16={folder}" for folder in both]
    again = tmp_path / "again"
    arguments = ["table10", "--data", str(voc), "--output", str(again), "--from", *given]
    assert reproduce.main(arguments) == 0
    found = json.loads((again / "table10.json").read_text())
    values = found["rows"][0]["figures"][0]["ours"]["runs"]
    assert values == [first["figures"][0]["ours"]["value"], 100]
    assert found["rows"][0]["figures"][0]["ours"]["basis"] == "2 seeds, bootstrap over images"
    assert found["rows"][1]["figures"][0]["verdict"] == "not given"
    assert len(found["classes"]) == 20


def test_a_study_is_extended_in_its_folder(voc: Path, tmp_path: Path) -> None:
    file = results(voc, tmp_path / "vgg.json", 0.5)
    out = tmp_path / "out"
    arguments = ["table7", "--data", str(voc), "--output", str(out), "--resamples", "0", "--from"]
    pattern = f"voc0712-vgg16={tmp_path}/vgg*.json"
    assert reproduce.main([*arguments, pattern]) == 0
    (first, second, *_) = json.loads((out / "table7.json").read_text())["rows"]
    assert first["figures"][0]["ours"]["value"] < 100
    assert second["figures"][0]["ours"] is None

    # Another row beside it, and another content of the same file.
    results(voc, file, 1.0)
    resnet = results(voc, tmp_path / "resnet.json", 0.5)
    assert reproduce.main([*arguments, pattern, f"voc0712-resnet101={resnet}"]) == 0
    (first, second, *_) = json.loads((out / "table7.json").read_text())["rows"]
    assert first["figures"][0]["ours"]["value"] == 100
    assert second["figures"][0]["ours"]["value"] < 100


def test_evaluated_folders_serve_where_their_data_were_moved(voc: Path, tmp_path: Path) -> None:
    moved, own = tmp_path / "moved", tmp_path / "VOCdevkit"
    shutil.copytree(voc, own)
    given = f"voc0712-vgg16={results(own, tmp_path / 'vgg.json', 0.5)}"
    out = tmp_path / "out"
    arguments = ["table7", "--output", str(out), "--resamples", "0"]
    assert reproduce.main([*arguments, "--data", str(own), "--from", given]) == 0
    before = (out / "table7.json").read_text()
    own.rename(moved)
    folder = f"voc0712-vgg16={out}/evaluations/given-voc0712-vgg16-0"
    arguments = ["table7", "--output", str(tmp_path / "again"), "--resamples", "0"]
    assert reproduce.main([*arguments, "--from", folder]) == 1
    assert reproduce.main([*arguments, "--data", str(moved), "--from", folder]) == 0
    after = (tmp_path / "again" / "table7.json").read_text()
    assert json.loads(after)["rows"] == json.loads(before)["rows"]


def test_without_data_the_report_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table8", "--data", str(tmp_path / "coco"), "--output", str(tmp_path / "out")]
    assert reproduce.main(arguments) == 1
    heard = capsys.readouterr()
    assert "`resdet download coco2014` fetches it" in heard.err
    assert "| VGG-16 | COCO train | AP50 | 41.5 | – | data not here: " in heard.out
    assert json.loads((tmp_path / "out/table8.json").read_text())["images"] is None


def test_tables_of_servers_need_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["table11", "--output", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("needs a server") == 3
    assert "| aeroplane | 84.9 | 86.5 | 92.1 |\n" in text
    assert "| tvmonitor | 61.5 | 65.6 | 80.0 |\n" in text


@pytest.mark.parametrize("given", ["resnet=x.json", "voc0712-vgg16", "voc0712-vgg16="])
def test_from_is_checked(
    given: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table7", "--data", str(voc), "--output", str(tmp_path), "--from", given]
    assert reproduce.main(arguments) == 1
    assert "expected KEY=PATH with KEY one of voc0712-vgg16, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            "VGG-16 on VOC 12 test=x.json",
            "VGG-16 on VOC 12 test is tested on VOC 12 test, and table7 on VOC 07 test",
        ),
        ("voc0712-vgg16=X/comp4_det_*.txt", "X/comp4_det_*.txt: no such folder or file"),
        ("voc0712-vgg16=x.json", "x.json: no such folder or file"),
        ("voc0712-vgg16=X/evaluated", "evaluated: evaluated on split VOC2012/val, expected VOC20"),
    ],
)
def test_what_is_given_must_be_of_the_study(
    given: str, reason: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"data": str(voc), "split": "VOC2012/val", "labels": {"names": [], "ids": []}}
    (tmp_path / "evaluated").mkdir()
    (tmp_path / "evaluated" / "figures.json").write_text(json.dumps(figures))
    out = tmp_path / "out"
    arguments = ["table7", "--data", str(voc), "--output", str(out), "--from"]
    assert reproduce.main([*arguments, given.replace("X", str(tmp_path))]) == 1
    assert reason.replace("X", str(tmp_path)) in capsys.readouterr().err
    assert not (out / "steps").exists()


@pytest.mark.parametrize(
    ("option", "number", "least"),
    [("seeds", 0, 1), ("seeds", -1, 1), ("jobs", 0, 1), ("devices", 0, 1), ("resamples", -1, 0)],
)
def test_numbers_are_checked(
    option: str, number: int, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        reproduce.main(["table7", f"--{option}={number}"])
    assert stop.value.code == 2
    assert f"--{option} must be at least {least}, got {number}" in capsys.readouterr().err


def test_a_broken_prediction_file_is_named(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text('[{"image_id": 1}]')
    given = f"voc0712-vgg16={tmp_path}/bad.json"
    arguments = ["table7", "--data", str(voc), "--output", str(tmp_path), "--from", given]
    assert reproduce.main(arguments) == 1
    assert "bad.json" in capsys.readouterr().err


def test_list_prints_rows_and_commands(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table7", "--data", str(voc), "--output", str(tmp_path / "out"), "--seeds", "2"]
    assert reproduce.main([*arguments, "--list"]) == 0
    text = capsys.readouterr().out
    assert text.count("resdet train --config voc0712.yaml") == 4
    assert text.count("resdet evaluate --checkpoint") == 4
    assert not (tmp_path / "out").exists()


def test_a_training_by_hand_is_kept(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "voc0712-vgg16" / "seed-0" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert reproduce.main(["table7", "--data", str(voc), "--output", str(tmp_path)]) == 1
    reason = f"resdet reproduce: {checkpoint.parent}: has last.ckpt of an unknown command, now "
    assert reason in capsys.readouterr().err
    assert checkpoint.is_file()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file"), (b"no checkpoint", "cannot be read as a checkpoint")],
)
def test_what_table_10_is_to_start_from_is_checked_first(
    content: bytes | None,
    reason: str,
    voc: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, out = tmp_path / "coco.ckpt", tmp_path / "out"
    if content is not None:
        start.write_bytes(content)
    arguments = ["table10", "--data", str(voc), "--output", str(out), "--start", str(start)]
    assert reproduce.main(arguments) == 1
    assert f"{start}: {reason}" in capsys.readouterr().err
    assert not (out / "steps").exists()


def test_a_detector_of_other_layers_is_no_start(voc: Path, tmp_path: Path) -> None:
    """What the row's network is made of is taken from its command."""
    spec = DetectorSpec(backbone="resnet18", width=8, frozen_stages=0)
    detector = faster_rcnn(20, spec)
    labels = LabelMap.from_names(VOC_CLASSES)
    facts = Description(spec, detector.preprocessing, labels, 600, 1000).to_plain()
    weights = {f"detector.{name}": value for name, value in detector.state_dict().items()}
    torch.save({KEY: facts, "state_dict": weights}, tmp_path / "voc.ckpt")
    command = ("train", "--config", "resnet101.yaml", "--model.detector.backbone", "resnet18")
    command += ("--model.detector.width", "8")
    reproduce._check_start(tmp_path / "voc.ckpt", command)
    more = ("--model.detector.anchor_sizes", "[64, 128, 256, 512]")
    with pytest.raises(ValueError, match=r"voc\.ckpt: a detector of other layers: rpn\."):
        reproduce._check_start(tmp_path / "voc.ckpt", (*command, *more))


def command_lines() -> Iterator[bytes]:
    """Those of the processes that are running."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield entry.read_bytes()


def test_a_stopped_run_stops_its_commands_and_goes_on_later(voc: Path, tmp_path: Path) -> None:
    """SIGTERM while a file is scored: no orphan, no marker, and the next run does the work."""
    file = results(voc, tmp_path / "vgg.json", 0.5)
    out = tmp_path / "out"
    arguments = ["table7", "--data", str(voc), "--output", str(out), "--from"]
    arguments += [f"voc0712-vgg16={file}", "--resamples", "0"]
    command = [sys.executable, "-m", "resdet.tools", "reproduce", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "steps" / "given-voc0712-vgg16-0.log"
    until = time.monotonic() + 60
    while not log.is_file() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert not any(str(file).encode() in words for words in command_lines())
    assert not log.with_suffix(".json").exists()
    assert reproduce.main(arguments) == 0
    assert log.with_suffix(".json").is_file()


def test_the_small_studies_draw_their_own_data(capsys: pytest.CaptureFixture[str]) -> None:
    for switch, folder in ((), "X/mini-data"), (("--quick",), "X/mini-quick-data"):
        assert reproduce.main(["mini", *switch, "--list", "--data", "X"]) == 0
        assert f"resdet shapes {folder}/detection --hard" in capsys.readouterr().out
