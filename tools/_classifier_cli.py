"""The command line of a classifier's run: the classes come from the data, testing is an option."""

from __future__ import annotations

from pytorch_lightning.cli import LightningArgumentParser

from backbones.classification.views import SCALES, Testing
from resdet.tools._run_cli import RunCLI


class ClassifierCLI(RunCLI):
    """Links the model's classes to the data's, and adds testing."""

    output = "runs/classifier"
    best, mode = "val/top1", "min"
    epilog = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet pretrain --config pretrain_imagenet.yaml --data.root ILSVRC --model.backbone resnet34
  resdet pretrain --config pretrain_imagenet.yaml --test runs/imagenet/weights.safetensors
Every value is an option: --data.batch_size 64 --trainer.devices 4 --trainer.precision bf16-mixed
"""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds testing, and links the classes."""
        super().add_arguments_to_parser(parser)
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
