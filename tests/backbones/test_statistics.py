"""Batch-norm statistics, against hand computations and torch's own averages, in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import backbones
from backbones import freeze_batch_norm
from backbones.statistics import estimate_statistics


def relative(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


def moments(x):
    """Population mean and variance per channel, by plain sums over NumPy's values."""
    values = x.numpy().transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
    return torch.from_numpy(values.mean(1)), torch.from_numpy(values.var(1))


def two_layers(**options):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.BatchNorm2d(6, **options),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 3),
        nn.BatchNorm2d(4, **options),
    ).double()


def images(*counts):
    """Batches that differ in size, mean and spread."""
    return [torch.randn(n, 3, 13, 15).double() * (1 + i) + 2 * i for i, n in enumerate(counts)]


def test_two_layers_by_hand(randomise):
    network, batches = randomise(two_layers()), images(4, 4, 3, 1)
    estimate_statistics(network, batches)
    conv1, norm1, _, conv2, norm2 = network
    with torch.no_grad():
        firsts = [conv1(x) for x in batches]
        seconds = []
        for y in firsts:
            mean, var = (z[:, None, None] for z in moments(y))
            scale, shift = norm1.weight[:, None, None], norm1.bias[:, None, None]
            normalised = (y - mean) / (var + norm1.eps).sqrt() * scale + shift
            seconds.append(conv2(normalised.clamp(min=0)))
    for norm, inputs in ((norm1, firsts), (norm2, seconds)):
        mean, var = moments(torch.cat(inputs))
        assert relative(norm.running_mean, mean) < 1e-12
        assert relative(norm.running_var, var) < 1e-12
        assert norm.num_batches_tracked == 4


def test_equal_batches_have_torchs_cumulative_means_and_their_variances_spread(randomise):
    network, batches = randomise(two_layers(momentum=None)), images(3, 3, 3)
    theirs = copy.deepcopy(network).train()
    for norm in (theirs[1], theirs[4]):
        norm.reset_running_stats()
    inputs = {1: [], 4: []}
    for i, seen in inputs.items():
        theirs[i].register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].clone()))
    with torch.no_grad():
        for x in batches:
            theirs(x)
    estimate_statistics(network, batches)
    for i, seen in inputs.items():
        assert relative(network[i].running_mean, theirs[i].running_mean) < 1e-12
        assert network[i].num_batches_tracked == theirs[i].num_batches_tracked
        # the law of total variance: within batches (torch's, unbiased there) and between them
        n = seen[0].numel() / seen[0].shape[1]
        within = theirs[i].running_var * (n - 1) / n
        between = torch.stack([moments(y)[0] for y in seen]).var(0, correction=0)
        assert relative(network[i].running_var, within + between) < 1e-12


def test_conv1_has_the_moments_of_the_whole_set_however_batched():
    network = backbones.resnet18(width=8)
    whole = torch.randn(10, 3, 33, 40) * 2 + 1
    with torch.no_grad():
        mean, var = moments(network.conv1.double()(whole.double()))
        network.conv1.float()
    for size in (10, 4):
        estimate_statistics(network, DataLoader(whole, batch_size=size))
        assert (network.bn1.running_mean - mean).abs().max() < 1e-6
        assert (network.bn1.running_var - var).abs().max() < 1e-6


def test_the_order_of_the_batches_does_not_matter():
    network = backbones.resnet18(width=8).double()
    batches = [torch.randn(n, 3, 33, 40, dtype=torch.float64) * n for n in (3, 1, 2)]
    estimate_statistics(network, batches)
    other = copy.deepcopy(network)
    estimate_statistics(other, reversed(batches))
    for key, value in network.named_buffers():
        assert relative(other.get_buffer(key).double(), value.double()) < 1e-12, key


@pytest.mark.parametrize("name", ["resnet50", "caffe_resnet50", "vgg16_bn", "cifar_resnet20"])
def test_after_one_batch_eval_mode_and_the_folded_network_repeat_training_mode(name, randomise):
    network = randomise(backbones.build(name, width=8)).double()
    batch = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    estimate_statistics(network, [batch])
    expected = copy.deepcopy(network).train()(batch)
    for same in (network, freeze_batch_norm(copy.deepcopy(network))):
        for key, value in same(batch).items():
            assert relative(value, expected[key]) < 1e-10, key


def test_a_bias_before_the_norm_folds_away(randomise):
    network = randomise(backbones.caffe_resnet50(width=8)).double()
    nn.init.normal_(network.conv1.bias)
    batches = [torch.randn(n, 3, 64, 64, dtype=torch.float64) for n in (2, 1)]
    estimate_statistics(network, batches)
    frozen = freeze_batch_norm(copy.deepcopy(network))
    assert relative(frozen.logits(batches[0]), network.logits(batches[0])) < 1e-12
    without = copy.deepcopy(network)
    without.conv1.bias = None
    without.bn1.running_mean -= network.conv1.bias.detach()
    assert relative(without.logits(batches[0]), network.logits(batches[0])) < 1e-12
    # and the statistics of the network without the bias are just those
    expected = without.bn1.running_mean.clone()
    estimate_statistics(without, batches)
    assert relative(without.bn1.running_mean, expected) < 1e-12
    assert relative(without.bn1.running_var, network.bn1.running_var) < 1e-12


def test_nothing_else_changes(randomise):
    network = randomise(backbones.vgg16_bn(width=4, num_classes=5))
    network.freeze(2)
    network.features[7].eval().momentum = 0.3
    network.features[14].train().momentum = None
    network.classifier.train()
    nn.init.constant_(network.get_parameter("classifier.6.bias"), 3.0)
    network.classifier[6].bias.grad = torch.ones(5)
    state = copy.deepcopy(network.state_dict())

    def settings():
        return [
            {key: value for key, value in layer.__dict__.items() if not key.startswith("_")}
            | {"hooks": len(layer._forward_pre_hooks)}
            for layer in network.modules()
        ], [(p.requires_grad, p.grad) for p in network.parameters()]

    before = settings()
    estimate_statistics(network, [torch.randn(2, 3, 32, 48)])
    assert settings() == before
    changed = {
        key for key, value in network.state_dict().items() if not torch.equal(value, state[key])
    }
    layers = network.named_modules()
    norms = {key for key, layer in layers if isinstance(layer, nn.BatchNorm2d)}
    names = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{norm}.{name}" for norm in norms for name in names}
    assert len(norms) == 9  # of conv3_1 … conv5_3; the others are frozen


def test_a_layer_used_twice_counts_both_inputs():
    norm = nn.BatchNorm2d(3).double()
    network = nn.Sequential(norm, nn.Conv2d(3, 3, 3).double(), norm)
    (x,) = images(4)
    with torch.no_grad():
        mean, var = (z[:, None, None] for z in moments(x))
        second = network[1]((x - mean) / (var + norm.eps).sqrt())
    estimate_statistics(network, [x])
    count = second.numel() / x.numel()
    expected = (moments(x)[0] + count * moments(second)[0]) / (1 + count)
    assert relative(norm.running_mean, expected) < 1e-12
    assert norm.num_batches_tracked == 1


def test_synchronised_norms_are_norms():
    network, batches = two_layers(), images(2, 3)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    estimate_statistics(network, batches)
    estimate_statistics(other, batches)
    assert all(map(torch.equal, network.buffers(), other.buffers()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_activations_that_are_not_finite_name_the_first_layer(value):
    network = backbones.resnet18(width=8).eval()
    network.layer2[1].conv1.weight.data[0, 0, 0, 0] = value
    state = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=r"finite activations, got .* before layer2\.1\.bn1$"):
        estimate_statistics(network, [torch.randn(2, 3, 64, 64)])
    for key, buffer in network.named_buffers():
        assert torch.equal(buffer, state[key]), key
    assert not any(layer.training or layer._forward_pre_hooks for layer in network.modules())
    assert network.bn1.track_running_stats


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        estimate_statistics(backbones.resnet18(width=8), [])


def test_no_norms_are_refused():
    frozen = freeze_batch_norm(backbones.resnet18(width=8))
    with pytest.raises(ValueError, match="not frozen; got none"):
        estimate_statistics(frozen, [torch.randn(1, 3, 64, 64)])


def test_a_norm_that_is_not_reached_is_refused():
    network = two_layers()
    network[1].add_module("idle", nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match=r"none did 1\.idle"):
        estimate_statistics(network, images(2))
    assert (network[1].running_mean == 0).all()
