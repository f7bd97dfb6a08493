import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detection.data.folder import read_folder
from detection.data.shapes import write_shapes
from detection.evaluation.results import write_results
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
    write_results(file, Predictions(*(column[chosen] for column in whole)), records.labels.ids)
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

    (out / "steps" / "report-table7.json").unlink()
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
    assert capsys.readouterr().out.count("needs a server") == 3


@pytest.mark.parametrize("given", ["resnet=x.json", "voc0712-vgg16", "voc0712-vgg16="])
def test_from_is_checked(
    given: str, voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["table7", "--data", str(voc), "--output", str(tmp_path), "--from", given]
    assert reproduce.main(arguments) == 1
    assert "expected KEY=PATH with KEY one of voc0712-vgg16, " in capsys.readouterr().err


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
