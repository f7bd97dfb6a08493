"""The command line of alternating training: a detector's run, and a trainer for each step."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from detection.training.alternating import (
    HEAD_OPTIONS,
    LAST,
    RPN_OPTIONS,
    AlternatingTraining,
    Step,
    StepOptions,
)
from resdet.tools._detector_cli import DetectorCLI


class AlternatingCLI(DetectorCLI):
    """Adds what the RPN's steps and the head's have of their own."""

    output = "runs/alternating"
    epilog = """
Configurations compose, later ones win; shipped ones are found by their name:
  resdet alternate --config voc07.yaml --config alternating_voc.yaml --config vgg16.yaml
The steps have their own batch sizes, lengths, learning rates and milestones, in --rpn and --head;
data.batch_size, model.schedule.lr_per_16_images, model.schedule.milestones, trainer.max_steps and
trainer.max_epochs, which the recipes of `resdet train` set, do not count here.
"""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of the steps."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--rpn", type=StepOptions, default=RPN_OPTIONS, help="steps 1 and 3")
        parser.add_argument("--head", type=StepOptions, default=HEAD_OPTIONS, help="steps 2 and 4")

    def training(self) -> AlternatingTraining:
        """The four steps.

        Raises:
            FileNotFoundError: there is no run to resume.
            FileExistsError: there is a run, which is not to be resumed.
        """
        folder = Path(self.config.output)
        training = AlternatingTraining(
            self.model,
            self.datamodule,
            folder,
            self.step_trainer,
            self._get(self.config_init, "rpn"),
            self._get(self.config_init, "head"),
        )
        first, others = training.checkpoint(1), (training.checkpoint(1), folder / LAST)
        if self.config.resume and not first.is_file():
            raise FileNotFoundError(f"--resume: no checkpoint {first}")
        if not self.config.resume and any(file.is_file() for file in others):
            raise FileExistsError(
                f"{folder} holds a run: --resume goes on with it, --output FOLDER starts another"
            )
        return training

    def step_trainer(self, step: Step, updates: int, folder: Path) -> Trainer:
        """Makes the trainer of a step; only the last step has a whole detector to validate."""
        values = {**deepcopy(self._get(self.config_init, "trainer", default={}))}
        values |= {"max_steps": updates, "max_epochs": -1}
        if step.number < 4:
            values |= {"limit_val_batches": 0, "num_sanity_val_steps": 0}
        return self.trainer_in(folder, step.title, **values)
