"""Residual networks for ImageNet (ResNet section 3, Table 1), under torchvision's names.

Differs from the paper: the stride of a bottleneck is in its 3×3 convolution unless
``stride_in_1x1``, because torchvision's weights were trained so; pool1 pads by 1 instead of
rounding up, as torchvision's does.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Feature
from backbones.normalization import ConvNorm, conv_norm
from backbones.preprocessing import IMAGENET_RGB, Preprocessing


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet Fig. 5 left).

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions.
        stride: stride of the first convolution and of the projection.
        stride_in_1x1: must be False; the block has no 1×1 convolution.

    Raises:
        ValueError: ``stride_in_1x1`` is True.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        if stride_in_1x1:
            raise ValueError("stride_in_1x1 is for bottlenecks; a basic block has no 1×1")
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, width, H / stride, W / stride) float."""
        y: Tensor = self.relu(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut (ResNet Fig. 5 right).

    Args:
        in_channels: channels of the input.
        width: channels of the first two convolutions; the third has ``expansion`` times as many.
        stride: stride of the strided convolution and of the projection.
        stride_in_1x1: the strided convolution is the first 1×1 (the paper, Caffe), else the 3×3
            (torchvision).
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, width, 1, first)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, second)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3: nn.Module = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, width · 4, H / stride, W / stride) float."""
        y: Tensor = self.relu(conv_norm(x, self.conv1, self.bn1))
        y = self.relu(conv_norm(y, self.conv2, self.bn2))
        y = conv_norm(y, self.conv3, self.bn3)
        y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class _Layers(nn.Module):
    """The walk that a network and its trunks share: conv1, then the stages that are there."""

    conv1: nn.Conv2d
    bn1: nn.Module
    relu: nn.ReLU
    maxpool: nn.MaxPool2d

    def stage_outputs(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float -> the output of each of layer1 … layer4 that is there."""
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
        stride_in_1x1: where bottlenecks stride. True: the first 1×1, as in the paper, in the
            Caffe release and in Detectron's weights. False: the 3×3, as torchvision's weights.
        width: channels of conv1; stage widths are 1, 2, 4 and 8 times as many.
        zero_init_residual: start each block's last batch norm at 0, blocks at the identity.
        preprocessing: what the weights expect of an image.
        architecture: torchvision's name of the network.
    """

    head = "fc"
    layer4: nn.Sequential

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        *,
        num_classes: int = 1000,
        stride_in_1x1: bool = False,
        width: int = 64,
        zero_init_residual: bool = False,
        preprocessing: Preprocessing = IMAGENET_RGB,
        architecture: str | None = None,
    ) -> None:
        super().__init__(preprocessing, architecture)
        self.stride_in_1x1 = stride_in_1x1
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, stride, features = width, 4, list[Feature]()
        for i, depth in enumerate(depths):
            blocks = list[nn.Module]()
            for j in range(depth):
                step = 2 if i > 0 and j == 0 else 1
                blocks.append(block(channels, width << i, step, stride_in_1x1=stride_in_1x1))
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


class ResNetOptions(TypedDict, total=False):
    """The arguments of ``ResNet`` that ``resnet18`` … ``resnet152`` pass on."""

    num_classes: int
    stride_in_1x1: bool
    width: int
    zero_init_residual: bool
    preprocessing: Preprocessing


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


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _projection(in_channels: int, out_channels: int, stride: int) -> ConvNorm | None:
    """Shortcut B: a 1×1 projection where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = _conv(in_channels, out_channels, 1, stride)
    return ConvNorm(conv, nn.BatchNorm2d(out_channels))
