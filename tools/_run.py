"""What the training tools share before Lightning is imported: configurations, and how runs end."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

if TYPE_CHECKING:
    from resdet.tools._run_cli import RunCLI

CLI = TypeVar("CLI", bound="RunCLI")

# Lightning's, about itself: not for the user to mend.
IDLE_WARNINGS = (
    "`isinstance\\(treespec, LeafSpec\\)`",
    "LightningCLI's args parameter",
    "Precision .* is not supported by the model summary",
)


def shipped_configs(arguments: Sequence[str]) -> list[str]:
    """Replaces each `--config NAME` or `-c NAME` that is no file here by the shipped file.

    A file whose name starts with a number is found by the number: `drift/01`. So the shell's
    `--config=drift/{01..07}` names the first seven rungs.

    Raises:
        FileNotFoundError: if there is neither; the message lists the shipped ones.
        ValueError: if a file is not YAML; the message names the line.
    """
    result: list[str] = []
    for argument in arguments:
        if result and result[-1] in ("-c", "--config"):
            result.append(str(_config(argument)))
        elif argument.startswith("--config="):
            result.append(f"--config={_config(argument.removeprefix('--config='))}")
        else:
            result.append(argument)
    return result


def _config(value: str) -> Path:
    folder = Path(str(files("resdet.configs")))
    shipped = folder / value
    numbered = shipped.parent.glob(f"{shipped.name}_*.yaml") if shipped.name.isdecimal() else ()
    for candidate in (Path(value), shipped, *numbered):
        if candidate.is_file():
            _check_syntax(candidate)
            return candidate
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.yaml"))
    raise FileNotFoundError(f"no configuration {value!r} here; shipped: {', '.join(names)}")


def _check_syntax(file: Path) -> None:
    try:
        yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{file}{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not YAML: {reason}") from error


def reason_of(error: BaseException) -> str:
    """Returns what an error says of the user's input, without what libraries wrap around it.

    Args:
        error: as it was raised, or as a data loader's worker passed it on.
    """
    # jsonargparse wraps what is wrong with the data when it asks for their classes.
    reason = str(error.__cause__ if "compute_fn of link" in str(error) else error)
    if reason.startswith("Caught "):  # by a worker, whose traceback ends with the reason
        reason = reason.strip().splitlines()[-1].split(": ", 1)[-1]
    return reason


@contextmanager
def trainer_options(names: str) -> Iterator[None]:
    """Makes one kind of error of what Lightning raises for options that a trainer cannot have.

    Args:
        names: of the options.

    Raises:
        ValueError: in place of Lightning's.
    """
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (MisconfigurationException, ModuleNotFoundError, TypeError) as error:
        raise ValueError(f"{names}: {error}") from error


def run_tool(
    name: str,
    argv: Sequence[str] | None,
    open_cli: Callable[[list[str]], CLI],
    work: Callable[[CLI], None],
) -> int:
    """Runs a training tool; an error is one line.

    Args:
        name: of the tool, such as train.
        argv: arguments; the process's own after the tool's name if None.
        open_cli: from arguments to module, data and trainer.
        work: what to do with them.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    for message in IDLE_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        cli = open_cli(shipped_configs(sys.argv[1:] if argv is None else argv))
        try:
            work(cli)
        except SystemExit:  # Lightning's answer to Ctrl-C
            return 130
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"resdet {name}: {reason_of(error)}", file=sys.stderr)
        return 1
    return 0
