"""The networks of 6n + 2 layers for 32×32 images, and their plain twins (ResNet section 4.2).

A 3×3 convolution of 16 channels, three stages of 2n layers on maps of 32, 16 and 8 cells a side
with 16, 32 and 64 channels, average pooling and a 10-way classifier. Shortcuts are the identity
everywhere (A), so a residual network has exactly the parameters of its plain twin.
"""

from typing import TypedDict, Unpack

from backbones.blocks import BasicBlock, Shortcut
from backbones.preprocessing import CIFAR_RGB, Preprocessing
from backbones.resnet import ResNet, Stem


class CifarOptions(TypedDict, total=False):
    """The arguments of ``ResNet`` that the networks for CIFAR pass on."""

    num_classes: int
    width: int
    preprocessing: Preprocessing


def cifar_resnet(layers: int, **options: Unpack[CifarOptions]) -> ResNet:
    """A residual network for CIFAR; its features are c2, c3 and c4 at strides 1, 2 and 4.

    Args:
        layers: 6n + 2: 20, 32, 44, 56, 110 and 1202 in Table 6.
        options: as in ``ResNet``; 10 classes and 16 channels by default.

    Returns:
        The network.

    Raises:
        ValueError: there is no such n.
    """
    return _cifar(layers, "A", options)


def cifar_plain(layers: int, **options: Unpack[CifarOptions]) -> ResNet:
    """The plain twin of ``cifar_resnet``: the same layers, no shortcuts.

    Args:
        layers: 6n + 2.
        options: as in ``ResNet``; 10 classes and 16 channels by default.

    Returns:
        The network.

    Raises:
        ValueError: there is no such n.
    """
    return _cifar(layers, None, options)


def _cifar(layers: int, shortcut: Shortcut | None, options: CifarOptions) -> ResNet:
    n, rest = divmod(layers - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"expected 6n + 2 layers: 8, 14, 20, …; got {layers}")
    merged: CifarOptions = {
        "num_classes": 10,
        "width": 16,
        "preprocessing": CIFAR_RGB,
        **options,
    }
    stem = Stem(kernel=3, stride=1, pool=None)
    return ResNet(BasicBlock, (n, n, n), shortcut=shortcut, stem=stem, **merged)
