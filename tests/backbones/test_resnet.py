"""ResNets against torchvision's, on the same weights."""

import math

import pytest
import torch
import torchvision
from torch import nn

import backbones
from backbones import BasicBlock, ResNet

# torchvision's published parameter counts
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_same_names_shapes_and_number_of_parameters(name):
    with torch.device("meta"):
        ours = getattr(backbones, name)()
        theirs = torchvision.models.get_model(name)
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[name]
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_logits_and_gradients_equal_torchvisions(name, training, randomise):
    theirs = randomise(torchvision.models.get_model(name, num_classes=10))
    ours = getattr(backbones, name)(num_classes=10)
    ours.load_state_dict(theirs.state_dict())
    ours.train(training)
    theirs.train(training)
    images = torch.randn(2, 3, 64, 64)
    mine, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    ours_out, theirs_out = ours.logits(mine), theirs(other)
    ours_out.square().sum().backward()
    theirs_out.square().sum().backward()
    assert (ours_out - theirs_out).abs().max() == 0.0
    assert mine.grad.abs().max() > 0
    assert (mine.grad - other.grad).abs().max() == 0.0
    for (key, got), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (got.grad - expected.grad).abs().max() == 0.0, key
    for key, expected in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], expected), key


def test_stride_position():
    def strides(network):
        block = network.layer2[0]
        convs = block.conv1, block.conv2, block.conv3, block.downsample[0]
        return [conv.stride[0] for conv in convs], network.layer1[0].conv1.stride[0]

    with torch.device("meta"):
        # The res3a branch of the authors' ResNet-50 prototxt: 2a and the projection stride.
        assert strides(backbones.resnet50(stride_in_1x1=True)) == ([2, 1, 1, 2], 1)
        assert strides(backbones.resnet50()) == ([1, 2, 1, 2], 1)
        with pytest.raises(ValueError, match="stride_in_1x1 is for bottlenecks"):
            backbones.resnet18(stride_in_1x1=True)


def test_initialisation():
    network = backbones.resnet18()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all(), name
            assert (layer.bias == 0).all(), name


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_residual_zeroes_each_blocks_last_gamma(name, last):
    network = getattr(backbones, name)(width=8, zero_init_residual=True)
    zeroed = {
        key
        for key, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and (layer.weight == 0).all()
    }
    assert zeroed == {
        f"{key}.{last}"
        for key, _ in network.named_modules()
        if key.count(".") == 1 and key.startswith("layer")
    }


def test_any_depths():
    network = ResNet(BasicBlock, (1, 1), width=4, num_classes=3)
    assert list(network(torch.zeros(2, 3, 32, 32))) == ["c2", "c3"]
    assert network.architecture is None


def test_shortcut_a_subsamples_and_pads_with_zeros():
    network = ResNet(BasicBlock, (1, 1), width=2, num_classes=3, shortcut="A")
    x = torch.randn(1, 2, 5, 6)
    expected = torch.zeros(1, 4, 3, 3)
    expected[:, :2] = x[:, :, ::2, ::2]
    assert torch.equal(network.layer2[0].downsample(x), expected)
    assert network.layer1[0].downsample is None
    assert not list(network.layer2[0].downsample.parameters())


@pytest.mark.parametrize(
    ("shortcut", "projections"),
    # ResNet-34: its stages have 3, 4, 6 and 3 blocks, and three of them change the shape.
    [("A", 0), ("B", 3), ("C", 16), (None, 0)],
)
def test_projections_of_each_shortcut(shortcut, projections):
    with torch.device("meta"):
        network = ResNet(BasicBlock, (3, 4, 6, 3), shortcut=shortcut)
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(conv.kernel_size == (1, 1) for conv in convs) == projections
    assert sum(conv.kernel_size != (1, 1) for conv in convs) == 33


@pytest.mark.parametrize("build", [backbones.plain18, backbones.plain34])
def test_a_plain_network_is_its_layers_in_a_row(build, randomise):
    network = randomise(build(width=4, num_classes=3))
    x = images = torch.randn(2, 3, 64, 64)
    pairs = [("conv1", "bn1")] + [
        (name, name.replace("conv", "bn"))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and name.startswith("layer")
    ]
    for conv, norm in pairs:
        x = network.get_submodule(norm)(network.get_submodule(conv)(x)).relu()
        if conv == "conv1":
            x = nn.functional.max_pool2d(x, 3, 2, 1)
    assert torch.equal(x, list(network(images).values())[-1])


def test_a_plain_network_has_the_names_of_its_residual_twin():
    with torch.device("meta"):
        plain, residual = backbones.plain34(), backbones.resnet34()
    rest = residual.state_dict().keys() - plain.state_dict().keys()
    assert all(".downsample." in name for name in rest)
    assert plain.state_dict().keys() < residual.state_dict().keys()


def test_zero_init_residual_would_silence_a_plain_network():
    with pytest.raises(ValueError, match="zero_init_residual needs shortcuts"):
        ResNet(BasicBlock, (1, 1), shortcut=None, zero_init_residual=True)


@pytest.mark.parametrize("side", [224, 225, 226, 227])
def test_caffes_pool_rounds_up(side):
    # Caffe: ceil((n - 3) / 2) + 1 cells of conv1's n, windows that start at the first cell.
    network = backbones.caffe_resnet50(width=4)
    x = torch.randn(1, 4, (side + 1) // 2, 5)
    pooled = network.maxpool(x)
    assert pooled.shape[2] == -((x.shape[2] - 3) // -2) + 1
    assert torch.equal(pooled[:, :, 0, 0], x[:, :, :3, :3].amax((2, 3)))
    assert torch.equal(pooled[:, :, -1, -1], x[:, :, 2 * pooled.shape[2] - 2 :, 2:].amax((2, 3)))


def test_caffe_networks_are_the_released_prototxts():
    with torch.device("meta"):
        networks = [getattr(backbones, f"caffe_resnet{n}")() for n in (50, 101, 152)]
    assert [network.conv1.bias is not None for network in networks] == [True, False, False]
    for network in networks:
        assert network.preprocessing == backbones.CAFFE_BGR
        assert network.stride_in_1x1
        assert network.layer2[0].conv1.stride == network.layer2[0].downsample[0].stride == (2, 2)
        assert network.layer2[0].conv2.stride == (1, 1)
        assert network.bn1.eps == 1e-5
        assert network.architecture is None


def test_a_grey_image_is_refused():
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels"):
        backbones.resnet18(width=4)(torch.zeros(1, 1, 64, 64))
