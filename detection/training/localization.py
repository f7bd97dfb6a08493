"""The Lightning module of a localizer in training: steps and optimizer only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from backbones import Preprocessing
from detection.checkpoint import CheckpointError, check_same_parts, read_checkpoint
from detection.data.labels import LabelMap
from detection.data.localization_views import CropBatch, ViewBatch
from detection.data.records import DataError
from detection.model.localization import Localizer
from detection.model.localization_build import LocalizerSpec, build_localizer
from detection.model.localization_criterion import LocalizationCriterion
from detection.training.localization_data import LocalizationData
from detection.training.localization_testing import localize_right
from detection.training.schedule import Schedule, updates_of
from detection.training.validation import refuse_half_boxes

logger = logging.getLogger(__name__)

KEY = "resdet_localizer"


class LocalizerModule(pl.LightningModule):
    """A localizer in training: plain values in, so that its checkpoints need no other file.

    Needs `LocalizationData` as the trainer's data.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        localizer: LocalizerSpec = LocalizerSpec(),
        criterion: LocalizationCriterion = LocalizationCriterion(),
        schedule: Schedule = Schedule(),
        weights: str | None = None,
        fresh: tuple[str, ...] = (),
    ) -> None:
        """Builds the localizer.

        Args:
            class_names: names of the K classes, read from the data.
            localizer: what the localizer is made of.
            criterion: targets and losses.
            schedule: optimizer and learning rate.
            weights: classification weights of the backbone: a published name such as
                ``IMAGENET1K_V1``, or a file.
            fresh: prefixes of the backbone's layers that the weights may lack.

        Raises:
            ValueError: if a name is unknown, or values do not go together.
        """
        super().__init__()
        self.class_names = tuple(class_names)
        self.spec, self.criterion, self.schedule = localizer, criterion, schedule
        self.weights = weights
        self.localizer = build_localizer(
            len(self.class_names), localizer, weights=weights, fresh=fresh
        )
        self._counts = torch.zeros(2)  # images with a wrong box, images

    @property
    def labels(self) -> LabelMap:
        """The classes."""
        return LabelMap.from_names(self.class_names)

    def setup(self, stage: str) -> None:
        """Refuses a precision that boxes cannot have.

        Raises:
            ValueError: as for ``refuse_half_boxes``.
        """
        del stage
        refuse_half_boxes(self.trainer)

    def on_fit_start(self) -> None:
        """Compares the model's and the data's classes before the first step.

        Raises:
            DataError: if they differ.
            ValueError: if stages are frozen without weights.
        """
        if self.labels != self._data.labels:
            raise DataError(
                f"the model has {len(self.class_names)} classes, the data has "
                f"{len(self._data.labels.names)}, or they have other names"
            )
        if self.weights is None and self.spec.frozen_stages > 0:
            raise ValueError(
                f"frozen_stages={self.spec.frozen_stages} would keep random weights for ever: "
                "give --model.weights, or set --model.localizer.frozen_stages 0"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds the sampler by the position in the run, for resumed runs."""
        del batch, batch_idx
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        sequence = np.random.SeedSequence([self._data.seed, total.processed, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def training_step(self, batch: CropBatch, batch_idx: int) -> Tensor:
        """Returns the sum of the two losses, and logs each.

        Raises:
            FloatingPointError: if the sum is not finite.
        """
        del batch_idx
        class_loss, box_loss = self.criterion(self.localizer, *batch)
        total = class_loss + box_loss
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"losses {class_loss.item():.4f}, {box_loss.item():.4f} at update "
                f"{self.global_step}: lower the learning rate, lengthen the warm-up, or clip the "
                "gradient"
            )
        named = {"loss": total, "class_loss": class_loss, "box_loss": box_loss}
        figures = {f"train/{name}": loss.detach() for name, loss in named.items()}
        self.log_dict(figures, prog_bar=True, batch_size=len(batch.labels))
        return total

    def on_validation_epoch_start(self) -> None:
        """Starts counting."""
        self._counts = torch.zeros(2)

    def validation_step(self, batch: ViewBatch, batch_idx: int) -> None:
        """Counts wrong boxes, the ground-truth class given."""
        del batch_idx
        right = localize_right(self.localizer, batch, batch.labels[:, None])
        self._counts += torch.tensor([(~right).sum(), len(right)])

    def on_validation_epoch_end(self) -> None:
        """Logs the error over all images, each counted once, alike on every process."""
        counts: Tensor = self.trainer.strategy.reduce(self._counts.to(self.device), reduce_op="sum")
        wrong, images = counts.tolist()
        self.log("val/gt_class_error", 100 * wrong / images, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Builds the optimizer, with the learning rate scaled to the real batch."""
        images = (
            self._data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        )
        optimizer = self.schedule.optimizer(self, images)
        rate = self.schedule.lr_per_16_images * images / 16
        logger.info("learning rate %g for %d images per update", rate, images)
        steps = updates_of(self.trainer)
        scheduler = self.schedule.scheduler(optimizer, steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compares a run's last checkpoint with what would go on from it.

        Raises:
            CheckpointError: if it is of other classes, or of another localizer.
        """
        found = checkpoint.get(KEY, {})
        names = tuple(found.get("class_names", ()))
        try:
            if names != self.class_names:
                odd = sorted({*names} ^ {*self.class_names})[:5]
                raise CheckpointError(f"is of other classes, or of another order of them: {odd}")
            check_same_parts("a localizer", found.get("localizer", {}), self.spec.to_plain())
        except CheckpointError as error:
            raise CheckpointError(f"{self.trainer.ckpt_path}: {error}") from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description that makes the file sufficient by itself."""
        checkpoint[KEY] = {
            "class_names": list(self.class_names),
            "localizer": self.spec.to_plain(),
            "preprocessing": self.localizer.preprocessing._asdict(),
        }

    @property
    def _data(self) -> LocalizationData:
        data: LocalizationData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data


def load_localizer(path: Path) -> tuple[Localizer, LabelMap]:
    """Rebuilds a localizer from a training checkpoint.

    Args:
        path: a file that ``resdet localize`` wrote.

    Returns:
        The localizer on the CPU, in evaluation mode, and its classes.

    Raises:
        CheckpointError: if the file cannot be read, or holds no localizer.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(KEY), dict):
        raise CheckpointError(f"{path}: expected a checkpoint of `resdet localize`, with {KEY!r}")
    plain = checkpoint[KEY]
    try:
        localizer = build_localizer(
            len(plain["class_names"]),
            LocalizerSpec.from_plain(plain["localizer"]),
            preprocessing=Preprocessing(**plain["preprocessing"]),
        )
        own = {
            name.removeprefix("localizer."): value
            for name, value in checkpoint["state_dict"].items()
        }
        localizer.load_state_dict(own)
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = shorten(f"{type(error).__name__}: {error}", 400)
        raise CheckpointError(f"{path}: does not fit its own description: {reason}") from error
    return localizer.eval(), LabelMap.from_names(plain["class_names"])
