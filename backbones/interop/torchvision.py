"""Our networks in torchvision's detection and segmentation models, one line each.

    FasterRCNN(**faster_rcnn(network, num_classes=21))
    FasterRCNN(**pyramid(network), num_classes=21)  # MaskRCNN likewise
    FCOS(**pyramid(network, ["c3", "c4", "c5"], extra=LastLevelP6P7(256, 256)), num_classes=21)
    SSD(**features(network, ["c3", "c4", "c5"]), anchor_generator=…, size=…, num_classes=21)
    DeepLabV3(segmentation(network), DeepLabHead(2048, 21))
    create_feature_extractor(network, {"layer3": "c4"})

Torchvision's detectors take RGB images in 0 … 1 and normalise them themselves, so their arguments
come with the statistics that the network's ``preprocessing`` amounts to; networks that read BGR
flip the channels in the backbone. The models share the network's layers: load weights and freeze
before.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool

from backbones.base import Backbone
from backbones.blocks import PaddedIdentity
from backbones.cut import Cut, cut
from backbones.preprocessing import Preprocessing
from backbones.resnet import ResNet


class Features(nn.Module):
    """What torchvision calls a backbone: feature maps by name.

    Parameters are named as in torchvision's ``BackboneWithFPN``: body and fpn, which is a pyramid
    on the maps or nothing.

    Args:
        body: images -> list of maps.
        names: the maps' names.
        out_channels: their channels; one number where they are equal, as torchvision asks.
        preprocessing: what the body reads.
    """

    def __init__(
        self,
        body: nn.Module,
        names: Sequence[str],
        out_channels: int | list[int],
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.body = body
        self.names = tuple(names)
        self.out_channels = out_channels
        self.flip = preprocessing.order == "bgr"
        self.fpn: nn.Module = nn.Identity()

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the maps.

        Args:
            images: (B, 3, H, W) float32, RGB, normalised by ``normalisation``'s statistics.

        Returns:
            One (B, C_l, H_l, W_l) float32 per name.
        """
        levels = self.body(images.flip(1) if self.flip else images)
        maps: OrderedDict[str, Tensor] = self.fpn(OrderedDict(zip(self.names, levels, strict=True)))
        return maps


def normalisation(preprocessing: Preprocessing) -> dict[str, list[float]]:
    """A preprocessing as torchvision's detectors take it, but for the channels' order.

    Args:
        preprocessing: what a network expects.

    Returns:
        ``image_mean`` and ``image_std``, one number per channel, RGB, in units of images in 0 … 1.
    """
    unit = 255 * preprocessing.scale
    step = -1 if preprocessing.order == "bgr" else 1
    return {
        "image_mean": [mean / unit for mean in preprocessing.mean[::step]],
        "image_std": [std / unit for std in preprocessing.std[::step]],
    }


def features(network: Backbone, names: Sequence[str] = ("c2", "c3", "c4", "c5")) -> dict[str, Any]:
    """Arguments for a detector that reads a network's own maps, such as ``SSD``.

    Args:
        network: whose layers are shared.
        names: which of its features.

    Returns:
        ``backbone`` with the maps "0", "1", …, ``image_mean`` and ``image_std``.

    Raises:
        ValueError: the network has no such feature.
    """
    backbone = _features(network, names, _numbers(len(names)))
    return {"backbone": backbone, **normalisation(network.preprocessing)}


def pyramid(
    network: Backbone,
    names: Sequence[str] = ("c2", "c3", "c4", "c5"),
    *,
    channels: int = 256,
    extra: ExtraFPNBlock | None = None,
) -> dict[str, Any]:
    """Arguments for a detector on a feature pyramid (arXiv 1612.03144).

    Args:
        network: whose layers are shared.
        names: which of its features the pyramid stands on, finest first.
        channels: channels of every level.
        extra: the levels above them; torchvision's max-pooled P6, "pool", when None.

    Returns:
        ``backbone`` with the levels "0", "1", … and those of ``extra``, ``image_mean`` and
        ``image_std``.

    Raises:
        ValueError: the network has no such feature.
    """
    backbone = _features(network, names, _numbers(len(names)))
    backbone.fpn = FeaturePyramidNetwork(
        backbone.out_channels, channels, extra or LastLevelMaxPool()
    )
    backbone.out_channels = channels
    return {"backbone": backbone, **normalisation(network.preprocessing)}


def faster_rcnn(parts: Backbone | Cut, num_classes: int) -> dict[str, Any]:
    """Arguments for ``FasterRCNN`` whose box head is a cut network's tail.

    Args:
        parts: a cut; or a network, which is cut after conv4_x (ResNet appendix A) or conv5_3
            (VGG).
        num_classes: with the background, as torchvision counts.

    Returns:
        ``backbone``, ``box_head``, ``box_predictor``, ``box_roi_pool`` (RoIAlign),
        ``rpn_anchor_generator``, ``image_mean`` and ``image_std``. Anchors have the ratios 1:2,
        1:1 and 2:1; their sides are 8, 16 and 32 strides on a single level (Faster R-CNN
        section 3.3: 128, 256 and 512) and 8 strides on each of several (FPN section 4.1).

    Raises:
        TypeError: there is no cut for networks of this class.
    """
    if isinstance(parts, Backbone):
        parts = cut(parts)
    names = _numbers(len(parts.strides))
    pooled = names[: parts.roi_levels]
    if len(names) == len(pooled) + 1:
        names[-1] = "pool"
    scales = (8, 16, 32) if len(names) == 1 else (8,)
    sizes = tuple(tuple(scale * stride for scale in scales) for stride in parts.strides)
    return {
        "backbone": Features(parts.trunk, names, parts.channels, parts.preprocessing),
        "box_head": parts.tail,
        "box_predictor": FastRCNNPredictor(parts.tail_channels, num_classes),
        "box_roi_pool": MultiScaleRoIAlign(pooled, parts.roi_size, sampling_ratio=2),
        "rpn_anchor_generator": AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        **normalisation(parts.preprocessing),
    }


def segmentation(network: Backbone, auxiliary: str | None = None) -> Features:
    """The backbone of ``DeepLabV3`` and ``FCN``, which take images already normalised.

    Args:
        network: whose layers are shared; see ``dilate``.
        auxiliary: the feature that an auxiliary classifier reads; torchvision's reads c4.

    Returns:
        A module with the maps "out", the network's last, and "aux"; images are RGB, normalised by
        ``normalisation(network.preprocessing)``.

    Raises:
        ValueError: the network has no such feature.
    """
    maps = {"out": network.feature_info[-1].name}
    if auxiliary is not None:
        maps["aux"] = auxiliary
    return _features(network, list(maps.values()), list(maps))


def dilate(network: Backbone, stride: int) -> None:
    """Trade the last stages' strides for dilations, in place (DeepLab, arXiv 1706.05587).

    Every map that was coarser gets the given stride, and its cells at the places of the original
    map keep their values. Strides 8 and 16 are torchvision's ``replace_stride_with_dilation`` of
    [False, True, True] and [False, False, True].

    Args:
        network: a ``ResNet``, whose stages change, and ``feature_info`` with them.
        stride: pixels of the image per cell, of one of the network's features.

    Raises:
        TypeError: the network is not a ``ResNet``.
        ValueError: no feature has this stride, or a stage has lost its stride already.
    """
    if not isinstance(network, ResNet):
        raise TypeError(f"expected a ResNet to dilate, got {type(network).__name__}")
    strides = [feature.stride for feature in network.feature_info]
    if stride not in strides or len(set(strides)) < len(strides):
        raise ValueError(f"expected a stride among distinct ones, got {stride} among {strides}")
    dilation = 1
    for i in range(strides.index(stride) + 1, len(strides)):
        for block in network.get_submodule(f"layer{i + 1}").children():
            dilation = _dilate_block(block, dilation)
    network.feature_info = tuple(
        feature._replace(stride=min(feature.stride, stride)) for feature in network.feature_info
    )


def _dilate_block(block: nn.Module, dilation: int) -> int:
    """The dilation after the block."""
    for layer in block.children():
        if isinstance(layer, nn.Conv2d):
            if layer.kernel_size != (1, 1):
                layer.dilation = layer.padding = (dilation, dilation)
            dilation *= layer.stride[0]
    for layer in block.modules():  # the shortcut's too
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        elif isinstance(layer, PaddedIdentity):
            layer.stride = 1
    return dilation


def _features(network: Backbone, names: Sequence[str], keys: Sequence[str]) -> Features:
    trunk = network.trunk(names)
    channels = {feature.name: feature.channels for feature in network.feature_info}
    return Features(trunk, keys, [channels[name] for name in names], network.preprocessing)


def _numbers(count: int) -> list[str]:
    return [str(i) for i in range(count)]
