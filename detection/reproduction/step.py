"""A command of a study, and what it leaves in ``steps``: a note of its beginning and of its end.

``NAME.started`` says what a try began with and goes when it has ended well, in favour of the marker
``NAME.json``, which becomes the note again when the step is to be done anew. A try is resumed only
where the note is the same: then the checkpoint is its own. Checkpoints of another command are the
user's to remove.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
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


class Beginning(NamedTuple):
    """How a try begins.

    Attributes:
        options: further ones of the command: ``--resume`` if this very try was interrupted.
        removed: what was removed of an earlier try, and why, in a line; empty if nothing was.
    """

    options: tuple[str, ...] = ()
    removed: str = ""


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
    if not _is_same(facts["command"], step.command):
        what = step.makes.parent if step.makes is not None else "the marker"
        raise ValueError(
            f"{marker}: made by {_quoted(facts['command'])}, now wanted {_quoted(step.command)}: "
            f"name another folder, or remove {what}"
        )
    return _same_content(facts.get("reads", {}), _hashes(step.reads))


def forget(step: Step, output: Path) -> None:
    """Takes a step for not done; whose its checkpoints are stays known."""
    marker = _marker(step.name, output)
    if marker.is_file():
        marker.replace(_note(step.name, output))


def check_owner(step: Step, output: Path) -> None:
    """Checks that the checkpoints in a step's folder are its own, so that it may replace them.

    Args:
        step: one that is not done.
        output: folder of the runs.

    Raises:
        ValueError: they are of another command, or nobody knows of which.
    """
    folder, names = _left(step)
    made_by = _known(step.name, output).get("command")
    if not names or (made_by is not None and _is_same(made_by, step.command)):
        return
    origin = "an unknown command" if made_by is None else _quoted(made_by)
    raise ValueError(
        f"{folder}: has {', '.join(names)} of {origin}, now wanted {_quoted(step.command)}: "
        "name another folder, or remove this one to train anew"
    )


def begin(step: Step, output: Path) -> Beginning:
    """Notes what a try begins with, and clears what one left that began with something else.

    Args:
        step: which; those before it have ended.
        output: folder of the runs.

    Raises:
        OSError: a file cannot be read, written or removed.
        ValueError: the step's folder has checkpoints that are not its own.
    """
    check_owner(step, output)
    before = [_marker(name, output) for name in step.after]
    hashes = {
        "reads": _hashes(step.reads),
        "after": _hashes([marker for marker in before if marker.is_file()]),
    }
    known = _known(step.name, output)
    same = all(_same_content(known.get(key, {}), own) for key, own in hashes.items())
    if known and same and step.resumes is not None and step.resumes.is_file():
        return Beginning(("--resume",))
    folder, names = _left(step)
    _clear(step)
    _write(_note(step.name, output), f"{json.dumps({'command': step.command, **hashes})}\n")
    why = f"there is no {step.resumes}" if same else "what it depends on has changed"
    removed = f"begun anew, as {why}: {step.name}; removed from {folder}: {', '.join(names)}"
    return Beginning((), removed if names else "")


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
    folder, names = _left(step)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _left(step: Step) -> tuple[Path, list[str]]:
    """The folder of a step that can be resumed, and its checkpoints and product by name."""
    if step.resumes is None:
        return Path(), []
    product = step.makes or step.resumes
    files = {product} if product.is_file() else set()
    files.update(product.parent.rglob("*.ckpt"))
    return product.parent, sorted(str(file.relative_to(product.parent)) for file in files)


def _known(name: str, output: Path) -> dict[str, Any]:
    """What a step's last try began with; empty if nobody knows."""
    for file in (_note(name, output), _marker(name, output)):
        if file.is_file():
            facts: dict[str, Any] = json.loads(file.read_bytes())
            return facts
    return {}


def _is_same(command: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two commands differ at most in how they spell their paths."""
    return [*map(os.path.abspath, command)] == [*map(os.path.abspath, other)]


def _quoted(command: Sequence[str]) -> str:
    return f"`resdet {' '.join(command)}`"


def _same_content(hashes: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Whether files are the same; the commands have their paths, in whichever spelling."""
    return [*hashes.values()] == [*others.values()]


def _hashes(files: Sequence[Path]) -> dict[str, str]:
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
