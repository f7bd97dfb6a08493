import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import detection
from detection.training.checkpointing import AtomicCheckpointIO

WORKER = Path(__file__).with_name("kill_worker.py")
OLD = {"epoch": 1, "weights": torch.arange(10)}


def save(checkpoint: dict[str, Any], path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_a_saved_file_loads_without_executing_anything(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "last.ckpt"
    save(OLD, path)
    save({**OLD, "epoch": 2}, path)
    found = load(path)
    assert found["epoch"] == 2
    assert torch.equal(found["weights"], OLD["weights"])
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_others_may_read_it(tmp_path: Path):
    (tmp_path / "usual").touch()
    save(OLD, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_mode == (tmp_path / "usual").stat().st_mode


def fail_to_pickle(path: Path) -> None:
    with pytest.raises(Exception, match="Can't pickle"):
        save({"epoch": 2, "weights": torch.zeros(100_000), "function": lambda: None}, path)


def fill_the_disk(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt: cannot be written"):
            save({"epoch": 2, "weights": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fail", [fail_to_pickle, fill_the_disk])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, fail: Callable[[Path], None]):
    path = tmp_path / "last.ckpt"
    fail(path)
    assert list(tmp_path.iterdir()) == []
    save(OLD, path)
    before = path.read_bytes()
    fail(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_kill_9_in_the_middle_of_a_write_leaves_a_whole_file(tmp_path: Path):
    finished = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path), "12"],
        env=os.environ | {"PYTHONPATH": str(Path(detection.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    cut_short, versions = map(int, finished.stdout.split())
    assert cut_short > 0  # some were killed in the middle
    assert versions > 0  # some were not
