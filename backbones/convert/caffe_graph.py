"""Caffe's layers as a graph: out of a prototxt, into one, and what differs between two."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from backbones.convert.prototxt import Message
from backbones.convert.structure import EPS

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "Convolution": {
        "num_output": 0,
        "kernel_size": 0,
        "pad": 0,
        "stride": 1,
        "dilation": 1,
        "group": 1,
        "bias_term": True,
    },
    "BatchNorm": {"use_global_stats": True, "eps": EPS},
    "Scale": {"bias_term": False, "axis": 1, "num_axes": 1},
    "ReLU": {"negative_slope": 0},
    "Pooling": {
        "pool": "MAX",
        "kernel_size": 0,
        "stride": 1,
        "pad": 0,
        "round_mode": "CEIL",
        "global_pooling": False,
    },
    "Eltwise": {"operation": "SUM"},
    "InnerProduct": {"num_output": 0, "bias_term": True, "axis": 1, "transpose": False},
    "Dropout": {"dropout_ratio": 0.5},
    "Softmax": {"axis": 1},
}
"""The kinds of layers we know, and Caffe's defaults of the options that count."""

PARAMETERS = {
    kind: f"{name}_param"
    for kind, name in {
        "Convolution": "convolution",
        "BatchNorm": "batch_norm",
        "Scale": "scale",
        "ReLU": "relu",
        "Pooling": "pooling",
        "Eltwise": "eltwise",
        "InnerProduct": "inner_product",
        "Dropout": "dropout",
        "Softmax": "softmax",
    }.items()
}
"""Where each kind keeps its options."""

# Of training only, or of how and not what is computed.
_WITHOUT_EFFECT = {
    "engine",
    "weight_filler",
    "bias_filler",
    "filler",
    "moving_average_fraction",
    "stable_prod_grad",
    "scale_train",
}


class Layer(NamedTuple):
    """One of Caffe's layers.

    Attributes:
        name: Caffe's.
        kind: a key of ``DEFAULTS``.
        bottoms: the blobs it reads.
        top: the blob it writes, which may be the one it reads.
        options: those other than Caffe's defaults.
        module: our name of the layer whose tensors are its blobs; "" where it has none.
    """

    name: str
    kind: str
    bottoms: tuple[str, ...]
    top: str
    options: Mapping[str, Any]
    module: str = ""


class Node(NamedTuple):
    """A layer in the graph: ``inputs`` are keys of the graph, ``options`` are complete."""

    layer: Layer
    inputs: tuple[str, ...]
    options: Mapping[str, Any]


def prototxt_layers(net: Message) -> tuple[list[Layer], list[str]]:
    """The layers of a parsed prototxt, and the names of its input blobs.

    Raises:
        ValueError: a layer is not of a kind, or has options, that our networks have; the message
            names it.
    """
    known = {"name", "input", "input_dim", "input_shape", "layer"}
    if not net.keys() <= known:
        raise ValueError(f"expected only {sorted(known)}, got {sorted(net.keys() - known)}")
    layers, inputs = [], [str(blob) for blob in net.get("input", [])]
    for message in net.get("layer", []):
        if not isinstance(message, Message):
            raise ValueError(f"expected layer {{ … }}, got layer: {message}")
        name = str(message.one("name", ""))
        try:
            if message.one("type", "") == "Input":
                inputs += message.get("top", [])
            else:
                layers.append(_layer(name, message))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from error
    return layers, inputs


def graph(layers: Iterable[Layer], inputs: Iterable[str]) -> dict[str, Node]:
    """What each layer reads, whatever blobs are called and whichever are written in place.

    Convolutions, pools and sums are keyed by their names, the others by what they follow. Dropout
    does nothing in a test and is left out, as is the last softmax, which ours leave to the caller.

    Raises:
        ValueError: a layer reads a blob that is not there, or two layers have one key.
    """
    written = dict.fromkeys(inputs, "data")
    nodes = dict[str, Node]()
    for layer in layers:
        for blob in layer.bottoms:
            if blob not in written:
                raise ValueError(f"layer {layer.name!r}: its bottom {blob!r} is nowhere written")
        read = tuple(sorted(written[blob] for blob in layer.bottoms))
        by_name = layer.kind in ("Convolution", "Pooling", "Eltwise")
        key = layer.name if by_name else f"{layer.kind} of {' and '.join(read)}"
        if layer.kind not in ("Dropout", "Softmax"):
            if key in nodes:
                raise ValueError(f"layer {layer.name!r}: there is another {key!r}")
            nodes[key] = Node(layer, read, _complete(layer))
        written[layer.top] = read[0] if layer.kind == "Dropout" else key
    return nodes


def differences(expected: Mapping[str, Node], got: Mapping[str, Node], head: str) -> list[str]:
    """What a graph lacks, has beyond or does otherwise, one line each, by layer.

    conv1's bias before a batch norm and the number of classes may differ.
    """
    problems = []
    for key, (layer, inputs, options) in expected.items():
        if key not in got:
            problems.append(f"missing: {layer.kind} {layer.name!r} after {', '.join(inputs)}")
            continue
        node = got[key]
        if node.layer.kind != layer.kind:
            problems.append(f"{key}: expected {layer.kind}, got {node.layer.kind}")
            continue
        if node.inputs != inputs:
            problems.append(f"{node.layer.name}: expected inputs {inputs}, got {node.inputs}")
        for option, value in options.items():
            free = (layer.module, option) in {("conv1", "bias_term"), (head, "num_output")}
            if not free and not _same(value, node.options.get(option)):
                problems.append(
                    f"{node.layer.name}: expected {option} {value}, got {node.options.get(option)}"
                )
    return problems + [
        f"unexpected: {node.layer.kind} {node.layer.name!r} after {', '.join(node.inputs)}"
        for key, node in got.items()
        if key not in expected
    ]


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-6)  # a prototxt may have a float32's digits
    return a == b


def _layer(name: str, message: Message) -> Layer:
    kind, tops = message.one("type", ""), message.get("top", [])
    if kind not in DEFAULTS:
        raise ValueError(f"expected a type among {', '.join(DEFAULTS)}, got {kind!r}")
    known = {"name", "type", "bottom", "top", "param", PARAMETERS[kind]}
    if not message.keys() <= known:
        raise ValueError(f"expected only {sorted(known)}, got {sorted(message.keys() - known)}")
    bottoms = tuple(str(blob) for blob in message.get("bottom", []))
    wanted = 2 if kind == "Eltwise" else 1
    if len(bottoms) != wanted or len(tops) != 1:
        raise ValueError(f"expected {wanted} bottoms and 1 top, got {len(bottoms)} and {len(tops)}")
    options = message.one(PARAMETERS[kind], Message())
    if not options.keys() <= DEFAULTS[kind].keys() | _WITHOUT_EFFECT:
        unknown = sorted(options.keys() - DEFAULTS[kind].keys() - _WITHOUT_EFFECT)
        raise ValueError(f"expected options among {', '.join(DEFAULTS[kind])}, got {unknown}")
    values = {key: options.one(key, None) for key in options.keys() & DEFAULTS[kind].keys()}
    return Layer(name, kind, bottoms, str(tops[0]), values)


def _complete(layer: Layer) -> dict[str, Any]:
    options = {**DEFAULTS[layer.kind], **layer.options}
    if layer.kind == "Pooling":
        if options.pop("global_pooling"):  # the same on images of 224×224
            options |= {"kernel_size": 7, "stride": 1}
        if options["pool"] == "AVE" or options["kernel_size"] == options["stride"]:
            del options["round_mode"]  # nothing is left over to round on 224×224
    return options


def prototxt_message(name: str, layers: Iterable[Layer]) -> Message:
    """The prototxt of some layers for one image of 3×224×224."""
    message = Message(name=[name], input=["data"], input_dim=[1, 3, 224, 224], layer=[])
    for layer in layers:
        fields = Message(
            name=[layer.name], type=[layer.kind], bottom=list(layer.bottoms), top=[layer.top]
        )
        if layer.options:
            options = {key: [value] for key, value in layer.options.items()}
            fields[PARAMETERS[layer.kind]] = [Message(options)]
        message["layer"].append(fields)
    return message
