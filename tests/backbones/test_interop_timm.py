"""Our networks by timm's own functions, and against timm's networks."""

import sys

import pytest
import torch
from torchvision.models import resnet18, resnet50

import backbones
from backbones import CAFFE_BGR, save_weights
from backbones.catalogue import IMAGENET
from backbones.interop.timm import register

timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _registered():
    register()  # again and again: it must not warn


def create(name, **options):
    return timm.create_model(f"resdet_{name}", **{"width": 8, **options})


def order(network, images):
    """What ``TimmModel`` does to RGB images."""
    return images.flip(1) if network.preprocessing.order == "bgr" else images


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", IMAGENET)
def test_features_are_the_networks_own(name, frozen, randomise):
    model = create(name, features_only=True, out_indices=(1, 2, 3, 4))
    network = randomise(model.model.network)
    if frozen:
        network.freeze(2)
    images = torch.randn(1, 3, 64, 96)
    maps, expected = model(images), network(order(network, images)).values()
    for got, value in zip(maps, expected, strict=True):
        assert torch.equal(got, value)
    assert [x.shape[1] for x in maps] == model.feature_info.channels()
    assert [64 // x.shape[2] for x in maps] == model.feature_info.reduction()


@pytest.mark.parametrize("feature_cls", ["getter", "hook", "fx"])
@pytest.mark.parametrize("name", ["resnet18", "caffe_resnet50", "vgg16", "vgg16_bn"])
def test_every_way_of_timm_gives_the_same_maps(name, feature_cls):
    options = {"features_only": True, "out_indices": (0, 1, 3)}
    one, other = create(name, **options), create(name, feature_cls=feature_cls, **options)
    wanted = {key.split("network.")[-1]: x for key, x in one.state_dict().items()}
    state = {key: wanted.get(key.split("network.")[-1], x) for key, x in other.state_dict().items()}
    other.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    for got, expected in zip(other.eval()(images), one.eval()(images), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    layers = [f"network.{x}" for x in (("relu", "layer1", "layer3"))]
    if name == "vgg16":  # the ReLUs of conv1_2, conv2_2 and conv4_3
        layers = ["network.features.3", "network.features.8", "network.features.22"]
    elif name == "vgg16_bn":
        layers = ["network.features.5", "network.features.12", "network.features.32"]
    assert one.feature_info.module_name() == layers


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_equal_timms_own(name, randomise):
    theirs = randomise(timm.create_model(name, features_only=True))
    ours = timm.create_model(f"resdet_{name}", features_only=True).eval()
    ours.model.network.load_state_dict(theirs.state_dict())
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    images = torch.randn(1, 3, 70, 97)
    for got, expected in zip(ours(images), theirs(images), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_features_of_vgg_are_counted_as_timms():
    from timm.models import FeatureListNet
    from timm.models.vgg import VGG

    plan = [8, 8, "M", 16, 16, "M", *[32] * 3, "M", *[64] * 3, "M", *[64] * 3, "M"]
    with torch.device("meta"):  # its head, which is dropped, is as wide as ever
        theirs = FeatureListNet(VGG(plan), range(6), flatten_sequential=True)
    theirs.to_empty(device="cpu")
    ours = create("vgg16", features_only=True, out_indices=range(6)).eval()
    state = ours.model.network.features.state_dict()
    theirs.load_state_dict({f"features_{key}": x for key, x in state.items()})
    assert ours.feature_info.channels() == theirs.feature_info.channels()
    assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    images = torch.randn(1, 3, 70, 97)
    for got, expected in zip(ours(images), theirs.eval()(images), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "caffe_resnet50", "plain18", "vgg16_bn"])
def test_a_training_step(name):
    model = create(name, features_only=True, out_indices=(1, 2, 3))
    network = model.model.network
    network.freeze(2)
    sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64))).backward()
    frozen = [f"{layer}." for stage in network.stages[:2] for layer in stage]
    for key, parameter in network.named_parameters():
        if key.startswith(tuple(frozen)):
            assert parameter.grad is None, key
        else:  # c5 and the head are gone, so every other layer is used
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key
    assert any(key.startswith(network.stages[2]) for key, _ in network.named_parameters())


@pytest.mark.parametrize("name", ["resnet18", "caffe_resnet50", "vgg16"])
def test_the_classifier(name, randomise):
    model = randomise(create(name, num_classes=5))
    network, images = model.network, torch.randn(2, 3, 64, 64)
    scores = model(images)
    assert torch.equal(scores, network.logits(order(network, images)))
    features = model.forward_features(images)
    assert features.shape[1] == model.num_features
    vector = model.forward_head(features, pre_logits=True)
    assert vector.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(vector), scores)
    last, maps = model.forward_intermediates(images, 2)
    assert torch.equal(last, features)
    assert len(maps) == 2
    assert torch.equal(maps[1], features)
    early = model.forward_intermediates(images, [0, -3], stop_early=True, intermediates_only=True)
    every = model.forward_intermediates(images, intermediates_only=True)
    assert torch.equal(early[0], every[0])
    assert torch.equal(early[1], every[-3])
    assert len(early) == 2


def test_a_fresh_classifier_or_none():
    model = create("vgg16", num_classes=5).eval()
    images = torch.randn(1, 3, 32, 32)
    model.reset_classifier(7)
    assert model(images).shape == (1, 7)
    assert (model.num_classes, model.get_classifier().out_features) == (7, 7)
    model.reset_classifier(0)
    assert torch.equal(model(images), model.forward_head(model.forward_features(images), True))
    bare = create("vgg16", num_classes=0, global_pool="")
    assert (bare.num_classes, bare(images).shape) == (0, (1, 64, 1, 1))
    with pytest.raises(ValueError, match="got 'max' with num_classes=7"):
        model.reset_classifier(7, "max")
    with pytest.raises(ValueError, match="got '' with num_classes=7"):
        model.reset_classifier(7, "")


def test_images_arrive_as_the_network_expects_them():
    model = create("caffe_resnet50")
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 224, 224)
    assert timm.get_pretrained_cfg("resdet_caffe_resnet50").mean == data["mean"]
    pixels = torch.randint(0, 256, (3, 8, 8)).float()
    mean, std = (torch.tensor(data[key])[:, None, None] for key in ("mean", "std"))
    caffe = pixels.flip(0) - torch.tensor(CAFFE_BGR.mean)[:, None, None]
    torch.testing.assert_close(order(model.network, ((pixels / 255 - mean) / std)[None])[0], caffe)
    assert model.default_cfg is model.pretrained_cfg
    assert create("resnet18").pretrained_cfg["mean"] == (0.485, 0.456, 0.406)


def test_published_weights(monkeypatch, tmp_path, randomise):
    theirs = randomise(resnet18())
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    asked = []
    monkeypatch.setattr(
        "backbones.weights.fetch", lambda url: asked.append(url) or tmp_path / "weights.pth"
    )
    images = torch.randn(1, 3, 64, 64)
    model = timm.create_model("resdet_resnet18", pretrained=True).eval()
    assert torch.equal(model(images), theirs(images))
    model = timm.create_model("resdet_resnet18.IMAGENET1K_V1", pretrained=True, num_classes=3)
    assert torch.equal(model.network.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    assert model(images).shape == (1, 3)
    assert asked == [timm.get_pretrained_cfg("resdet_resnet18").url] * 2
    assert "resdet_resnet50.IMAGENET1K_V2" in timm.list_models("resdet_*", pretrained=True)
    torch.save(randomise(resnet50()).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="trained with the stride in the 3×3"):
        timm.create_model("resdet_resnet50.IMAGENET1K_V2", pretrained=True, stride_in_1x1=True)


def test_a_file_of_weights(tmp_path, randomise):
    network = randomise(backbones.plain18(width=8, preprocessing=CAFFE_BGR))
    save_weights(network, tmp_path / "plain18.safetensors")
    overlay = {"file": str(tmp_path / "plain18.safetensors")}
    model = create(
        "plain18", pretrained=True, features_only=True, pretrained_cfg_overlay=overlay
    ).eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(images)[-1], network(images.flip(1))["c5"])
    assert model.pretrained_cfg["mean"] == create("caffe_resnet50").pretrained_cfg["mean"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"in_chans": 1}, "resdet_resnet18 reads images of 3 channels, got in_chans=1"),
        ("plain18", {"pretrained": True}, "resdet_plain18: expected pretrained=False, a tag"),
        ("resnet18", {"features_only": True, "out_indices": (5,)}, r"from 0 to 4, got \[5\]"),
    ],
)
def test_what_there_is_not_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ImportError, match=r"pip install 'resdet\[interop\]'"):
        register()
