"""A command of a study, and what it leaves in ``steps``: a note of its beginning and of its end.

``NAME.started`` says what a try began with and goes when it has ended well, in favour of the marker
``NAME.json``. A try is resumed only where the note is the same: then the checkpoint is its own.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


class Step(NamedTuple):
    """One command.

    Attributes:
        name: different from the other steps', and a file's name.
        command: arguments of ``resdet``, the tool first.
        resumes: checkpoint whose presence says that an interrupted command can go on with
            ``--resume``; None for a command that starts anew.
        after: names of the steps that must have ended before.
        makes: file without which the step has not ended well; the checkpoints of a command that
            can be resumed lie in its folder.
        reads: files of the user's; the step is not done where they have changed.
        always: whether it runs even if it was done, by whichever command.
    """

    name: str
    command: tuple[str, ...]
    resumes: Path | None = None
    after: tuple[str, ...] = ()
    makes: Path | None = None
    reads: tuple[Path, ...] = ()
    always: bool = False


def is_done(step: Step, output: Path) -> bool:
    """Whether a step ended well, and what it made is there.

    Args:
        step: which.
        output: folder of the runs.

    Raises:
        OSError: a file that it reads cannot be read.
        ValueError: it was done by another command.
    """
    marker = _marker(step.name, output)
    absent = step.makes is not None and not step.makes.is_file()
    if step.always or absent or not marker.is_file():
        return False
    facts = json.loads(marker.read_bytes())
    if tuple(facts["command"]) != step.command:
        raise ValueError(
            f"{marker}: made by `resdet {' '.join(facts['command'])}`, now wanted "
            f"`resdet {' '.join(step.command)}`: name another folder, or remove the marker"
        )
    return bool(facts.get("reads", {}) == _hashes(step.reads))


def forget(step: Step, output: Path) -> None:
    """Takes a step for not done."""
    _marker(step.name, output).unlink(missing_ok=True)


def begin(step: Step, output: Path) -> tuple[str, ...]:
    """Notes what a try begins with, and clears what another one left, as that is not its own.

    Args:
        step: which; those before it have ended.
        output: folder of the runs.

    Returns:
        Further options of the command: ``--resume`` if this very try was interrupted.

    Raises:
        OSError: a file cannot be read, written or removed.
    """
    before = [_marker(name, output) for name in step.after]
    facts = {
        "command": step.command,
        "reads": _hashes(step.reads),
        "after": _hashes([marker for marker in before if marker.is_file()]),
    }
    note, text = _note(step.name, output), f"{json.dumps(facts)}\n"
    same = note.is_file() and note.read_text(encoding="utf-8") == text
    if same and step.resumes is not None and step.resumes.is_file():
        return ("--resume",)
    _clear(step)
    _write(note, text)
    return ()


def end(step: Step, output: Path, seconds: float) -> None:
    """Notes that the try that began last has ended well.

    Args:
        step: which.
        output: folder of the runs.
        seconds: how long the try took.
    """
    note = _note(step.name, output)
    facts: dict[str, Any] = json.loads(note.read_bytes())
    facts |= {"seconds": round(seconds, 1), "ended": datetime.now(UTC).isoformat()}
    _write(_marker(step.name, output), f"{json.dumps(facts)}\n")
    note.unlink()


def seconds_of(name: str, output: Path) -> float | None:
    """Returns how long a step's last try took, seconds; None if it is not done."""
    marker = _marker(name, output)
    return float(json.loads(marker.read_bytes())["seconds"]) if marker.is_file() else None


def _clear(step: Step) -> None:
    if step.makes is not None:
        step.makes.unlink(missing_ok=True)
    if step.resumes is not None:
        folder = (step.makes or step.resumes).parent
        for checkpoint in folder.rglob("*.ckpt"):
            checkpoint.unlink()


def _hashes(files: tuple[Path, ...] | list[Path]) -> dict[str, str]:
    """Each file's sha256 by its path."""
    hashes = {}
    for file in files:
        with file.open("rb") as source:
            hashes[str(file)] = hashlib.file_digest(source, "sha256").hexdigest()
    return hashes


def _write(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _marker(name: str, output: Path) -> Path:
    return output / "steps" / f"{name}.json"


def _note(name: str, output: Path) -> Path:
    return output / "steps" / f"{name}.started"
