"""The authors' Caffe models: a deploy prototxt, and the layers' blobs in an npz file.

The npz has the arrays of each layer under its name and their position: "conv1/0" is conv1's
weight and "conv1/1" its bias; of a BatchNorm, 0 is the mean, 1 the variance and 2 the factor by
which both are divided; of a Scale, 0 is gamma and 1 beta. With pycaffe:
``np.savez(path, **{f"{name}/{i}": b.data for name, p in net.params.items()
for i, b in enumerate(p)})``.

Images are BGR, 0 … 255, less Caffe's means.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backbones.base import Backbone
from backbones.convert.caffe_graph import (
    Node,
    differences,
    graph,
    prototxt_layers,
    prototxt_message,
)
from backbones.convert.caffe_layers import network_layers
from backbones.convert.layout import Blob, read
from backbones.convert.prototxt import MAX_CHARACTERS, parse, render
from backbones.convert.structure import (
    check_convention,
    check_structure,
    has_bottlenecks,
    match_conv1_bias,
    tensors,
)
from backbones.preprocessing import CAFFE_BGR
from backbones.resnet import ResNet
from backbones.weights import Weights, network_title

MAX_BYTES = 2 << 30
"""The most an npz file may hold; VGG-19 has 0.6 GB."""

_FACTOR = "scale_factor"
_LEAVES = {
    "Convolution": ("weight", "bias"),
    "InnerProduct": ("weight", "bias"),
    "BatchNorm": ("running_mean", "running_var", _FACTOR),
    "Scale": ("weight", "bias"),
}


def from_caffe(prototxt: str | Path, npz: str | Path, network: Backbone) -> Weights:
    """Take a Caffe model's weights for a network of the same structure.

    The prototxt's graph is compared with the network's, layer by layer: kernels, strides (and so
    their position in a bottleneck), paddings, pool1's rounding, epsilons, and which batch norm and
    scale follow which convolution. Names of layers other than convolutions, pools and sums are
    free. A 2×2 pool at stride 2 may round either way, which makes no difference on 224×224.
    conv1's bias is folded into its batch norm, unless the network's conv1 has one.

    Args:
        prototxt: the deploy prototxt, with ``layer { … }``.
        npz: the blobs.
        network: what the weights are for, such as ``caffe_resnet50()``; it is not changed.

    Returns:
        The weights, for ``load_weights``; ``CAFFE_BGR`` and the stride position.

    Raises:
        ValueError: a file is not readable, or the structure or the blobs are not the network's;
            the message lists every layer or every blob that differs.
        OSError: a file cannot be opened.
    """
    check_structure(network, "Caffe", vgg=True)
    expected = graph(network_layers(network), ["data"])
    got = _graph(Path(prototxt))
    problems = differences(expected, got, network.head)
    if problems:
        raise ValueError("\n  ".join([f"{prototxt} is not {network_title(network)}:", *problems]))
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    blobs = {
        ours: Blob(name, own.get(ours, shape))
        for key, node in expected.items()
        for ours, name, shape in _blobs(node, got[key])
    }
    message = f"{npz} does not fit {network_title(network)}"
    state = read(message, _arrays(Path(npz)), blobs, network.head)
    for name in [name for name in state if name.endswith(_FACTOR)]:
        factor = state.pop(name).double()
        if not factor > 0:
            raise ValueError(f"{npz}: expected {blobs[name].name} above 0, got {factor.item()}")
        for leaf in ("running_mean", "running_var"):
            ours = name.replace(_FACTOR, leaf)
            state[ours] = (state[ours].double() / factor).float()
    match_conv1_bias(state, "conv1.bias" in own)
    if isinstance(network, ResNet) and has_bottlenecks(network):
        return Weights(state, CAFFE_BGR, network.stride_in_1x1)
    return Weights(state, CAFFE_BGR)


def to_caffe(network: Backbone, prototxt: str | Path, npz: str | Path) -> None:
    """Write a network as a Caffe model.

    A padded pool1 is written with ``round_mode: FLOOR``, which older Caffes do not know.

    Args:
        network: a ResNet or a VGG that reads ``CAFFE_BGR``.
        prototxt: where to write the deploy prototxt.
        npz: where to write the blobs.

    Raises:
        ValueError: the network has another structure or reads other images.
        OSError: a file cannot be written.
    """
    check_structure(network, "Caffe", vgg=True)
    check_convention(network, "Caffe", CAFFE_BGR)
    layers, state = list(network_layers(network)), tensors(network)
    arrays = {
        f"{layer.name}/{i}": state.get(f"{layer.module}.{leaf}", torch.ones(1)).numpy()
        for layer in layers
        if layer.module
        for i, leaf in enumerate(_LEAVES[layer.kind])
        if leaf == _FACTOR or f"{layer.module}.{leaf}" in state
    }
    Path(prototxt).write_text(
        render(prototxt_message(network_title(network), layers)), encoding="utf-8"
    )
    with Path(npz).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _graph(prototxt: Path) -> dict[str, Node]:
    try:
        with prototxt.open(encoding="utf-8") as file:
            return graph(*prototxt_layers(parse(file.read(MAX_CHARACTERS + 1))))
    except ValueError as error:
        raise ValueError(f"{prototxt}: {error}") from error


def _blobs(expected: Node, got: Node) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Our name, Caffe's, and the shape of one that is not ours, for each blob of a layer."""
    module = expected.layer.module
    for i, leaf in enumerate(_LEAVES[expected.layer.kind] if module else ()):
        if leaf != "bias" or got.options.get("bias_term"):
            shape = (1,) if leaf == _FACTOR else (expected.options.get("num_output", 0),)
            yield f"{module}.{leaf}", f"{got.layer.name}/{i}", shape


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(member.file_size for member in file.infolist())
        if size > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES} bytes, got {size}")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not readable as npz: {error}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            got = getattr(array, "dtype", type(array).__name__)
            raise ValueError(f"{path}: expected {name} to be an array of floats, got {got}")
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in found.items()}
