"""Train a detector in the four alternating steps of the Faster R-CNN paper."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resdet.tools._run import run_tool

if TYPE_CHECKING:
    from resdet.tools._alternating_cli import AlternatingCLI


def _cli(arguments: list[str]) -> AlternatingCLI:
    # Imported here, so that `resdet --help` stays quick.
    from detection.data.datamodule import DetectionData
    from detection.training.module import DetectorModule
    from resdet.tools._alternating_cli import AlternatingCLI
    from resdet.tools._run_cli import open_cli

    return open_cli(AlternatingCLI, DetectorModule, DetectionData, "resdet alternate", arguments)


def _alternate(cli: AlternatingCLI) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    finished = cli.training().run()
    if rank_zero_only.rank == 0:
        output = cli.config.output
        ended = f"detector: {output}/last.ckpt; each step: {output}/step1 … step4"
        print(ended if finished else f"stopped before its end; --resume goes on: {output}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    return run_tool("alternate", argv, _cli, _alternate)


if __name__ == "__main__":
    sys.exit(main())
