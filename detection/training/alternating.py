"""Four-step alternating training (Faster R-CNN section 3.2, ResNet section 4.3).

1. The RPN and its trunk, from the pre-trained weights.
2. The detector, with a trunk of its own from the pre-trained weights, on the proposals of step 1.
3. The RPN on the trunk of step 2, which stays as it is.
4. The head on that trunk and the proposals of step 3; again the trunk stays as it is.

The result is one detector: the trunk of step 2, the RPN of step 3, the head of step 4. What the
trunk is follows the network's cut: a ResNet's conv5_x belongs to the head, and trains in step 4.

Every step leaves an ordinary checkpoint of a whole detector, and names the checkpoint that it
builds on by its sha256; so do the stored proposals. A run that was broken off goes on where it
stopped, and ends in the very weights of an unbroken one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from detection.atomic import replacing
from detection.checkpoint import CheckpointError, check_same, load_detector, read_checkpoint
from detection.data.datamodule import DetectionData
from detection.data.proposals import (
    StoredProposals,
    origin_of,
    pack_proposals,
    read_proposals,
)
from detection.training.module import DetectorModule
from detection.training.parts import ORIGIN, HeadModule, PartModule, RPNModule
from detection.training.proposing import Proposer, store
from detection.training.resuming import WAITS

LAST, BEST = "last.ckpt", "best.ckpt"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepOptions:
    """What the two steps of the RPN, or the two of the head, have of their own.

    The defaults are the RPN's on VOC: 80k updates of one image at 0.001, dropped at 60k.

    Attributes:
        updates: length of each of the two steps.
        batch_size: training images per process and update.
        lr_per_16_images: learning rate for 16 images per update; it is scaled linearly to the
            real number.
        milestones: where the learning rate drops: updates, or fractions of the step where not
            above 1. The papers' 60k of 80k, 30k of 40k and 240k of 320k are all 0.75.
    """

    updates: int = 80_000
    batch_size: int = 1
    lr_per_16_images: float = 0.016
    milestones: tuple[float, ...] = (0.75,)

    def __post_init__(self) -> None:
        for name, value in (("updates", self.updates), ("batch_size", self.batch_size)):
            if value < 1:
                raise ValueError(f"a step's {name}: expected at least 1, got {value}")


RPN_OPTIONS = StepOptions()
# Two images an update (Fast R-CNN section 2.3), at 0.001.
HEAD_OPTIONS = StepOptions(updates=40_000, batch_size=2, lr_per_16_images=0.008)


class Step(NamedTuple):
    """One of the four steps.

    Attributes:
        number: 1…4.
        part: what trains.
        train_trunk: whether the trunk trains too.
        start: the step whose weights it starts from; 0 for the pre-trained ones.
    """

    number: int
    part: Literal["RPN", "head"]
    train_trunk: bool
    start: int

    @property
    def title(self) -> str:
        """The step as a progress bar names it."""
        return f"step {self.number} of 4, {self.part}"


STEPS = (
    Step(1, "RPN", train_trunk=True, start=0),
    Step(2, "head", train_trunk=True, start=0),
    Step(3, "RPN", train_trunk=False, start=2),
    Step(4, "head", train_trunk=False, start=3),
)


class AlternatingTraining:
    """The four steps in one folder: ``step1`` … ``step4``, the stored proposals, the result."""

    def __init__(
        self,
        model: DetectorModule,
        data: DetectionData,
        folder: Path,
        trainer: Callable[[Step, int, Path], Trainer],
        rpn: StepOptions = RPN_OPTIONS,
        head: StepOptions = HEAD_OPTIONS,
    ) -> None:
        """Sets what to train and where.

        Args:
            model: the detector with its pre-trained weights, which stays as it is, with criterion
                and schedule.
            data: the data; the steps set its batch size and its proposals.
            folder: of the run.
            trainer: makes the trainer of a step, from its number of updates and its folder.
            rpn: options of steps 1 and 3.
            head: options of steps 2 and 4.
        """
        self.model = model
        self.data = data
        self.folder = folder
        self._trainer = trainer
        self._options = {"RPN": rpn, "head": head}

    def run(self) -> bool:
        """Does the steps that are not done, the broken one from its last checkpoint on.

        Returns:
            Whether all are done; False if a trainer was told to stop before its last update.

        Raises:
            SIGTERMException: the process was told to stop while an RPN proposed.
            ValueError: a step was trained on something else than the step before it left.
        """
        for step in STEPS:
            options = self._options[step.part]
            if self._done(step):
                continue
            trainer = self._trainer(step, options.updates, self.checkpoint(step.number).parent)
            self.data.batch_size = options.batch_size
            self.data.proposals = self._proposals(step, trainer) if step.part == "head" else None
            if not self._train(step, options, trainer):
                return False
        self._publish()
        return True

    def checkpoint(self, step: int) -> Path:
        """The last checkpoint of a step, 1…4."""
        return self.folder / f"step{step}" / LAST

    def _done(self, step: Step) -> bool:
        """Whether a step is done; checks what it is of and builds on."""
        file = self.checkpoint(step.number)
        if not file.is_file():
            return False
        found = read_checkpoint(file)
        try:
            check_same(found, self.model.labels, self.model.spec)
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from error
        if found.get(ORIGIN) != self._origin(step):
            raise ValueError(
                f"{file} does not build on {self.checkpoint(step.number - 1)}, which was trained "
                f"again since: remove {file.parent} to repeat step {step.number}"
            )
        updates: int = found["global_step"]
        return updates >= self._options[step.part].updates and found.get(WAITS) is None

    def _origin(self, step: Step) -> str:
        return "" if step.number == 1 else _sha256(self.checkpoint(step.number - 1))

    def _train(self, step: Step, options: StepOptions, trainer: Trainer) -> bool:
        last = self.checkpoint(step.number)
        resumed = last if last.is_file() else None
        _info(f"{step.title}: {f'goes on from {last}' if resumed else 'starts'}")
        trainer.fit(self._module(step, options), self.data, ckpt_path=resumed, weights_only=True)
        if trainer.global_step < options.updates:
            return False
        trainer.save_checkpoint(last, weights_only=False)
        return True

    def _module(self, step: Step, options: StepOptions) -> PartModule:
        detector = (
            load_detector(self.checkpoint(step.start))[0]
            if step.start
            else deepcopy(self.model.detector)
        )
        schedule = replace(
            self.model.schedule,
            lr_per_16_images=options.lr_per_16_images,
            milestones=options.milestones,
        )
        kind = RPNModule if step.part == "RPN" else HeadModule
        return kind(
            detector,
            self.model,
            schedule,
            train_trunk=step.train_trunk,
            origin=self._origin(step),
        )

    def _proposals(self, step: Step, trainer: Trainer) -> StoredProposals:
        """What the RPN of the step before proposes; it is asked if that is not stored yet."""
        before = step.number - 1
        file, origin = self.folder / f"proposals{before}.npz", self.proposed_by(before)
        truth = self.data.train_records.annotations
        if origin_of(file) != origin:
            detector, _ = load_detector(self.checkpoint(before))
            proposer = Proposer(detector, self.model.criterion.proposals, truth)
            trainer.predict(proposer, datamodule=self.data, return_predictions=False)
            if trainer.received_sigterm:  # in the last batch; `fit` would forget it
                raise SIGTERMException
            if proposer.found is not None:
                proposals = pack_proposals(truth.image_ids, proposer.found)
                store(file, proposals, proposer.recall, origin)
            trainer.strategy.barrier("proposals are stored")
        return read_proposals(file, truth.image_ids, origin)

    def proposed_by(self, step: int) -> str:
        """What a step's stored proposals come from: checkpoint, selection, size of the images."""
        size = f"{self.data.short_side} x {self.data.long_side}"
        return f"{_sha256(self.checkpoint(step))} {self.model.criterion.proposals} {size}"

    @rank_zero_only
    def _publish(self) -> None:
        """Puts the finished detector where other tools look for it."""
        for name in (LAST, BEST):
            found = self.checkpoint(4).with_name(name)
            if found.is_file():
                with found.open("rb") as source, replacing(self.folder / name) as target:
                    shutil.copyfileobj(source, target)


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@rank_zero_only
def _info(message: str) -> None:
    _log.info(message)
