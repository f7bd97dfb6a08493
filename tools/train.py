"""Train a detector on VOC, COCO or your own folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resdet.tools._run import run_tool

if TYPE_CHECKING:
    from resdet.tools._detector_cli import DetectorCLI


def _cli(arguments: list[str]) -> DetectorCLI:
    # Imported here, so that `resdet --help` stays quick.
    from detection.data.datamodule import DetectionData
    from detection.training.module import DetectorModule
    from resdet.tools._detector_cli import DetectorCLI
    from resdet.tools._run_cli import open_cli

    return open_cli(DetectorCLI, DetectorModule, DetectionData, "resdet train", arguments)


def _train(cli: DetectorCLI) -> None:
    output, trainer = Path(cli.config.output), cli.trainer
    trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.resumed(), weights_only=True)
    if trainer.is_global_zero and not trainer.fast_dev_run:
        files = [output / name for name in ("best.ckpt", "last.ckpt")]
        written = ", ".join(str(file) for file in files if file.is_file())
        log = f"; log, pictures: {output}/log" if trainer.loggers else ""
        print(f"checkpoints: {written}{log}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    return run_tool("train", argv, _cli, _train)


if __name__ == "__main__":
    sys.exit(main())
