"""Proposals for every training image, stored and scored by their recall.

Shape shorthand:
    B: images of a batch     I: images of the data set     N: proposals
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.exceptions import SIGTERMException

from detection.atomic import replacing
from detection.data.proposals import StoredProposals, write_proposals
from detection.evaluation.checks import select
from detection.evaluation.gather import PredictionBuffer, gather_predictions
from detection.evaluation.recall import proposal_recall
from detection.model.faster_rcnn import FasterRCNN
from detection.model.rpn import ProposalSelection
from detection.structures import Annotations, Batch, Detections, Predictions, Target

IOUS = (0.5, 0.7)
LIMITS = (100, 300, 1000, 2000)

Recall = dict[str, dict[str, float | None]]

_OF_OBJECTS = ("boxes", "labels", "areas", "crowd", "difficult")

_log = logging.getLogger(__name__)


class RecallCount:
    """Counts the objects that proposals find; crowds and difficult objects do not count.

    Attributes:
        counts: (9,) int64, the objects found by IoU and number of proposals, then all objects.
    """

    def __init__(self, truth: Annotations) -> None:
        """Sets the ground truth of the I images."""
        self.counts = np.zeros(len(IOUS) * len(LIMITS) + 1, np.int64)
        self._truth = truth
        self._places = {image_id: i for i, image_id in enumerate(truth.image_ids.tolist())}

    def add(self, image_ids: Sequence[int], found: Predictions) -> None:
        """Counts some images.

        Args:
            image_ids: the images; some may have no proposals.
            found: the N proposals of these images, in original pixels.
        """
        for image_id in image_ids:
            truth = _annotations(self._truth, self._places[image_id])
            objects = int((~(truth.crowd | truth.difficult)).sum())
            if objects:
                rows = found.image_ids == image_id
                own = select(found, np.flatnonzero(rows))
                hits = proposal_recall(truth, own, IOUS, LIMITS) * objects
                self.counts += np.append(np.rint(hits), objects).astype(np.int64)


def recall_of(counts: NDArray[np.int64]) -> Recall:
    """Turns a `RecallCount`'s counts, or a sum of several, into recall.

    Returns:
        Recall by IoU and number of proposals, both as text; None without objects.
    """
    hits, objects = counts[:-1].reshape(len(IOUS), len(LIMITS)).tolist(), int(counts[-1])
    return {
        str(iou): {
            str(limit): count / objects if objects else None
            for limit, count in zip(LIMITS, row, strict=True)
        }
        for iou, row in zip(IOUS, hits, strict=True)
    }


class Proposer(pl.LightningModule):
    """Collects and scores a detector's proposals for `Trainer.predict`, on one process or many.

    Differs from the paper: the authors' Matlab code proposes for flipped images too; their Python
    code, and ours, flips the proposals of the image.

    Attributes:
        found: on rank 0, after the pass, the proposals of all images, each image's best first;
            boxes in pixels of the original images, objectness as scores, label 1.
        recall: after the pass, as `recall_of` returns it.
    """

    def __init__(
        self, detector: FasterRCNN, selection: ProposalSelection, truth: Annotations
    ) -> None:
        """Sets the detector, how many proposals an image gets, and the images' ground truth."""
        super().__init__()
        self.detector = detector.eval()
        self.selection = selection
        self.found: Predictions | None = None
        self.recall: Recall = {}
        self._truth = truth

    def on_predict_epoch_start(self) -> None:
        """Forgets an earlier pass."""
        self._buffer = PredictionBuffer()
        self._count = RecallCount(self._truth)

    def predict_step(self, batch: tuple[Batch, list[Target]], batch_idx: int) -> Detections:
        """Collects the proposals of a batch, and returns them; the trainer need not keep them.

        Raises:
            SIGTERMException: the process was told to stop, which the predict loop does not ask.
        """
        del batch_idx
        if self.trainer.received_sigterm:
            raise SIGTERMException
        images, _ = batch
        rpn = self.detector.rpn
        output = rpn(self.detector.trunk(self.detector.normalize(images)))
        proposals, objectness = rpn.propose_scored(output, images.sizes, self.selection)
        ratios = (images.original_sizes / images.sizes).flip(1).repeat(1, 2)
        boxes = proposals.boxes * ratios[:, None]
        found, own = Detections(boxes, objectness, proposals.valid.long()), PredictionBuffer()
        for buffer in (self._buffer, own):
            buffer.add(found, images.image_ids)
        self._count.add(images.image_ids.tolist(), own.predictions())
        return found

    def on_predict_epoch_end(self) -> None:
        """Gathers the proposals and counts of all processes."""
        self.found = gather_predictions(self._buffer.predictions())
        counts = torch.from_numpy(self._count.counts).to(self.device)
        counts = self.trainer.strategy.reduce(counts, reduce_op="sum")
        self.recall = recall_of(counts.cpu().numpy())


def store(file: Path, proposals: StoredProposals, recall: Recall, origin: str) -> None:
    """Writes proposals, and as JSON beside them their recall, which is logged.

    Args:
        file: the archive to write; the JSON file has its name.
        proposals: of the I images.
        recall: theirs.
        origin: what says which checkpoint proposed them, and how it was asked.

    Raises:
        OSError: a file cannot be written.
    """
    facts = {
        "origin": origin,
        "images": len(proposals.image_ids),
        "proposals": len(proposals.scores),
        "recall": recall,
    }
    with replacing(file.with_suffix(".json")) as target:
        target.write(f"{json.dumps(facts, indent=2)}\n".encode())
    write_proposals(file, proposals, origin)
    for iou, by_limit in recall.items():
        figures = ", ".join(
            f"{limit}: {'n/a' if value is None else format(value, '.3f')}"
            for limit, value in by_limit.items()
        )
        _log.info("%s: recall at IoU %s by number of proposals: %s", file, iou, figures)


def _annotations(truth: Annotations, index: int) -> Annotations:
    """The ground truth of one image."""
    first, stop = truth.offsets[index : index + 2].tolist()
    columns: dict[str, Any] = {name: getattr(truth, name)[first:stop] for name in _OF_OBJECTS}
    columns |= {name: getattr(truth, name)[index : index + 1] for name in ("image_ids", "sizes")}
    return Annotations(offsets=np.array([0, stop - first]), **columns)
