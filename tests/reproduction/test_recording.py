import json
import os
import subprocess
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detection.reproduction import recording
from detection.reproduction.artefacts import ArtefactError
from detection.reproduction.recording import read_commands, record

HASH = "0123456789abcdef" * 4
README = r"""
<!-- commands: other -->
```sh
resdet shapes elsewhere
```

<!-- commands: quick-start -->
```sh
python3 -m venv .venv && .venv/bin/pip install -e . \
  && .venv/bin/resdet shapes 'my data' \
  && .venv/bin/resdet evaluate --split test
```
"""
COMMANDS = [["shapes", "my data"], ["evaluate", "--split", "test"]]
FIGURES: dict[str, Any] = {
    "data": "/data",
    "split": "test",
    "labels": {"names": ["a"], "ids": [1]},
    "command": "resdet evaluate --split test",
    "environment": {"python": "3.11.7", "machine": "2 cores", "torch": "2.14.1"},
    "config_sha256": HASH,
    "seed": 0,
    "predictions_sha256": HASH,
    "images": 400,
    "coco": {"ap": 0.5, "ap50": 0.75, "ap75": 0.25},
}


def test_commands_are_read_from_their_fence():
    assert read_commands(README, "quick-start") == COMMANDS
    assert read_commands(README, "other") == [["shapes", "elsewhere"]]
    for document, name in ((README, "quick"), ("", "other"), ("<!-- commands: a -->\n", "a")):
        with pytest.raises(ValueError, match=f"there are no commands '{name}'"):
            read_commands(document, name)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path]]:
    """What would have been run; an evaluation leaves FIGURES."""
    calls: list[tuple[list[str], Path]] = []
    clock = chain([0.0, 32.04, 100.0, 121.0], count())

    def run(arguments: Sequence[str], cwd: Path, check: bool) -> Any:
        *_, module, tool, last = [*arguments[:4], arguments[-1]]
        assert module == "resdet.tools"
        calls.append((list(arguments[3:]), cwd))
        if tool == "evaluate":
            (cwd / "runs").mkdir()
            (cwd / "runs/figures.json").write_text(json.dumps(FIGURES))
        return SimpleNamespace(returncode=3 if last == "broken" else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(recording, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    return calls


def test_what_is_recorded(ran: list[tuple[list[str], Path]], tmp_path: Path):
    folder = tmp_path / "new"
    facts = record(COMMANDS, folder, "the quick start")
    assert ran == [(command, folder) for command in COMMANDS]
    kept = ("config_sha256", "seed", "predictions_sha256", "environment", "images")
    assert facts == {name: FIGURES[name] for name in kept} | {
        "command": "resdet shapes 'my data' && resdet evaluate --split test",
        "subject": "the quick start",
        "seconds": {"shapes": 32.0, "evaluate": 21.0},
        "idle": True,
        "ap": 0.5,
        "ap50": 0.75,
    }


def test_a_busy_machine_is_said(
    ran: list[tuple[list[str], Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.1, 0.0, 0.0))
    assert record(COMMANDS, tmp_path, "one")["idle"] is False


def test_what_cannot_be_recorded(
    ran: list[tuple[list[str], Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ValueError, match=r"^resdet train broken: exit code 3$"):
        record([["train", "broken"]], tmp_path / "a", "one")
    with pytest.raises(ValueError, match="b: expected one evaluation, got 0"):
        record(COMMANDS[:1], tmp_path / "b", "one")
    monkeypatch.delitem(FIGURES, "seed")
    (tmp_path / "c").mkdir()
    with pytest.raises(ArtefactError, match=r"runs/figures\.json: seed is missing"):
        record(COMMANDS[1:], tmp_path / "c", "one")
    with pytest.raises(ValueError, match="c: expected a new or an empty folder"):
        record(COMMANDS, tmp_path / "c", "one")
