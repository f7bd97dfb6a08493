"""MMDetection's protocol: with the library where it is installed, with its contract elsewhere."""

import copy
import importlib
import sys
from collections import OrderedDict
from types import ModuleType

import pytest
import torch
import torchvision
from torch import nn

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, FrozenBatchNorm2d, save_weights

ADAPTER = "backbones.interop.mmdetection"


class StandInRegistry:
    """As mmengine/registry: a name once, built from a dict with a type."""

    def __init__(self):
        self.modules = {}

    def register_module(self, name=None, force=False, module=None):
        name = name or module.__name__
        if not force and name in self.modules:
            raise KeyError(f"{name} is already registered")
        self.modules[name] = module
        return module

    def build(self, cfg):
        values = cfg.copy()
        return self.modules[values.pop("type")](**values)


class StandInBaseModule(nn.Module):
    """As mmengine/model/base_module.py, of init_cfg the type Pretrained."""

    def __init__(self, init_cfg=None):
        super().__init__()
        self._is_init = False
        self.init_cfg = copy.deepcopy(init_cfg)

    def init_weights(self):
        for module in self.children():
            if hasattr(module, "init_weights"):
                module.init_weights()
        if self.init_cfg:
            assert self.init_cfg["type"] == "Pretrained"
            state = torch.load(self.init_cfg["checkpoint"], weights_only=True)
            self.misfits = load_state_dict(self, state)
        self._is_init = True


def load_state_dict(module, state):
    """As mmengine/runner/checkpoint.py: layer by layer, nothing raised."""
    missing, unexpected, errors = [], [], []
    state = OrderedDict(state)

    def load(part, prefix):
        part._load_from_state_dict(state, prefix, {}, True, missing, unexpected, errors)
        for name, child in part.named_children():
            load(child, f"{prefix}{name}.")

    load(module, "")
    return [name for name in missing if "num_batches_tracked" not in name], unexpected, errors


@pytest.fixture
def adapter(monkeypatch):
    """The module, on stand-ins."""
    names = {
        "mmdet": {},
        "mmdet.registry": {"MODELS": StandInRegistry()},
        "mmengine": {},
        "mmengine.model": {"BaseModule": StandInBaseModule},
    }
    for name, values in names.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    yield importlib.import_module(ADAPTER)
    sys.modules.pop(ADAPTER)


@pytest.fixture
def build(adapter):
    def apply(network="resnet18", **values):
        cfg = {"type": "ResdetBackbone", "network": network, "width": 8, **values}
        return sys.modules["mmdet.registry"].MODELS.build(cfg)

    return apply


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (2, 3), [3, 1]])
def test_a_tuple_of_features_in_the_asked_order(build, out_indices, tmp_path, randomise):
    network = randomise(backbones.resnet18(width=8))
    save_weights(network, tmp_path / "weights.safetensors")
    model = build(out_indices=out_indices, weights=str(tmp_path / "weights.safetensors")).eval()
    model.init_weights()
    images = torch.randn(2, 3, 75, 98)
    got = model(images)
    assert isinstance(got, tuple)
    expected = list(network(images).values())
    assert len(got) == len(out_indices)
    assert all(torch.equal(x, expected[i]) for x, i in zip(got, out_indices, strict=True))
    assert model.preprocessing == IMAGENET_RGB


def test_weights_without_a_classifier(build, monkeypatch, tmp_path, untrained_classifier):
    network = untrained_classifier(backbones.vgg16(width=8))
    torch.save(network.state_dict(), tmp_path / "features.pth")
    monkeypatch.setattr("backbones.weights.fetch", lambda _: tmp_path / "features.pth")
    model = build("vgg16", weights="IMAGENET1K_FEATURES").eval()
    images = torch.randn(1, 3, 32, 32)
    expected = network(images).values()
    assert all(torch.equal(x, y) for x, y in zip(model(images), expected, strict=True))
    assert model.preprocessing.std == (1 / 255,) * 3


@pytest.mark.parametrize(
    ("frozen_stages", "frozen"),
    [(-1, ()), (0, ("conv1.", "bn1.")), (1, ("conv1.", "bn1.", "layer1."))],
)
def test_a_training_step_reaches_the_first_unfrozen_stage(build, frozen_stages, frozen):
    model = build(frozen_stages=frozen_stages).train()
    sum(x.sum() for x in model(torch.randn(2, 3, 64, 64))).backward()
    parameters = dict(model.trunk.named_parameters())
    learn = {name for name, parameter in parameters.items() if parameter.grad is not None}
    assert learn == {name for name in parameters if not name.startswith(frozen)}
    first = ("conv1.weight", "layer1.0.conv1.weight", "layer2.0.conv1.weight")[frozen_stages + 1]
    assert parameters[first].grad.any()


@pytest.mark.parametrize("norm_eval", [True, False])
def test_norm_eval_keeps_statistics_and_lets_weights_learn(build, norm_eval):
    model = build(frozen_stages=1, norm_eval=norm_eval)
    assert model.train() is model
    trunk = model.trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    sum(x.square().sum() for x in model(torch.randn(2, 3, 64, 64))).backward()
    after = trunk.state_dict()
    moved = {name for name in after if (after[name] != before[name]).any()}
    assert ("layer2.0.bn1.running_mean" in moved) is not norm_eval
    assert not any(name.startswith(("bn1.", "layer1.")) for name in moved)
    assert trunk.layer2[0].bn1.weight.grad.any()
    assert isinstance(trunk.bn1, FrozenBatchNorm2d)
    assert trunk.layer2.training
    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    assert trunk.layer2[0].bn1.training is not norm_eval


@pytest.mark.parametrize("frozen_stages", [-1, 1])
def test_init_cfg_reads_torchvisions_files(build, frozen_stages, tmp_path, randomise):
    theirs = randomise(torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2] * 4))
    path = tmp_path / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    cfg = {"type": "Pretrained", "checkpoint": str(path)}
    model = build(width=64, frozen_stages=frozen_stages, init_cfg=cfg).eval()
    model.init_weights()
    assert model.misfits == ([], ["fc.weight", "fc.bias"], [])
    x = torch.randn(1, 3, 64, 64)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for name, got in zip(("layer1", "layer2", "layer3", "layer4"), model(x), strict=True):
        expected = getattr(theirs, name)(expected)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_its_own_checkpoints_are_read_back(build, randomise):
    model, other = randomise(build("vgg16_bn")), build("vgg16_bn").eval()
    assert load_state_dict(other, model.state_dict()) == ([], [], [])
    images = torch.randn(1, 3, 32, 32)
    assert all(torch.equal(x, y) for x, y in zip(model(images), other(images), strict=True))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"network": "resnet51"}, "unknown backbone 'resnet51'"),
        ({"out_indices": (0, 4)}, r"expected out_indices among 0 … 3, got \(0, 4\)"),
        ({"out_indices": ()}, r"got \(\)"),
        ({"frozen_stages": 5}, "expected frozen_stages among -1 … 4, got 5"),
        ({"frozen_stages": -2}, "got -2"),
    ],
)
def test_values_that_do_not_fit_are_refused(build, values, reason):
    with pytest.raises(ValueError, match=reason):
        build(**values)


@pytest.mark.parametrize("preprocessing", [IMAGENET_RGB, CAFFE_BGR])
def test_the_data_preprocessor_normalises_as_the_weights_expect(adapter, preprocessing):
    cfg = adapter.data_preprocessor(preprocessing, pad_size_divisor=32)
    assert cfg["type"] == "DetDataPreprocessor"
    assert cfg["pad_size_divisor"] == 32
    rgb = torch.randint(0, 256, (3, 4, 4)).float()
    # mmdet reads BGR and flips before it normalises.
    image = rgb if cfg["bgr_to_rgb"] else rgb.flip(0)
    got = (image - torch.tensor(cfg["mean"])[:, None, None]) / torch.tensor(cfg["std"])[
        :, None, None
    ]
    scale, shift = preprocessing.affine()
    ordered = rgb if preprocessing.order == "rgb" else rgb.flip(0)
    expected = ordered * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_without_the_library_the_error_says_where_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet", None)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    with pytest.raises(ImportError, match=r"needs MMDetection: https://mmdetection"):
        importlib.import_module(ADAPTER)


def test_the_real_registry_builds_it():
    pytest.importorskip("mmengine")
    pytest.importorskip("mmdet")
    from mmdet.registry import MODELS

    import backbones.interop.mmdetection  # noqa: F401

    cfg = {"type": "ResdetBackbone", "network": "resnet18", "width": 8, "frozen_stages": 1}
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    sum(x.sum() for x in model(torch.randn(2, 3, 64, 64))).backward()
    assert model.trunk.layer2[0].conv1.weight.grad.any()
    assert model.trunk.layer1[0].conv1.weight.grad is None
