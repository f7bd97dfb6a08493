"""What every format asks of a network's structure; anything else is refused with the reason."""

import torch
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.blocks import BasicBlock, Bottleneck
from backbones.normalization import ConvNorm, FrozenBatchNorm2d
from backbones.preprocessing import Preprocessing
from backbones.resnet import ResNet
from backbones.vgg import VGG
from backbones.weights import network_title

EPS = 1e-5
"""What every format adds to a batch norm's variance."""


def blocks(network: ResNet) -> list[list[BasicBlock | Bottleneck]]:
    """The residual blocks by stage, conv2_x first."""
    stages = [network.get_submodule(f"layer{i + 1}") for i in range(len(network.feature_info))]
    return [
        [block for block in stage.children() if isinstance(block, BasicBlock | Bottleneck)]
        for stage in stages
    ]


def has_bottlenecks(network: Backbone) -> bool:
    """Whether there is a stride position to speak of."""
    return isinstance(network, ResNet) and isinstance(blocks(network)[0][0], Bottleneck)


def check_structure(network: Backbone, format_name: str, *, vgg: bool) -> None:
    """Refuse a network that the format does not have.

    Args:
        network: the network.
        format_name: the format, for the error.
        vgg: whether the format has VGGs.

    Raises:
        ValueError: it is no ResNet of four stages with projection shortcuts (B), nor, where
            ``vgg``, a VGG; or a batch norm has another epsilon.
    """
    if not (isinstance(network, ResNet) and _standard(network)) and not (
        vgg and isinstance(network, VGG)
    ):
        raise ValueError(
            f"{format_name}: expected a ResNet with a 7×7 conv1, pool1, stages at strides 4, 8, "
            f"16 and 32 and shortcuts B{' or a VGG' if vgg else ''}, got {network_title(network)} "
            f"with {[f'{f.name} at {f.stride}' for f in network.feature_info]}"
        )
    for name, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d | FrozenBatchNorm2d) and layer.eps != EPS:
            raise ValueError(f"{format_name}: expected {name}.eps to be {EPS}, got {layer.eps}")


def check_convention(
    network: Backbone,
    format_name: str,
    preprocessing: Preprocessing,
    *,
    stride_in_1x1: bool | None = None,
    padded_pool: bool = False,
) -> None:
    """Refuse to export a network that the format's readers would run differently.

    Args:
        network: the network.
        format_name: the format, for the error.
        preprocessing: what the format's images look like.
        stride_in_1x1: where the format's bottlenecks stride; None where it says itself.
        padded_pool: whether the format's pool1 pads by 1.

    Raises:
        ValueError: the network reads other images, strides elsewhere or pools differently.
    """
    reasons = []
    if network.preprocessing != preprocessing:
        reasons.append(f"expected images as {preprocessing}, got {network.preprocessing}")
    if isinstance(network, ResNet):
        if stride_in_1x1 not in (None, network.stride_in_1x1) and has_bottlenecks(network):
            first, then = ("first 1×1", "3×3") if stride_in_1x1 else ("3×3", "first 1×1")
            reasons.append(f"expected the stride in the {first} convolution, got the {then}")
        if padded_pool and getattr(network.maxpool, "padding", None) != 1:
            reasons.append("expected a pool1 that pads by 1, got one that rounds up")
    if reasons:
        raise ValueError(
            f"{format_name} does not fit {network_title(network)}: {'; '.join(reasons)}"
        )


def tensors(network: Backbone) -> dict[str, Tensor]:
    """Copies of a network's parameters and buffers on the CPU."""
    return {name: x.detach().cpu().clone() for name, x in network.state_dict().items()}


def match_conv1_bias(state: dict[str, Tensor], wanted: bool) -> dict[str, Tensor]:
    """Add or fold away a ResNet's conv1 bias, in place; the function stays the same.

    A bias b before a batch norm of mean m is a batch norm of mean m − b.

    Args:
        state: tensors under our names.
        wanted: whether the state is to have ``conv1.bias``; zeros where it had none.

    Returns:
        ``state``.
    """
    bias = state.pop("conv1.bias", None)
    if wanted:
        state["conv1.bias"] = torch.zeros_like(state["bn1.bias"]) if bias is None else bias
    elif bias is not None:
        mean = state["bn1.running_mean"]
        state["bn1.running_mean"] = (mean.double() - bias.double()).to(mean.dtype)
    return state


def _standard(network: ResNet) -> bool:
    stages = blocks(network)
    projections = [
        isinstance(block.downsample, ConvNorm) and not block.plain
        for stage in stages
        for block in stage
    ]
    expected = [
        j == 0 and (i > 0 or isinstance(block, Bottleneck))
        for i, stage in enumerate(stages)
        for j, block in enumerate(stage)
    ]
    return (
        network.conv1.kernel_size == (7, 7)
        and isinstance(network.maxpool, nn.MaxPool2d)
        and [feature.stride for feature in network.feature_info] == [4, 8, 16, 32]
        and projections == expected
    )
