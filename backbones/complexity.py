"""Parameters and multiply-adds, counted as the papers count them and without running a network.

Multiply-adds are those of convolutions and matrix products (ResNet Table 1, "FLOPs"); norms,
biases, activations, poolings and additions count nothing. What is counted is a copy on PyTorch's
meta device, where tensors are shapes alone: no memory, no arithmetic.
"""

import copy
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from backbones.base import Backbone
from backbones.normalization import FrozenBatchNorm2d


class Cost(NamedTuple):
    """What a module costs.

    Attributes:
        parameters: how many numbers can train, those excluded from training too. Frozen batch
            norms have none: theirs are constants.
        multiply_adds: of one forward pass.
    """

    parameters: int
    multiply_adds: int


class NetworkCost(NamedTuple):
    """What a classification network costs.

    Attributes:
        layers: the number in a network's name (see ``layer_count``).
        stages: "conv1", "conv2", … as in ``Backbone.stages``, then "head", all that follows them.
    """

    layers: int
    stages: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        """The whole network."""
        return add(self.stages.values())


def add(costs: Iterable[Cost]) -> Cost:
    """The cost of several modules, one after another."""
    return Cost(*map(sum, zip(*costs, strict=True)))


def cost(module: nn.Module, *inputs: Any) -> Cost:
    """Count a module in evaluation mode; the module itself is left as it is.

    Args:
        module: any that runs on the meta device.
        inputs: as its ``forward`` takes them; of tensors, only the shapes and dtypes count.

    Returns:
        Its cost on these inputs.

    Raises:
        ValueError: the module does not run on them.
    """
    return Cost(_parameters(module), _count(module, inputs)[""])


def network_cost(network: Backbone, size: tuple[int, int] = (224, 224)) -> NetworkCost:
    """Count a classification network, stage by stage; the network is left as it is.

    Args:
        network: any.
        size: (height, width) of the one image.

    Returns:
        Its cost.

    Raises:
        ValueError: the network does not run on images of this size.
    """
    counts = _count(_Logits(network), [blank_image(network, size)])
    stages = {
        f"conv{i}": Cost(
            sum(_parameters(network.get_submodule(name)) for name in names),
            sum(counts.get(f"network.{name}", 0) for name in names),
        )
        for i, names in enumerate(network.stages, start=1)
    }
    body = add(stages.values())
    head = Cost(_parameters(network) - body.parameters, counts[""] - body.multiply_adds)
    return NetworkCost(layer_count(network), {**stages, "head": head})


def layer_count(network: nn.Module) -> int:
    """The layers that the papers count: convolutions and fully connected layers.

    Args:
        network: whose projection shortcuts, which do not count, are called ``downsample``.

    Returns:
        34 for ResNet-34, 16 for VGG-16.
    """
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear)
        for name, module in network.named_modules()
        if "downsample" not in name.split(".")
    )


def blank_image(module: nn.Module, size: tuple[int, int]) -> Tensor:
    """An image without content.

    Args:
        module: what it is for; its first parameter decides the dtype.
        size: (height, width), pixels.

    Returns:
        (1, 3, height, width) float, on the meta device.

    Raises:
        ValueError: a side is less than a pixel.
    """
    if min(size) < 1:
        raise ValueError(f"expected an image size (height, width) of at least 1 × 1, got {size}")
    return torch.empty(1, 3, *size, dtype=next(module.parameters()).dtype, device="meta")


def on_meta(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its parameters and buffers on the meta device."""
    tensors = chain(module.parameters(), module.buffers())
    # Tensors that stand in the memo already are not copied, and so take no memory.
    return copy.deepcopy(module, {id(x): _shape_only(x) for x in tensors}).eval()


class _Logits(nn.Module):
    """Classifies where others call ``forward``, so that layers are counted by their names."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


def _count(module: nn.Module, inputs: Iterable[Any]) -> dict[str, int]:
    """Multiply-adds of every layer that runs any, by its name; "" is the module itself."""
    copied = on_meta(module)
    _remove_norms(copied)
    arguments = tree_map_only(Tensor, lambda x: x.to("meta"), list(inputs))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            copied(*arguments)
        except (RuntimeError, TypeError) as error:
            shapes = tree_map_only(Tensor, lambda x: tuple(x.shape), arguments)
            reason = str(error).partition("\n")[0]
            title = type(module.network if isinstance(module, _Logits) else module).__name__
            raise ValueError(f"{title} does not run on {shapes}: {reason}") from error
    # A multiply-add is two of the counter's operations.
    counts = {
        name.partition(".")[2]: sum(operations.values()) // 2
        for name, operations in counter.get_flop_counts().items()
        if name != "Global"
    }
    return {"": 0, **counts}


def _remove_norms(module: nn.Module) -> None:
    """They count nothing, and a convolution folded with one would not run under its own name."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | FrozenBatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            _remove_norms(child)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _shape_only(tensor: Tensor) -> Tensor:
    shape = tensor.detach().to("meta")
    return nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
