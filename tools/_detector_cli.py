"""The command line of a training run: Lightning's, and what a detector's run adds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn

from detection.training.callbacks import SamplePictures, Throughput, progress_bar
from detection.training.checkpointing import AtomicCheckpointIO

STEPS_BETWEEN = 1000  # updates after which last.ckpt is written again, within an epoch

EPILOG = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet train --config voc07.yaml --config resnet101.yaml --data.root VOCdevkit
Every value is an option: --data.batch_size 4 --trainer.devices 8 --trainer.precision bf16-mixed
"""


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


class DetectorCLI(LightningCLI):
    """Adds the run's folder, resuming, and the classes that come from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options, and links the model's classes to the data's."""
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
        """Adds checkpoints, logs, pictures and the progress bar."""
        output = Path(self.config.output)
        best = ModelCheckpoint(
            output, "best", monitor="val/AP", mode="max", enable_version_counter=False
        )
        last = ModelCheckpoint(output, "last", enable_version_counter=False)
        often = ModelCheckpoint(
            output, "last", every_n_train_steps=STEPS_BETWEEN, enable_version_counter=False
        )
        own = [best, last, often, LearningRateMonitor(), Throughput(), SamplePictures()]
        chosen = self._get(self.config_init, "trainer", default={}).get("callbacks") or []
        return super().instantiate_trainer(
            default_root_dir=str(output),
            use_distributed_sampler=False,
            callbacks=[*chosen, *own, progress_bar()],
            logger=[TensorBoardLogger(output, "log", ""), CSVLogger(output, "log")],
            plugins=[AtomicCheckpointIO()],
            **values,
        )
