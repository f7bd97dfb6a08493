"""The small detector and data of these tests, and a detector that knows most of the answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from detection.data.datamodule import DetectionData
from detection.model.build import DetectorSpec
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.structures import Annotations, Batch, Detections
from detection.training.module import DetectorModule
from detection.training.schedule import Schedule

SPEC = DetectorSpec(
    "resnet18",
    width=16,
    pyramid=True,
    pyramid_channels=16,
    pyramid_tail_channels=64,
    batch_norm="trained",
    frozen_stages=0,
    anchor_sizes=(8, 16, 32, 64, 128),
    proposals=ProposalSelection(before_nms=100, after_nms=50, min_side=1.0),
    detections=DetectionSelection(nms_threshold=0.5, per_image=20),
)
CRITERION = Criterion(
    RPNCriterion(sampler=Sampler(32, 0.5), cross_boundary=True),
    RoICriterion(sampler=Sampler(16, 0.25), background=(0.0, 0.5)),
    ProposalSelection(before_nms=100, after_nms=50, min_side=1.0),
)


def small_data(root: Path, **settings: Any) -> DetectionData:
    return DetectionData(
        str(root), **{"workers": 0, "short_side": 64, "long_side": 64, "batch_size": 2, **settings}
    )


def small_module(data: DetectionData, **settings: Any) -> DetectorModule:
    torch.manual_seed(0)
    module = DetectorModule(
        data.labels.names,
        data.labels.ids,
        **{"detector": SPEC, "criterion": CRITERION, "schedule": Schedule(0.08), **settings},
    )
    # Spread the scores: with the initial weights all classes are alike.
    nn.init.normal_(module.detector.roi_head.class_logits.weight, std=0.1)
    return module


def digest(module: pl.LightningModule) -> str:
    weights = b"".join(p.detach().numpy().tobytes() for p in module.parameters())
    return hashlib.sha256(weights).hexdigest()


class Oracle(nn.Module):
    """Shifts the ground truth a little, mixes up some labels, and finds things that are not there.

    What it finds in an image depends on the image's id alone.
    """

    def __init__(self, truth: Annotations, classes: int) -> None:
        super().__init__()
        self.truth = truth
        self.classes = classes

    def forward(self, batch: Batch) -> Detections:
        found = [self._find(image_id) for image_id in batch.image_ids]
        return Detections(*(torch.stack(part) for part in zip(*found, strict=True)))

    def _find(self, image_id: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(int(image_id))
        row = self.truth.image_ids.tolist().index(int(image_id))
        rows = slice(self.truth.offsets[row], self.truth.offsets[row + 1])
        boxes, labels = torch.zeros(20, 4), torch.zeros(20, dtype=torch.int64)
        own = torch.from_numpy(self.truth.labels[rows])
        boxes[: len(own)] = torch.from_numpy(self.truth.boxes[rows]).float()
        boxes[: len(own)] += torch.rand(len(own), 1, generator=random) * 4
        labels[: len(own)] = own
        other = torch.randint(1, self.classes + 1, (20,), generator=random)
        swap = torch.rand(20, generator=random) < 0.1
        labels = torch.where(swap, other, labels)
        boxes[swap, 2:] += 5 + torch.rand(int(swap.sum()), 2, generator=random)
        scores = torch.rand(20, generator=random) * (labels > 0)
        order = scores.argsort(descending=True)
        return boxes[order], scores[order], labels[order]
