"""The command line of a classifier's training run: Lightning's, and what such a run adds to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from backbones.classification.views import SCALES, Testing
from detection.training.callbacks import progress_bar
from detection.training.checkpointing import AtomicCheckpointIO
from resdet.tools._detector_cli import STEPS_BETWEEN

EPILOG = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet pretrain --config pretrain_imagenet.yaml --data.root ILSVRC --model.backbone resnet34
  resdet pretrain --config pretrain_imagenet.yaml --test runs/imagenet/weights.safetensors
Every value is an option: --data.batch_size 64 --trainer.devices 4 --trainer.precision bf16-mixed
"""


class ClassifierCLI(LightningCLI):
    """Adds the run's folder, resuming, testing, and the classes that come from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options, and links the model's classes to the data's."""
        parser.epilog = EPILOG
        parser.add_argument("--output", default="runs/classifier", help="folder of the run")
        parser.add_argument(
            "--resume", action="store_true", help="go on from the run's last checkpoint"
        )
        parser.add_argument(
            "--test", type=str, help="instead of training, test a checkpoint or a weights file"
        )
        parser.add_argument(
            "--testing", type=list[Testing], default=["center"], help="views to test with, each"
        )
        parser.add_argument(
            "--scales", type=list[int], default=list(SCALES), help="short sides for 'scales'"
        )
        parser.link_arguments(
            "data", "model.class_names", lambda data: list(data.class_names), "instantiate"
        )
        parser.link_arguments("seed_everything", "data.seed", int)

    def instantiate_trainer(self, **values: Any) -> Trainer:
        """Adds checkpoints, logs and the progress bar."""
        output = Path(self.config.output)
        best = ModelCheckpoint(
            output, "best", monitor="val/top1", mode="min", enable_version_counter=False
        )
        last = ModelCheckpoint(output, "last", enable_version_counter=False)
        often = ModelCheckpoint(
            output, "last", every_n_train_steps=STEPS_BETWEEN, enable_version_counter=False
        )
        chosen = self._get(self.config_init, "trainer", default={}).get("callbacks") or []
        return super().instantiate_trainer(
            default_root_dir=str(output),
            use_distributed_sampler=False,
            callbacks=[*chosen, best, last, often, progress_bar()],
            logger=[TensorBoardLogger(output, "log", ""), CSVLogger(output, "log")],
            plugins=[AtomicCheckpointIO()],
            **values,
        )
