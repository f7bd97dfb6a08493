"""The networks for CIFAR, against the paper's numbers (section 4.2, Table 6)."""

import pytest
import torch
from torch import nn

import backbones
from backbones import cifar_plain, cifar_resnet

# Table 6, millions
PARAMETERS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}


@pytest.mark.parametrize("layers", PARAMETERS)
def test_table_6(layers):
    with torch.device("meta"):
        residual, plain = cifar_resnet(layers), cifar_plain(layers)
    digits = 1 if layers > 56 else 2
    for network in (residual, plain):
        count = sum(parameter.numel() for parameter in network.parameters())
        assert round(count / 1e6, digits) == PARAMETERS[layers]
        weighted = [x for x in network.modules() if isinstance(x, nn.Conv2d | nn.Linear)]
        assert len(weighted) == layers
    assert [(key, value.shape) for key, value in residual.state_dict().items()] == [
        (key, value.shape) for key, value in plain.state_dict().items()
    ]


def test_maps_and_filters():
    # "on the feature maps of sizes {32, 16, 8} ... the numbers of filters are {16, 32, 64}"
    network = cifar_resnet(20).eval()
    shapes = [tuple(x.shape[1:]) for x in network(torch.zeros(1, 3, 32, 32)).values()]
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert network.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert network.preprocessing == backbones.CIFAR_RGB


def test_the_twins_differ_in_the_shortcuts_alone():
    residual, plain = cifar_resnet(8).double().eval(), cifar_plain(8).double().eval()
    plain.load_state_dict(residual.state_dict())
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    added = {}
    for key in ("layer1", "layer2", "layer3"):
        block = residual.get_submodule(key)[0]
        block.bn2.register_forward_hook(lambda _m, _x, y, key=key: added.update({key: y.clone()}))
    first = residual.relu(residual.bn1(residual.conv1(images)))
    got = residual(images)["c2"]
    assert torch.equal(got, (added["layer1"] + first).relu())
    assert torch.equal(plain(images)["c2"], added["layer1"].relu())


@pytest.mark.parametrize("layers", [2, 19, 51])
def test_other_depths_are_refused(layers):
    with pytest.raises(ValueError, match=rf"expected 6n \+ 2 layers: 8, 14, 20, …; got {layers}"):
        cifar_resnet(layers)


def test_it_cuts_like_the_others():
    network = cifar_resnet(8).eval()
    parts = backbones.cut(network)
    images = torch.randn(1, 3, 32, 32)
    (level,) = parts.trunk(images)
    assert (parts.channels, parts.strides, parts.tail_channels) == (32, (2,), 64)
    assert torch.equal(network.fc(parts.tail(level)), network.logits(images))
