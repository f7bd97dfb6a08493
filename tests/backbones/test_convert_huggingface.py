"""transformers' ResNets against ours, on the same weights."""

import pytest
import torch

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, load_weights
from backbones.convert import from_huggingface, to_huggingface

transformers = pytest.importorskip("transformers")

BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
# microsoft/resnet-18 … 152: hidden_sizes, depths and layer_type of their config.json
PUBLISHED = {
    "resnet18": (BASIC, (2, 2, 2, 2), "basic"),
    "resnet34": (BASIC, (3, 4, 6, 3), "basic"),
    "resnet50": (BOTTLENECK, (3, 4, 6, 3), "bottleneck"),
    "resnet101": (BOTTLENECK, (3, 4, 23, 3), "bottleneck"),
    "resnet152": (BOTTLENECK, (3, 8, 36, 3), "bottleneck"),
}


def theirs(name, shrink=8, **options):
    widths, depths, kind = PUBLISHED[name]
    config = transformers.ResNetConfig(
        embedding_size=64 // shrink,
        hidden_sizes=[width // shrink for width in widths],
        depths=list(depths),
        layer_type=kind,
        num_labels=5,
        **options,
    )
    return transformers.ResNetForImageClassification(config)


def ours(name, **options):
    return getattr(backbones, name)(width=8, num_classes=5, **options)


def difference(network, model):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got, expected = network.eval().logits(images), model.eval()(images).logits
    assert expected.std() > 0
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_and_shape(name):
    with torch.device("meta"):
        network, model = getattr(backbones, name)(num_classes=5), theirs(name, shrink=1)
    weights = from_huggingface(model, network)
    assert {key: x.shape for key, x in weights.state.items()} == {
        key: x.shape for key, x in network.state_dict().items() if "num_batches" not in key
    }
    assert weights.preprocessing == IMAGENET_RGB
    assert weights.stride_in_1x1 is (False if PUBLISHED[name][2] == "bottleneck" else None)


@pytest.mark.parametrize(
    ("name", "stride_in_1x1"),
    [("resnet18", False), ("resnet50", False), ("resnet50", True), ("resnet101", True)],
)
def test_logits_both_ways(name, stride_in_1x1, randomise):
    model = randomise(theirs(name, downsample_in_bottleneck=stride_in_1x1))
    network = ours(name, stride_in_1x1=stride_in_1x1)
    assert load_weights(network, from_huggingface(model, network)) == ()
    assert difference(network, model) < 1e-5
    other = randomise(ours(name, stride_in_1x1=stride_in_1x1))
    other.freeze(2)
    made = to_huggingface(other)
    assert made.config.downsample_in_bottleneck is stride_in_1x1
    assert difference(other, made) < 1e-5


def test_the_other_stride_is_refused():
    network = ours("resnet50")
    model = theirs("resnet50", downsample_in_bottleneck=True)
    weights = from_huggingface(model, network)
    assert weights.stride_in_1x1 is True
    with pytest.raises(ValueError, match="stride"):
        load_weights(network, weights)
    # A state dict does not say, and there is no difference to see.
    assert from_huggingface(model.state_dict(), network).stride_in_1x1 is None


def test_a_model_without_a_classifier():
    network, model = ours("resnet18"), theirs("resnet18")
    weights = from_huggingface(model.resnet, network)
    assert load_weights(network, weights, fresh=["fc"]) == ("fc.weight", "fc.bias")
    expected = model.resnet.embedder.embedder.convolution.weight
    assert torch.equal(network.conv1.weight, expected)


def test_every_misfit_is_named_as_transformers_names_it():
    state = theirs("resnet18").state_dict()
    del state["resnet.encoder.stages.1.layers.0.shortcut.convolution.weight"]
    state["resnet.embedder.embedder.normalization.bias"] = torch.zeros(3)
    state["resnet.pooler.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="transformers") as error:
        from_huggingface(state, ours("resnet18"))
    assert str(error.value).splitlines() == [
        "transformers' weights do not fit resnet18:",
        "  shape: resnet.embedder.embedder.normalization.bias, expected (8,), got (3,)",
        "  missing: resnet.encoder.stages.1.layers.0.shortcut.convolution.weight, "
        "expected (16, 8, 1, 1)",
        "  unexpected: resnet.pooler.weight, got (1,)",
    ]


@pytest.mark.parametrize("option", [{"hidden_act": "gelu"}, {"downsample_in_first_stage": True}])
def test_another_function_under_the_same_names_is_refused(option):
    with pytest.raises(ValueError, match=f"got .*{next(iter(option))}"):
        from_huggingface(theirs("resnet18", **option), ours("resnet18"))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (backbones.vgg16(width=4), "expected a ResNet.*got vgg16"),
        (backbones.plain18(width=8), "shortcuts B"),
        (backbones.resnet18(width=8, preprocessing=CAFFE_BGR), "expected images as"),
        (backbones.caffe_resnet50(width=8), "rounds up"),
    ],
)
def test_other_networks_are_refused(network, reason):
    with pytest.raises(ValueError, match=reason):
        to_huggingface(network)


def test_what_is_saved_is_read_back(randomise, tmp_path):
    network = randomise(ours("resnet50"))
    to_huggingface(network).save_pretrained(tmp_path)
    model = transformers.ResNetForImageClassification.from_pretrained(tmp_path)
    assert difference(network, model) < 1e-5


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_saved_folder(stride_in_1x1, randomise, tmp_path):
    model = randomise(theirs("resnet50", downsample_in_bottleneck=stride_in_1x1))
    model.save_pretrained(tmp_path)
    network = ours("resnet50", stride_in_1x1=stride_in_1x1)
    weights = from_huggingface(tmp_path, network)
    assert weights.stride_in_1x1 is stride_in_1x1
    load_weights(network, weights)
    assert difference(network, model) < 1e-5


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_broken_configuration_is_named(config, tmp_path):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json: "):
        from_huggingface(tmp_path, ours("resnet18"))
    with pytest.raises(FileNotFoundError, match=r"none"):
        from_huggingface(tmp_path / "none", ours("resnet18"))
