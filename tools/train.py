"""Train a detector on VOC, COCO or your own folder."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resdet.tools._detector_cli import DetectorCLI

# Lightning's, about itself: not for the user to mend.
IDLE_WARNINGS = (
    "`isinstance\\(treespec, LeafSpec\\)`",
    "LightningCLI's args parameter",
    "Precision .* is not supported by the model summary",
)


def shipped_configs(arguments: Sequence[str]) -> list[str]:
    """Replaces each `--config NAME` or `-c NAME` that is no file here by the shipped file.

    Raises:
        FileNotFoundError: if there is neither; the message lists the shipped ones.
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
    for candidate in (Path(value), folder / value):
        if candidate.is_file():
            return candidate
    names = sorted(file.name for file in folder.glob("*.yaml"))
    raise FileNotFoundError(f"no configuration {value!r} here; shipped: {', '.join(names)}")


def _cli(arguments: list[str]) -> DetectorCLI:
    # Imported here, so that `resdet --help` stays quick.
    from detection.data.datamodule import DetectionData
    from detection.training.module import DetectorModule
    from resdet.tools._detector_cli import DetectorCLI
    from resdet.tools._run_cli import open_cli

    return open_cli(DetectorCLI, DetectorModule, DetectionData, "resdet train", arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    for message in IDLE_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        arguments = shipped_configs(sys.argv[1:] if argv is None else argv)
        cli = _cli(arguments)
        output = Path(cli.config.output)
        resume = cli.resumed()
        try:
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            return 130
    except (ValueError, OSError, FloatingPointError) as error:
        # jsonargparse wraps what is wrong with the data when it asks for their classes.
        reason = error.__cause__ if "compute_fn of link" in str(error) else error
        print(f"resdet train: {reason}", file=sys.stderr)
        return 1
    if cli.trainer.is_global_zero:
        checkpoints = [output / name for name in ("best.ckpt", "last.ckpt")]
        written = ", ".join(str(file) for file in checkpoints if file.is_file())
        print(f"checkpoints: {written}; log, pictures: {output}/log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
