"""The command line of a run: Lightning's, with a folder, resuming, checkpoints and logs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from detection.training.callbacks import progress_bar
from detection.training.checkpointing import AtomicCheckpointIO

STEPS_BETWEEN = 1000  # updates after which last.ckpt is written again, within an epoch

CLI = TypeVar("CLI", bound="RunCLI")


class ConfigBesideCheckpoints(SaveConfigCallback):
    """Saves the merged configuration where the checkpoints lie."""

    def save_config(
        self, trainer: Trainer, pl_module: LightningModule, stage: TrainerFn | str
    ) -> None:
        """Writes config.yaml; a resumed run writes its own in its place."""
        del pl_module, stage
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(
            self.config, folder / "config.yaml", skip_unset=False, overwrite=True, multifile=False
        )


class RunCLI(LightningCLI):
    """Adds the run's folder, resuming, checkpoints, logs and the progress bar.

    Attributes:
        epilog: what the help ends with.
        output: where the run lies unless told.
        best: the figure that decides which checkpoint is the best.
        mode: whether the best is its ``max`` or its ``min``.
        command: the line that runs the same again.
    """

    epilog: str
    output: str
    best: str
    mode: str
    command: str

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options."""
        parser.epilog = self.epilog
        parser.add_argument("--output", default=self.output, help="folder of the run")
        parser.add_argument(
            "--resume", action="store_true", help="go on from the run's last checkpoint"
        )
        parser.link_arguments("seed_everything", "data.seed", int)

    def callbacks(self) -> list[Callback]:
        """The callbacks of this kind of run, beside checkpoints and the progress bar."""
        return []

    def instantiate_trainer(self, **values: Any) -> Trainer:
        """Adds checkpoints, logs and the progress bar."""
        return self.trainer_in(Path(self.config.output), **values)

    def trainer_in(self, output: Path, title: str = "", **values: Any) -> Trainer:
        """Makes a trainer whose checkpoints and logs lie in a folder.

        Args:
            output: the folder.
            title: what the progress bar names.
            **values: the trainer's, before those of the configuration.
        """
        options = {"enable_version_counter": False}
        best = ModelCheckpoint(output, "best", monitor=self.best, mode=self.mode, **options)
        last = ModelCheckpoint(output, "last", **options)
        often = ModelCheckpoint(output, "last", every_n_train_steps=STEPS_BETWEEN, **options)
        checkpoints = [last, often] if values.get("limit_val_batches") == 0 else [best, last, often]
        configured = {**self._get(self.config_init, "trainer", default={}), **values}
        chosen = configured.pop("callbacks", None) or []
        own: dict[str, Any] = {
            "default_root_dir": str(output),
            "use_distributed_sampler": False,
            "callbacks": [*chosen, *checkpoints, *self.callbacks(), progress_bar(title)],
            "logger": [TensorBoardLogger(output, "log", ""), CSVLogger(output, "log")],
            "plugins": [AtomicCheckpointIO()],
        }
        return super().instantiate_trainer(**{**configured, **own})

    def resumed(self) -> Path | None:
        """The checkpoint to go on from, None for a new run.

        Raises:
            FileNotFoundError: there is none.
        """
        last = Path(self.config.output) / "last.ckpt"
        if self.config.resume and not last.is_file():
            raise FileNotFoundError(f"--resume: no checkpoint {last}")
        return last if self.config.resume else None


def open_cli(
    kind: type[CLI],
    module: type[LightningModule],
    data: type[LightningDataModule],
    name: str,
    arguments: list[str],
) -> CLI:
    """Parses a run's arguments and builds module, data and trainer.

    Args:
        kind: the command line.
        module: what trains.
        data: what it trains on.
        name: of the command.
        arguments: after the command's name.

    Raises:
        ValueError: the values do not go together.
    """
    try:
        cli = kind(
            module,
            data,
            run=False,
            args=arguments,
            parser_kwargs={"prog": name},
            seed_everything_default=0,
            save_config_callback=ConfigBesideCheckpoints,
            save_config_kwargs={"save_to_log_dir": False},
        )
    except MisconfigurationException as error:
        raise ValueError(f"--trainer: {error}") from error
    cli.command = shlex.join([*name.split(), *arguments])
    return cli
