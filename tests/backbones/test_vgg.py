"""VGGs against torchvision's, on the same weights."""

import pytest
import torch
import torchvision

import backbones

# torchvision's published parameter counts
PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_same_names_shapes_and_number_of_parameters(name, count):
    with torch.device("meta"):
        ours = getattr(backbones, name)()
        theirs = torchvision.models.get_model(name, init_weights=False)
    assert sum(parameter.numel() for parameter in ours.parameters()) == count
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        # The layers named in torchvision's table: conv2_2, conv3_3, conv4_3 and conv5_3 with ReLU.
        ("vgg16", (8, 15, 22, 29)),
        # conv2_1, conv3_2, conv4_2 and conv5_2.
        ("vgg11", (4, 9, 14, 19)),
    ],
)
def test_logits_features_and_gradients_equal_torchvisions(name, ends):
    options = {"num_classes": 10, "init_weights": False}
    theirs = torchvision.models.get_model(name, **options).eval()
    with torch.device("meta"):
        ours = backbones.build(name, num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    images = torch.randn(1, 3, 64, 64)
    mine, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    ours_out, theirs_out = ours.logits(mine), theirs(other)
    assert (ours_out - theirs_out).abs().max() == 0.0
    (ours_grad,) = torch.autograd.grad(ours_out.sum(), mine)
    (theirs_grad,) = torch.autograd.grad(theirs_out.sum(), other)
    assert ours_grad.abs().max() > 0
    assert (ours_grad - theirs_grad).abs().max() == 0.0
    for feature, end in zip(ours(images).values(), ends, strict=True):
        assert (feature - theirs.features[: end + 1](images)).abs().max() == 0.0


@pytest.mark.parametrize(("width", "std"), [(64, 0.01), (16, 0.02)])
def test_fc7_starts_with_the_same_spread_of_outputs_at_any_width(width, std):
    with torch.device("meta"):
        network = backbones.vgg11(width=width)
    network.classifier[3].to_empty(device="cpu")
    network._initialise(width)
    weight = network.get_parameter("classifier.3.weight")
    assert weight.std().item() == pytest.approx(std, rel=0.01)


def test_dropout_is_the_constructors():
    network = backbones.vgg16(width=8, dropout=0.25)
    assert [network.classifier[i].p for i in (2, 5)] == [0.25, 0.25]


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_equals_torchvisions(training, randomise):
    theirs = randomise(torchvision.models.vgg16_bn(num_classes=10, init_weights=False, dropout=0.0))
    with torch.device("meta"):
        ours = backbones.vgg16_bn(num_classes=10, dropout=0.0)
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state, assign=True)
    theirs.train(training)
    ours.train(training)
    mine = torch.randn(2, 3, 32, 32, requires_grad=True)
    other = mine.detach().clone().requires_grad_()
    ours_out, theirs_out = ours.logits(mine), theirs(other)
    ours_out.sum().backward()
    theirs_out.sum().backward()
    assert (ours_out - theirs_out).abs().max() == 0.0
    assert (mine.grad - other.grad).abs().max() == 0.0


def test_batch_norm_folds(randomise):
    network = randomise(backbones.vgg19_bn(width=8, num_classes=10)).double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = [*network(images).values(), network.logits(images)]
    network.freeze(5)
    called = []
    for layer in network.modules():
        if isinstance(layer, backbones.FrozenBatchNorm2d):
            layer.register_forward_hook(lambda *_: called.append(1))
    for got, value in zip(
        [*network(images).values(), network.logits(images)], expected, strict=True
    ):
        torch.testing.assert_close(got, value, rtol=1e-12, atol=1e-12)
    assert not called
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
