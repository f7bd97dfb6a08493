import pytest
import torch
from torch import nn

import backbones
from backbones import cut


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_parts_compose_to_the_network(name, randomise):
    network = randomise(getattr(backbones, name)(width=8, num_classes=5))
    parts = cut(network)
    images = torch.randn(2, 3, 64, 96)
    (c4,) = parts.trunk(images)
    assert torch.equal(c4, network(images)["c4"])
    assert torch.equal(network.fc(parts.tail(c4)), network.logits(images))


def test_vgg_parts_compose_to_the_network():
    network = backbones.vgg16(width=8, num_classes=5).eval()
    parts = cut(network)
    images = torch.randn(2, 3, 64, 96)
    (c5,) = parts.trunk(images)
    assert torch.equal(c5, network(images)["c5"])
    pooled = network.avgpool(network.features[-1](c5))
    assert torch.equal(network.classifier[-1](parts.tail(pooled)), network.logits(images))


@pytest.mark.parametrize("regions", [0, 3])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16"])
def test_declared_shapes_are_the_real_ones(name, regions):
    parts = cut(getattr(backbones, name)(width=8).eval())
    (level,) = parts.trunk(torch.zeros(1, 3, 64, 96))
    (stride,) = parts.strides
    assert level.shape == (1, parts.channels, 64 // stride, 96 // stride)
    rois = torch.zeros(regions, parts.channels, parts.roi_size, parts.roi_size)
    assert parts.tail(rois).shape == (regions, parts.tail_channels)
    assert parts.roi_levels == 1


def test_the_papers_numbers():
    with torch.device("meta"):
        resnet, vgg = cut(backbones.resnet101()), cut(backbones.vgg16())
    assert resnet[2:7] == (1024, (16,), 1, 2048, 14)
    assert vgg[2:7] == (512, (16,), 1, 4096, 7)
    # Section 4.3: 91 convolutional layers are shared in ResNet-101, besides the projections.
    convs = [
        name
        for name, layer in resnet.trunk.named_modules()
        if isinstance(layer, nn.Conv2d) and "downsample" not in name
    ]
    assert len(convs) == 91


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_layers_are_shared_under_their_names_and_the_classifier_is_dropped(name):
    network = getattr(backbones, name)(width=8)
    own = dict(network.named_parameters())
    parts = cut(network)
    found = dict(parts.trunk.named_parameters()) | dict(parts.tail.named_parameters())
    assert own.keys() - found.keys() == {f"{network.head}.weight", f"{network.head}.bias"}
    assert all(parameter is own[key] for key, parameter in found.items())


@pytest.mark.parametrize(
    ("options", "roi_size", "seen"),
    [
        ({}, 14, 7),
        ({"tail_stride": 1}, 7, 7),
        ({"roi_size": 7}, 7, 4),
        ({"roi_size": 14, "tail_stride": 1}, 14, 14),
    ],
)
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_roi_size_and_tail_stride(options, roi_size, seen, stride_in_1x1):
    network = backbones.resnet50(width=8, stride_in_1x1=stride_in_1x1)
    parts = cut(network, **options)
    assert parts.roi_size == roi_size
    rois = torch.zeros(1, parts.channels, roi_size, roi_size)
    assert network.layer4(rois).shape[-2:] == (seen, seen)
    images = torch.zeros(1, 3, 64, 64)
    for feature, x in zip(network.feature_info, network(images).values(), strict=True):
        assert x.shape[-1] == 64 // feature.stride


def test_a_removed_stride_does_not_come_back_silently():
    network = backbones.resnet18(width=8)
    cut(network, tail_stride=1)
    assert cut(network, tail_stride=1).roi_size == 7
    with pytest.raises(ValueError, match="expected conv5_x of stride 2"):
        cut(network)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"tail_stride": 3}),
        ("resnet18", {"roi_size": 0}),
        ("vgg16", {"tail_stride": 2}),
        ("vgg16", {"roi_size": 14}),
    ],
)
def test_what_does_not_fit_is_refused(name, options):
    with pytest.raises(ValueError, match=r"expected .*roi_size"):
        cut(getattr(backbones, name)(width=8), **options)


def test_other_networks_bring_their_own_cut():
    class Other(nn.Module):
        pass

    with pytest.raises(TypeError, match="no cut for Other"):
        cut(Other())


def test_freezing_reaches_the_trunk():
    network = backbones.resnet18(width=8)
    network.freeze(2)
    parts = cut(network)
    trainable = {name for name, p in parts.trunk.named_parameters() if p.requires_grad}
    assert trainable
    assert all(name.startswith(("layer2.", "layer3.")) for name in trainable)
    assert isinstance(parts.trunk.bn1, backbones.FrozenBatchNorm2d)
