"""The command line of a run: Lightning's, with a folder, resuming, checkpoints and logs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse.typing import PositiveInt
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn

from detection.checkpoint import read_checkpoint
from detection.training.callbacks import progress_bar
from detection.training.checkpointing import AtomicCheckpointIO, RemoveOthers, SaveOnExit
from detection.training.resuming import LastValidation, OwnRates
from resdet.tools._run import trainer_options

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


class RunParser(LightningArgumentParser):
    """Says which configuration file has a key that there is none of."""

    configurations: Sequence[Path] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with the message, after the file's name if a file is to blame."""
        key = re.search(r"(?:not accept option|Option) '(?:\w+\.)*(\w+)'", message)
        for file in self.configurations if key else ():
            if re.search(rf"\b{key[1]}['\"]?:", file.read_text(encoding="utf-8")):
                self.exit(2, f"{self.prog}: {file}: {message}\n")
        super().error(message, ex)


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
        parser.add_argument(
            "--checkpoint_every",
            type=PositiveInt,
            default=1000,
            help="updates after which the last checkpoint is written again, within an epoch",
        )
        parser.link_arguments("seed_everything", "data.seed", int)

    def parse_arguments(self, parser: RunParser, args: Any) -> None:
        """Parses them; the parser knows of the configuration files."""
        given = zip(["", *args], [*args, ""], strict=True)
        parser.configurations = [Path(file) for flag, file in given if flag in ("-c", "--config")]
        parser.configurations += [
            Path(one.removeprefix("--config=")) for one in args if one.startswith("--config=")
        ]
        super().parse_arguments(parser, args)

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

        Raises:
            ValueError: an option is not to be set, or cannot be had here.
        """
        configured = {**self._get(self.config_init, "trainer", default={}), **values}
        _check(configured)
        validates = configured["limit_val_batches"] != 0
        callbacks = [*self._checkpoints(output, validates), *self.callbacks()]
        if configured["enable_progress_bar"] is not False:
            callbacks.append(progress_bar(title))
        if configured["logger"] is False:
            callbacks = [one for one in callbacks if not isinstance(one, LearningRateMonitor)]
        own: dict[str, Any] = {
            "default_root_dir": str(output),
            "use_distributed_sampler": False,
            "callbacks": [*(configured.pop("callbacks", None) or []), *callbacks],
            "plugins": [AtomicCheckpointIO()],
        }
        if configured["logger"] is not False:
            own["logger"] = [TensorBoardLogger(output, "log", ""), CSVLogger(output, "log")]
        with trainer_options("--trainer"):
            return super().instantiate_trainer(**{**configured, **own})

    def _checkpoints(self, output: Path, validates: bool) -> list[Callback]:
        """What reads and writes last.ckpt and, where there is a figure to choose by, best.ckpt."""
        options: dict[str, Any] = {"enable_version_counter": False}
        # Both are told when, which Lightning otherwise has depend on how often a run validates.
        choice = {"monitor": self.best, "mode": self.mode, "save_on_train_epoch_end": False}
        best = ModelCheckpoint(output, "best", **choice, **options)
        last = ModelCheckpoint(output, "last", save_on_train_epoch_end=True, **options)
        every = self.config.checkpoint_every
        often = ModelCheckpoint(output, "last", every_n_train_steps=every, **options)
        files = output / "last.ckpt", output / "best.ckpt"
        written = [best, last, often] if validates else [last, often]
        validation = LastValidation(files[0])
        stopping = validation, SaveOnExit(files[0], validation)
        return [*written, RemoveOthers(*files), OwnRates(), *stopping]

    def resumed(self) -> Path | None:
        """The checkpoint to go on from, None for a new run.

        Raises:
            FileNotFoundError: there is none.
            CheckpointError: it cannot be read.
        """
        if not self.config.resume:
            return None
        last = Path(self.config.output) / "last.ckpt"
        if not last.is_file():
            raise FileNotFoundError(f"--resume: no checkpoint {last}")
        read_checkpoint(last)
        return last


def _check(trainer: Mapping[str, Any]) -> None:
    """Refuses what the trainer would ignore, or stumble over.

    Raises:
        ValueError: the message names the option.
    """
    refused = {
        "default_root_dir": (None, "the run's folder is set by --output"),
        "plugins": (None, "a run has its own, which writes checkpoints whole or not at all"),
        "overfit_batches": (0.0, "the data keeps its own order; use --trainer.limit_train_batches"),
    }
    for name, (default, instead) in refused.items():
        if trainer[name] != default:
            raise ValueError(f"--trainer.{name} is not to be set: {instead}")
    if not (trainer["logger"] is None or isinstance(trainer["logger"], bool)):
        raise ValueError("--trainer.logger: expected true, for TensorBoard and CSV, or false")
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer[name] == 0:
            raise ValueError(f"--trainer.{name} 0: there is nothing to train")
    if trainer["check_val_every_n_epoch"] == 0:
        raise ValueError("--trainer.check_val_every_n_epoch 0: use --trainer.limit_val_batches 0")


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
    cli = kind(
        module,
        data,
        run=False,
        args=arguments,
        parser_class=RunParser,
        parser_kwargs={"prog": name},
        seed_everything_default=0,
        auto_configure_optimizers=False,  # the module's schedule does
        save_config_callback=ConfigBesideCheckpoints,
        save_config_kwargs={"save_to_log_dir": False},
    )
    cli.command = shlex.join([*name.split(), *arguments])
    return cli
