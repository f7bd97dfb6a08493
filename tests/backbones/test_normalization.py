import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import backbones
from backbones import FrozenBatchNorm2d, conv_norm, freeze_batch_norm


def relative(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_folded_layer_equals_two_layers(bias, dtype, limit, randomise):
    layers = randomise(nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, 2, 2, bias), nn.BatchNorm2d(16)))
    layers.to(dtype)
    frozen = freeze_batch_norm(copy.deepcopy(layers))
    x = torch.randn(2, 8, 17, 19, dtype=dtype)
    assert relative(conv_norm(x, *frozen), layers(x)) < limit
    assert relative(frozen(x), layers(x)) < limit


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_folded_network_equals_torchvisions_batch_norm(name, randomise):
    theirs = randomise(torchvision.models.get_model(name, num_classes=10)).double()
    ours = getattr(backbones, name)(num_classes=10).double()
    ours.load_state_dict(theirs.state_dict())
    freeze_batch_norm(ours)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in ours.modules())
    mine = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    other = mine.detach().clone().requires_grad_()
    got, expected = ours.logits(mine), theirs(other)
    got.square().sum().backward()
    expected.square().sum().backward()
    assert relative(got, expected) < 1e-12
    assert relative(mine.grad, other.grad) < 1e-12
    for key, parameter in ours.named_parameters():
        assert relative(parameter.grad, theirs.get_parameter(key).grad) < 1e-12, key


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_folded_network_in_single_precision(name, randomise):
    plain = randomise(getattr(backbones, name)(num_classes=10))
    images = torch.randn(2, 3, 64, 64)
    expected = plain.logits(images)
    assert relative(freeze_batch_norm(plain).logits(images), expected) < 2e-6


def test_a_frozen_norm_runs_no_layer_of_its_own(randomise):
    network = freeze_batch_norm(backbones.resnet50(width=8))
    called = []
    for layer in network.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.register_forward_hook(lambda *_: called.append(1))
    network(torch.randn(1, 3, 64, 64))
    assert not called


def test_state_dicts_pass_between_frozen_and_trainable(randomise):
    plain = randomise(backbones.resnet18(width=8))
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    frozen = freeze_batch_norm(backbones.resnet18(width=8))
    frozen.load_state_dict(state)
    names = [key for key in state if not key.endswith("num_batches_tracked")]
    assert list(frozen.state_dict()) == names
    assert all(torch.equal(frozen.state_dict()[key], state[key]) for key in names)
    backbones.resnet18(width=8).load_state_dict(frozen.state_dict())
    assert torch.equal(
        frozen.get_buffer("bn1.running_var"), freeze_batch_norm(plain).bn1.running_var
    )


def test_eps_and_dtype_are_kept():
    frozen = freeze_batch_norm(nn.BatchNorm2d(4, eps=1e-3).double())
    assert isinstance(frozen, FrozenBatchNorm2d)
    assert frozen.eps == 1e-3
    assert frozen.weight.dtype == torch.float64
    assert not list(frozen.parameters())


@pytest.mark.parametrize("option", [{"affine": False}, {"track_running_stats": False}])
def test_norms_without_constants_are_refused(option):
    with pytest.raises(ValueError, match="expected affine parameters and running statistics"):
        freeze_batch_norm(nn.BatchNorm2d(4, **option))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn"])
def test_wrapped_convolutions_keep_their_norms(name, frozen, randomise):
    network = randomise(backbones.build(name, width=8)).double()
    if frozen:
        network.freeze(3)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected, called = network(images), []
    convs = [key for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    for key in convs:
        wrapper = nn.Sequential(network.get_submodule(key))
        wrapper.register_forward_hook(lambda *_: called.append(1))
        network.set_submodule(key, wrapper)
    for key, value in network(images).items():
        assert relative(value, expected[key]) < 1e-12, key
    assert len(called) == len(convs)


def test_a_convolution_of_another_class_runs_its_own_forward():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    conv, norm, x = Doubled(3, 8, 3), FrozenBatchNorm2d(8), torch.randn(1, 3, 9, 9)
    assert torch.equal(conv_norm(x, conv, norm), norm(conv(x)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("wrap", [lambda conv: conv, nn.Sequential])
def test_frozen_norms_in_float32_follow_a_convolution_in_low_precision(wrap, bias, randomise):
    layers = randomise(nn.Sequential(nn.Conv2d(8, 16, 3, bias=bias), nn.BatchNorm2d(16)))
    x = torch.randn(2, 8, 9, 9)
    expected = layers(x)
    conv, norm = wrap(layers[0].bfloat16()), freeze_batch_norm(layers[1])
    assert norm.weight.dtype == torch.float32
    got = conv_norm(x.bfloat16(), conv, norm)
    assert got.dtype == torch.bfloat16
    assert relative(got.float(), expected) < 0.02


@pytest.mark.parametrize("kernel", [1, 3])
def test_folded_weights_stay_channels_last(kernel, monkeypatch):
    weights = []
    conv2d = nn.functional.conv2d
    monkeypatch.setattr(
        nn.functional, "conv2d", lambda x, w, *rest: weights.append(w) or conv2d(x, w, *rest)
    )
    conv = nn.Conv2d(8, 16, kernel).to(memory_format=torch.channels_last)
    conv_norm(torch.randn(1, 8, 9, 9), conv, FrozenBatchNorm2d(16))
    (weight,) = weights
    assert weight.stride() == conv.weight.stride()
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_autocast_runs_the_folded_convolution_in_low_precision():
    layers = nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_norm(torch.randn(1, 3, 9, 9), *layers)
    assert y.dtype == torch.bfloat16


def test_a_traced_graph_refers_to_the_networks_own_tensors(randomise):
    network = freeze_batch_norm(randomise(backbones.resnet18(width=8)))
    images = torch.randn(1, 3, 64, 64)
    traced = torch.fx.symbolic_trace(network)
    extractor = create_feature_extractor(network, {"layer3": "c4"})
    network.bn1.running_mean.add_(1.0)
    traced.load_state_dict(network.state_dict(), strict=False)
    expected = network(images)
    for key, value in traced(images).items():
        assert torch.equal(value, expected[key])
    assert torch.equal(extractor(images)["c4"], expected["c4"])
