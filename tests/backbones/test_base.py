"""The contract every backbone keeps."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import backbones
from backbones import Feature, FrozenBatchNorm2d
from backbones.catalogue import CIFAR, IMAGENET

NETWORKS = [*IMAGENET, *(name for name in CIFAR if not name.endswith("1202"))]


def build(name, **options):
    return backbones.build(name, width=8, num_classes=5, **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_declared_features_are_the_real_ones(name):
    network = build(name).eval()
    with torch.no_grad():
        features = network(torch.zeros(2, 3, 64, 96))
        logits = network.logits(torch.zeros(2, 3, 64, 96))
    assert isinstance(features, OrderedDict)
    assert list(features) == [feature.name for feature in network.feature_info]
    for feature in network.feature_info:
        size = (64 // feature.stride, 96 // feature.stride)
        assert features[feature.name].shape == (2, feature.channels, *size)
    assert logits.shape == (2, 5)
    assert network.get_submodule(network.head).out_features == 5
    assert network.architecture in (name, None)


def test_features_at_full_width():
    with torch.device("meta"):
        resnet, vgg = backbones.resnet50(), backbones.vgg16()
    assert resnet.feature_info == (
        Feature("c2", 256, 4),
        Feature("c3", 512, 8),
        Feature("c4", 1024, 16),
        Feature("c5", 2048, 32),
    )
    assert vgg.feature_info == (
        Feature("c2", 128, 2),
        Feature("c3", 256, 4),
        Feature("c4", 512, 8),
        Feature("c5", 512, 16),
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_name_every_layer_before_the_classifier_once(name):
    network = build(name)
    named = {
        parameter
        for stage in network.stages
        for layer in stage
        for parameter, _ in network.get_submodule(layer).named_parameters(prefix=layer)
    }
    rest = {parameter for parameter, _ in network.named_parameters()} - named
    assert len(network.stages) == (4 if name in CIFAR else 5)
    assert all(parameter.startswith(("fc.", "classifier.")) for parameter in rest)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("resnet18", ("conv1.", "bn1.", "layer1.")),
        ("vgg16", ("features.0.", "features.2.", "features.5.", "features.7.")),
    ],
)
def test_two_frozen_stages_get_no_gradients(name, frozen):
    network = build(name)
    expected = {name for name, _ in network.named_parameters() if not name.startswith(frozen)}
    network.freeze(2)
    network.logits(torch.randn(2, 3, 64, 64)).sum().backward()
    got = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert got == expected


def test_frozen_stages_keep_their_statistics_in_training():
    network = build("resnet18")
    network.freeze(2)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.randn(4, 3, 64, 64))
    moved = {name for name, value in network.state_dict().items() if (value != before[name]).any()}
    norms = [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert moved
    assert all(name.startswith(("layer2.", "layer3.", "layer4.")) for name in moved)
    assert {name.rsplit(".", 1)[0] for name in moved} == set(norms)


def test_freezing_nothing_and_everything():
    network = build("resnet18")
    network.freeze(0)
    assert all(parameter.requires_grad for parameter in network.parameters())
    network.freeze(5)
    left = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert left == ["fc.weight", "fc.bias"]
    assert isinstance(network.bn1, FrozenBatchNorm2d)


@pytest.mark.parametrize("stages", [-1, 6])
def test_freezing_out_of_range_is_refused(stages):
    with pytest.raises(ValueError, match=rf"expected 0 … 5 stages to freeze, got {stages}"):
        build("vgg16").freeze(stages)


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_trunk_gives_the_named_features_in_the_asked_order(name):
    network = build(name).eval()
    images = torch.randn(1, 3, 64, 64)
    features = network(images)
    got = network.trunk(["c4", "c2"])(images)
    assert [torch.equal(x, features[key]) for x, key in zip(got, ["c4", "c2"], strict=True)] == [
        True,
        True,
    ]
    with pytest.raises(ValueError, match=r"expected features among .*'c5'\], got \['c6'\]"):
        network.trunk(["c6"])


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_channels_last_goes_through(name):
    network = build(name).eval().double()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    got = network(images.to(memory_format=torch.channels_last))
    for key, value in got.items():
        assert value.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(value, expected[key], rtol=1e-12, atol=1e-12)
