import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet50_Weights, VGG16_Weights

import backbones
from backbones import (
    CAFFE_BGR,
    IMAGENET_RGB,
    Weights,
    download,
    load_weights,
    read_weights,
    save_weights,
    weight_files,
    weights,
)


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


def test_a_counter_of_another_shape_leaves_all_as_it_was(state, network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state["bn1.num_batches_tracked"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"shape: bn1\.num_batches_tracked, expected \(\), got"):
        load_weights(network, Weights(state))
    assert equal(network, before)


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
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="broken"):
        load_weights(network, path)


@pytest.mark.parametrize("kept", [0, 4, 0.5, 0.999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_named(suffix, kept, state, network, tmp_path):
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(state), path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"cut{suffix}: not readable as \{suffix} weights"):
        load_weights(network, path)


def test_files_are_data_never_code(network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": Path("anything")}, path)
    with pytest.raises(ValueError, match=r"not readable as \.pth") as error:
        load_weights(network, path)
    assert "weights_only" not in str(error.value)  # torch advises to turn it off


def test_names_in_safetensors_may_be_wrapped_too(state, network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": value for name, value in state.items()}, path)
    assert load_weights(network, path) == ()
    assert equal(network, state)
    assert network.preprocessing == IMAGENET_RGB


def test_names_are_texts(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"expected a state dict.*got \[0\]"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_common_wrappings_are_taken_off(wrapper, state, network, tmp_path):
    path = tmp_path / "weights.pth"
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({wrapper: parallel, "epoch": 3}, path)
    assert load_weights(network, path) == ()
    assert equal(network, state)


def test_another_checkpoint_around_a_state_dict_is_refused(state, network, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"ema": dict(state), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"expected a state dict.*\['ema', 'epoch'\]"):
        load_weights(network, path)


def test_a_pickle_is_refused(network, tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(b"\x80\x02}.")
    with pytest.raises(ValueError, match=r"expected a file that ends in.*backbones\.convert"):
        read_weights(tmp_path / "R-50.pkl")
    with pytest.raises(ValueError, match=r"backbones\.convert"):
        load_weights(network, str(tmp_path / "R-50.pkl"))


def test_saved_weights_say_what_they_expect(randomise, tmp_path):
    path = tmp_path / "weights.safetensors"
    network = randomise(backbones.caffe_resnet50(width=8, num_classes=5))
    network.freeze(2)
    network.to(memory_format=torch.channels_last)
    save_weights(network, path)
    found = read_weights(path)
    assert found.preprocessing == backbones.CAFFE_BGR
    assert found.stride_in_1x1 is True
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    other = backbones.caffe_resnet50(width=8, num_classes=5, preprocessing=IMAGENET_RGB)
    assert load_weights(other, path) == ()
    assert other.preprocessing == backbones.CAFFE_BGR
    other.freeze(2)
    assert equal(other, network.state_dict())
    elsewhere = backbones.resnet50(width=8, num_classes=5)
    with pytest.raises(ValueError, match=r"stride in the first 1×1 convolution.*in the 3×3"):
        load_weights(elsewhere, path)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_weights(network, tmp_path / "weights.pth")
    with pytest.raises(OSError, match="absent"):
        save_weights(network, tmp_path / "absent/weights.safetensors")


def test_a_failed_save_leaves_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights(network, path)
    before = path.read_bytes()

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(weight_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(network.eval(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "notes",
    [
        '{"preprocessing": [1, 2]}',
        '{"preprocessing": ["rbg", 1, [0, 0, 0], [1, 1, 1]]}',
        '{"preprocessing": ["rgb", NaN, [0, 0, 0], [1, 1, 1]]}',
        '{"preprocessing": ["rgb", 1, [0, 0], [1, 1]]}',
        '{"preprocessing": ["rgb", 1, [0, 0, 0], [1, 0, 1]]}',
        '{"preprocessing": ["rgb", 1, ["0", 0, 0], [1, 1, 1]]}',
        '{"stride_in_1x1": "yes"}',
    ],
)
def test_broken_notes_are_named(notes, state, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(dict(state), path, {"resdet": notes})
    with pytest.raises(ValueError, match=r"weights\.safetensors: expected save_weights' metadata"):
        read_weights(path)


def test_notes_that_are_no_object_are_named(state, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(dict(state), path, {"resdet": "[]"})
    with pytest.raises(ValueError, match=r"weights\.safetensors: not readable"):
        read_weights(path)


def test_a_plain_network_takes_its_residual_twins_weights(randomise):
    twin = randomise(backbones.resnet18(width=8, num_classes=5))
    plain = backbones.plain18(width=8, num_classes=5)
    source = Weights(twin.state_dict())
    with pytest.raises(ValueError, match=r"unexpected: layer2\.0\.downsample\.0\.weight"):
        load_weights(plain, source)
    assert load_weights(plain, source, unused=["*.downsample.*"]) == ()
    assert equal(plain, twin.state_dict())
    with pytest.raises(ValueError, match=r"unused: the weights has no name like 'conv9\.\*'"):
        load_weights(plain, source, unused=["conv9.*"])


def test_weights_by_name_come_checked_and_with_their_preprocessing(monkeypatch, tmp_path):
    published = backbones.vgg16(width=8).state_dict()
    for name in published:
        if name.startswith("classifier"):
            published[name].fill_(torch.nan)  # as in torchvision's IMAGENET1K_FEATURES
    torch.save(dict(published), tmp_path / "features.pth")
    asked = []
    monkeypatch.setattr(
        weights, "fetch", lambda url: asked.append(url) or tmp_path / "features.pth"
    )
    network = backbones.vgg16(width=8)
    with pytest.raises(ValueError, match=r"non-finite: classifier.0.weight"):
        load_weights(network, "IMAGENET1K_FEATURES")
    assert network.preprocessing == IMAGENET_RGB
    kept = load_weights(network, "IMAGENET1K_FEATURES", fresh=["classifier"])
    assert all(name.startswith("classifier.") for name in kept)
    assert torch.equal(network.features[0].weight, published["features.0.weight"])
    # torchvision's documentation: the original input scale, means subtracted, no deviation.
    scale, shift = network.preprocessing.affine()
    torch.testing.assert_close(scale, torch.ones(3))
    torch.testing.assert_close(shift, -torch.tensor([123.0, 117, 104]), rtol=0, atol=2e-3)
    assert asked == [VGG16_Weights.IMAGENET1K_FEATURES.url] * 2


def test_what_weights_expect_is_known_without_loading_them(monkeypatch, state, network, tmp_path):
    monkeypatch.setattr(weights, "fetch", lambda url: tmp_path / url.rsplit("/", 1)[1])
    torch.save(dict(state), tmp_path / "mute.pth")
    caffe = backbones.resnet18(width=8, preprocessing=CAFFE_BGR)
    save_weights(caffe, tmp_path / "caffe.safetensors")
    for source, expected in [
        (tmp_path / "mute.pth", IMAGENET_RGB),
        (str(tmp_path / "caffe.safetensors"), CAFFE_BGR),
        ("https://example.org/caffe.safetensors", CAFFE_BGR),
        ("IMAGENET1K_V1", IMAGENET_RGB),
    ]:
        assert weights.expected_preprocessing(network, source) == expected
    with pytest.raises(ValueError, match=r"one of \['IMAGENET1K_V1'.* got 'V1'"):
        weights.expected_preprocessing(network, "V1")
    assert network.preprocessing == IMAGENET_RGB
    assert not equal(network, state)


def test_an_address_is_fetched(monkeypatch, state, network, tmp_path):
    torch.save(dict(state), tmp_path / "mine.pth")
    monkeypatch.setattr(weights, "fetch", lambda url: tmp_path / url.rsplit("/", 1)[1])
    assert load_weights(network, "https://example.org/mine.pth") == ()
    assert equal(network, state)


@pytest.mark.parametrize("entry", [*ResNet50_Weights, *VGG16_Weights])
def test_torchvisions_addresses_say_their_hash(entry):
    _, name, digits = download._parse(entry.url, None)
    assert name.endswith(f"-{digits}.pth")
    assert len(digits) == 8


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
    with pytest.raises(ValueError, match=r"stride in the 3×3 convolution.*in the first 1×1"):
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
