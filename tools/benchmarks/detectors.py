"""The pair of detectors that the speed benchmarks compare, and the gates before the clock."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.ops import box_iou

from backbones import FrozenBatchNorm2d
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.faster_rcnn import FasterRCNN
from detection.model.matching import NEGATIVE, POSITIVE, Sample, Sampler
from detection.model.roi_head import DetectionSelection, with_image_index
from detection.model.rpn import ProposalSelection
from detection.structures import Batch, Target
from resdet.tools.benchmarks.peer import theirs, theirs_name, twin
from resdet.tools.benchmarks.protocol import exact_float32

CLASSES = 80
# torchvision derives strides from the grid; on multiples of 64 they are the true ones.
SIZES = {"c4": (608, 1024), "fpn": (768, 1280)}


class GateError(RuntimeError):
    """The two sides do not compute the same: there is nothing to time."""


class Pair(NamedTuple):
    """Both detectors, of one state dict, and what they are trained by.

    Attributes:
        ours: this project's detector.
        peer: torchvision's.
        criterion: targets and losses, with torchvision's constants.
    """

    ours: FasterRCNN
    peer: TorchvisionFasterRCNN
    criterion: Criterion


class FirstSampler(Sampler):
    """Takes the first candidates instead of random ones, so that both sides take the same."""

    def __call__(self, roles: Tensor) -> Sample:
        """Takes the first candidates of each role."""
        positives = (roles == POSITIVE).nonzero().squeeze(1)
        positives = positives[: int(self.count * self.positive_fraction)]
        negatives = (roles == NEGATIVE).nonzero().squeeze(1)
        return Sample(positives, negatives[: self.count - len(positives)])


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the benchmarks that time a pair."""
    parser.add_argument("--model", choices=("c4", "fpn"), default="fpn")
    parser.add_argument("--backbone", default="resnet50", help="a ResNet")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)


def make_pair(model: str, backbone: str, *, deterministic: bool = False) -> Pair:
    """Builds both sides with random weights of trained-like scale.

    Args:
        model: "c4" or "fpn".
        backbone: a ResNet.
        deterministic: whether both sides sample the first candidates, for gradient gates.
    """
    torch.manual_seed(0)
    pyramid = model == "fpn"
    limits = (1000, 1000) if pyramid else (6000, 300)
    spec = DetectorSpec(
        backbone,
        pyramid=pyramid,
        roi_pooling="align",
        frozen_stages=2,
        proposals=ProposalSelection(*limits, min_side=1e-3),
        detections=DetectionSelection(nms_threshold=0.5),
    )
    ours = faster_rcnn(CLASSES, spec)
    _spread(ours, SIZES[model])
    sampler = FirstSampler if deterministic else Sampler
    training = (2000, 2000) if pyramid else (12000, 2000)
    criterion = Criterion(
        RPNCriterion(sampler=sampler(256, 0.5), cross_boundary=True),
        RoICriterion(
            background=(0.0, 0.5), sampler=sampler(512 if pyramid else 128, 0.25), sigma=3.0
        ),
        ProposalSelection(*training, min_side=1e-3),
    )
    peer = twin(ours, spec, criterion)
    freeze_alike(ours, peer)
    if deterministic:
        for part, own in ((peer.rpn, criterion.rpn), (peer.roi_heads, criterion.roi)):
            part.fg_bg_sampler = _first_sampler(own.sampler)
    return Pair(ours, peer, criterion)


def freeze_alike(ours: FasterRCNN, peer: TorchvisionFasterRCNN) -> None:
    """Freezes of the peer's parameters those that are frozen in ours."""
    frozen = {theirs_name(name) for name, p in ours.named_parameters() if not p.requires_grad}
    for name, parameter in peer.named_parameters():
        parameter.requires_grad_(name not in frozen)


@torch.no_grad()
def _spread(detector: FasterRCNN, size: tuple[int, int]) -> None:
    """Gives features a bounded scale, and scores and deltas the spread of a trained detector."""
    for module in detector.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(0.5)
    batch, _ = random_batch(1, size)
    levels = detector.trunk(detector.normalize(batch))
    rpn = detector.rpn(levels)
    _rescale(detector.rpn.objectness, torch.cat(rpn.objectness, dim=1), 2.0)
    _rescale(detector.rpn.deltas, torch.cat(rpn.deltas, dim=1), 0.3)
    proposals = detector.rpn.propose(detector.rpn(levels), batch.sizes, detector.proposals)
    output = detector.roi_head(levels, with_image_index(proposals.boxes), batch.sizes)
    _rescale(detector.roi_head.class_logits, output.class_logits, 2.0)
    _rescale(detector.roi_head.deltas, output.deltas, 1.0)


def _rescale(layer: nn.Conv2d | nn.Linear, output: Tensor, std: float) -> None:
    layer.weight.mul_(std / output.std())


def _first_sampler(own: Sampler) -> object:
    def sample(labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positives, negatives = [], []
        for roles in labels:
            chosen = own(torch.where(roles >= 1, POSITIVE, torch.where(roles == 0, NEGATIVE, -1)))
            positives.append(torch.zeros_like(roles, dtype=torch.bool))
            negatives.append(torch.zeros_like(roles, dtype=torch.bool))
            positives[-1][chosen.positives] = True
            negatives[-1][chosen.negatives] = True
        return positives, negatives

    return sample


def random_batch(count: int, size: tuple[int, int]) -> tuple[Batch, list[Target]]:
    """Draws images of noise with a dozen boxes each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([size] * count)
    targets = []
    for _ in range(count):
        corners = torch.rand(12, 2, generator=generator) * torch.tensor(size[::-1]) * 0.7
        sides = 20 + torch.rand(12, 2, generator=generator) * 0.25 * min(size)
        labels = torch.randint(1, CLASSES + 1, (12,), generator=generator)
        boxes = torch.cat((corners, corners + sides), dim=1)
        targets.append(Target(boxes, labels, torch.zeros(12, dtype=torch.bool)))
    return Batch(images, sizes, sizes, torch.arange(count)), targets


def peer_inputs(
    batch: Batch, targets: list[Target], dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Turns a batch into torchvision's arguments: images in [0, 1] and dictionaries."""
    images = list((batch.images.to(dtype) / 255).unbind())
    return images, [{"boxes": t.boxes.to(dtype), "labels": t.labels} for t in targets]


@exact_float32()
@torch.inference_mode()
def check_detections(pair: Pair, batch: Batch) -> int:
    """Compares features and detections of both sides in float32.

    Returns:
        The number of detections compared.

    Raises:
        GateError: if features differ by more than 1e-5 of their scale, or a detection of one
            side has no partner on the other.
    """
    images, _ = peer_inputs(batch, [])
    own_levels = pair.ours.trunk(pair.ours.normalize(batch))
    peer_levels = pair.peer.backbone(pair.peer.transform(images)[0].tensors)
    peer_levels = [peer_levels] if isinstance(peer_levels, Tensor) else list(peer_levels.values())
    for own, other in zip(own_levels, peer_levels, strict=True):
        if (own - other).abs().max() > 1e-5 * other.abs().max():
            raise GateError(f"features differ: {(own - other).abs().max() / other.abs().max():.1e}")
    found = pair.ours(batch)
    total = 0
    for image, other in enumerate(pair.peer(images)):
        slots = found.labels[image] > 0
        boxes, labels = found.boxes[image][slots], found.labels[image][slots]
        if not len(boxes) or not len(other["boxes"]):
            raise GateError("no detections to compare")
        iou = box_iou(boxes, other["boxes"]) * (labels[:, None] == other["labels"])
        missing = int((iou.amax(dim=1) < 0.999).sum()) + abs(len(boxes) - len(other["boxes"]))
        # Two detections of one score may swap at the cut of 100.
        if missing > 0.02 * len(boxes):
            raise GateError(f"{missing} of {len(boxes)} detections have no partner")
        total += len(boxes)
    return total


def check_gradients(model: str, backbone: str, size: tuple[int, int]) -> float:
    """Compares losses and every gradient of both sides in float64, with equal samples.

    Returns:
        The greatest difference, relative to each parameter's greatest gradient.

    Raises:
        GateError: if it is above 1e-12.
    """
    pair = make_pair(model, backbone, deterministic=True)
    pair.ours.double()
    pair.peer.double()
    # The constants of the normalisation were rounded to float32, torchvision's were not.
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
        for values in (pair.ours.preprocessing.mean, pair.ours.preprocessing.std)
    )
    pair.ours.scale, pair.ours.shift = pair.ours.preprocessing.scale / std, -mean / std
    batch, targets = random_batch(1, size)
    targets = [target._replace(boxes=target.boxes.double()) for target in targets]
    torch.stack(pair.criterion(pair.ours, batch, targets)).sum().backward()
    peer_losses = pair.peer(*peer_inputs(batch, targets, torch.float64))
    torch.stack(list(peer_losses.values())).sum().backward()
    own = {n: p.grad for n, p in pair.ours.named_parameters() if p.grad is not None}
    other = {n: p.grad for n, p in pair.peer.named_parameters() if p.grad is not None}
    worst = max(
        float((value - other[name]).abs().max() / other[name].abs().max().clamp(min=1e-30))
        for name, value in theirs(own).items()
    )
    if worst > 1e-12:
        raise GateError(f"gradients differ by {worst:.1e} of their scale in float64")
    return worst
