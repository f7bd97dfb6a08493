"""A classification network, cut once into a trunk for images and a tail for regions.

For a ResNet the trunk is conv1 … conv4_x and the tail conv5_x with its average pool (ResNet
appendix A); for VGG the trunk is conv1_1 … conv5_3 and the tail fc6–fc7 (Faster R-CNN
section 3). The classification layer is dropped. The parts share the network's layers, so freeze
stages and batch norms, and load weights, before cutting.
"""

from collections import OrderedDict
from functools import singledispatch
from typing import NamedTuple

from torch import nn

from backbones.blocks import PaddedIdentity
from backbones.preprocessing import Preprocessing
from backbones.resnet import ResNet
from backbones.vgg import VGG


class Cut(NamedTuple):
    """The two parts of a network and what fits between them.

    Attributes:
        trunk: (B, 3, H, W) float32 images -> list of (B, channels, H_l, W_l), one per level.
        tail: (R, channels, roi_size, roi_size) float32 regions -> (R, tail_channels).
        channels: channels of every level.
        strides: pixels of the image per cell, one per level.
        roi_levels: how many levels, from the first, regions are pooled from.
        tail_channels: length of a region's feature vector.
        roi_size: cells per side of a pooled region.
        preprocessing: what the images must look like.
    """

    trunk: nn.Module
    tail: nn.Module
    channels: int
    strides: tuple[int, ...]
    roi_levels: int
    tail_channels: int
    roi_size: int
    preprocessing: Preprocessing


@singledispatch
def cut(network: nn.Module, *, roi_size: int | None = None, tail_stride: int | None = None) -> Cut:
    """Cut a network; ``cut.register`` adds networks of other classes.

    Args:
        network: a ``ResNet`` or a ``VGG``.
        roi_size: cells per side of a pooled region. ResNet: 7 · ``tail_stride`` by default, so
            that conv5_x ends at 7×7 as on ImageNet. VGG: 7, which fc6 demands.
        tail_stride: stride of conv5_x in the tail, 2 or 1; ResNet only. The paper leaves open
            what it used: the default of 14×14 regions and stride 2 is Detectron's, alternatives
            are ``tail_stride=1`` (7×7 regions) and ``roi_size=7`` with stride 2. Stride 1
            changes the network's own conv5_x, and its ``feature_info`` with it.

    Returns:
        The parts, which share the network's layers.

    Raises:
        TypeError: there is no cut for networks of this class.
        ValueError: an argument does not fit the network.
    """
    del roi_size, tail_stride
    raise TypeError(f"no cut for {type(network).__name__}: add one with cut.register")


@cut.register
def _cut_resnet(
    network: ResNet, *, roi_size: int | None = None, tail_stride: int | None = None
) -> Cut:
    tail_stride = 2 if tail_stride is None else tail_stride
    roi_size = 7 * tail_stride if roi_size is None else roi_size
    if tail_stride not in (1, 2) or roi_size < 1:
        raise ValueError(
            f"expected tail_stride 1 or 2 and roi_size at least 1, got {tail_stride}, {roi_size}"
        )
    if len(network.feature_info) < 2:
        raise ValueError("expected two stages at least, one for the trunk and one for the tail")
    last = f"layer{len(network.feature_info)}"
    if tail_stride == 1:
        _remove_stride(network, last)
    c4, c5 = network.feature_info[-2:]
    if c5.stride != c4.stride * tail_stride:
        raise ValueError("expected conv5_x of stride 2; a cut with tail_stride=1 removed it")
    tail = {last: network.get_submodule(last), "avgpool": network.avgpool, "flatten": nn.Flatten()}
    return Cut(
        trunk=network.trunk([c4.name]),
        tail=nn.Sequential(OrderedDict(tail)),
        channels=c4.channels,
        strides=(c4.stride,),
        roi_levels=1,
        tail_channels=c5.channels,
        roi_size=roi_size,
        preprocessing=network.preprocessing,
    )


@cut.register
def _cut_vgg(network: VGG, *, roi_size: int | None = None, tail_stride: int | None = None) -> Cut:
    if tail_stride is not None or roi_size not in (None, 7):
        raise ValueError(
            "expected roi_size 7 and no tail_stride, because VGG's fc6 reads 7×7 cells, "
            f"got {roi_size}, {tail_stride}"
        )
    c5 = network.feature_info[-1]
    classifier = network.classifier[:-1]
    return Cut(
        trunk=network.trunk([c5.name]),
        tail=nn.Sequential(OrderedDict(flatten=nn.Flatten(), classifier=classifier)),
        channels=c5.channels,
        strides=(c5.stride,),
        roi_levels=1,
        tail_channels=network.get_parameter("classifier.6.weight").shape[1],
        roi_size=7,
        preprocessing=network.preprocessing,
    )


def _remove_stride(network: ResNet, last: str) -> None:
    for module in network.get_submodule(last).modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, PaddedIdentity):
            module.stride = 1
    *features, c4, c5 = network.feature_info
    network.feature_info = (*features, c4, c5._replace(stride=c4.stride))
