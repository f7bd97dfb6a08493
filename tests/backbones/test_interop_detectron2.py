"""Detectron2's protocol: with the library where it is installed, with its contract elsewhere."""

import importlib
import sys
from abc import ABCMeta, abstractmethod
from collections import namedtuple
from types import ModuleType

import pytest
import torch
from torch import nn

import backbones
from backbones import CAFFE_BGR, IMAGENET_RGB, FrozenBatchNorm2d, save_weights

ADAPTER = "backbones.interop.detectron2"


class StandInBackbone(nn.Module, metaclass=ABCMeta):
    """As detectron2/modeling/backbone/backbone.py."""

    @abstractmethod
    def forward(self):
        pass

    @property
    def size_divisibility(self):
        return 0

    @property
    def padding_constraints(self):
        return {}

    def output_shape(self):
        return {
            name: StandInShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


class StandInShapeSpec(namedtuple("_ShapeSpec", ["channels", "height", "width", "stride"])):
    """As detectron2/layers/shape_spec.py."""

    def __new__(cls, *, channels=None, height=None, width=None, stride=None):
        return super().__new__(cls, channels, height, width, stride)


class StandInRegistry:
    """As fvcore/common/registry.py: a name once, KeyError for others."""

    def __init__(self):
        self.objects = {}

    def register(self, obj):
        assert obj.__name__ not in self.objects
        self.objects[obj.__name__] = obj

    def get(self, name):
        if name not in self.objects:
            raise KeyError(name)
        return self.objects[name]


class StandInConfig(dict):
    """As yacs' CfgNode: plain values and nodes, by attribute."""

    def __init__(self, values=None, new_allowed=False):
        for key, value in (values or {}).items():
            plain = (tuple, list, str, int, float, bool, type(None), StandInConfig)
            assert isinstance(key, str)
            assert type(value) in (*plain, dict)
            self[key] = StandInConfig(value) if type(value) is dict else value

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value


def build_backbone(modeling, cfg):
    """As detectron2/modeling/backbone/build.py."""
    shape = StandInShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = modeling.BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, shape)
    assert isinstance(backbone, modeling.Backbone)
    return backbone


@pytest.fixture
def adapter(monkeypatch):
    """The module, on stand-ins."""
    names = {
        "detectron2": {},
        "detectron2.config": {"CfgNode": StandInConfig},
        "detectron2.layers": {"ShapeSpec": StandInShapeSpec},
        "detectron2.modeling": {
            "BACKBONE_REGISTRY": StandInRegistry(),
            "Backbone": StandInBackbone,
        },
    }
    for name, values in names.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    yield importlib.import_module(ADAPTER)
    sys.modules.pop(ADAPTER)


@pytest.fixture
def modeling(adapter):
    return sys.modules["detectron2.modeling"]


def defaults():
    """The values of detectron2/config/defaults.py that matter here."""
    return StandInConfig(
        {
            "INPUT": {"FORMAT": "BGR"},
            "MODEL": {
                "PIXEL_MEAN": [103.530, 116.280, 123.675],
                "PIXEL_STD": [1.0, 1.0, 1.0],
                "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2},
                "RESNETS": {"OUT_FEATURES": ["res4"], "NORM": "FrozenBN"},
            },
        }
    )


def pixels(cfg):
    return cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD


def test_one_line_puts_a_network_in_a_configuration(adapter, modeling, tmp_path, randomise):
    network = randomise(backbones.resnet50(width=8, stride_in_1x1=True))
    path = tmp_path / "weights.safetensors"
    save_weights(network, path)
    cfg = defaults()
    adapter.configure(cfg, "resnet50", weights=str(path), width=8, stride_in_1x1=True)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res4"]
    order, mean, std = pixels(cfg)
    assert order == "RGB"
    assert mean == pytest.approx([123.675, 116.28, 103.53])
    assert std == pytest.approx([58.395, 57.12, 57.375])
    model = build_backbone(modeling, cfg)
    assert model.output_shape() == {
        "res2": StandInShapeSpec(channels=32, stride=4),
        "res4": StandInShapeSpec(channels=128, stride=16),
    }
    assert model.size_divisibility == 0
    assert model.padding_constraints == {}
    images = torch.randn(2, 3, 75, 98)
    expected, got = network(images), model(images)
    assert list(got) == ["res2", "res4"]
    for ours, theirs in [("c2", "res2"), ("c4", "res4")]:
        torch.testing.assert_close(got[theirs], expected[ours], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("norm", "constant"), [("FrozenBN", True), ("BN", False)])
def test_a_training_step_reaches_the_first_unfrozen_stage(adapter, modeling, norm, constant):
    cfg = defaults()
    adapter.configure(cfg, "resnet18", width=8)
    cfg.MODEL.RESNETS.NORM = norm
    model = build_backbone(modeling, cfg).train()
    sum(x.sum() for x in model(torch.randn(2, 3, 64, 64)).values()).backward()
    trunk = model.trunk
    learn = {name for name, parameter in trunk.named_parameters() if parameter.grad is not None}
    frozen = ("conv1.", "bn1.", "layer1.")
    assert learn == {n for n, _ in trunk.named_parameters() if not n.startswith(frozen)}
    assert trunk.layer2[0].conv1.weight.grad.any()
    assert isinstance(trunk.layer2[0].bn1, FrozenBatchNorm2d) is constant
    assert isinstance(trunk.bn1, FrozenBatchNorm2d)
    assert not hasattr(trunk, "layer4")


@pytest.mark.parametrize(
    ("network", "names", "strides"),
    [
        (backbones.resnet18(width=8), ["res2", "res3", "res4", "res5"], [4, 8, 16, 32]),
        (backbones.vgg16(width=8), ["c2", "c3", "c4", "c5"], [2, 4, 8, 16]),
        (backbones.cifar_resnet(20), ["res2", "res3", "res4"], [1, 2, 4]),
    ],
)
def test_features_of_any_network(adapter, network, names, strides):
    model = adapter.DetectronBackbone(network.eval()).eval()
    assert list(model.output_shape()) == names
    assert [shape.stride for shape in model.output_shape().values()] == strides
    images = torch.randn(1, 3, 64, 96)
    got = model(images)
    for name, x in network(images).items():
        mapped = names[int(name[1:]) - 2]
        assert torch.equal(got[mapped], x)
        assert model.output_shape()[mapped].channels == x.shape[1]


def test_caffes_images_are_detectrons_own_order(adapter):
    cfg = defaults()
    adapter.configure(cfg, "caffe_resnet50", width=8)
    assert pixels(cfg) == ("BGR", list(CAFFE_BGR.mean), [1.0, 1.0, 1.0])


def test_images_are_what_the_weights_expect(
    adapter, modeling, monkeypatch, tmp_path, untrained_classifier
):
    network = untrained_classifier(backbones.vgg16(width=8))
    torch.save(network.state_dict(), tmp_path / "features.pth")
    asked = []
    monkeypatch.setattr(
        "backbones.weights.fetch", lambda url: asked.append(url) or tmp_path / "features.pth"
    )
    cfg = defaults()
    adapter.configure(cfg, "vgg16", weights="IMAGENET1K_FEATURES", width=8)
    assert not asked
    order, mean, std = pixels(cfg)
    assert order == "RGB"
    assert mean == pytest.approx([123, 117, 104], abs=2e-3)
    assert std == pytest.approx([1, 1, 1])
    cfg.MODEL.RESNETS.OUT_FEATURES = ["c5"]
    model, images = build_backbone(modeling, cfg).eval(), torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images)["c5"], network(images)["c5"])


def test_images_are_what_a_file_of_weights_expects(adapter, modeling, tmp_path):
    path = str(tmp_path / "weights.safetensors")
    save_weights(backbones.resnet18(width=8, preprocessing=CAFFE_BGR), path)
    cfg = defaults()
    adapter.configure(cfg, "resnet18", weights=path, width=8)
    assert pixels(cfg) == ("BGR", list(CAFFE_BGR.mean), [1.0, 1.0, 1.0])
    build_backbone(modeling, cfg)


def change(cfg, path, value):
    *parts, last = path.split(".")
    for part in parts:
        cfg = getattr(cfg, part)
    setattr(cfg, last, value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("INPUT.FORMAT", "BGR", "expect other images: .*'RGB'.*got.*'BGR'"),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0], r"expect other images: .*58\.395"),
        ("MODEL.RESNETS.NORM", "GN", "expected MODEL.RESNETS.NORM FrozenBN or BN, got 'GN'"),
        ("MODEL.RESNETS.OUT_FEATURES", ["c4"], r"expected features among \['res2'.*got \['c4'\]"),
        ("MODEL.RESNETS.OUT_FEATURES", [], r"got \[\]"),
        ("MODEL.BACKBONE.FREEZE_AT", 6, "expected 0 … 5 stages to freeze, got 6"),
    ],
)
def test_values_that_do_not_fit_are_refused(adapter, modeling, path, value, reason):
    cfg = defaults()
    adapter.configure(cfg, "resnet18", width=8)
    change(cfg, path, value)
    with pytest.raises(ValueError, match=reason):
        build_backbone(modeling, cfg)


def test_other_misuse_is_refused(adapter, modeling):
    cfg = defaults()
    with pytest.raises(ValueError, match="unknown backbone 'resnet51'"):
        adapter.configure(cfg, "resnet51")
    with pytest.raises(TypeError, match="depth"):
        adapter.configure(cfg, "resnet50", depth=50)
    assert cfg == defaults()
    cfg.MODEL.BACKBONE.NAME = "build_resdet_backbone"
    with pytest.raises(ValueError, match=r"expected cfg\.MODEL\.RESDET"):
        build_backbone(modeling, cfg)
    adapter.configure(cfg, "resnet18", width=8)
    with pytest.raises(ValueError, match="expected images of 3 channels, got 1"):
        adapter.build_resdet_backbone(cfg, StandInShapeSpec(channels=1))


def test_without_the_library_the_error_says_where_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    with pytest.raises(ImportError, match=r"needs Detectron2: https://detectron2"):
        importlib.import_module(ADAPTER)


def test_a_real_detector_trains():
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    from backbones.interop.detectron2 import configure

    cfg = get_cfg()
    configure(cfg, "resnet18", width=16)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16  # the region head's own res5 reads 4 · 16
    model = build_model(cfg).train()
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    instances.gt_classes = torch.tensor([1])
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with EventStorage():
        sum(model([{"image": image, "instances": instances}]).values()).backward()
    trunk = model.backbone.trunk
    assert trunk.layer2[0].conv1.weight.grad.any()
    assert trunk.layer1[0].conv1.weight.grad is None
    assert torch.allclose(
        model.pixel_mean.flatten(), 255 * torch.tensor(IMAGENET_RGB.mean), atol=1e-3
    )
