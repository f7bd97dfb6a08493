"""The Lightning module of a finished detector: it collects detections and evaluates them."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import NamedTuple

import pytorch_lightning as pl

from detection.data.labels import LabelMap
from detection.evaluation.coco import CocoFigures, Engine, evaluate_coco
from detection.evaluation.gather import (
    PredictionBuffer,
    broadcast_figures,
    gather_predictions,
)
from detection.evaluation.voc import VocFigures, evaluate_voc
from detection.model.improved import Detector
from detection.structures import Annotations, Batch, Predictions, Target

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What rank 0 knows after a pass over the validation split.

    Attributes:
        predictions: every image's detections, once.
        coco: COCO's figures.
        voc: VOC's figures.
    """

    predictions: Predictions
    coco: CocoFigures
    voc: VocFigures

    def scalars(self) -> dict[str, float]:
        """Returns the figures that are logged, by name."""
        return {
            "val/AP": self.coco.ap,
            "val/AP50": self.coco.ap50,
            "val/AP75": self.coco.ap75,
            "val/VOC07": self.voc.voc07,
            "val/VOC10": self.voc.voc10,
        }


class ValidationModule(pl.LightningModule):
    """A detector and the evaluation of what it finds, on one process or many."""

    def __init__(self, detector: Detector, labels: LabelMap, engine: Engine = "hotcoco") -> None:
        """Sets the detector, its classes, and the library that counts COCO's figures."""
        super().__init__()
        self.engine: Engine = engine
        self.detector = detector
        self.labels = labels
        self.evaluation: Evaluation | None = None
        self._buffer = PredictionBuffer()

    def setup(self, stage: str) -> None:
        """Refuses a precision that boxes cannot have.

        Raises:
            ValueError: as for ``refuse_half_boxes``.
        """
        del stage
        refuse_half_boxes(self.trainer)

    def on_validation_epoch_start(self) -> None:
        """Empties what the last validation collected."""
        self._buffer = PredictionBuffer()
        limit = self.trainer.limit_val_batches
        if not self.trainer.sanity_checking and (isinstance(limit, int) or limit < 1):
            logger.warning(
                "--trainer.limit_val_batches %s: objects of the images that are left out count as "
                "missed",
                limit,
            )

    def validation_step(self, batch: tuple[Batch, list[Target]], batch_idx: int) -> None:
        """Collects the detections of a batch."""
        del batch_idx
        images, _ = batch
        self._buffer.add(self.detector(images), images.image_ids)

    def on_validation_epoch_end(self) -> None:
        """Evaluates every image once, on rank 0, and logs the same figures on every rank."""
        gathered = gather_predictions(self._buffer.predictions())
        if self.trainer.sanity_checking:
            return
        try:
            figures = None if gathered is None else self._evaluate(gathered)
        except ValueError:
            # The other ranks wait for rank 0's figures: they are told that there are none.
            with suppress(RuntimeError):
                broadcast_figures(None)
            raise
        # Every rank has rank 0's figures: there is nothing left for Lightning to average.
        self.log_dict(broadcast_figures(figures), prog_bar=True, sync_dist=False)

    def _evaluate(self, predictions: Predictions) -> dict[str, float]:
        annotations: Annotations = self.trainer.datamodule.val_annotations  # type: ignore[attr-defined]
        self.evaluation = Evaluation(
            predictions,
            evaluate_coco(annotations, predictions, self.labels.names, engine=self.engine),
            evaluate_voc(annotations, predictions, self.labels.names),
        )
        return self.evaluation.scalars()


def refuse_half_boxes(trainer: pl.Trainer) -> None:
    """Refuses to keep all in half precision, where coordinates above 256 lose their last bits.

    Raises:
        ValueError: the trainer is to do so.
    """
    if trainer.precision in ("16-true", "bf16-true"):
        mixed = trainer.precision.replace("true", "mixed")
        raise ValueError(f"precision {trainer.precision}: boxes need float32, as {mixed} has them")
