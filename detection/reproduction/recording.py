"""Commands of a document, run with a clock, and what came of them as an artefact."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detection.reproduction.artefacts import check_facts
from detection.reproduction.evaluated import read_figures

IDLE = 0.5  # load below which nothing else runs
_FENCE = r"^<!-- commands: {name} -->\n```sh\n(.*?)^```$"


def read_commands(document: str, name: str) -> list[list[str]]:
    r"""Finds the commands of ``resdet`` in the fence after ``<!-- commands: NAME -->``.

    Args:
        document: Markdown; the fence's commands are joined by ``&&``.
        name: in the marker.

    Returns:
        The arguments of each; what else the fence does, an installation, is left out.

    Raises:
        ValueError: there is no such fence, or no such command in it.
    """
    fence = re.search(_FENCE.format(name=re.escape(name)), document, re.MULTILINE | re.DOTALL)
    lines = fence[1].replace("\\\n", " ").split("&&") if fence else ()
    words = [shlex.split(line) for line in lines]
    commands = [arguments for program, *arguments in words if Path(program).name == "resdet"]
    if not commands:
        raise ValueError(f"there are no commands {name!r} after a line <!-- commands: {name} -->")
    return commands


def record(commands: Sequence[Sequence[str]], folder: Path, subject: str) -> dict[str, Any]:
    """Runs commands one after the other, and reads the evaluation that one of them wrote.

    Args:
        commands: arguments of ``resdet``, the last of which evaluates.
        folder: where to run them; it must be new or empty.
        subject: what the artefact calls them.

    Returns:
        The facts of an artefact: what any has, the seconds of each tool, whether nothing else ran
        at the start, the number of images, AP and AP50.

    Raises:
        ValueError: the folder is not empty, a command fails, or there is not one evaluation, which
            says all that an artefact must say.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new or an empty folder")
    idle = os.getloadavg()[0] < IDLE
    seconds = {arguments[0]: _time(arguments, folder) for arguments in commands}
    found = [path.parent for path in folder.rglob("figures.json")]
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one evaluation, got {len(found)}")
    figures = read_figures(found[0])
    kept = ("config_sha256", "seed", "predictions_sha256", "environment")
    facts = {
        "command": " && ".join(shlex.join(["resdet", *arguments]) for arguments in commands),
        "subject": subject,
        "seconds": seconds,
        "idle": idle,
        "images": figures["images"],
        **{name: figures["coco"][name] for name in ("ap", "ap50")},
        **{name: figures[name] for name in kept if name in figures},
    }
    check_facts(facts, str(found[0] / "figures.json"))
    return facts


def _time(arguments: Sequence[str], folder: Path) -> float:
    """Runs a tool in a process of its own; its output is the user's."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "resdet.tools", *arguments], cwd=folder, check=False
    )
    if done.returncode:
        raise ValueError(f"resdet {shlex.join(arguments)}: exit code {done.returncode}")
    return round(time.perf_counter() - start, 1)
