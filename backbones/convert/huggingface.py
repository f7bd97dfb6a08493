"""Hugging Face transformers' ResNets, with basic blocks or bottlenecks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from backbones.convert.layout import layout, part, read, with_counters, write
from backbones.convert.structure import (
    blocks,
    check_convention,
    check_structure,
    has_bottlenecks,
    match_conv1_bias,
    tensors,
)
from backbones.preprocessing import IMAGENET_RGB
from backbones.resnet import ResNet
from backbones.weights import Weights, network_title, read_weights

if TYPE_CHECKING:
    from transformers import ResNetForImageClassification


def from_huggingface(
    source: str | Path | nn.Module | Mapping[str, Tensor], network: ResNet
) -> Weights:
    """Take transformers' weights for a network.

    Args:
        source: a ``ResNetForImageClassification``, ``ResNetModel`` or ``ResNetBackbone``, whose
            configuration says where bottlenecks stride; the folder it was saved in, with
            config.json and model.safetensors; or its state dict, which does not say.
        network: what the weights are for; it is not changed.

    Returns:
        The weights, for ``load_weights``; ``IMAGENET_RGB``.

    Raises:
        ValueError: transformers has no such network, or the weights do not fit; the message lists
            every name that is missing, unexpected or of another shape.
        OSError: a file cannot be opened.
    """
    check_structure(network, "Hugging Face transformers", vgg=False)
    config, state = _opened(source)
    stride_in_1x1 = None if config is None else _stride_in_1x1(config)
    if not any(name.startswith("resnet.") for name in state):  # the model without a classifier
        state = {f"resnet.{name}": tensor for name, tensor in state.items()}
    found = read(
        f"transformers' weights do not fit {network_title(network)}",
        state,
        layout(network, _name),
        network.head,
    )
    match_conv1_bias(found, network.conv1.bias is not None)
    return Weights(found, IMAGENET_RGB, stride_in_1x1)


def to_huggingface(network: ResNet) -> "ResNetForImageClassification":
    """Make a network one of transformers', for ``save_pretrained`` and ``AutoBackbone``.

    Args:
        network: a ResNet that reads ``IMAGENET_RGB``.

    Returns:
        The model, in evaluation mode, with copies of the weights; its configuration says where
        bottlenecks stride.

    Raises:
        ValueError: transformers has no such network, or would run it differently.
        ImportError: transformers is not installed.
    """
    check_structure(network, "Hugging Face transformers", vgg=False)
    check_convention(network, "Hugging Face transformers", IMAGENET_RGB, padded_pool=True)
    try:
        from transformers import ResNetConfig, ResNetForImageClassification  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("to_huggingface needs: pip install 'resdet[interop]'") from error
    config = ResNetConfig(
        embedding_size=network.conv1.out_channels,
        hidden_sizes=[feature.channels for feature in network.feature_info],
        depths=[len(stage) for stage in blocks(network)],
        layer_type="bottleneck" if has_bottlenecks(network) else "basic",
        downsample_in_bottleneck=network.stride_in_1x1,
        num_labels=network.fc.out_features,
    )
    model = ResNetForImageClassification(config)
    state = match_conv1_bias(tensors(network), False)
    model.load_state_dict(with_counters(write(state, layout(network, _name))))
    return model.eval()


def _opened(
    source: str | Path | nn.Module | Mapping[str, Tensor],
) -> tuple[Mapping[str, Any] | None, Mapping[str, Tensor]]:
    """The configuration, where the source has one, and the state dict."""
    if isinstance(source, nn.Module):
        config: dict[str, Any] = source.config.to_dict()  # type: ignore[union-attr, operator]
        return config, source.state_dict()
    if isinstance(source, Mapping):
        return None, source
    path = Path(source) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected an object, got {type(config).__name__}")
    return config, read_weights(path.with_name("model.safetensors")).state


def _stride_in_1x1(config: Mapping[str, Any]) -> bool | None:
    expected = {"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": False}
    got = {name: config.get(name, value) for name, value in expected.items()}
    if got != expected:
        raise ValueError(f"expected a configuration with {expected}, got {got}")
    if config.get("layer_type", "bottleneck") != "bottleneck":
        return None
    return bool(config.get("downsample_in_bottleneck", False))


def _name(ours: str) -> str:
    if ours.startswith("fc."):
        return f"classifier.1.{ours.removeprefix('fc.')}"
    stage, block, conv, norm, leaf = part(ours)
    layer = f"{'normalization' if norm else 'convolution'}.{leaf}"
    if stage == 1:
        return f"resnet.embedder.embedder.{layer}"
    branch = "shortcut" if conv == 0 else f"layer.{conv - 1}"
    return f"resnet.encoder.stages.{stage - 2}.layers.{block}.{branch}.{layer}"
