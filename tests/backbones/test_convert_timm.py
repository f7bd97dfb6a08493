"""timm's networks against ours, on the same weights."""

import pytest
import torch

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, ResNet, Stem, load_weights
from backbones.convert import from_timm, to_timm

timm = pytest.importorskip("timm")

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
VGGS = ["vgg11", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
PLANS = {
    "vgg11": (8, "M", 16, "M", *[32] * 2, "M", *[64] * 2, "M", *[64] * 2, "M"),
    "vgg16": (8, 8, "M", 16, 16, "M", *[32] * 3, "M", *[64] * 3, "M", *[64] * 3, "M"),
    "vgg19": (8, 8, "M", 16, 16, "M", *[32] * 4, "M", *[64] * 4, "M", *[64] * 4, "M"),
}


def narrow_vgg(name, classes=5):
    """timm's own VGG at an eighth of the width."""
    from timm.layers import ClassifierHead
    from timm.models.vgg import VGG, ConvMlp

    norm = torch.nn.BatchNorm2d if name.endswith("_bn") else None
    with torch.device("meta"):  # its 4096 outputs are replaced
        model = VGG(list(PLANS[name.removesuffix("_bn")]), norm_layer=norm)
    model.to_empty(device="cpu")
    model.pre_logits, model.head = ConvMlp(64, 512), ClassifierHead(512, classes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def difference(ours, theirs, size):
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        got, expected = ours.eval().logits(images), theirs.eval()(images)
    assert expected.std() > 0
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", [*RESNETS, *VGGS])
def test_every_name_and_shape(name):
    with torch.device("meta"):
        ours, theirs = getattr(backbones, name)(), timm.create_model(name, pretrained=False)
    weights = from_timm(theirs.state_dict(), ours)
    assert {key: x.shape for key, x in weights.state.items()} == {
        key: x.shape for key, x in ours.state_dict().items() if "num_batches" not in key
    }
    assert weights.preprocessing == IMAGENET_RGB
    assert weights.stride_in_1x1 is (None if name in ("resnet18", "resnet34", *VGGS) else False)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_logits_both_ways(name, randomise):
    theirs = randomise(timm.create_model(name, pretrained=False, num_classes=10))
    ours = getattr(backbones, name)(num_classes=10)
    assert load_weights(ours, from_timm(theirs, ours)) == ()
    assert difference(ours, theirs, 64) < 1e-5
    other = randomise(getattr(backbones, name)(num_classes=10))
    theirs.load_state_dict(to_timm(other))
    assert difference(other, theirs, 64) < 1e-5


@pytest.mark.parametrize("name", VGGS)
def test_vgg_logits_both_ways(name, randomise):
    theirs = randomise(narrow_vgg(name))
    ours = getattr(backbones, name)(width=8, num_classes=5)
    assert load_weights(ours, from_timm(theirs, ours)) == ()
    assert difference(ours, theirs, 224) < 1e-5
    other = randomise(getattr(backbones, name)(width=8, num_classes=5))
    other.freeze(2)  # frozen norms have no counters, which timm's strict loading asks for
    theirs.load_state_dict(to_timm(other))
    assert difference(other, theirs, 64) < 1e-5


def test_a_file(tmp_path, randomise):
    theirs = randomise(timm.create_model("resnet18", pretrained=False, num_classes=10))
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = backbones.resnet18(num_classes=10)
    weights = from_timm(tmp_path / "resnet18.pth", ours)
    assert torch.equal(weights.state["fc.weight"], theirs.fc.weight)
    assert weights.preprocessing == IMAGENET_RGB


def test_a_models_own_means_are_carried():
    theirs = timm.create_model("resnet18", pretrained=False, num_classes=2)
    theirs.pretrained_cfg = {**theirs.pretrained_cfg, "mean": (0.5, 0.4, 0.3), "std": (1, 2, 3)}
    preprocessing = from_timm(theirs, backbones.resnet18(num_classes=2)).preprocessing
    assert preprocessing == ("rgb", 1 / 255, (0.5, 0.4, 0.3), (1, 2, 3))


def test_every_misfit_is_named_as_timm_names_it():
    network = backbones.vgg16(width=8, num_classes=5)
    state = to_timm(network)
    state["pre_logits.fc1.weight"] = torch.zeros(512, 64, 3, 3)
    del state["features.0.bias"]
    state["features.99.weight"] = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="timm") as error:
        from_timm(state, network)
    assert str(error.value).splitlines() == [
        "timm's weights do not fit vgg16:",
        "  missing: features.0.bias, expected (8,)",
        "  shape: pre_logits.fc1.weight, expected (512, 64, 7, 7), got (512, 64, 3, 3)",
        "  unexpected: features.99.weight, got (1, 2)",
    ]


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_another_head_is_for_load_weights_to_refuse(name):
    state = to_timm(getattr(backbones, name)(width=8, num_classes=7))
    network = getattr(backbones, name)(width=8, num_classes=5)
    weights = from_timm(state, network)
    with pytest.raises(ValueError, match=f"{network.head}.weight, expected"):
        load_weights(network, weights)
    assert len(load_weights(network, weights, fresh=[network.head])) == 2


def test_the_other_stride_is_refused_in_both_directions():
    network = backbones.resnet50(width=8, stride_in_1x1=True)
    with pytest.raises(ValueError, match="stride in the 3×3 convolution, got the first 1×1"):
        to_timm(network)
    state = to_timm(backbones.resnet50(width=8))
    with pytest.raises(ValueError, match="stride"):
        load_weights(network, from_timm(state, network))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            backbones.resnet18(width=8, preprocessing=CAFFE_BGR),
            "expected images as .*rgb.*got.*bgr",
        ),
        (backbones.resnet18(width=8, shortcut="A"), "shortcuts B"),
        (backbones.resnet18(width=8, shortcut="C"), "shortcuts B"),
        (backbones.plain18(width=8), "shortcuts B"),
        (backbones.cifar_resnet(20), "strides 4, 8, 16 and 32"),
        (
            ResNet(backbones.BasicBlock, (2, 2, 2, 2), width=8, stem=Stem(pool="ceil")),
            "pads by 1, got one that rounds up",
        ),
    ],
)
def test_networks_timm_would_run_differently_are_refused(network, reason):
    with pytest.raises(ValueError, match=reason):
        to_timm(network)


def test_another_epsilon_is_refused():
    network = backbones.resnet18(width=8)
    network.layer2[0].bn1.eps = 1e-3
    with pytest.raises(ValueError, match=r"layer2\.0\.bn1\.eps to be 1e-05, got 0.001"):
        to_timm(network)


def test_a_bias_of_conv1_folds_away(randomise):
    stem = Stem(bias=True)
    ours = randomise(ResNet(backbones.BasicBlock, (2, 2, 2, 2), num_classes=10, stem=stem))
    torch.nn.init.normal_(ours.conv1.bias)
    theirs = timm.create_model("resnet18", pretrained=False, num_classes=10)
    theirs.load_state_dict(to_timm(ours))
    assert difference(ours, theirs, 64) < 1e-5
    back = ResNet(backbones.BasicBlock, (2, 2, 2, 2), num_classes=10, stem=stem)
    load_weights(back, from_timm(theirs, back))
    assert (back.conv1.bias == 0).all()
    assert difference(back, theirs, 64) < 1e-5


def test_copies_are_given():
    network = backbones.resnet18(width=8)
    to_timm(network)["conv1.weight"].zero_()
    assert network.conv1.weight.abs().max() > 0
