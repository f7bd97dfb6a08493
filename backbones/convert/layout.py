"""A network's tensors under a format's names: one table, read in both directions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from backbones.base import Backbone

_COUNTER = "num_batches_tracked"


class Blob(NamedTuple):
    """One tensor as a format has it.

    Attributes:
        name: the format's name.
        shape: the format's shape; the elements and their order are ours.
    """

    name: str
    shape: tuple[int, ...]


class Part(NamedTuple):
    """What one of a ResNet's tensors belongs to.

    Attributes:
        stage: 1 is conv1, 2 is conv2_x, …
        block: from 0.
        conv: the convolution in the block, from 1; 0 is the projection.
        norm: whether it belongs to the convolution's batch norm.
        leaf: "weight", "bias", "running_mean" or "running_var".
    """

    stage: int
    block: int
    conv: int
    norm: bool
    leaf: str


def part(name: str) -> Part:
    """Take apart our name of a ResNet's tensor, ``fc``'s excepted."""
    match name.split("."):
        case [layer, leaf]:
            return Part(1, 0, 1, layer == "bn1", leaf)
        case [stage, block, "downsample", index, leaf]:
            return Part(int(stage[5:]) + 1, int(block), 0, index == "1", leaf)
        case [stage, block, layer, leaf]:
            return Part(
                int(stage[5:]) + 1, int(block), int(layer[-1]), layer.startswith("bn"), leaf
            )
    raise ValueError(f"expected a ResNet's name, got {name!r}")


def layout(network: Backbone, name: Callable[[str], str]) -> dict[str, Blob]:
    """Tabulate a network's tensors, but for batch norms' counters and a ResNet's conv1 bias.

    Args:
        network: the network.
        name: our name -> the format's.

    Returns:
        Our name -> the format's name, with our shape.
    """
    return {
        ours: Blob(name(ours), tuple(tensor.shape))
        for ours, tensor in network.state_dict().items()
        if not ours.endswith(_COUNTER) and ours != "conv1.bias"
    }


def read(
    source: str, state: Mapping[str, Tensor], blobs: Mapping[str, Blob], head: str
) -> dict[str, Tensor]:
    """Give a format's tensors our names.

    Args:
        source: what the tensors are and what they are for, for the error.
        state: tensors by the format's names; batch norms' counters are left out.
        blobs: as from ``layout``.
        head: the classification layer, which may be absent or have other shapes: whether that is
            wanted, ``load_weights`` is told.

    Returns:
        Tensors by our names, in the format's shapes.

    Raises:
        ValueError: names are missing or unexpected, or shapes differ; the message lists them all.
    """
    problems, found = [], {}
    for ours, (name, shape) in blobs.items():
        got, may_differ = state.get(name), ours.startswith(f"{head}.")
        if got is not None and (may_differ or tuple(got.shape) == shape):
            found[ours] = got
        elif got is not None:
            problems.append(f"shape: {name}, expected {shape}, got {tuple(got.shape)}")
        elif not may_differ:
            problems.append(f"missing: {name}, expected {shape}")
    known = {blob.name for blob in blobs.values()}
    for name, got in state.items():
        if name not in known and not name.endswith(_COUNTER):
            problems.append(f"unexpected: {name}, got {tuple(got.shape)}")
    if problems:
        raise ValueError("\n  ".join([f"{source}:", *problems]))
    return found


def write(state: Mapping[str, Tensor], blobs: Mapping[str, Blob]) -> dict[str, Tensor]:
    """Give our tensors a format's names and shapes."""
    return {name: state[ours].reshape(shape) for ours, (name, shape) in blobs.items()}


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the counters that ``nn.BatchNorm2d`` wants and frozen batch norms lack, at 0."""
    suffix = "running_var"
    counters = [
        name.removesuffix(suffix) + _COUNTER for name in state if name.endswith(f".{suffix}")
    ]
    return {**state, **{name: torch.tensor(0) for name in counters}}
