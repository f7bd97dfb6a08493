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
