"""A detector of which one part trains: the region proposal network, or the head.

They are the steps of alternating training (Faster R-CNN section 3.2). Shape shorthand:
    B: images     N: proposals of an image
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detection.model.faster_rcnn import FasterRCNN
from detection.model.rpn import Proposals
from detection.structures import Batch, Target
from detection.training.module import DetectorModule, TrainingModule
from detection.training.schedule import Schedule

ORIGIN = "resdet_origin"


class PartModule(TrainingModule):
    """A detector of which a part trains and the rest stays as it is, batch-norm statistics too."""

    def __init__(
        self,
        detector: FasterRCNN,
        model: DetectorModule,
        schedule: Schedule,
        *,
        train_trunk: bool,
        origin: str = "",
    ) -> None:
        """Fixes what does not train.

        Args:
            detector: the detector; it is changed in place.
            model: whose classes, spec and criterion hold here too.
            schedule: optimizer and learning rate.
            train_trunk: whether the trunk trains too, but for its frozen stages.
            origin: sha256 of the checkpoint that this training builds on; checkpoints keep it.
        """
        super().__init__(detector, model.labels, model.spec, schedule)
        self.criterion = model.criterion
        self.origin = origin
        self.train()
        self._fixed = (self.unused(), *(() if train_trunk else (detector.trunk,)))
        for part in self._fixed:
            part.requires_grad_(False)

    @abstractmethod
    def unused(self) -> nn.Module:
        """The part of the detector that has no share in this training."""

    def on_train_start(self) -> None:
        """Keeps the statistics of the fixed parts' batch norms."""
        for part in self._fixed:
            part.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the origin."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[ORIGIN] = self.origin


class RPNModule(PartModule):
    """A region proposal network in training, on a trunk that trains with it or is fixed."""

    def unused(self) -> nn.Module:
        """The RoI head."""
        return self.detector.roi_head

    def training_step(self, batch: tuple[Batch, list[Target]], batch_idx: int) -> Tensor:
        """Returns the sum of the RPN's losses, and logs both.

        Raises:
            FloatingPointError: if the sum is not finite.
        """
        del batch_idx
        images, targets = batch
        output = self.detector.rpn(self.detector.trunk(self.detector.normalize(images)))
        objectness, box = self.criterion.rpn(output, images.sizes, targets)
        return self.total({"rpn_objectness": objectness, "rpn_box": box}, images)


class HeadModule(PartModule):
    """The rest of a detector in training, on proposals that it is given (Fast R-CNN)."""

    def unused(self) -> nn.Module:
        """The region proposal network."""
        return self.detector.rpn

    def training_step(
        self, batch: tuple[Batch, list[Target], list[Tensor]], batch_idx: int
    ) -> Tensor:
        """Returns the sum of the head's losses, and logs both.

        Raises:
            FloatingPointError: if the sum is not finite.
        """
        del batch_idx
        images, targets, boxes = batch
        levels = self.detector.trunk(self.detector.normalize(images))
        rois, labels, wanted = self.criterion.roi.sample(_in_slots(boxes), targets)
        output = self.detector.roi_head(levels, rois, images.sizes)
        classification, box = self.criterion.roi(output, rois, labels, wanted)
        return self.total({"roi_class": classification, "roi_box": box}, images)


def _in_slots(boxes: Sequence[Tensor]) -> Proposals:
    """Pads the proposals of B images, each (N, 4), to one number of slots."""
    counts = torch.tensor([len(one) for one in boxes], device=boxes[0].device)
    padded = pad_sequence([*boxes], batch_first=True)
    slots = torch.arange(padded.shape[1], device=padded.device)
    return Proposals(padded, slots < counts[:, None])
