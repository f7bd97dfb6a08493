"""Train a detector on VOC, COCO or your own folder."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

EPILOG = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet train --config voc07.yaml --config resnet101.yaml --data.root VOCdevkit
Every value is an option: --data.batch_size 4 --trainer.devices 8 --trainer.precision bf16-mixed
"""

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


def _cli(arguments: list[str]) -> Any:
    # Imported here, so that `resdet --help` stays quick.
    from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

    from detection.data.datamodule import DetectionData
    from detection.training.callbacks import SamplePictures, Throughput, progress_bar
    from detection.training.checkpointing import AtomicCheckpointIO
    from detection.training.module import DetectorModule

    class DetectorCLI(LightningCLI):
        """Adds the run's folder, resuming, and the classes that come from the data."""

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.epilog = EPILOG
            parser.add_argument("--output", default="runs/detector", help="folder of the run")
            parser.add_argument(
                "--resume", action="store_true", help="go on from the run's last checkpoint"
            )
            parser.link_arguments(
                "data", "model.class_names", lambda data: list(data.labels.names), "instantiate"
            )
            parser.link_arguments(
                "data", "model.category_ids", lambda data: list(data.labels.ids), "instantiate"
            )
            parser.link_arguments("seed_everything", "data.seed", int)

        def instantiate_trainer(self, **values: Any) -> Trainer:
            output = Path(self.config.output)
            best = ModelCheckpoint(
                output, "best", monitor="val/AP", mode="max", enable_version_counter=False
            )
            last = ModelCheckpoint(output, "last", enable_version_counter=False)
            own = [best, last, LearningRateMonitor(), Throughput(), SamplePictures()]
            chosen = self._get(self.config_init, "trainer", default={}).get("callbacks") or []
            return super().instantiate_trainer(
                default_root_dir=str(output),
                use_distributed_sampler=False,
                callbacks=[*chosen, *own, progress_bar()],
                logger=[TensorBoardLogger(output, "log", ""), CSVLogger(output, "log")],
                plugins=[AtomicCheckpointIO()],
                **values,
            )

    return DetectorCLI(
        DetectorModule,
        DetectionData,
        run=False,
        args=arguments,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
    )


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
        resume = output / "last.ckpt" if cli.config.resume else None
        if resume and not resume.is_file():
            raise FileNotFoundError(f"--resume: no checkpoint {resume}")
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
