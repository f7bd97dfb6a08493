"""The command line of a localizer's run: the classes come from the data, testing is an option."""

from __future__ import annotations

from pytorch_lightning import Callback
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.cli import LightningArgumentParser

from backbones.classification.views import SCALES
from detection.data.localization_views import Testing
from resdet.tools._run_cli import RunCLI


class LocalizerCLI(RunCLI):
    """Links the model's classes to the data's, and adds testing."""

    output = "runs/localizer"
    best, mode = "val/gt_class_error", "min"
    epilog = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet localize --config localize_imagenet.yaml --data.root ILSVRC --output runs/localize
  resdet localize --config localize_imagenet.yaml --test runs/localize/best.ckpt --data.root ILSVRC
Every value is an option: --data.batch_size 64 --trainer.devices 4 --trainer.precision bf16-mixed
"""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds testing, and links the classes."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--test", type=str, help="instead of training, test a checkpoint")
        parser.add_argument(
            "--testing",
            type=list[Testing],
            default=["1-crop", "dense"],
            help="views to test with, each: the centre crop, the whole image at all scales",
        )
        parser.add_argument(
            "--scales", type=list[int], default=list(SCALES), help="short sides for 'dense'"
        )
        parser.add_argument(
            "--classifier",
            type=str,
            help="what guesses the classes: a checkpoint of `resdet pretrain`, or weights of "
            "--model.localizer.backbone, a file or a published name",
        )
        parser.link_arguments(
            "data", "model.class_names", lambda data: list(data.labels.names), "instantiate"
        )

    def before_instantiate_classes(self) -> None:
        """A localizer that comes from a checkpoint needs no classifier's weights."""
        if self.config.test:
            self.config.model.weights = None

    def callbacks(self) -> list[Callback]:
        """The learning rate."""
        return [LearningRateMonitor()]
