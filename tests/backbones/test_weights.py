import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, VGG16_Weights

import backbones
from backbones import IMAGENET_RGB, load_weights


def equal(network, state):
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.fixture
def state(randomise):
    return randomise(backbones.resnet18(width=8, num_classes=5)).state_dict()


@pytest.fixture
def network():
    return backbones.resnet18(width=8, num_classes=5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_either_kind_loads(suffix, state, network, tmp_path):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(state), path)
    assert load_weights(network, path) == ()
    assert equal(network, state)
    assert load_weights(network, str(path)) == ()


def test_counters_may_be_absent_or_left_over(state, network, tmp_path):
    torch.save(state, tmp_path / "with.pth")
    without = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(without, tmp_path / "without.pth")
    load_weights(network, tmp_path / "without.pth")
    assert equal(network, state)
    network.freeze(5)
    assert load_weights(network, tmp_path / "with.pth") == ()


def test_every_misfit_is_named_and_nothing_is_loaded(state, network, tmp_path):
    path = tmp_path / "weights.pth"
    del state["layer1.0.conv1.weight"]
    state["layer9.weight"] = torch.zeros(3)
    state["layer2.0.bn1.bias"] = torch.zeros(7)
    state["layer3.0.bn1.weight"][0] = float("nan")
    torch.save(state, path)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit resnet18") as error:
        load_weights(network, path)
    assert str(error.value).splitlines() == [
        f"{path} does not fit resnet18:",
        "  missing: layer1.0.conv1.weight, expected (8, 8, 3, 3)",
        "  shape: layer2.0.bn1.bias, expected (16,), got (7,)",
        "  non-finite: layer3.0.bn1.weight, expected numbers, got NaN or infinity",
        "  unexpected: layer9.weight, got (3,)",
    ]
    assert equal(network, before)


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("vgg16", "classifier.6")])
@pytest.mark.parametrize("absent", [True, False])
def test_a_fresh_head_may_be_absent_or_of_another_shape(name, head, absent, tmp_path):
    path = tmp_path / "weights.pth"
    state = getattr(backbones, name)(width=4, num_classes=7).state_dict()
    if absent:
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    torch.save(dict(state), path)
    network = getattr(backbones, name)(width=4, num_classes=5)
    own = network.get_submodule(head).weight.clone()
    assert load_weights(network, path, fresh=[head]) == (f"{head}.weight", f"{head}.bias")
    assert torch.equal(network.get_submodule(head).weight, own)
    assert all(
        torch.equal(value, state[key])
        for key, value in network.state_dict().items()
        if not key.startswith(head)
    )
    with pytest.raises(ValueError, match=f"{head}.weight, expected"):
        load_weights(network, path)


def test_only_the_head_may_have_another_shape(state, network, tmp_path):
    state["layer4.0.conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"shape: layer4.0.conv1.weight"):
        load_weights(network, tmp_path / "weights.pth", fresh=["layer4"])


def test_a_fresh_prefix_is_a_layers_whole_name(state, network, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="resnet18 has no layer 'layer'"):
        load_weights(network, tmp_path / "weights.pth", fresh=["layer"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_and_absent_files_are_named(suffix, network, tmp_path):
    path = tmp_path / f"broken{suffix}"
    with pytest.raises(OSError, match="broken"):
        load_weights(network, path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=rf"broken{suffix}: not readable"):
        load_weights(network, path)


def test_files_are_data_never_code(network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Path("anything")}, path)
    with pytest.raises(ValueError, match=r"not readable as \.pth"):
        load_weights(network, path)


def test_a_checkpoint_around_a_state_dict_is_refused(state, network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": dict(state), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"expected a state dict.*\['state_dict', 'epoch'\]"):
        load_weights(network, path)


def test_weights_by_name_come_checked_and_with_their_preprocessing(monkeypatch):
    published = backbones.vgg16(width=8).state_dict()
    for name in published:
        if name.startswith("classifier"):
            published[name].fill_(torch.nan)  # as in torchvision's IMAGENET1K_FEATURES

    asked = []

    def download(self, *_, **options):
        asked.append((self, options["check_hash"]))
        return published

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", download)
    network = backbones.vgg16(width=8)
    with pytest.raises(ValueError, match=r"non-finite: classifier.0.weight"):
        load_weights(network, "IMAGENET1K_FEATURES")
    assert network.preprocessing == IMAGENET_RGB
    kept = load_weights(network, "IMAGENET1K_FEATURES", fresh=["classifier"])
    assert all(name.startswith("classifier.") for name in kept)
    assert torch.equal(network.features[0].weight, published["features.0.weight"])
    # torchvision's documentation: the original input scale, means subtracted, no deviation.
    assert network.preprocessing.std == pytest.approx((1 / 255,) * 3)
    assert asked == [(VGG16_Weights.IMAGENET1K_FEATURES, True)] * 2


def test_a_wrong_name_lists_the_right_ones(network):
    first, second, *_ = ResNet50_Weights.__members__
    with torch.device("meta"):
        resnet50 = backbones.resnet50()
    with pytest.raises(ValueError, match=rf"{first}.*{second}.*got 'IMAGENET'"):
        load_weights(resnet50, "IMAGENET")
    network.architecture = None
    with pytest.raises(ValueError, match="torchvision has no such network"):
        load_weights(network, "IMAGENET1K_V1")


def test_torchvisions_weights_are_refused_by_the_other_stride_position():
    with torch.device("meta"):
        network = backbones.resnet50(stride_in_1x1=True)
    with pytest.raises(ValueError, match="stride in the 3×3"):
        load_weights(network, "IMAGENET1K_V1")


@pytest.mark.skipif("RESDET_DATA" not in os.environ, reason="needs RESDET_DATA")
def test_the_real_file_without_layer4():
    path = Path(os.environ["RESDET_DATA"]) / "weights/resnet18_imagenet_folded_no_layer4.pth"
    network = backbones.resnet18()
    with pytest.raises(ValueError, match=r"missing: layer4\.0\.conv1\.weight") as error:
        load_weights(network, path)
    assert "unexpected" not in str(error.value)
    kept = load_weights(network, path, fresh=["layer4"])
    assert {name.rsplit(".", 1)[0] for name in kept} == {
        f"layer4.{block}.{layer}" for block in (0, 1) for layer in ("conv1", "bn1", "conv2", "bn2")
    }
    # Only the norms' biases are left: their scales went into the convolutions.
    x = torch.randn(1, 64, 4, 4)
    norm = network.eval().bn1
    torch.testing.assert_close(norm(x), x + norm.bias[:, None, None])
