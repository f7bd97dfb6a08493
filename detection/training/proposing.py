"""Proposals for every training image, stored and scored by their recall.

Shape shorthand:
    B: images of a batch     I: images of the data set     N: proposals
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from detection.atomic import replacing
from detection.data.proposals import StoredProposals, write_proposals
from detection.evaluation.gather import PredictionBuffer, gather_predictions
from detection.evaluation.recall import proposal_recall
from detection.model.faster_rcnn import FasterRCNN
from detection.model.rpn import ProposalSelection
from detection.structures import Annotations, Batch, Detections, Predictions, Target

IOUS = (0.5, 0.7)
LIMITS = (100, 300, 1000, 2000)
_CHUNK = 500  # images whose proposals are matched at once

Recall = dict[str, dict[str, float | None]]

_log = logging.getLogger(__name__)


class Proposer(pl.LightningModule):
    """Collects a detector's proposals for `Trainer.predict`, on one process or many.

    Differs from the paper: the authors' Matlab code proposes for flipped images too; their Python
    code, and ours, flips the proposals of the image.

    Attributes:
        found: on rank 0, after the pass, the proposals of all images, each image's best first;
            boxes in pixels of the original images, objectness as scores, label 1.
    """

    def __init__(self, detector: FasterRCNN, selection: ProposalSelection) -> None:
        """Sets the detector, and how many proposals an image gets."""
        super().__init__()
        self.detector = detector.eval()
        self.selection = selection
        self.found: Predictions | None = None
        self._buffer = PredictionBuffer()

    def on_predict_epoch_start(self) -> None:
        """Empties what an earlier pass collected."""
        self._buffer = PredictionBuffer()

    def predict_step(self, batch: tuple[Batch, list[Target]], batch_idx: int) -> Detections:
        """Collects the proposals of a batch, and returns them; the trainer need not keep them."""
        del batch_idx
        images, _ = batch
        rpn = self.detector.rpn
        output = rpn(self.detector.trunk(self.detector.normalize(images)))
        proposals, objectness = rpn.propose_scored(output, images.sizes, self.selection)
        ratios = (images.original_sizes / images.sizes).flip(1).repeat(1, 2)
        boxes = proposals.boxes * ratios[:, None]
        found = Detections(boxes, objectness, proposals.valid.long())
        self._buffer.add(found, images.image_ids)
        return found

    def on_predict_epoch_end(self) -> None:
        """Gathers the proposals of all processes."""
        self.found = gather_predictions(self._buffer.predictions())


def store(file: Path, proposals: StoredProposals, truth: Annotations, checkpoint: str) -> Recall:
    """Writes proposals, logs their recall, and writes it as JSON beside them.

    Args:
        file: the archive to write; the JSON file has its name.
        proposals: of the I images.
        truth: the images' ground truth, in the same order.
        checkpoint: sha256 of the checkpoint whose detector proposed them.

    Returns:
        Recall by IoU and number of proposals, both as text; None without objects.

    Raises:
        OSError: a file cannot be written.
    """
    recall = recall_of(proposals, truth)
    facts = {
        "checkpoint_sha256": checkpoint,
        "images": len(proposals.image_ids),
        "proposals": len(proposals.scores),
        "recall": recall,
    }
    with replacing(file.with_suffix(".json")) as target:
        target.write(f"{json.dumps(facts, indent=2)}\n".encode())
    write_proposals(file, proposals, checkpoint)
    for iou, by_limit in recall.items():
        figures = ", ".join(
            f"{limit}: {'n/a' if value is None else format(value, '.3f')}"
            for limit, value in by_limit.items()
        )
        _log.info("%s: recall at IoU %s by number of proposals: %s", file, iou, figures)
    return recall


def recall_of(proposals: StoredProposals, truth: Annotations) -> Recall:
    """Computes the recall of stored proposals; crowds and difficult objects do not count.

    Args:
        proposals: of the I images.
        truth: the images' ground truth, in the same order.

    Returns:
        Recall by IoU and number of proposals, both as text; None without objects.
    """
    hits, objects = np.zeros((len(IOUS), len(LIMITS))), 0
    for first in range(0, len(truth.image_ids), _CHUNK):
        part = _annotations(truth, first, first + _CHUNK)
        counted = int((~(part.crowd | part.difficult)).sum())
        if counted:
            found = _predictions(proposals, first, first + _CHUNK)
            hits += proposal_recall(part, found, IOUS, LIMITS) * counted
            objects += counted
    return {
        str(iou): {
            str(limit): float(count / objects) if objects else None
            for limit, count in zip(LIMITS, row, strict=True)
        }
        for iou, row in zip(IOUS, np.rint(hits), strict=True)
    }


def _annotations(truth: Annotations, first: int, stop: int) -> Annotations:
    """The ground truth of some consecutive images."""
    offsets = truth.offsets[first : stop + 1]
    rows = slice(offsets[0], offsets[-1])
    columns: dict[str, Any] = {name: getattr(truth, name)[rows] for name in truth._fields[3:]}
    columns |= {name: getattr(truth, name)[first:stop] for name in ("image_ids", "sizes")}
    return Annotations(offsets=offsets - offsets[0], **columns)


def _predictions(proposals: StoredProposals, first: int, stop: int) -> Predictions:
    """The proposals of some consecutive images."""
    offsets = proposals.offsets[first : stop + 1]
    rows = slice(offsets[0], offsets[-1])
    image_ids = np.repeat(proposals.image_ids[first:stop], np.diff(offsets))
    labels = np.ones_like(image_ids)
    return Predictions(image_ids, proposals.boxes[rows], proposals.scores[rows], labels)
