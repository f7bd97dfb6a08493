from pathlib import Path

import pytest

from detection.data import download as library
from detection.data.folder import read_folder
from resdet.tools import download


@pytest.fixture(autouse=True)
def _small(official, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "SETS", official)


def test_it_knows_every_set(official):
    assert tuple(official) == download.NAMES


def test_from_the_command_to_records(tmp_path: Path, capsys: pytest.CaptureFixture[str], server):
    command = ["voc07", "voc12", "coco2017", "voc07", "--output", str(tmp_path)]
    assert download.main(command) == 0
    output, error = capsys.readouterr()
    assert output.splitlines() == [str(tmp_path / "VOCdevkit"), str(tmp_path / "coco")]
    assert "extracting train2017.zip" in error
    union = read_folder(tmp_path / "VOCdevkit", "VOC2007/trainval+VOC2012/trainval")
    assert len(union.files) == 6
    assert len(read_folder(tmp_path / "coco", "val2017").files) == 2
    asked = len(server.asked)
    assert asked == 6
    assert download.main([*command, "--keep-archives"]) == 0
    assert len(server.asked) == asked


def test_archives_are_kept(tmp_path: Path):
    assert download.main(["voc12", "--keep-archives", "--output", str(tmp_path)]) == 0
    assert len(list((tmp_path / "archives").glob("*.tar"))) == 1


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], server):
    server.files.clear()
    assert download.main(["voc12", "--output", str(tmp_path)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("resdet download: http://127.0.0.1")
    assert "404" in last


def test_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "download", interrupt)
    assert download.main(["voc12", "--output", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_an_unknown_set(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        download.main(["voc2005"])
    assert "choose from" in capsys.readouterr().err
