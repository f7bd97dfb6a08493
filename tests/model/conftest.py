"""Slim networks, so that a detector runs in a fraction of a second, and batches for them."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import nn

from backbones import resnet18, vgg16
from detection.model import build
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.faster_rcnn import FasterRCNN
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.structures import Batch, Target

SPECS = {
    "c4": DetectorSpec("resnet18", anchor_sizes=(32, 64, 128), rpn_width=32),
    "vgg16": DetectorSpec("vgg16", anchor_sizes=(32, 64, 128), rpn_width=64, dropout=0.0),
    "pyramid": DetectorSpec("resnet18", pyramid=True, pyramid_channels=64),
}
CLASSES = 5
PROPOSALS = ProposalSelection(before_nms=300, after_nms=25, nms_threshold=0.3, min_side=16.0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def spec_of() -> Callable[..., DetectorSpec]:
    """Specs by architecture, with small anchors and few proposals."""

    def make(architecture: str, **changes: object) -> DetectorSpec:
        plain = SPECS[architecture].to_plain() | {
            "proposals": PROPOSALS,
            "detections": DetectionSelection(nms_threshold=0.5),
            "frozen_stages": 0,
        }
        return DetectorSpec(**(plain | changes))

    return make


@pytest.fixture
def make_detector(monkeypatch, spec_of) -> Callable[..., FasterRCNN]:
    """Detectors with an eighth of the channels, float64, in evaluation mode.

    The weights are drawn so that boxes move, and that classes differ by region: at the published
    initialisation every score is about 1 / (K + 1).
    """
    monkeypatch.setitem(build.NETWORKS, "resnet18", partial(resnet18, width=8))
    monkeypatch.setitem(build.NETWORKS, "vgg16", partial(vgg16, width=8))

    def make(architecture: str, **changes: object) -> FasterRCNN:
        detector = faster_rcnn(CLASSES, spec_of(architecture, **changes))
        _spread(detector.rpn.conv, detector.rpn.objectness, gain=1.0)
        _spread(detector.roi_head.class_logits, gain=4.0)
        _spread(detector.rpn.deltas, detector.roi_head.deltas, gain=0.3)
        return detector.double().eval()

    return make


def _spread(*layers: nn.Module, gain: float) -> None:
    for layer in layers:
        weight = layer.get_parameter("weight")
        nn.init.normal_(weight, std=gain / weight[0].numel() ** 0.5)
        nn.init.normal_(layer.get_parameter("bias"), std=0.1 * gain)


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
