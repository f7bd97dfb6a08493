"""Networks by name."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from backbones.base import Backbone
from backbones.cifar import cifar_plain, cifar_resnet
from backbones.resnet import (
    caffe_resnet50,
    caffe_resnet101,
    caffe_resnet152,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from backbones.vgg import vgg11, vgg16, vgg16_bn, vgg19, vgg19_bn

ENTRY_POINTS = "resdet.backbones"
"""The entry-point group by which installed packages add networks of their own."""

IMAGENET: Mapping[str, Callable[..., Backbone]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "plain18": plain18,
    "plain34": plain34,
    "caffe_resnet50": caffe_resnet50,
    "caffe_resnet101": caffe_resnet101,
    "caffe_resnet152": caffe_resnet152,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "vgg16_bn": vgg16_bn,
    "vgg19_bn": vgg19_bn,
}
CIFAR: Mapping[str, Callable[..., Backbone]] = {
    **{f"cifar_resnet{n}": partial(cifar_resnet, n) for n in (20, 32, 44, 56, 110, 1202)},
    **{f"cifar_plain{n}": partial(cifar_plain, n) for n in (20, 32, 44, 56, 110)},
}


def build(name: str, **options: Any) -> Backbone:
    """Build a network.

    Args:
        name: a key of ``IMAGENET`` or ``CIFAR``, or an entry point of the group
            ``resdet.backbones``, which is called with the options.
        options: as the network's own function takes them.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
        TypeError: the network has no such option.
    """
    known = {**IMAGENET, **CIFAR}
    if name in known:
        return known[name](**options)
    others = entry_points(group=ENTRY_POINTS)
    if name in others.names:
        network: Backbone = others[name].load()(**options)
        return network
    names = ", ".join([*known, *sorted(others.names)])
    raise ValueError(f"unknown backbone {name!r}; expected one of {names}")
