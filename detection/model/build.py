"""Plain values to a detector: the one place where names become objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from backbones import (
    Backbone,
    Cut,
    Preprocessing,
    cut,
    freeze_batch_norm,
    load_weights,
    pyramid,
)
from backbones.catalogue import build
from detection.model.anchors import AnchorGenerator, corner_anchors, paper_anchors
from detection.model.context import ContextRoIHead
from detection.model.faster_rcnn import FasterRCNN
from detection.model.pooling import RoIAlign, RoIPool
from detection.model.roi_head import DetectionSelection, RoIHead
from detection.model.rpn import RPN, ProposalSelection

T = TypeVar("T")


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is made of, in plain values; the defaults are the paper's ResNet-101.

    Attributes:
        backbone: a name of `backbones.catalogue`.
        width: channels of conv1, and so of the whole network: 64 is the papers', less is for small
            images and CPUs.
        pyramid: whether a feature pyramid stands on the network (FPN); otherwise it is cut into
            a trunk of stride 16 and a tail that sees the regions.
        pyramid_channels: channels of every level of the pyramid.
        pyramid_tail_channels: width of fc6 and fc7, the pyramid's tail.
        stride_in_1x1: where a bottleneck has its stride: in the first 1x1 convolution (the paper,
            Caffe weights) or in the 3x3 (torchvision weights). Alternatives: true, with weights
            that have it there. Sources: ResNet's released prototxts (1x1), torchvision (3x3).
        batch_norm: ``frozen`` is an affine map, folded into its convolution (appendix A);
            ``trained`` is for training from scratch.
        frozen_stages: stages that do not train: 2 are conv1 and conv2_x, or conv1_1…conv2_2.
            Alternatives: 0 to 5. Sources: py-faster-rcnn for VGG-16; open for ResNet, 2 is
            Detectron's.
        roi_pooling: ``pool`` is RoI max-pooling, the paper's; ``align`` is RoIAlign. None is
            ``pool`` on one level and ``align`` on a pyramid. Alternatives: align on one level.
            Sources: Fast R-CNN section 2.1 (pool), Mask R-CNN section 3 (align).
        roi_size: side of a pooled region. None is the network's own: 14 for ResNet, 7 for VGG and
            the pyramid. Alternatives: 7 for ResNet, with either stride of its tail. Sources: open
            in ResNet section 4.3; 14 is Detectron's, 7 is Fast R-CNN's.
        tail_stride: stride of conv5_x in a ResNet's tail. None is 2, with 14x14 regions
            (Detectron); 1 goes with 7x7 regions. Alternatives: 1. Sources: open in ResNet section
            4.3; 2 is Detectron's.
        context: whether the head sees the whole image beside each region (appendix B).
        dropout: probability in VGG's fc6 and fc7 (0.5 on VOC, 0 on COCO).
        anchor_sizes: square roots of the anchors' areas, pixels. None is 128, 256, 512 on one
            level and 32, 64, 128, 256, 512, one a level, on a pyramid.
        anchor_ratios: height divided by width.
        rpn_width: channels of the RPN's 3x3 convolution. None is 512 on one level and the
            pyramid's own on a pyramid. Alternatives: the trunk's own. Sources: Faster R-CNN section
            3.1 (512 with VGG-16); open for ResNet, Detectron2 takes the trunk's.
        proposals: how many regions the head sees in inference.
        detections: which detections are reported.
    """

    backbone: str = "resnet101"
    width: int = 64
    pyramid: bool = False
    pyramid_channels: int = 256
    pyramid_tail_channels: int = 1024
    stride_in_1x1: bool = False
    batch_norm: Literal["frozen", "trained"] = "frozen"
    frozen_stages: int = 2
    roi_pooling: Literal["pool", "align"] | None = None
    roi_size: int | None = None
    tail_stride: int | None = None
    context: bool = False
    dropout: float = 0.5
    anchor_sizes: tuple[int, ...] | None = None
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_width: int | None = None
    proposals: ProposalSelection = ProposalSelection(before_nms=6000, after_nms=300)
    detections: DetectionSelection = DetectionSelection()

    def to_plain(self) -> dict[str, Any]:
        """Returns the values as JSON has them, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> DetectorSpec:
        """Makes a spec from what `to_plain` returned, JSON's lists for its tuples included.

        Raises:
            KeyError: if a selection is missing.
            TypeError: if a value is unknown.
        """
        nested = {
            "proposals": ProposalSelection(**values["proposals"]),
            "detections": DetectionSelection(**values["detections"]),
        }
        tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **tuples, **nested})


def faster_rcnn(
    classes: int,
    spec: DetectorSpec = DetectorSpec(),
    *,
    weights: str | None = None,
    fresh: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
) -> FasterRCNN:
    """Builds a detector, its memory laid out channels last.

    Args:
        classes: K, without background.
        spec: what it is made of.
        weights: classification weights of the backbone, as `backbones.load_weights` takes them;
            random if None.
        fresh: prefixes of layers that the weights may lack; the last classification layer, which no
            detector has, they may always lack or have for other classes.
        preprocessing: what the weights expect of an image; what the loaded weights say, if None.

    Returns:
        The detector, in training mode.

    Raises:
        ValueError: if a name is unknown, or values do not go together.
    """
    network = _network(spec)
    if weights is not None:
        load_weights(network, weights, fresh=(*fresh, network.head))
    if spec.batch_norm == "frozen":
        freeze_batch_norm(network)
    network.freeze(spec.frozen_stages)
    parts = _cut(network, spec)
    rpn_width = spec.rpn_width or _by_level(parts, 512, parts.channels)
    rpn = RPN(parts.channels, _anchors(parts, spec), rpn_width)
    head = (ContextRoIHead if spec.context else RoIHead)(
        _pool(parts, spec), parts.tail, parts.tail_channels, classes
    )
    detector = FasterRCNN(
        parts.trunk,
        rpn,
        head,
        preprocessing or parts.preprocessing,
        proposals=spec.proposals,
        detections=spec.detections,
    )
    return detector.to(memory_format=torch.channels_last)


def _by_level(parts: Cut, one: T, several: T) -> T:
    return one if len(parts.strides) == 1 else several


def _network(spec: DetectorSpec) -> Backbone:
    if spec.backbone.startswith("vgg"):
        if spec.stride_in_1x1:
            raise ValueError(f"stride_in_1x1 is for bottlenecks; {spec.backbone} has none")
        return build(spec.backbone, width=spec.width, dropout=spec.dropout)
    stride = {"stride_in_1x1": True} if spec.stride_in_1x1 else {}
    try:
        return build(spec.backbone, width=spec.width, **stride)
    except TypeError as error:  # an option that the network does not have
        raise ValueError(f"backbone {spec.backbone}: {error}") from error


def _cut(network: Backbone, spec: DetectorSpec) -> Cut:
    if spec.pyramid:
        channels = (spec.pyramid_channels, spec.pyramid_tail_channels)
        return pyramid(network, channels[0], spec.roi_size or 7, channels[1])
    return cut(network, roi_size=spec.roi_size, tail_stride=spec.tail_stride)


def _anchors(parts: Cut, spec: DetectorSpec) -> AnchorGenerator:
    sizes = spec.anchor_sizes or _by_level(parts, (128, 256, 512), (32, 64, 128, 256, 512))
    if len(parts.strides) == 1:
        cells = [paper_anchors(sizes, spec.anchor_ratios, parts.strides[0])]
    else:
        cells = [corner_anchors((size,), spec.anchor_ratios) for size in sizes]
    return AnchorGenerator(cells, parts.strides)


def _pool(parts: Cut, spec: DetectorSpec) -> nn.Module:
    strides = parts.strides[: parts.roi_levels]
    if (spec.roi_pooling or _by_level(parts, "pool", "align")) == "align":
        return RoIAlign(parts.roi_size, strides)
    if len(strides) > 1:
        raise ValueError("roi_pooling: 'pool' is for one level; a pyramid needs 'align'")
    return RoIPool(parts.roi_size, strides[0])
