"""Detectron's and Detectron2's ResNets, on the authors' (MSRA) weights.

Both read BGR images in 0 … 255 less Caffe's means, and stride in a bottleneck's first 1×1
convolution. Their batch norms are affine maps, scale and bias only, which here are batch norms of
mean 0 and variance 1 − ε. Their pool1 pads by 1, as ``resnet50(stride_in_1x1=True)``'s; the
weights were trained with the unpadded one of ``caffe_resnet50``, and both networks take them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.convert.layout import Blob, layout, part, read, write
from backbones.convert.pickles import read_pickle
from backbones.convert.structure import (
    EPS,
    check_convention,
    check_structure,
    has_bottlenecks,
    match_conv1_bias,
    tensors,
)
from backbones.preprocessing import CAFFE_BGR, IMAGENET_RGB
from backbones.resnet import ResNet
from backbones.weights import Weights, network_title

_STATISTICS = ("running_mean", "running_var")
# What belongs to a detector, not to its backbone, and what belongs to the optimiser.
_NOT_DETECTRON = re.compile(
    r"(conv_rpn|rpn_|retnet_|fpn_|fc6_|fc7_|cls_score_|bbox_pred_|mask_|_\[mask\]_|conv5_mask_"
    r"|conv_fcn|kps_|head_conv).*|lr|.*_momentum"
)
_NOT_DETECTRON2 = re.compile(
    r"(proposal_generator\.|roi_heads\.(?!res5\.)|backbone\.(fpn_|top_block\.)|head\."
    r"|anchor_generator\.|pixel_(mean|std)$).*|.*num_batches_tracked"
)
_PREFIX = re.compile(r"backbone\.bottom_up\.|backbone\.|roi_heads\.(?=res5\.)")


def from_detectron(source: str | Path | Mapping[str, Any], network: ResNet) -> Weights:
    """Take Detectron's weights (R-50.pkl, R-101.pkl, a detector's .pkl) for a network.

    A detector's own layers and the optimiser's state are left out. ``conv1_b`` is folded into the
    batch norm, unless the network's conv1 has a bias.

    Args:
        source: the pickle, which is read as data and never run; or its blobs by name.
        network: what the weights are for; it is not changed.

    Returns:
        The weights, for ``load_weights``; ``CAFFE_BGR``, the stride in the 1×1.

    Raises:
        ValueError: the file is no pickle of arrays, or the blobs do not fit; the message lists
            every name that is missing, unexpected or of another shape.
        OSError: the file cannot be opened.
    """
    check_structure(network, "Detectron", vgg=False)
    _, content = _content(source)
    renamed = {re.sub("^pred_", "fc1000_", name): x for name, x in content.items()}
    blobs = {
        ours: blob
        for ours, blob in layout(network, _detectron_name).items()
        if not ours.endswith(_STATISTICS)
    }
    if "conv1_b" in renamed:
        blobs["conv1.bias"] = Blob("conv1_b", (network.conv1.out_channels,))
    return _weights("Detectron", _tensors(renamed, _NOT_DETECTRON), blobs, network)


def to_detectron(network: ResNet) -> dict[str, np.ndarray[Any, Any]]:
    """Give a network's weights to Detectron.

    Args:
        network: a ResNet that reads ``CAFFE_BGR`` and strides in the 1×1.

    Returns:
        Float32 arrays by Detectron's names: a ``pickle.dump`` of them is the file. There is no
        ``conv1_b``, which Detectron would not read: it is folded into the batch norm.

    Raises:
        ValueError: Detectron has no such network, or would run it differently.
    """
    check_structure(network, "Detectron", vgg=False)
    check_convention(network, "Detectron", CAFFE_BGR, stride_in_1x1=True)
    state = match_conv1_bias(tensors(network), False)
    for name in [name for name in state if name.endswith(".running_var")]:
        norm = name.removesuffix(".running_var")
        weight, bias, mean, var = (
            state.pop(f"{norm}.{leaf}").double() for leaf in ("weight", "bias", *_STATISTICS)
        )
        scale = weight / (var + EPS).sqrt()
        state[f"{norm}.weight"], state[f"{norm}.bias"] = scale, bias - mean * scale
    return {
        _detectron_name(ours): tensor.float().numpy()
        for ours, tensor in state.items()
        if not ours.endswith("num_batches_tracked")
    }


def from_detectron2(source: str | Path | Mapping[str, Any], network: ResNet) -> Weights:
    """Take Detectron2's weights for a network: of a backbone, or of a detector with one.

    Images and stride position are in Detectron2's configuration, not in its files. The weights
    say ``CAFFE_BGR`` and the stride in the 1×1, or, for a file that gives torchvision as its
    author, ``IMAGENET_RGB`` and the 3×3; a configuration with other values wants
    ``weights._replace(preprocessing=..., stride_in_1x1=...)``.

    Args:
        source: a .pkl or .pth file, which is read as data and never run; or a state dict. Names
            may begin with ``backbone.bottom_up.`` or ``backbone.``; a detector's own layers are
            left out. Batch norms may lack their statistics.
        network: what the weights are for; it is not changed.

    Returns:
        The weights, for ``load_weights``.

    Raises:
        ValueError: the file is not readable as data, or the weights do not fit; the message lists
            every name that is missing, unexpected or of another shape.
        OSError: the file cannot be opened.
    """
    check_structure(network, "Detectron2", vgg=False)
    author, content = _content(source)
    renamed = {
        re.sub(r"^stem\.fc\.", "linear.", _PREFIX.sub("", name, count=1)): x
        for name, x in _tensors(content, _NOT_DETECTRON2).items()
    }
    blobs = layout(network, _detectron2_name)
    if not any(name.endswith(_STATISTICS) for name in renamed):
        blobs = {ours: blob for ours, blob in blobs.items() if not ours.endswith(_STATISTICS)}
    weights = _weights("Detectron2", renamed, blobs, network)
    if author == "torchvision":
        stride_in_1x1 = False if has_bottlenecks(network) else None
        return weights._replace(preprocessing=IMAGENET_RGB, stride_in_1x1=stride_in_1x1)
    return weights


def to_detectron2(network: ResNet) -> dict[str, Tensor]:
    """Give a network's weights to Detectron2.

    Args:
        network: a ResNet that reads ``CAFFE_BGR`` and, with bottlenecks, strides in the 1×1.

    Returns:
        A state dict for ``model.backbone.bottom_up`` (with a pyramid) or ``model.backbone``;
        copies. conv1's bias is folded into the batch norm.

    Raises:
        ValueError: Detectron2 has no such network, or would run it differently.
    """
    check_structure(network, "Detectron2", vgg=False)
    check_convention(network, "Detectron2", CAFFE_BGR, stride_in_1x1=True)
    state = match_conv1_bias(tensors(network), False)
    return write(state, layout(network, _detectron2_name))


def _content(source: str | Path | Mapping[str, Any]) -> tuple[object, Mapping[str, Any]]:
    """The author, where there is one, and the tensors of a file in any of its forms."""
    if isinstance(source, Mapping):
        content = source
    elif Path(source).suffix in (".pth", ".pt"):
        try:
            content = torch.load(source, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # a broken file raises whatever it stumbles over
            raise ValueError(f"{source}: not readable as weights: {error}") from error
    else:
        content = read_pickle(Path(source))
    if not isinstance(content, Mapping):
        raise ValueError(f"{source}: expected a dict, got {type(content).__name__}")
    for key in ("blobs", "model"):
        if isinstance(content.get(key), Mapping):
            return content.get("__author__"), content[key]
    return content.get("__author__"), content


def _tensors(content: Mapping[str, Any], left_out: re.Pattern[str]) -> dict[str, Tensor]:
    found = {}
    for name, value in content.items():
        if left_out.fullmatch(name):
            continue
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            found[name] = torch.from_numpy(value.astype(np.float32))
        elif isinstance(value, Tensor) and value.is_floating_point():
            found[name] = value.float()
        else:
            got = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"{name}: expected an array of floats, got {got}")
    return found


def _weights(
    source: str, state: Mapping[str, Tensor], blobs: Mapping[str, Blob], network: ResNet
) -> Weights:
    message = f"{source}'s weights do not fit {network_title(network)}"
    found = read(message, state, blobs, network.head)
    for name, own in network.state_dict().items():
        if name.endswith(_STATISTICS) and name not in blobs:
            value = 0.0 if name.endswith("running_mean") else 1 - EPS
            found[name] = torch.full(own.shape, value)
    match_conv1_bias(found, network.conv1.bias is not None)
    return Weights(found, CAFFE_BGR, True if has_bottlenecks(network) else None)


def _detectron_name(ours: str) -> str:
    if ours.startswith("fc."):
        return f"fc1000_{ours[3]}"
    stage, block, conv, norm, leaf = part(ours)
    kind = {"weight": "bn_s", "bias": "bn_b"}.get(leaf, leaf) if norm else leaf[0]
    if stage == 1:
        return f"res_conv1_{kind}" if norm else f"conv1_{kind}"
    return f"res{stage}_{block}_{('branch1', 'branch2a', 'branch2b', 'branch2c')[conv]}_{kind}"


def _detectron2_name(ours: str) -> str:
    if ours.startswith("fc."):
        return ours.replace("fc", "linear", 1)
    stage, block, conv, norm, leaf = part(ours)
    where = "stem" if stage == 1 else f"res{stage}.{block}"
    return f"{where}.{f'conv{conv}' if conv else 'shortcut'}.{'norm.' if norm else ''}{leaf}"
