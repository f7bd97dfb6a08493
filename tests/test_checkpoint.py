import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backbones import Preprocessing
from detection.checkpoint import KEY, CheckpointError, Description, load_detector
from detection.data.labels import LabelMap
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.structures import Batch
from detection.training.module import DetectorModule

LABELS = LabelMap(("dog", "cat", "emu"), (18, 17, 90))
PYRAMID = DetectorSpec(
    "resnet18",
    width=16,
    pyramid=True,
    pyramid_channels=16,
    pyramid_tail_channels=64,
    batch_norm="trained",
    frozen_stages=0,
    anchor_sizes=(8, 16, 32, 64, 128),
    anchor_ratios=(0.5, 1.5),
    proposals=ProposalSelection(before_nms=90, after_nms=40, nms_threshold=0.6, min_side=1.0),
    detections=DetectionSelection(score_threshold=0.1, nms_threshold=0.4, per_image=30),
)
CUT = DetectorSpec(
    "resnet18",
    width=16,
    batch_norm="trained",
    frozen_stages=0,
    roi_pooling="align",
    roi_size=7,
    tail_stride=1,
    anchor_sizes=(16, 48),
    rpn_width=32,
    proposals=ProposalSelection(before_nms=90, after_nms=20),
)


def trained(spec: DetectorSpec) -> DetectorModule:
    """A module as training leaves it: scores apart, statistics of norms not the initial ones."""
    torch.manual_seed(0)
    module = DetectorModule(LABELS.names, LABELS.ids, spec)
    torch.nn.init.normal_(module.detector.roi_head.class_logits.weight, std=0.2)
    module.detector.train()
    module.detector.trunk(module.detector.normalize(random_batch()))
    data = SimpleNamespace(short_side=80, long_side=96)
    module._trainer = SimpleNamespace(datamodule=data)
    return module


def random_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 96, 96), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[96, 96], [80, 90]])
    return Batch(images, sizes, sizes * 2, torch.arange(2))


def save(module: DetectorModule, path: Path) -> None:
    checkpoint = {"state_dict": module.state_dict(), "epoch": 3}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "good.ckpt"
    save(trained(PYRAMID), path)
    return path


@pytest.mark.parametrize(
    "spec", [PYRAMID, CUT, replace(CUT, context=True)], ids=["pyramid", "cut", "context"]
)
def test_round_trip(tmp_path: Path, spec: DetectorSpec):
    module, path = trained(spec), tmp_path / "last.ckpt"
    save(module, path)
    torch.load(path, weights_only=True)
    detector, description = load_detector(path)
    assert description == Description(spec, module.detector.preprocessing, LABELS, 80, 96)
    assert not any(part.training for part in detector.modules())
    with torch.inference_mode():
        expected, found = (one(random_batch()) for one in (module.detector.eval(), detector))
    assert (expected.labels > 0).sum() > 10
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_from_before_global_context(saved: Path, tmp_path: Path):
    checkpoint = torch.load(saved, weights_only=True)
    assert checkpoint[KEY]["spec"].pop("context") is False
    torch.save(checkpoint, tmp_path / "old.ckpt")
    found, expected = (load_detector(path) for path in (tmp_path / "old.ckpt", saved))
    assert found[1] == expected[1]
    assert list(found[0].state_dict()) == list(expected[0].state_dict())


def test_the_preprocessing_of_the_weights_comes_back(saved: Path, tmp_path: Path):
    caffe = Preprocessing("bgr", 1.0, (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))
    module = trained(CUT)
    module.detector = faster_rcnn(3, CUT, preprocessing=caffe)
    save(module, tmp_path / "last.ckpt")
    detector, description = load_detector(tmp_path / "last.ckpt")
    assert description.preprocessing == detector.preprocessing == caffe
    batch = random_batch()
    assert torch.equal(detector.normalize(batch), module.detector.normalize(batch))
    assert not torch.equal(detector.normalize(batch), trained(CUT).detector.normalize(batch))


def test_the_description_is_plain_json(saved: Path):
    _, description = load_detector(saved)
    text = json.dumps(description.to_plain())
    assert Description.from_plain(json.loads(text)).spec == description.spec


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "another Lightning checkpoint": (lambda c: c.pop(KEY), "expected a checkpoint of `resdet tr"),
    "a description of another kind": (lambda c: c.update({KEY: 3}), "expected a checkpoint"),
    "another format": (lambda c: c[KEY].update(format=99), "expected format 1, got 99"),
    "no format": (lambda c: c[KEY].pop("format"), "expected format 1, got None"),
    "no names": (lambda c: c[KEY].pop("names"), "KeyError: 'names'"),
    "names of another kind": (lambda c: c[KEY].update(names=3), "TypeError"),
    "fewer names": (lambda c: c[KEY].update(names=["dog"], ids=[1]), "size mismatch"),
    "fewer ids": (lambda c: c[KEY].update(ids=[1]), "3 names and 1 ids"),
    "no spec": (lambda c: c[KEY].update(spec=None), "TypeError"),
    "a spec of the future": (lambda c: c[KEY]["spec"].update(masks=True), "masks"),
    "an unknown backbone": (lambda c: c[KEY]["spec"].update(backbone="vit"), "one of resnet18"),
    "no preprocessing": (lambda c: c[KEY].pop("preprocessing"), "KeyError: 'preprocessing'"),
    "no weights": (lambda c: c.pop("state_dict"), "KeyError: 'state_dict'"),
    "weights of another kind": (lambda c: c.update(state_dict=[]), "AttributeError"),
    "a missing tensor": (
        lambda c: c["state_dict"].pop("detector.rpn.conv.bias"),
        r"Missing key\(s\).*rpn\.conv\.bias",
    ),
    "a tensor too many": (
        lambda c: c["state_dict"].update({"detector.mask": torch.zeros(1)}),
        r"Unexpected key\(s\).*mask",
    ),
    "another shape": (
        lambda c: c["state_dict"].update({"detector.rpn.conv.bias": torch.zeros(3)}),
        r"size mismatch for rpn\.conv\.bias",
    ),
}


def refused(path: Path, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as error:
        load_detector(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES.keys())
def test_a_checkpoint_that_does_not_fit(saved: Path, tmp_path: Path, change: Change, reason: str):
    checkpoint = torch.load(saved, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    refused(tmp_path / "other.ckpt", reason)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_a_file_that_is_no_checkpoint(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.ckpt"
    for content in (b"garbage", b"", saved.read_bytes()[:100_000], pickle.dumps(Malicious())):
        path.write_bytes(content)
        refused(path, "cannot be read as a checkpoint: it is damaged, or holds more than tensors")
    torch.save({KEY: Malicious()}, path)
    refused(path, "cannot be read as a checkpoint")
    assert not Path("executed").exists()
    torch.save(torch.zeros(1), path)
    refused(path, "expected a checkpoint of `resdet train`")
    refused(tmp_path, "cannot be read: Is a directory")
    refused(tmp_path / "none.ckpt", "cannot be read: No such file")


OTHERS = ("bird", "fish")


@pytest.mark.parametrize("classes", [LABELS.names, OTHERS], ids=["same classes", "other classes"])
def test_fine_tuning_starts_from_the_weights(classes: tuple[str, ...], tmp_path: Path) -> None:
    module = trained(CUT)
    path = tmp_path / "coco.ckpt"
    save(module, path)
    spec = replace(CUT, frozen_stages=2)
    ids = LABELS.ids if classes == LABELS.names else (1, 2)
    started = DetectorModule(classes, ids, spec, start=str(path)).detector
    given = module.detector.state_dict()
    own = started.state_dict()
    same = {name for name in own if torch.equal(own[name], given.get(name, torch.empty(0)))}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    differing = own.keys() - same - counters
    layers = ("class_logits.weight", "class_logits.bias", "deltas.weight", "deltas.bias")
    fresh = {f"roi_head.{name}" for name in layers}
    if classes == LABELS.names:
        assert differing == set()
    else:
        assert {"roi_head.class_logits.weight", "roi_head.deltas.weight"} <= differing <= fresh
        assert len(own["roi_head.class_logits.bias"]) == 3
    frozen = [name for name, one in started.named_parameters() if not one.requires_grad]
    assert any("layer1" in name for name in frozen)


def test_fine_tuning_refuses_other_layers(tmp_path: Path) -> None:
    path = tmp_path / "coco.ckpt"
    save(trained(CUT), path)
    with pytest.raises(CheckpointError, match=r"coco\.ckpt: a detector of other layers: rpn\.conv"):
        DetectorModule(OTHERS, (1, 2), replace(CUT, rpn_width=16), start=str(path))
