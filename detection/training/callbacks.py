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
from detection.training.module import DetectorModule


def progress_bar() -> ProgressBar:
    """Returns a rich bar on a terminal, and one that writes plain lines elsewhere."""
    if sys.stderr.isatty() or sys.stdout.isatty():
        return RichProgressBar(leave=True)
    return TQDMProgressBar(refresh_rate=50)


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
        if trainer.sanity_checking or not loggers or not isinstance(pl_module, DetectorModule):
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
