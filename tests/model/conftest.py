"""Slim networks, so that a detector runs in a fraction of a second, and batches for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.faster_rcnn import FasterRCNN
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.structures import Batch, Target

CLASSES = 5
SLIM = DetectorSpec(
    "resnet18",
    width=8,
    frozen_stages=0,
    dropout=0.0,
    proposals=ProposalSelection(before_nms=300, after_nms=25, nms_threshold=0.3, min_side=16.0),
    detections=DetectionSelection(nms_threshold=0.5),
)
SPECS = {
    "c4": replace(SLIM, anchor_sizes=(32, 64, 128), rpn_width=32),
    "context": replace(SLIM, anchor_sizes=(32, 64, 128), rpn_width=32, context=True),
    "vgg16": replace(SLIM, backbone="vgg16", anchor_sizes=(32, 64, 128), rpn_width=64),
    "pyramid": replace(SLIM, pyramid=True, pyramid_channels=64),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def make_detector() -> Callable[..., FasterRCNN]:
    """Slim detectors by architecture, float64, in evaluation mode."""

    def make(architecture: str, **changes: object) -> FasterRCNN:
        detector = faster_rcnn(CLASSES, replace(SPECS[architecture], **changes))
        _standardise(detector.double().eval())
        return detector

    return make


@torch.no_grad()
def _standardise(detector: FasterRCNN) -> None:
    """Rescales the last layers until their outputs vary from place to place.

    As initialised, every score is about 1 / (K + 1) and no box moves.
    """
    head = detector.roi_head
    levels = detector.trunk(torch.randn(1, 3, 128, 192, dtype=torch.float64))
    hidden = detector.rpn.conv(levels[0]).relu()
    corners = torch.rand(40, 2, dtype=torch.float64) * 80
    rois = torch.cat((corners, corners + 10 + torch.rand_like(corners) * 60), dim=1)
    features = head.features(levels, nn.functional.pad(rois, (1, 0)), torch.tensor([[128, 192]]))
    for layer, inputs, std in (
        (detector.rpn.objectness, hidden, 2.0),
        (detector.rpn.deltas, hidden, 0.3),
        (head.class_logits, features, 2.0),
        (head.deltas, features, 1.0),
    ):
        outputs = layer(inputs).transpose(0, 1).flatten(1)
        scale = std / outputs.std(dim=1)
        layer.weight *= scale.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.bias.copy_((layer.bias - outputs.mean(dim=1)) * scale)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Images of noise with the given sizes, zero-padded to the largest."""

    def make(*sizes: tuple[int, int]) -> Batch:
        height, width = (max(sides) for sides in zip(*sizes, strict=True))
        images = torch.zeros(len(sizes), 3, height, width, dtype=torch.uint8)
        for image, (rows, columns) in zip(images, sizes, strict=True):
            image[:, :rows, :columns] = torch.randint(256, (3, rows, columns), dtype=torch.uint8)
        extents = torch.tensor(sizes)
        return Batch(images, extents, extents.clone(), torch.arange(len(sizes)))

    return make


@pytest.fixture
def make_target() -> Callable[..., Target]:
    """Targets from boxes, float64; labels count 1, 2, …, none is ignored unless said."""

    def make(boxes: Sequence[Sequence[float]], ignore: Sequence[bool] | None = None) -> Target:
        count = len(boxes)
        return Target(
            torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
            torch.arange(count) % CLASSES + 1,
            torch.tensor(ignore or [False] * count, dtype=torch.bool),
        )

    return make
