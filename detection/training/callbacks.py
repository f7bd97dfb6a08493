"""What a run shows while it goes on: its speed, its progress, and pictures of its detections."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ProgressBar, RichProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from detection.data.images import read_image
from detection.inference.drawing import draw
from detection.training.validation import ValidationModule


class _RichBar(RichProgressBar):
    """A rich bar that says what is in progress, and where it stands."""

    def __init__(self, title: str) -> None:
        super().__init__(leave=True)
        self._title = title

    @property
    def predict_description(self) -> str:
        return f"{self._title}proposals"

    def _get_train_description(self, current_epoch: int) -> str:
        del current_epoch
        return f"{self._title}{_position(self.trainer):{len(self.validation_description)}}"


class _PlainBar(TQDMProgressBar):
    """A bar of plain lines that says what is in progress, and where it stands."""

    def __init__(self, title: str) -> None:
        super().__init__(refresh_rate=50)
        self._title = title

    @property
    def predict_description(self) -> str:
        return f"{self._title}proposals"

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"{self._title}{_position(trainer)}")


def _position(trainer: pl.Trainer) -> str:
    """Where a run stands at the start of an epoch, by what its length is given in."""
    if trainer.max_steps > 0:
        return f"update {trainer.global_step} of {trainer.max_steps}"
    return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"


def progress_bar(title: str = "") -> ProgressBar:
    """Returns a rich bar on a terminal, and one that writes plain lines elsewhere.

    Args:
        title: what is in progress; the bar's description starts with it.
    """
    title = f"{title}: " if title else ""
    terminal = sys.stderr.isatty() or sys.stdout.isatty()
    return _RichBar(title) if terminal else _PlainBar(title)


class Throughput(Callback):
    """Logs images per second over all processes, as a running mean."""

    def __init__(self, smoothing: float = 0.95) -> None:
        """Sets the weight of the past in the running mean."""
        self.smoothing = smoothing
        self._start: float | None = None
        self._seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves validation out of the measurement."""
        del trainer, pl_module
        self._start = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Logs the speed; the time includes waiting for data."""
        images = len(arguments[1][0].images) * trainer.world_size
        now = time.perf_counter()
        if self._start is not None:
            seconds = (now - self._start) / images
            past = self._seconds or seconds
            self._seconds = self.smoothing * past + (1 - self.smoothing) * seconds
            pl_module.log("images/s", 1 / self._seconds, prog_bar=True, batch_size=1)
        self._start = now


class SamplePictures(Callback):
    """Draws the detections of a few validation images for TensorBoard after each validation."""

    def __init__(self, count: int = 8, score_threshold: float = 0.5) -> None:
        """Sets how many images to draw, and the score from which a detection is drawn."""
        self.count = count
        self.score_threshold = score_threshold

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the pictures to each TensorBoard logger."""
        loggers = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
        if trainer.sanity_checking or not loggers or not isinstance(pl_module, ValidationModule):
            return
        evaluation = pl_module.evaluation
        records = trainer.datamodule.val_records  # type: ignore[attr-defined]
        if evaluation is None:
            return
        found = evaluation.predictions
        for index in range(min(self.count, len(records.files))):
            image_id = records.annotations.image_ids[index]
            rows = np.flatnonzero(found.image_ids == image_id)
            picture = draw(
                read_image(records.path(index)),
                found.boxes[rows],
                found.labels[rows],
                found.scores[rows],
                records.labels.names,
                score_threshold=self.score_threshold,
            )
            for logger in loggers:
                logger.experiment.add_image(
                    f"detections/{image_id}", picture, trainer.global_step, dataformats="HWC"
                )
