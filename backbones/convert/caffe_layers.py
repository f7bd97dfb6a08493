"""Our networks as the layers of the authors' Caffe releases."""

from collections.abc import Iterator

from torch import nn

from backbones.base import Backbone
from backbones.blocks import BasicBlock, Bottleneck
from backbones.convert.caffe_graph import Layer
from backbones.convert.structure import blocks
from backbones.resnet import ResNet
from backbones.vgg import VGG


def network_layers(network: Backbone) -> Iterator[Layer]:
    """A network's layers under the names of the authors' releases, from "data" to "prob"."""
    if isinstance(network, ResNet):
        yield from _resnet_layers(network)
    elif isinstance(network, VGG):
        yield from _vgg_layers(network)


def _conv(name: str, bottom: str, module: str, conv: nn.Conv2d) -> Layer:
    options = {
        "num_output": conv.out_channels,
        "kernel_size": conv.kernel_size[0],
        "pad": conv.padding[0],
        "stride": conv.stride[0],
        "bias_term": conv.bias is not None,
    }
    return Layer(name, "Convolution", (bottom,), name, options, module)


def _norm(blob: str, module: str) -> Iterator[Layer]:
    suffix = blob[3:] if blob.startswith("res") else f"_{blob}"
    yield Layer(f"bn{suffix}", "BatchNorm", (blob,), blob, {}, module)
    yield Layer(f"scale{suffix}", "Scale", (blob,), blob, {"bias_term": True}, module)


def _relu(blob: str) -> Layer:
    return Layer(f"{blob}_relu", "ReLU", (blob,), blob, {})


def _dense(name: str, bottom: str, module: str, linear: nn.Linear) -> Layer:
    options = {"num_output": linear.out_features}
    return Layer(name, "InnerProduct", (bottom,), name, options, module)


def _resnet_layers(network: ResNet) -> Iterator[Layer]:
    yield _conv("conv1", "data", "conv1", network.conv1)
    yield from _norm("conv1", "bn1")
    yield _relu("conv1")
    padded = network.maxpool.padding == 1
    pool = {"pad": 1, "round_mode": "FLOOR"} if padded else {}
    yield Layer("pool1", "Pooling", ("conv1",), "pool1", {"kernel_size": 3, "stride": 2} | pool)
    x, stages = "pool1", blocks(network)
    deep = sum(len(stage) for stage in stages) > 16  # ResNet-101 and 152 count their blocks
    for i, stage in enumerate(stages):
        for j, block in enumerate(stage):
            letter = f"b{j}" if deep and j and len(stage) > 3 else chr(ord("a") + j)
            name, module = f"res{i + 2}{letter}", f"layer{i + 1}.{j}"
            yield from _block_layers(name, x, module, block)
            x = name
    average = {"pool": "AVE", "kernel_size": 7}
    yield Layer("pool5", "Pooling", (x,), "pool5", average)
    yield _dense("fc1000", "pool5", "fc", network.fc)
    yield Layer("prob", "Softmax", ("fc1000",), "prob", {})


def _block_layers(
    name: str, x: str, module: str, block: BasicBlock | Bottleneck
) -> Iterator[Layer]:
    shortcut = x
    if isinstance(block.downsample, nn.Sequential):
        shortcut = f"{name}_branch1"
        yield _conv(shortcut, x, f"{module}.downsample.0", block.downsample[0])  # type: ignore[arg-type]
        yield from _norm(shortcut, f"{module}.downsample.1")
    convs = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
    for i, conv in enumerate(convs):
        branch = f"{name}_branch2{'abc'[i]}"
        yield _conv(branch, x, f"{module}.conv{i + 1}", conv)
        yield from _norm(branch, f"{module}.bn{i + 1}")
        if i + 1 < len(convs):
            yield _relu(branch)
        x = branch
    yield Layer(name, "Eltwise", (shortcut, x), name, {})
    yield _relu(name)


def _vgg_layers(network: VGG) -> Iterator[Layer]:
    x, stage, j = "data", 1, 0
    for i, layer in enumerate(network.features):
        module = f"features.{i}"
        if isinstance(layer, nn.Conv2d):
            j += 1
            yield _conv(f"conv{stage}_{j}", x, module, layer)
            x = f"conv{stage}_{j}"
        elif isinstance(layer, nn.ReLU):
            yield _relu(x)
        elif isinstance(layer, nn.MaxPool2d):
            yield Layer(
                f"pool{stage}", "Pooling", (x,), f"pool{stage}", {"kernel_size": 2, "stride": 2}
            )
            x, stage, j = f"pool{stage}", stage + 1, 0
        else:
            yield from _norm(x, module)
    for index, name in ((0, "fc6"), (3, "fc7"), (6, "fc8")):
        module = f"classifier.{index}"
        yield _dense(name, x, module, network.classifier[index])  # type: ignore[arg-type]
        if name != "fc8":
            yield _relu(name)
            yield Layer(f"drop{name[2]}", "Dropout", (name,), name, {})
        x = name
    yield Layer("prob", "Softmax", (x,), "prob", {})
