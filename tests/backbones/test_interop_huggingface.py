"""Our networks inside transformers' detectors."""

import pytest
import torch
from torch import nn

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, Weights
from backbones.convert import to_huggingface

transformers = pytest.importorskip("transformers")
huggingface = pytest.importorskip("backbones.interop.huggingface")

BackboneConfig = huggingface.BackboneConfig
HuggingFaceBackbone = huggingface.HuggingFaceBackbone
PYRAMID = ["c2", "c3", "c4", "c5"]
ATTENTION = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
}
# name: features read, the configuration's other values
DETECTORS = {
    "Detr": (["c5"], ATTENTION),
    "ConditionalDetr": (["c5"], ATTENTION),
    "DeformableDetr": (PYRAMID[1:], ATTENTION | {"encoder_n_points": 2, "decoder_layers": 2}),
    "RTDetr": (
        PYRAMID[1:],
        ATTENTION
        | {
            "encoder_hidden_dim": 32,
            "encoder_in_channels": [16, 32, 64],
            "decoder_in_channels": [32, 32, 32],
            "decoder_n_points": 2,
            "num_denoising": 2,
        },
    ),
    "Mask2Former": (
        PYRAMID,
        {
            "feature_size": 32,
            "mask_feature_size": 32,
            "hidden_dim": 32,
            "encoder_feedforward_dim": 32,
            "dim_feedforward": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_attention_heads": 2,
            "num_queries": 5,
            "train_num_points": 16,
        },
    ),
}


def backbone_config(name="resnet18", features=None, **values):
    options = values.pop("options", {})
    return BackboneConfig(name, {"width": 8, **options}, out_features=features, **values)


def detector(name, config=None, **values):
    features, others = DETECTORS[name]
    config = config or backbone_config(features=features, **values)
    task = "UniversalSegmentation" if name == "Mask2Former" else "ObjectDetection"
    model = getattr(transformers, f"{name}For{task}")
    settings = getattr(transformers, f"{name}Config")(
        backbone_config=config, num_labels=3, **others
    )
    return model(settings)


def backbone(model):
    return next(part for part in model.modules() if isinstance(part, HuggingFaceBackbone))


def targets(name):
    labels = torch.tensor([0, 2])
    if name == "Mask2Former":
        masks = torch.zeros(2, 64, 96)
        masks[0, :32], masks[1, 32:, :48] = 1, 1
        return {"mask_labels": [masks, masks], "class_labels": [labels, labels]}
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.4], [0.6, 0.5, 0.3, 0.3]])
    return {"labels": [{"class_labels": labels, "boxes": boxes}] * 2}


def as_weights(network):
    return Weights(network.state_dict(), network.preprocessing, network.stride_in_1x1)


def largest_difference(got, expected):
    return max((a - b).abs().max().item() for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "features", "strides"),
    [
        ("resnet50", {"stride_in_1x1": True}, PYRAMID, (4, 8, 16, 32)),
        ("resnet18", {"shortcut": "A"}, ["c2", "c4"], (4, 16)),
        ("vgg16_bn", {}, ["c4"], (8,)),
        ("plain18", {}, None, (32,)),
        ("cifar_resnet20", {}, None, (4,)),
    ],
)
def test_auto_backbone_gives_the_networks_own_features(name, options, features, strides):
    config = backbone_config(name, features, options=options, frozen_stages=0)
    torch.manual_seed(1)
    network = config.build().eval()
    torch.manual_seed(1)
    model = transformers.AutoBackbone.from_config(config).eval()
    images = torch.randn(2, 3, 64, 96)
    expected = network(images)
    got = model(images)
    names = features or [network.feature_info[-1].name]
    assert model.out_features == names
    assert model.out_indices == [list(expected).index(name) for name in names]
    assert model.channels == [x.shape[1] for x in got.feature_maps]
    assert [(64 // x.shape[2], 96 // x.shape[3]) for x in got.feature_maps] == [
        (stride, stride) for stride in strides
    ]
    assert largest_difference(got.feature_maps, [expected[name] for name in names]) == 0
    assert "hidden_states" not in got
    deepest = list(expected).index(names[-1]) + 1
    whole = model(images, output_hidden_states=True).hidden_states
    assert largest_difference(whole, list(expected.values())[:deepest]) == 0
    assert model(images, return_dict=False)[0][0].shape == got.feature_maps[0].shape


def test_features_as_transformers_own_resnet(randomise, tmp_path):
    network = randomise(backbones.resnet50(width=8))
    to_huggingface(network).save_pretrained(tmp_path)
    theirs = transformers.ResNetBackbone.from_pretrained(
        tmp_path, out_features=["stage1", "stage2", "stage3", "stage4"]
    ).eval()
    ours = HuggingFaceBackbone(backbone_config("resnet50", PYRAMID)).eval()
    assert huggingface.load_backbone_weights(ours, as_weights(network)) == IMAGENET_RGB
    images = torch.randn(2, 3, 64, 96)
    assert ours.channels == theirs.channels
    expected = theirs(images).feature_maps
    for x, y in zip(ours(images).feature_maps, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5 * y.abs().max().item())


@pytest.mark.parametrize("name", DETECTORS)
def test_a_training_step_reaches_the_first_unfrozen_stage(name):
    model = detector(name).train()
    before = {key: value.clone() for key, value in backbone(model).state_dict().items()}
    images, mask = torch.randn(2, 3, 64, 96), torch.ones(2, 64, 96, dtype=torch.long)
    mask[1, :, 64:] = 0
    outputs = model(pixel_values=images, pixel_mask=mask, **targets(name))
    assert outputs.loss.isfinite()
    outputs.loss.backward()
    trunk = backbone(model).trunk
    frozen = ("conv1.", "layer1.")
    # All batch norms are constants: what is left are convolutions.
    expected = {key for key, _ in trunk.named_parameters() if not key.startswith(frozen)}
    got = {key for key, p in trunk.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == expected
    assert trunk.layer2[0].conv1.weight.requires_grad
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = backbone(model).state_dict()
    moved = {key.removeprefix("trunk.") for key in after if (after[key] != before[key]).any()}
    assert moved == expected


def test_batch_norms_that_are_not_frozen_learn():
    model = detector("Mask2Former", frozen_stages=1, frozen_batch_norm=False).train()
    model(pixel_values=torch.randn(2, 3, 64, 96), **targets("Mask2Former")).loss.backward()
    trunk = backbone(model).trunk
    assert trunk.layer1[0].bn1.weight.grad.any()
    assert trunk.layer1[0].bn1.running_mean.any()
    assert not trunk.bn1.running_mean.any()
    assert [key for key, p in trunk.named_parameters() if p.grad is None] == ["conv1.weight"]


@pytest.mark.parametrize("name", DETECTORS)
def test_a_saved_detector_is_the_same(name, randomise, tmp_path):
    model = detector(name).eval()
    network = randomise(backbones.resnet18(width=8))
    huggingface.load_backbone_weights(model, as_weights(network))
    images = torch.randn(2, 3, 64, 96)
    maps = [network(images)[feature] for feature in DETECTORS[name][0]]
    assert largest_difference(backbone(model)(images).feature_maps, maps) < 1e-4
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert isinstance(again.config.backbone_config, BackboneConfig)
    assert not again.training
    with torch.no_grad():
        expected, got = model(pixel_values=images), again(pixel_values=images)
    tensors = [key for key, value in expected.items() if isinstance(value, torch.Tensor)]
    assert len(tensors) >= 3
    assert (
        largest_difference([got[key] for key in tensors], [expected[key] for key in tensors]) == 0
    )
    assert {key for key, p in again.named_parameters() if not p.requires_grad} == {
        key for key, p in model.named_parameters() if not p.requires_grad
    }


@pytest.mark.parametrize("frozen_batch_norm", [True, False])
def test_a_saved_backbone_is_the_same(frozen_batch_norm, randomise, tmp_path):
    config = backbone_config("resnet50", ["c4"], frozen_batch_norm=frozen_batch_norm)
    model = HuggingFaceBackbone(config)
    network = randomise(backbones.resnet50(width=8))
    huggingface.load_backbone_weights(model.eval(), as_weights(network))
    model.save_pretrained(tmp_path)
    again = HuggingFaceBackbone.from_pretrained(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    assert largest_difference(again(images).feature_maps, model(images).feature_maps) == 0
    for config in (again.config, transformers.AutoConfig.from_pretrained(tmp_path)):
        assert config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()
    assert again.stage_names == PYRAMID
    frozen = [name for name, parameter in again.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(name.startswith(("trunk.conv1.", "trunk.layer1.")) for name in frozen)
    again.requires_grad_(True)
    assert all(parameter.requires_grad for parameter in again.train().parameters())


def test_the_initialisation_stays_ours():
    options = {"zero_init_residual": True}
    config = backbone_config(features=PYRAMID, options=options, frozen_batch_norm=False)
    torch.manual_seed(1)
    expected = config.build().state_dict()
    torch.manual_seed(1)
    for key, value in HuggingFaceBackbone(config).trunk.state_dict().items():
        assert torch.equal(value, expected[key])
    # Mask2Former draws its own batch norms' weights at random.
    trunk = backbone(detector("Mask2Former", config)).trunk
    assert not trunk.layer3[1].bn2.weight.any()
    assert (trunk.layer3[1].bn1.weight == 1).all()
    ratio = trunk.layer3[1].conv1.weight.std() / expected["layer3.1.conv1.weight"].std()
    assert 0.9 < ratio < 1.1


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_checkpoint_lacks_is_initialised_as_ours(whole, tmp_path):
    from safetensors.torch import load_file, save_file

    model = detector("Detr") if whole else HuggingFaceBackbone(backbone_config())
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lacking = ("layer3.0.conv1.weight", "layer3.0.bn1.running_var")
    kept = {key: value for key, value in state.items() if not key.endswith(lacking)}
    assert len(kept) == len(state) - 2
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    trunk = backbone(type(model).from_pretrained(tmp_path)).trunk
    expected = (2 / (32 * 9)) ** 0.5  # fan-out of 32 channels and 3×3 cells
    assert abs(trunk.layer3[0].conv1.weight.std().item() / expected - 1) < 0.1
    assert (trunk.layer3[0].bn1.running_var == 1).all()
    there = backbone(model).trunk.layer3[0].conv2.weight
    assert torch.equal(trunk.layer3[0].conv2.weight, there)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_and_other_batch_norms_read_each_other(frozen, randomise, tmp_path):
    model = HuggingFaceBackbone(backbone_config(frozen_batch_norm=frozen, frozen_stages=0)).eval()
    network = randomise(backbones.resnet18(width=8))
    huggingface.load_backbone_weights(model, as_weights(network))
    model.save_pretrained(tmp_path)
    other, report = HuggingFaceBackbone.from_pretrained(
        tmp_path, frozen_batch_norm=not frozen, output_loading_info=True
    )
    assert other.config.frozen_batch_norm is not frozen
    assert isinstance(other.trunk.bn1, nn.BatchNorm2d) is frozen
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    images = torch.randn(1, 3, 64, 64)
    expected = model(images).feature_maps[0]
    torch.testing.assert_close(other(images).feature_maps[0], expected, rtol=1e-4, atol=1e-4)


def test_weights_without_a_classifier(monkeypatch, tmp_path, untrained_classifier):
    network = untrained_classifier(backbones.vgg16(width=8))
    torch.save(network.state_dict(), tmp_path / "features.pth")
    monkeypatch.setattr("backbones.weights.fetch", lambda _: tmp_path / "features.pth")
    model = HuggingFaceBackbone(backbone_config("vgg16")).eval()
    preprocessing = huggingface.load_backbone_weights(model, "IMAGENET1K_FEATURES")
    assert preprocessing.std == (1 / 255,) * 3
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images).feature_maps[0], network(images)["c5"])


def test_weights_that_do_not_fit_are_refused():
    model = HuggingFaceBackbone(backbone_config("resnet50"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = backbones.resnet50(width=8, stride_in_1x1=True)
    with pytest.raises(ValueError, match="stride in the first 1×1"):
        huggingface.load_backbone_weights(model, as_weights(other))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for wrong, count in [(nn.Linear(1, 1), 0), (nn.ModuleList([model, detector("Detr")]), 2)]:
        with pytest.raises(ValueError, match=f"one HuggingFaceBackbone, got {count}"):
            huggingface.load_backbone_weights(wrong, as_weights(other))


@pytest.mark.parametrize(
    ("values", "error", "reason"),
    [
        ({"network": "resnet51"}, ValueError, "unknown backbone 'resnet51'"),
        ({"options": {"depth": 50}}, TypeError, "depth"),
        ({"frozen_stages": 6}, ValueError, "expected 0 … 5 stages to freeze, got 6"),
        ({"out_features": ["c6"]}, ValueError, "c6"),
        ({"out_features": ["c5", "c4"]}, ValueError, "same order"),
    ],
)
def test_wrong_values_are_refused(values, error, reason):
    with pytest.raises(error, match=reason):
        BackboneConfig(**values)


@pytest.mark.parametrize("name", ["Detr", "DeformableDetr", "RTDetr", "Mask2Former"])
def test_an_image_processor_normalises_as_the_weights_expect(name):
    kind = getattr(transformers, f"{name}ImageProcessor")
    processor = huggingface.image_processor(kind, IMAGENET_RGB, do_resize=False)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    got = processor(image, return_tensors="pt")["pixel_values"]
    scale, shift = IMAGENET_RGB.affine()
    expected = image * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(got, expected[None], rtol=0, atol=1e-5)


def test_an_image_processor_for_bgr_is_refused():
    with pytest.raises(ValueError, match=r"expected weights that read RGB.*flip channels"):
        huggingface.image_processor(transformers.DetrImageProcessor, CAFFE_BGR)
