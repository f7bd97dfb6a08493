"""The Lightning module of a detector in training: steps and optimizer only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detection.checkpoint import KEY, CheckpointError, Description, check_same, start_from
from detection.data.labels import LabelMap
from detection.data.records import DataError, Records
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion
from detection.model.faster_rcnn import FasterRCNN
from detection.structures import Batch, Target
from detection.training.schedule import Schedule, updates_of
from detection.training.validation import ValidationModule

logger = logging.getLogger(__name__)


class TrainingModule(ValidationModule):
    """What the training of a detector, and of a part of it, have in common; not the step."""

    detector: FasterRCNN

    def __init__(
        self, detector: FasterRCNN, labels: LabelMap, spec: DetectorSpec, schedule: Schedule
    ) -> None:
        """Sets what trains.

        Args:
            detector: those of its parameters that require a gradient train.
            labels: its classes.
            spec: what it is made of.
            schedule: optimizer and learning rate.
        """
        super().__init__(detector, labels)
        self.spec = spec
        self.schedule = schedule

    def on_fit_start(self) -> None:
        """Compares the model's and the data's classes before the first step.

        Raises:
            DataError: if they differ, or if there is no object to tell the best checkpoint by.
        """
        found = self.trainer.datamodule.labels  # type: ignore[attr-defined]
        if found != self.labels:
            raise DataError(f"the model has classes {self.labels}, the data has {found}")
        names = shorten(", ".join(self.labels.names), 500)
        logger.info("%d classes: %s", len(self.labels.names), names)
        if self.trainer.limit_val_batches:
            records: Records = self.trainer.datamodule.val_records  # type: ignore[attr-defined]
            if (records.annotations.crowd | records.annotations.difficult).all():
                raise DataError(
                    f"{records.root}: no object to validate by: name another split by --data.val, "
                    "or train without by --trainer.limit_val_batches 0"
                )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds the samplers and dropout by the position in the run.

        Lightning saves no random states: this is what makes a resumed run end in the very weights
        of an unbroken one.
        """
        del batch, batch_idx
        seed: int = self.trainer.datamodule.seed  # type: ignore[attr-defined]
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        mixed = np.random.SeedSequence([seed, total.processed, self.global_rank]).generate_state(1)
        torch.manual_seed(int(mixed[0]))

    def total(self, losses: Mapping[str, Tensor], images: Batch) -> Tensor:
        """Returns the sum of a batch's losses, and logs it and each of them.

        Raises:
            FloatingPointError: if the sum is not finite.
        """
        total = torch.stack([*losses.values()]).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"losses {[round(loss.item(), 4) for loss in losses.values()]} at update "
                f"{self.global_step}, images {images.image_ids.tolist()}: lower the learning "
                "rate, lengthen the warm-up, or clip the gradient"
            )
        count = len(images.images)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=count)
        named = {f"train/{name}": loss.detach() for name, loss in losses.items()}
        self.log_dict(named, prog_bar=True, batch_size=count)
        return total

    def configure_optimizers(self) -> Any:
        """Builds the optimizer, with the learning rate scaled to the real batch."""
        per_process: int = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        images = per_process * self.trainer.world_size * self.trainer.accumulate_grad_batches
        optimizer = self.schedule.optimizer(self, images)
        logger.info(
            "learning rate %g: %g per 16 images, scaled to %d images per update",
            self.schedule.lr_per_16_images * images / 16,
            self.schedule.lr_per_16_images,
            images,
        )
        steps = updates_of(self.trainer)
        scheduler = self.schedule.scheduler(optimizer, steps)
        if (warmup := self.schedule.warmup(steps)) > steps / 4:
            logger.warning(
                "the warm-up takes %d of %d updates, and the learning rate is low for most of the "
                "run: lower --model.schedule.warmup_steps",
                min(warmup, steps),
                steps,
            )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compares a run's last checkpoint with what would go on from it.

        Raises:
            CheckpointError: if it is of other classes, or of another detector.
        """
        try:
            check_same(checkpoint, self.labels, self.spec)
        except CheckpointError as error:
            raise CheckpointError(f"{self.trainer.ckpt_path}: {error}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description that makes the file sufficient by itself."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint[KEY] = Description(
            self.spec, self.detector.preprocessing, self.labels, data.short_side, data.long_side
        ).to_plain()


class DetectorModule(TrainingModule):
    """A detector in training: plain values in, so that its checkpoints need no other file."""

    def __init__(
        self,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        detector: DetectorSpec = DetectorSpec(),
        criterion: Criterion = Criterion(),
        schedule: Schedule = Schedule(),
        weights: str | None = None,
        fresh: tuple[str, ...] = (),
        start: str | None = None,
    ) -> None:
        """Builds the detector.

        Args:
            class_names: names of the K classes, read from the data.
            category_ids: the data set's ids of the K classes.
            detector: what the detector is made of.
            criterion: targets and losses.
            schedule: optimizer and learning rate.
            weights: classification weights of the backbone: a published name such as
                ``IMAGENET1K_V1``, or a file.
            fresh: prefixes of the backbone's layers that the weights may lack.
            start: a checkpoint of ``resdet train`` to fine-tune, in place of ``weights``; its
                classes may be others.

        Raises:
            CheckpointError: if ``start`` holds no such detector.
            ValueError: if stages are frozen without weights, or a name is unknown.
        """
        labels = LabelMap(tuple(class_names), tuple(category_ids))
        if start is None and weights is None and detector.frozen_stages > 0:
            raise ValueError(
                f"frozen_stages={detector.frozen_stages} would keep random weights for ever: "
                "give --model.weights, or set --model.detector.frozen_stages 0"
            )
        if start is None:
            built = faster_rcnn(len(class_names), detector, weights=weights, fresh=fresh)
        else:
            built = start_from(Path(start), labels, detector)
        super().__init__(built, labels, detector, schedule)
        self.criterion = criterion

    def training_step(self, batch: tuple[Batch, list[Target]], batch_idx: int) -> Tensor:
        """Returns the sum of the four losses, and logs each.

        Raises:
            FloatingPointError: if the sum is not finite.
        """
        del batch_idx
        images, targets = batch
        return self.total(self.criterion(self.detector, images, targets)._asdict(), images)
