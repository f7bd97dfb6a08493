"""The command line of a detector's run: the classes come from the data, pictures go to the log."""

from __future__ import annotations

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.cli import LightningArgumentParser

from detection.training.callbacks import SamplePictures, Throughput
from resdet.tools._run_cli import RunCLI


class DetectorCLI(RunCLI):
    """Links the model's classes to the data's, and shows pictures and throughput."""

    output = "runs/detector"
    best, mode = "val/AP", "max"
    epilog = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet train --config voc07.yaml --config resnet101.yaml --data.root VOCdevkit
Every value is an option: --data.batch_size 4 --trainer.devices 8 --trainer.precision bf16-mixed
"""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the classes."""
        super().add_arguments_to_parser(parser)
        parser.link_arguments(
            "data", "model.class_names", lambda data: list(data.labels.names), "instantiate"
        )
        parser.link_arguments(
            "data", "model.category_ids", lambda data: list(data.labels.ids), "instantiate"
        )

    def callbacks(self) -> list[Callback]:
        """Learning rate, images per second, sample pictures."""
        return [LearningRateMonitor(), Throughput(), SamplePictures()]
