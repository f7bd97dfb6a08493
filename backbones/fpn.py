"""A feature pyramid on top of a backbone (Lin et al., arXiv 1612.03144), torchvision's names.

Shape shorthand:
    C_l: channels of the body's l-th feature        H_l, W_l: its height and width
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.cut import Cut


class FeaturePyramid(nn.Module):
    """Lateral 1×1 convolutions, a top-down path and 3×3 convolutions (section 3).

    Args:
        in_channels: channels of the body's features, finest first.
        channels: channels of every level of the pyramid.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, channels, 1)) for count in in_channels
        )
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Merge from the coarsest level down.

        Args:
            features: one (B, C_l, H_l, W_l) float32 per level, finest first.

        Returns:
            One (B, channels, H_l, W_l) float32 per feature (P2 … P5), then P6, every other cell
            of P5.
        """
        laterals = [block(x) for block, x in zip(self.inner_blocks, features, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            # To the lateral's own size: a stride-2 layer rounds up, a factor of 2 would not fit.
            coarse = F.interpolate(merged[0], size=lateral.shape[-2:], mode="nearest")
            merged.insert(0, lateral + coarse)
        levels = [block(x) for block, x in zip(self.layer_blocks, merged, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


class PyramidTrunk(nn.Module):
    """A body and the pyramid on it.

    Args:
        body: images -> list of features, finest first.
        fpn: the pyramid.
    """

    def __init__(self, body: nn.Module, fpn: FeaturePyramid) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32 -> one (B, channels, H_l, W_l) float32 per level."""
        levels: list[Tensor] = self.fpn(self.body(images))
        return levels


class TwoLayerPerceptron(nn.Module):
    """fc6 and fc7, each with a ReLU: the head that takes conv5_x's place (section 4.2).

    Args:
        in_features: channels · roi_size² of a pooled region.
        channels: outputs of both layers.
    """

    def __init__(self, in_features: int, channels: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_features, channels)
        self.fc7 = nn.Linear(channels, channels)

    def forward(self, rois: Tensor) -> Tensor:
        """(R, C, roi_size, roi_size) float32 -> (R, channels) float32."""
        return F.relu(self.fc7(F.relu(self.fc6(torch.flatten(rois, 1)))))


def pyramid(
    network: Backbone, channels: int = 256, roi_size: int = 7, tail_channels: int = 1024
) -> Cut:
    """Put a feature pyramid on all of a network's features.

    The trunk's parameters are named as in torchvision's ``BackboneWithFPN`` (body, fpn) and the
    tail's as in its ``TwoMLPHead``.

    Args:
        network: whose convolutional layers become the body, shared; freeze and load weights
            before.
        channels: channels of every level.
        roi_size: cells per side of a pooled region.
        tail_channels: length of a region's feature vector.

    Returns:
        The parts. ResNet: P2 … P6 at strides 4, 8, 16, 32, 64; regions are pooled from P2 … P5.
    """
    info = network.feature_info
    fpn = FeaturePyramid([feature.channels for feature in info], channels)
    strides = tuple(feature.stride for feature in info)
    return Cut(
        trunk=PyramidTrunk(network.trunk([feature.name for feature in info]), fpn),
        tail=TwoLayerPerceptron(channels * roi_size**2, tail_channels),
        channels=channels,
        strides=(*strides, 2 * strides[-1]),
        roi_levels=len(info),
        tail_channels=tail_channels,
        roi_size=roi_size,
        preprocessing=network.preprocessing,
    )
