"""Residual networks for ImageNet (ResNet section 3, Table 1), under torchvision's names.

Differs from the paper: the stride of a bottleneck is in its 3×3 convolution unless
``stride_in_1x1``, and pool1 pads by 1 instead of rounding up, because torchvision's weights were
trained so. ``caffe_resnet50`` … ``caffe_resnet152`` are the authors' released networks.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Feature
from backbones.blocks import BasicBlock, Bottleneck, Shortcut
from backbones.normalization import conv_norm
from backbones.preprocessing import CAFFE_BGR, IMAGENET_RGB, Preprocessing


class Stem(NamedTuple):
    """The layers before the first residual stage.

    Attributes:
        kernel: side of conv1.
        stride: stride of conv1.
        bias: whether conv1 has a bias beside its batch norm's, as the Caffe ResNet-50's does.
        pool: how the 3×3 max-pool of stride 2 meets the border: ``padded`` by 1 (torchvision),
            or rounding up, ``ceil`` (Caffe). None: no pool (CIFAR).
    """

    kernel: int = 7
    stride: int = 2
    bias: bool = False
    pool: Literal["padded", "ceil"] | None = "padded"

    def max_pool(self) -> nn.Module:
        """The pool, or the identity."""
        if self.pool is None:
            return nn.Identity()
        padded = self.pool == "padded"
        return nn.MaxPool2d(3, stride=2, padding=int(padded), ceil_mode=not padded)


class _Layers(nn.Module):
    """The walk that a network and its trunks share: conv1, then the stages that are there."""

    conv1: nn.Conv2d
    bn1: nn.Module
    relu: nn.ReLU
    maxpool: nn.Module

    def stage_outputs(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float -> the output of each of layer1, layer2, … that is there."""
        x: Tensor = self.maxpool(self.relu(conv_norm(images, self.conv1, self.bn1)))
        outputs = []
        for name, layer in self.named_children():
            if name.startswith("layer"):
                x = layer(x)
                outputs.append(x)
        return outputs


class ResNet(_Layers, Backbone):
    """A residual network; convolutions start as in He et al. 2015 (fan-out), batch norms at 1.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        depths: blocks per stage, conv2_x … conv5_x.
        num_classes: outputs of ``fc``.
        shortcut: A, B or C (section 3.3); None makes the plain network.
        stride_in_1x1: where bottlenecks stride. True: the first 1×1, as in the paper, in the
            Caffe release and in Detectron's weights. False: the 3×3, as torchvision's weights.
        stem: the layers before conv2_x.
        width: channels of conv1; stage widths are 1, 2, 4 and 8 times as many.
        zero_init_residual: start each block's last batch norm at 0, blocks at the identity.
        preprocessing: what the weights expect of an image.
        architecture: torchvision's name of the network.

    Raises:
        ValueError: ``zero_init_residual`` without shortcuts, which would pass nothing on; or
            ``stride_in_1x1`` with basic blocks.
    """

    head = "fc"

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        num_classes: int = 1000,
        shortcut: Shortcut | None = "B",
        stride_in_1x1: bool = False,
        stem: Stem = Stem(),
        width: int = 64,
        zero_init_residual: bool = False,
        preprocessing: Preprocessing = IMAGENET_RGB,
        architecture: str | None = None,
    ) -> None:
        super().__init__(preprocessing, architecture)
        if zero_init_residual and shortcut is None:
            raise ValueError("zero_init_residual needs shortcuts; a plain network has none")
        self.stride_in_1x1 = stride_in_1x1
        self.conv1 = nn.Conv2d(
            3, width, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=stem.bias
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = stem.max_pool()
        channels, features = width, list[Feature]()
        stride = stem.stride * (1 if stem.pool is None else 2)
        for i, depth in enumerate(depths):
            blocks = list[nn.Module]()
            for j in range(depth):
                step = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    block(
                        channels, width << i, step, stride_in_1x1=stride_in_1x1, shortcut=shortcut
                    )
                )
                channels, stride = (width << i) * block.expansion, stride * step
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            features.append(Feature(f"c{i + 2}", channels, stride))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        self.feature_info = tuple(features)
        self.stages = (("conv1", "bn1"), *((f"layer{i + 1}",) for i in range(len(depths))))
        self._initialise(zero_init_residual)

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                nn.init.zeros_(last.get_parameter("weight"))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """See ``Backbone.forward``."""
        names = [feature.name for feature in self.feature_info]
        return OrderedDict(zip(names, self.stage_outputs(images), strict=True))

    def logits(self, images: Tensor) -> Tensor:
        """See ``Backbone.logits``."""
        pooled = self.avgpool(self.stage_outputs(images)[-1])
        scores: Tensor = self.fc(torch.flatten(pooled, 1))
        return scores

    def trunk(self, names: Sequence[str]) -> "ResNetTrunk":
        """See ``Backbone.trunk``."""
        return ResNetTrunk(self, self._indices(names))


class ResNetTrunk(_Layers):
    """The first stages of a ResNet, sharing its layers.

    Args:
        network: whose layers.
        levels: which stage outputs to return, from 0.
    """

    def __init__(self, network: ResNet, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        stages = (f"layer{i + 1}" for i in range(max(levels) + 1))
        for name in ("conv1", "bn1", "relu", "maxpool", *stages):
            self.add_module(name, network.get_submodule(name))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32 -> one (B, channels, H_l, W_l) float32 per level."""
        outputs = self.stage_outputs(images)
        return [outputs[i] for i in self.levels]


class PlainOptions(TypedDict, total=False):
    """The arguments of ``ResNet`` that ``plain18`` and ``plain34`` pass on."""

    num_classes: int
    width: int
    preprocessing: Preprocessing


class CaffeOptions(PlainOptions, total=False):
    """The arguments of ``ResNet`` that ``caffe_resnet50`` … ``caffe_resnet152`` pass on."""

    zero_init_residual: bool


class ResNetOptions(CaffeOptions, total=False):
    """The arguments of ``ResNet`` that ``resnet18`` … ``resnet152`` pass on."""

    shortcut: Shortcut
    stride_in_1x1: bool


def resnet18(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-18 (Table 1); options as in ``ResNet``."""
    return ResNet(BasicBlock, (2, 2, 2, 2), architecture="resnet18", **options)


def resnet34(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-34 (Table 1), projection shortcuts where shapes change (B)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), architecture="resnet34", **options)


def resnet50(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-50 (Table 1); options as in ``ResNet``."""
    return ResNet(Bottleneck, (3, 4, 6, 3), architecture="resnet50", **options)


def resnet101(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-101 (Table 1); options as in ``ResNet``."""
    return ResNet(Bottleneck, (3, 4, 23, 3), architecture="resnet101", **options)


def resnet152(**options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-152 (Table 1); options as in ``ResNet``."""
    return ResNet(Bottleneck, (3, 8, 36, 3), architecture="resnet152", **options)


def plain18(**options: Unpack[PlainOptions]) -> ResNet:
    """The plain 18-layer network: ResNet-18's layers, no shortcuts (section 3.3)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), shortcut=None, **options)


def plain34(**options: Unpack[PlainOptions]) -> ResNet:
    """The plain 34-layer network: ResNet-34's layers, no shortcuts (section 3.3, Fig. 3)."""
    return ResNet(BasicBlock, (3, 4, 6, 3), shortcut=None, **options)


def caffe_resnet50(**options: Unpack[CaffeOptions]) -> ResNet:
    """ResNet-50 as the authors released it: conv1 has a bias."""
    return _caffe((3, 4, 6, 3), options, bias=True)


def caffe_resnet101(**options: Unpack[CaffeOptions]) -> ResNet:
    """ResNet-101 as the authors released it."""
    return _caffe((3, 4, 23, 3), options)


def caffe_resnet152(**options: Unpack[CaffeOptions]) -> ResNet:
    """ResNet-152 as the authors released it."""
    return _caffe((3, 8, 36, 3), options)


def _caffe(depths: Sequence[int], options: CaffeOptions, bias: bool = False) -> ResNet:
    stem = Stem(bias=bias, pool="ceil")
    merged: CaffeOptions = {"preprocessing": CAFFE_BGR, **options}
    return ResNet(Bottleneck, depths, stem=stem, stride_in_1x1=True, **merged)
