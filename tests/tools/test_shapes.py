from pathlib import Path

import pytest

from detection.data.folder import read_folder
from resdet.tools.shapes import main

FEW = ["--train", "3", "--val", "1", "--test", "2"]


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "new" / "shapes"
    assert main([str(root), *FEW]) == 0
    return root


def test_draws_every_split(drawn: Path):
    for split, count in {"train": 3, "val": 1, "test": 2}.items():
        assert len(read_folder(drawn, split).files) == count


def test_says_what_there_is(drawn: Path, capsys: pytest.CaptureFixture[str]):
    before = content(drawn)
    assert main([str(drawn), *FEW]) == 0
    assert f"{drawn}: 3 train, 1 val, 2 test" in capsys.readouterr().out.splitlines()
    assert content(drawn) == before


def test_a_seed_draws_the_same_again(drawn: Path, tmp_path: Path):
    assert main([str(tmp_path / "same"), *FEW, "--seed", "0"]) == 0
    assert content(tmp_path / "same") == content(drawn)
    assert main([str(tmp_path / "other"), *FEW, "--seed", "1"]) == 0
    assert content(tmp_path / "other") != content(drawn)


@pytest.mark.parametrize("options", [["--train", "4"], ["--seed", "5"], ["--val", "0"]])
def test_nothing_is_overwritten(
    drawn: Path, capsys: pytest.CaptureFixture[str], options: list[str]
):
    before = content(drawn)
    assert main([str(drawn), *FEW, *options]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("resdet shapes: ")
    assert "\n" not in error
    assert content(drawn) == before


def test_a_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "shapes").write_text("mine")
    assert main([str(tmp_path / "shapes"), *FEW]) == 1
    assert "not a folder of shapes" in capsys.readouterr().err
    assert (tmp_path / "shapes").read_text() == "mine"


def test_hard_and_classification(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    detection, single = tmp_path / "d", tmp_path / "c"
    assert main([str(detection), *FEW, "--hard"]) == 0
    assert "broken_ring" in (detection / "annotations/instances_val.json").read_text()
    assert main([str(single), "--hard", "--classification", "--train", "4", "--val", "2"]) == 0
    assert f"{single}: 4 train, 2 val" in capsys.readouterr().out.splitlines()
    assert len(list((single / "train" / "broken_ring").parent.glob("*/*.jpg"))) == 4
    assert main([str(detection), *FEW]) == 1
    assert "holds shapes made from" in capsys.readouterr().err
