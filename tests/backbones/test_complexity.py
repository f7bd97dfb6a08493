"""What the networks cost, against the papers, torchvision's figures and counts by hand."""

from functools import partial
from math import floor
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import nn

import backbones
from backbones import Backbone, catalogue
from backbones.complexity import Cost, add, blank_image, cost, layer_count, network_cost

FC = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
# Shortcut B of ResNet-34: a 1×1 convolution into conv3_x, conv4_x and conv5_x each.
PROJECTIONS = sum(c * 2 * c * side**2 for c, side in ((64, 28), (128, 14), (256, 7)))
# First 1×1 convolution of conv3_x, conv4_x and conv5_x, on four times as many cells.
STRIDE = sum(2 * c * c * 3 * side**2 for c, side in ((128, 28), (256, 14), (512, 7)))


class Row(NamedTuple):
    """A network and what the papers say of it.

    ``paper`` is in billions at 224×224 (ResNet Table 1 and section 3.3); ``uncounted`` are the
    multiply-adds that are in ours and not in the paper's, for the ``reason``.
    """

    network: partial[Backbone]
    layers: int
    parameters: int
    multiply_adds: int
    paper: float | None = None
    uncounted: int = 0
    cut_off: bool = False
    reason: str = ""


def net(name, **options):
    return partial(catalogue.build, name, **options)


A_IN_PAPER = "ResNet-34 has the plain net's 3.6 in the paper: shortcut A. B has three projections."
LAST_DIGIT = "The paper's 3.8 is 3.858 cut off; its 7.6 and 11.3 are 7.570 and 11.282, rounded."
IN_3X3 = "The paper strides in the first 1×1, torchvision in the 3×3."
CONV_ONLY = "The paper's 15.3 for VGG-16 leaves out fc6–fc8; its 19.6 for VGG-19 has them."
NOT_PRINTED = "The paper prints none."

IMAGENET = {
    "resnet18": Row(net("resnet18"), 18, 11_689_512, 1_814_073_344, 1.8),
    "resnet34": Row(
        net("resnet34"), 34, 21_797_672, 3_663_761_408, 3.6, PROJECTIONS, reason=A_IN_PAPER
    ),
    "resnet34 A": Row(net("resnet34", shortcut="A"), 34, 21_623_848, 3_644_493_824, 3.6),
    "resnet34 C": Row(
        net("resnet34", shortcut="C"), 34, 22_716_840, 3_830_747_136, reason=NOT_PRINTED
    ),
    "resnet50": Row(
        net("resnet50"),
        50,
        25_557_032,
        4_089_184_256,
        3.8,
        STRIDE,
        cut_off=True,
        reason=f"{IN_3X3} {LAST_DIGIT}",
    ),
    "resnet101": Row(net("resnet101"), 101, 44_549_160, 7_801_405_440, 7.6, STRIDE, reason=IN_3X3),
    "resnet152": Row(
        net("resnet152"), 152, 60_192_808, 11_513_626_624, 11.3, STRIDE, reason=IN_3X3
    ),
    "resnet50 1×1": Row(
        net("resnet50", stride_in_1x1=True),
        50,
        25_557_032,
        3_857_973_248,
        3.8,
        cut_off=True,
        reason=LAST_DIGIT,
    ),
    "plain18": Row(net("plain18"), 18, 11_515_688, 1_794_805_760, 1.8),
    "plain34": Row(net("plain34"), 34, 21_623_848, 3_644_493_824, 3.6),
    # The authors' own networks; ResNet-50 has 64 biases more.
    "caffe_resnet50": Row(
        net("caffe_resnet50"),
        50,
        25_557_032 + 64,
        3_857_973_248,
        3.8,
        cut_off=True,
        reason=LAST_DIGIT,
    ),
    "caffe_resnet101": Row(net("caffe_resnet101"), 101, 44_549_160, 7_570_194_432, 7.6),
    "caffe_resnet152": Row(net("caffe_resnet152"), 152, 60_192_808, 11_282_415_616, 11.3),
    "vgg11": Row(net("vgg11"), 11, 132_863_336, 7_609_090_048, reason=NOT_PRINTED),
    "vgg16": Row(net("vgg16"), 16, 138_357_544, 15_470_264_320, 15.3, FC, reason=CONV_ONLY),
    "vgg19": Row(net("vgg19"), 19, 143_667_240, 19_632_062_464, 19.6),
    # A weight and a bias for each of the 4,224 and 5,504 channels that are normalised.
    "vgg16_bn": Row(
        net("vgg16_bn"), 16, 138_357_544 + 2 * 4224, 15_470_264_320, 15.3, FC, reason=CONV_ONLY
    ),
    "vgg19_bn": Row(net("vgg19_bn"), 19, 143_667_240 + 2 * 5504, 19_632_062_464, 19.6),
}
# Table 6: parameters in millions, as printed.
CIFAR = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7", 1202: "19.4"}


def on_meta(network):
    with torch.device("meta"):
        return network()


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_networks_cost_what_the_papers_say(name):
    row = IMAGENET[name]
    counted = network_cost(on_meta(row.network))
    assert counted.layers == row.layers
    assert counted.total == Cost(row.parameters, row.multiply_adds)
    if row.paper is not None:
        tenths = (row.multiply_adds - row.uncounted) / 1e8
        assert (floor(tenths) if row.cut_off else round(tenths)) == round(10 * row.paper)
    agrees = row.paper is not None and round(row.multiply_adds / 1e8) == round(10 * row.paper)
    assert agrees == (row.reason == "")


def test_every_network_of_the_catalogue_is_in_a_table():
    assert set(catalogue.IMAGENET) <= set(IMAGENET)
    assert {f"cifar_resnet{n}" for n in CIFAR} <= set(catalogue.CIFAR)


@pytest.mark.parametrize("kind", [backbones.cifar_resnet, backbones.cifar_plain])
@pytest.mark.parametrize("layers", CIFAR)
def test_cifar_networks_cost_what_table_6_says(layers, kind):
    counted = network_cost(on_meta(partial(kind, layers)), (32, 32))
    assert counted.layers == layers
    digits = len(CIFAR[layers].partition(".")[2])
    assert f"{counted.total.parameters / 1e6:.{digits}f}" == CIFAR[layers]
    rest = (layers - 2) // 3 - 1
    assert [stage.multiply_adds for stage in counted.stages.values()] == [
        32 * 32 * 9 * 3 * 16,
        32 * 32 * 9 * 16 * 16 * (1 + rest),
        16 * 16 * 9 * (16 * 32 + 32 * 32 * rest),
        8 * 8 * 9 * (32 * 64 + 64 * 64 * rest),
        64 * 10,
    ]


def basic_by_hand(depths, shortcut):
    """Multiply-adds of conv2_x … conv5_x from Table 1: k² · channels in · channels out · cells."""
    channels, stages = 64, []
    for width, side, depth in zip((64, 128, 256, 512), (56, 28, 14, 7), depths, strict=True):
        weights = 9 * channels * width + (2 * depth - 1) * 9 * width * width
        if shortcut == "C":
            weights += channels * width + (depth - 1) * width * width
        elif shortcut == "B" and channels != width:
            weights += channels * width
        stages.append(weights * side * side)
        channels = width
    return stages


def bottleneck_by_hand(depths, stride_in_1x1):
    """The same of the networks with bottlenecks, shortcut B."""
    channels, stages = 64, []
    for width, side, depth in zip((64, 128, 256, 512), (56, 28, 14, 7), depths, strict=True):
        cells, out = side * side, 4 * width
        before = cells if stride_in_1x1 or side == 56 else 4 * cells
        first = before * channels * width + cells * (9 * width + out) * width
        rest = cells * (out + 9 * width + out) * width
        stages.append(first + cells * channels * out + (depth - 1) * rest)
        channels = out
    return stages


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_resnet34_by_hand(shortcut):
    counted = network_cost(on_meta(net("resnet34", shortcut=shortcut)))
    assert [stage.multiply_adds for stage in counted.stages.values()] == [
        49 * 3 * 64 * 112 * 112,
        *basic_by_hand((3, 4, 6, 3), shortcut),
        512 * 1000,
    ]


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_resnet50_by_hand(stride_in_1x1):
    counted = network_cost(on_meta(net("resnet50", stride_in_1x1=stride_in_1x1)))
    assert [stage.multiply_adds for stage in counted.stages.values()] == [
        49 * 3 * 64 * 112 * 112,
        *bottleneck_by_hand((3, 4, 6, 3), stride_in_1x1),
        2048 * 1000,
    ]


def test_vgg16_by_hand():
    counted = network_cost(on_meta(net("vgg16")), (256, 224))
    sides = [(256 >> i, 224 >> i) for i in range(5)]
    weights = [
        9 * (3 * 64 + 64 * 64),
        9 * (64 * 128 + 128 * 128),
        9 * (128 * 256 + 2 * 256 * 256),
        9 * (256 * 512 + 2 * 512 * 512),
        9 * (3 * 512 * 512),
    ]
    cells = [height * width for height, width in sides]
    counts = [weight * count for weight, count in zip(weights, cells, strict=True)]
    biases = (2 * 64, 2 * 128, 3 * 256, 3 * 512, 3 * 512)
    sizes = [weight + bias for weight, bias in zip(weights, biases, strict=True)]
    assert list(counted.stages) == ["conv1", "conv2", "conv3", "conv4", "conv5", "head"]
    assert list(counted.stages.values()) == [
        *map(Cost, sizes, counts),
        Cost(FC + 4096 + 4096 + 1000, FC),
    ]


@pytest.mark.parametrize(
    "name", [name for name in catalogue.IMAGENET if name.startswith(("resnet", "vgg"))]
)
def test_torchvisions_published_figures(name):
    counted = network_cost(on_meta(net(name))).total
    for weights in torchvision.models.get_model_weights(name):
        assert counted.parameters == weights.meta["num_params"]
        assert round(counted.multiply_adds / 1e9, 3) == weights.meta["_ops"]


def test_others_networks_are_counted_too():
    with torch.device("meta"):
        theirs = torchvision.models.resnet50()
    assert cost(theirs, torch.empty(1, 3, 224, 224)) == Cost(25_557_032, 4_089_184_256)
    assert layer_count(theirs) == 50


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16_bn"])
def test_a_frozen_network_has_the_same_multiply_adds_in_every_stage(name):
    network = on_meta(net(name, width=8))
    before = list(network_cost(network, (64, 96)).stages.values())
    network.freeze(2)
    after = list(network_cost(network, (64, 96)).stages.values())
    assert [x.multiply_adds for x in after] == [x.multiply_adds for x in before]
    assert all(x.parameters < y.parameters for x, y in zip(after[:2], before[:2], strict=True))
    assert after[2:] == before[2:]


def test_the_network_is_left_as_it_is():
    network = backbones.resnet18(width=8)
    network.freeze(1)
    modules = dict(network.named_modules())
    before = {name: (id(x), x.clone()) for name, x in network.state_dict(keep_vars=True).items()}
    network_cost(network, (32, 32))
    assert dict(network.named_modules()) == modules
    assert all(module.training for module in modules.values())
    for name, tensor in network.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0], name
        assert torch.equal(tensor, before[name][1]), name


def test_any_module_on_any_inputs():
    assert cost(nn.Linear(4, 5), torch.zeros(2, 3, 4)) == Cost(25, 2 * 3 * 4 * 5)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    assert cost(depthwise, torch.zeros(2, 8, 5, 7)) == Cost(72, 2 * 72 * 35)
    assert cost(nn.BatchNorm2d(3), torch.zeros(1, 3, 1, 1)) == Cost(6, 0)
    assert cost(backbones.FrozenBatchNorm2d(3), torch.zeros(1, 3, 4, 4)) == Cost(0, 0)
    # 4 PB of weights, never there.
    with torch.device("meta"):
        assert (
            cost(nn.Linear(1 << 25, 1 << 25, bias=False), torch.zeros(1, 1 << 25)) == (1 << 50,) * 2
        )
    fpn = backbones.FeaturePyramid([4, 6], 8)
    levels = [torch.zeros(1, 4, 6, 8), torch.zeros(1, 6, 3, 4)]
    convolutions = 48 * (4 * 8 + 9 * 64) + 12 * (6 * 8 + 9 * 64)
    assert cost(fpn, levels) == Cost(4 * 8 + 6 * 8 + 2 * 9 * 64 + 4 * 8, convolutions)


def test_dtypes():
    network = on_meta(net("resnet18", width=8))
    expected = network_cost(network)
    assert network_cost(network.bfloat16()) == expected
    assert blank_image(network, (4, 6)).dtype == torch.bfloat16


def test_sums():
    assert add([Cost(1, 2), Cost(3, 4), Cost(5, 6)]) == Cost(9, 12)


@pytest.mark.parametrize("size", [(0, 224), (224, -1)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match=rf"at least 1 × 1, got \({size[0]}, {size[1]}\)"):
        network_cost(on_meta(net("resnet18")), size)


def test_what_does_not_run_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"^VGG does not run on \[\(1, 3, 8, 8\)\]: .*too small$"):
        network_cost(on_meta(net("vgg16", width=8)), (8, 8))
    with pytest.raises(ValueError, match=r"^Conv2d does not run on \[\(1, 4, 8, 8\)\]: "):
        cost(nn.Conv2d(3, 8, 3), torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"^Linear does not run on \[\]: .*'input'"):
        cost(nn.Linear(3, 8))
