import json
import shutil
from pathlib import Path

import pytest

from resdet.tools.check import main


@pytest.fixture
def faulty(shapes: Path, tmp_path: Path) -> Path:
    root = tmp_path / "faulty"
    shutil.copytree(shapes, root)
    shutil.rmtree(root / "annotations")
    file = root / "Annotations/train_000002.xml"
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>"
    wrong = f"<object><name>disc</name>{box}</object>" * 5
    file.write_text(file.read_text().replace("</annotation>", f"{wrong}</annotation>"))
    return root


def test_a_sound_folder(shapes: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(shapes)]) == 0
    output, error = capsys.readouterr()
    lines = output.splitlines()
    assert lines[0].startswith("train: 8 images, ")
    assert "wrong" not in output
    assert any(line.startswith("val: 5 images, ") for line in lines)
    assert "decoding train" in error


def test_a_faulty_one_is_reported_and_repaired(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = [
        text.split("</name>")[0]
        for text in (faulty / "Annotations/train_000001.xml").read_text().split("<name>")[1:]
    ]
    file = faulty / "Annotations/train_000002.xml"
    file.write_text(file.read_text().replace("<name>disc</name>", f"<name>{names[0]}</name>"))
    report, output = tmp_path / "report.json", tmp_path / "repaired"
    assert main([str(faulty), f"--json={report}", f"--repair={output}"]) == 1
    text = capsys.readouterr().out
    assert "  wrong: left out by the reader: 5\n" in text
    assert text.count("is empty or reversed") == 3  # examples
    assert f"{output}: the copy without what is wrong" in text
    train, val = json.loads(report.read_text())
    assert (train["split"], val["split"]) == ("train", "val")
    assert len(train["wrong"]["left out by the reader"]) == 5
    assert main([str(output), "--no-images"]) == 0


def test_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none"), "--split", "test"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("resdet check: ")
    assert "neither VOC's layout" in error


@pytest.mark.parametrize("target", ["used", "file/below", "file"])
def test_repair_is_refused_before_an_image_is_decoded(
    shapes: Path, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    assert main([str(shapes), "--repair", str(tmp_path / target)]) == 1
    error = capsys.readouterr().err
    assert f"resdet check: {tmp_path / target}: " in error
    assert "decoding" not in error


@pytest.mark.parametrize("target", ["none/report.json", "file/report.json", "."])
def test_json_is_refused_before_an_image_is_decoded(
    shapes: Path, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main([str(shapes), "--json", str(tmp_path / target)])
    error = capsys.readouterr().err
    assert f"--json {tmp_path / target}: " in error
    assert "decoding" not in error


def test_the_report_may_lie_in_the_copy(shapes: Path, tmp_path: Path):
    output = tmp_path / "copy"
    own = ["--no-images", "--repair", str(output), "--json", str(output / "report.json")]
    assert main([str(shapes), *own]) == 0
    assert len(json.loads((output / "report.json").read_text())) == 2


def test_findings_are_printed_although_the_copy_fails(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detection.data.repair.write_repaired", fail)
    assert main([str(shapes), "--no-images", "--repair", str(tmp_path / "copy")]) == 1
    heard = capsys.readouterr()
    assert heard.out.startswith("train: 8 images, ")
    assert "the copy" not in heard.out
    assert "No space left" in heard.err


def test_output_in_use(shapes: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(shapes), "--no-images", "--repair", str(shapes)]) == 1
    assert "expected a new or an empty folder" in capsys.readouterr().err


def test_workers(shapes: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(shapes), "--split", "val", "--workers", "1"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([str(shapes), "--workers", "0"])
    assert "--workers must be at least 1" in capsys.readouterr().err
