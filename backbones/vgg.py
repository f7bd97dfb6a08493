"""VGG-11, 16 and 19 (Simonyan and Zisserman, configurations A, D and E), torchvision's names.

Differs from the paper: ``vgg16_bn`` and ``vgg19_bn`` have a batch norm after every convolution.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Feature
from backbones.normalization import FrozenBatchNorm2d, conv_norm
from backbones.preprocessing import IMAGENET_RGB, Preprocessing

_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


class VGG(Backbone):
    """3×3 convolutions and 2×2 pools, then fc6, fc7 and the classifier.

    A stage's feature is its last convolution after the ReLU and before the pool, so c2 … c5 are
    conv2_2, conv3_3, conv4_3 and conv5_3 (VGG-16) at strides 2, 4, 8 and 16.

    Args:
        depths: convolutions per stage, conv1 … conv5.
        batch_norm: whether a batch norm follows every convolution.
        num_classes: outputs of the last layer.
        width: channels of conv1; the stages have 1, 2, 4, 8 and 8 times as many, fc6 and fc7 64
            times as many.
        dropout: probability after fc6 and fc7 (Faster R-CNN: 0.5 on VOC, 0 on COCO).
        preprocessing: what the weights expect of an image.
        architecture: torchvision's name of the network.
    """

    head = "classifier.6"

    def __init__(
        self,
        depths: Sequence[int],
        *,
        batch_norm: bool = False,
        num_classes: int = 1000,
        width: int = 64,
        dropout: float = 0.5,
        preprocessing: Preprocessing = IMAGENET_RGB,
        architecture: str | None = None,
    ) -> None:
        super().__init__(preprocessing, architecture)
        layers, stages, ends, features = list[nn.Module](), [], [], []
        channels = 3
        for i, depth in enumerate(depths):
            first, out_channels = len(layers), width * min(1 << i, 8)
            for _ in range(depth):
                layers.append(nn.Conv2d(channels, out_channels, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out_channels))
                layers.append(nn.ReLU(inplace=True))
                channels = out_channels
            stages.append(tuple(f"features.{j}" for j in range(first, len(layers))))
            ends.append(len(layers) - 1)
            features.append(Feature(f"c{i + 1}", channels, 1 << i))
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 7 * 7, 64 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64 * width, 64 * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(64 * width, num_classes),
        )
        self.stages = tuple(stages)
        self.feature_info, self.ends = tuple(features[1:]), tuple(ends[1:])
        self._initialise(width)

    def _initialise(self, width: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.get_parameter("bias"))
            elif isinstance(module, nn.Linear):
                # torchvision's 0.01 at width 64; the same variance of the outputs at any other.
                nn.init.normal_(module.weight, std=0.01 * (64 / width) ** 0.5)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """See ``Backbone.forward``."""
        names = [feature.name for feature in self.feature_info]
        return OrderedDict(zip(names, _outputs(self.features, self.ends, images), strict=True))

    def logits(self, images: Tensor) -> Tensor:
        """See ``Backbone.logits``."""
        (last,) = _outputs(self.features, [len(self.features) - 1], images)
        scores: Tensor = self.classifier(torch.flatten(self.avgpool(last), 1))
        return scores

    def trunk(self, names: Sequence[str]) -> "VGGTrunk":
        """See ``Backbone.trunk``."""
        return VGGTrunk(self, self._indices(names))


class VGGTrunk(nn.Module):
    """The first layers of a VGG, sharing them.

    Args:
        network: whose layers.
        levels: which features to return, as positions in the network's ``feature_info``.
    """

    def __init__(self, network: VGG, levels: Sequence[int]) -> None:
        super().__init__()
        self.ends = tuple(network.ends[level] for level in levels)
        self.features = network.features[: max(self.ends) + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32 -> one (B, channels, H_l, W_l) float32 per level."""
        return _outputs(self.features, self.ends, images)


class VGGOptions(TypedDict, total=False):
    """The arguments of ``VGG`` that ``vgg11`` … ``vgg19_bn`` pass on."""

    num_classes: int
    width: int
    dropout: float
    preprocessing: Preprocessing


def vgg11(**options: Unpack[VGGOptions]) -> VGG:
    """VGG-11; options as in ``VGG``."""
    return VGG((1, 1, 2, 2, 2), architecture="vgg11", **options)


def vgg16(**options: Unpack[VGGOptions]) -> VGG:
    """VGG-16; options as in ``VGG``."""
    return VGG((2, 2, 3, 3, 3), architecture="vgg16", **options)


def vgg19(**options: Unpack[VGGOptions]) -> VGG:
    """VGG-19; options as in ``VGG``."""
    return VGG((2, 2, 4, 4, 4), architecture="vgg19", **options)


def vgg16_bn(**options: Unpack[VGGOptions]) -> VGG:
    """VGG-16 with batch norm; options as in ``VGG``."""
    return VGG((2, 2, 3, 3, 3), batch_norm=True, architecture="vgg16_bn", **options)


def vgg19_bn(**options: Unpack[VGGOptions]) -> VGG:
    """VGG-19 with batch norm; options as in ``VGG``."""
    return VGG((2, 2, 4, 4, 4), batch_norm=True, architecture="vgg19_bn", **options)


def _outputs(layers: nn.Sequential, ends: Sequence[int], x: Tensor) -> list[Tensor]:
    """Outputs of the layers at ``ends``, in that order; none after the last of them runs."""
    outputs: dict[int, Tensor] = {}
    walk = list(islice(layers, max(ends) + 1))
    for i, (layer, after) in enumerate(zip(walk, [*walk[1:], None], strict=True)):
        if isinstance(after, _NORMS):  # it runs with the layer before, whatever wraps that one
            x = conv_norm(x, layer, after)
        elif not isinstance(layer, _NORMS):
            x = layer(x)
        outputs[i] = x
    return [outputs[i] for i in ends]
