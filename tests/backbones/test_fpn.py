"""The pyramid against torchvision's, on the same weights."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozen

import backbones
from backbones import freeze_batch_norm, pyramid


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_levels_and_gradients_equal_torchvisions(name, size, randomise):
    theirs = randomise(
        resnet_fpn_backbone(
            backbone_name=name, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
    )
    trunk = pyramid(getattr(backbones, name)()).trunk.eval()
    trunk.load_state_dict(theirs.state_dict())
    mine = torch.randn(1, 3, *size, requires_grad=True)
    other = mine.detach().clone().requires_grad_()
    got, expected = trunk(mine), list(theirs(other).values())
    assert len(got) == len(expected) == 5
    for x, y in zip(got, expected, strict=True):
        assert (x - y).abs().max() == 0.0
    sum(x.square().sum() for x in got).backward()
    sum(x.square().sum() for x in expected).backward()
    assert (mine.grad - other.grad).abs().max() == 0.0


def test_frozen_norms_load_torchvisions_frozen_norms(randomise):
    theirs = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=TorchvisionFrozen
    ).double()
    for layer in theirs.modules():
        if isinstance(layer, TorchvisionFrozen):
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.normal_(layer.running_mean, std=0.2)
    trunk = freeze_batch_norm(pyramid(backbones.resnet18()).trunk).double()
    trunk.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for got, expected in zip(trunk(images), theirs(images).values(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_tail_equals_torchvisions():
    theirs = TwoMLPHead(256 * 49, 1024)
    parts = pyramid(backbones.resnet18(width=8))
    parts.tail.load_state_dict(theirs.state_dict())
    rois = torch.randn(3, 256, 7, 7)
    assert (parts.tail(rois) - theirs(rois)).abs().max() == 0.0
    assert parts.tail(rois[:0]).shape == (0, parts.tail_channels)


def test_initialisation_is_torchvisions():
    fpn = pyramid(backbones.resnet18(width=8)).trunk.fpn
    for block in (*fpn.inner_blocks, *fpn.layer_blocks):
        bound = (3 / block[0].weight[0].numel()) ** 0.5  # kaiming_uniform with a = 1
        assert 0.95 * bound < block[0].weight.abs().max() <= bound
        assert (block[0].bias == 0).all()


@pytest.mark.parametrize(
    ("name", "strides"), [("resnet18", (4, 8, 16, 32, 64)), ("vgg16", (2, 4, 8, 16, 32))]
)
def test_declared_shapes_are_the_real_ones(name, strides):
    parts = pyramid(getattr(backbones, name)(width=8), 32, roi_size=5, tail_channels=64)
    levels = parts.trunk(torch.zeros(2, 3, 64, 128))
    assert [level.shape for level in levels] == [(2, 32, 64 // s, 128 // s) for s in strides]
    assert parts.strides == strides
    assert (parts.channels, parts.roi_levels) == (32, 4)
    assert parts.tail(torch.zeros(2, 32, parts.roi_size, parts.roi_size)).shape == (2, 64)


def test_body_shares_the_networks_layers_and_drops_the_classifier():
    network = backbones.resnet18(width=8)
    body = pyramid(network).trunk.body
    own = dict(network.named_parameters())
    assert {name for name, _ in body.named_parameters()} == own.keys() - {"fc.weight", "fc.bias"}
    assert all(parameter is own[name] for name, parameter in body.named_parameters())
