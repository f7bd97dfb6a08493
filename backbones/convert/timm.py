"""timm's ResNets and VGGs: our names, but for VGG's classifier, which timm runs as convolutions.

timm's bottlenecks stride in the 3×3 convolution.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones.base import Backbone
from backbones.convert.layout import Blob, layout, read, with_counters, write
from backbones.convert.structure import (
    check_convention,
    check_structure,
    has_bottlenecks,
    match_conv1_bias,
    tensors,
)
from backbones.preprocessing import IMAGENET_RGB, Preprocessing
from backbones.vgg import VGG
from backbones.weights import Weights, network_title, read_weights

_CLASSIFIER = {
    "classifier.0": "pre_logits.fc1",
    "classifier.3": "pre_logits.fc2",
    "classifier.6": "head.fc",
}


def from_timm(source: str | Path | nn.Module | Mapping[str, Tensor], network: Backbone) -> Weights:
    """Take timm's weights for a network.

    Args:
        source: a timm model, whose configuration gives the means and deviations; or its state
            dict, or a .safetensors, .pth or .pt file of it, which are taken to have ImageNet's, as
            timm's ResNet-18 … 152 and VGGs do.
        network: what the weights are for; it is not changed.

    Returns:
        The weights, for ``load_weights``; RGB, the stride in the 3×3.

    Raises:
        ValueError: timm has no such network, or the weights do not fit; the message lists every
            name that is missing, unexpected or of another shape.
        OSError: the file cannot be opened.
    """
    check_structure(network, "timm", vgg=True)
    config: Mapping[str, Any] = getattr(source, "pretrained_cfg", {})
    mean, std = (config.get(name, getattr(IMAGENET_RGB, name)) for name in ("mean", "std"))
    state = _state(source)
    found = read(
        f"timm's weights do not fit {network_title(network)}", state, _blobs(network), network.head
    )
    for name in found.keys() & {"classifier.0.weight", "classifier.3.weight"}:
        found[name] = found[name].flatten(1)
    return Weights(
        match_conv1_bias(found, "conv1.bias" in network.state_dict()),
        Preprocessing("rgb", 1 / 255, tuple(mean), tuple(std)),
        False if has_bottlenecks(network) else None,
    )


def to_timm(network: Backbone) -> dict[str, Tensor]:
    """Give a network's weights to timm.

    Args:
        network: a ResNet or a VGG that reads ``IMAGENET_RGB``.

    Returns:
        A state dict for ``load_state_dict`` of timm's model of the same name; copies.

    Raises:
        ValueError: timm has no such network, or would run it differently.
    """
    check_structure(network, "timm", vgg=True)
    check_convention(network, "timm", IMAGENET_RGB, stride_in_1x1=False, padded_pool=True)
    return with_counters(write(match_conv1_bias(tensors(network), False), _blobs(network)))


def _state(source: str | Path | nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if isinstance(source, nn.Module):
        return source.state_dict()
    if isinstance(source, Mapping):
        return source
    weights = read_weights(source)
    if weights.preprocessing is not None:
        raise ValueError(f"{source}: expected timm's weights, got our own, for load_weights")
    return weights.state


def _blobs(network: Backbone) -> dict[str, Blob]:
    blobs = layout(network, _name)
    if isinstance(network, VGG):
        for ours, side in (("classifier.0.weight", 7), ("classifier.3.weight", 1)):
            name, (rows, columns) = blobs[ours]
            blobs[ours] = Blob(name, (rows, columns // side**2, side, side))
    return blobs


def _name(ours: str) -> str:
    layer, leaf = ours.rsplit(".", 1)
    return f"{_CLASSIFIER.get(layer, layer)}.{leaf}"
