"""The building blocks of residual networks and their shortcuts (ResNet section 3, Fig. 5).

Differs from the paper: the stride of a bottleneck is in its 3×3 convolution unless
``stride_in_1x1``, because torchvision's weights were trained so.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.normalization import ConvNorm, conv_norm

Shortcut = Literal["A", "B", "C"]
"""What joins a block's input to its output (section 3.3). A: the identity, subsampled and padded
with zero channels where the shape changes; B: a 1×1 projection there, the identity elsewhere;
C: a projection everywhere. None in its place is a plain block: nothing is added."""


class PaddedIdentity(nn.Module):
    """Shortcut A where the shape changes: every ``stride``-th cell, with zeros as new channels.

    Args:
        new_channels: how many channels of zeros follow the input's.
        stride: of the block.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, C + new_channels, H / stride, W / stride) float."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet Fig. 5 left).

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions.
        stride: stride of the first convolution and of the shortcut.
        stride_in_1x1: must be False; the block has no 1×1 convolution.
        shortcut: A, B or C; None is the plain block.

    Raises:
        ValueError: ``stride_in_1x1`` is True.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        stride_in_1x1: bool = False,
        shortcut: Shortcut | None = "B",
    ) -> None:
        super().__init__()
        if stride_in_1x1:
            raise ValueError("stride_in_1x1 is for bottlenecks; a basic block has no 1×1")
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.plain = shortcut is None
        self.downsample = _shortcut(shortcut, in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, width, H / stride, W / stride) float."""
        y: Tensor = self.relu(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        if not self.plain:
            y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut (ResNet Fig. 5 right).

    Args:
        in_channels: channels of the input.
        width: channels of the first two convolutions; the third has ``expansion`` times as many.
        stride: stride of the strided convolution and of the shortcut.
        stride_in_1x1: the strided convolution is the first 1×1 (the paper, Caffe), else the 3×3
            (torchvision).
        shortcut: A, B or C; None is the plain block.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        stride_in_1x1: bool = False,
        shortcut: Shortcut | None = "B",
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
        self.plain = shortcut is None
        self.downsample = _shortcut(shortcut, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) float -> (B, width · 4, H / stride, W / stride) float."""
        y: Tensor = self.relu(conv_norm(x, self.conv1, self.bn1))
        y = self.relu(conv_norm(y, self.conv2, self.bn2))
        y = conv_norm(y, self.conv3, self.bn3)
        if not self.plain:
            y += x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y)
        return out


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


def _shortcut(
    kind: Shortcut | None, in_channels: int, out_channels: int, stride: int
) -> nn.Module | None:
    """None is the identity, or no shortcut at all."""
    same_shape = stride == 1 and in_channels == out_channels
    if kind is None or (same_shape and kind != "C"):
        return None
    if kind == "A":
        return PaddedIdentity(out_channels - in_channels, stride)
    return ConvNorm(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
