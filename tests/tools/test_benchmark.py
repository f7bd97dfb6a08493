import importlib.metadata
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from detection.reproduction.artefacts import config_sha256, read_artefact
from resdet.tools.benchmark import SUBJECTS, main
from resdet.tools.benchmarks import detectors, evaluation, protocol, reading, startup
from resdet.tools.benchmarks import train as train_subject
from resdet.tools.benchmarks.detectors import (
    GateError,
    Pair,
    check_detections,
    check_gradients,
    make_pair,
    random_batch,
)
from resdet.tools.benchmarks.script import Script

SIZE = (64, 64)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Small images, few regions, one thread, and no measurement of the machine."""
    threads, first, drawn = torch.get_num_threads(), detectors.FirstSampler, detectors.Sampler
    with pytest.MonkeyPatch.context() as patch:
        for name in detectors.SIZES:
            patch.setitem(detectors.SIZES, name, SIZE)
        patch.setattr(train_subject, "SIZE", SIZE)
        patch.setattr(detectors, "FirstSampler", lambda count, share: first(count // 16, share))
        patch.setattr(detectors, "Sampler", lambda count, share: drawn(count // 16, share))
        patch.setattr(protocol, "_conv_peak", lambda device: 1.0)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["c4", "fpn"])
def pair(request: pytest.FixtureRequest) -> Pair:
    pair = make_pair(request.param, "resnet18")
    return pair._replace(ours=pair.ours.eval(), peer=pair.peer.eval())


def test_the_twin_detects_the_same(pair: Pair):
    batch, _ = random_batch(2, SIZE)
    assert check_detections(pair, batch) > 50


def test_the_gate_is_without_tf32_and_the_clock_is_not(pair: Pair):
    seen = []

    def note(*_: object) -> None:
        seen.append(torch.backends.cudnn.allow_tf32)

    hooks = [one.register_forward_hook(note) for one in (pair.ours.trunk, pair.peer.backbone)]
    check_detections(pair, random_batch(1, SIZE)[0])
    for hook in hooks:
        hook.remove()
    assert seen == [False] * 4
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("name", "amount", "reason"),
    [
        ("rpn.head.cls_logits.weight", 1.0, "no partner"),
        ("roi_heads.box_predictor.bbox_pred.bias", 0.5, "no partner"),
        ("first convolution", 0.01, "features differ"),
    ],
)
def test_a_perturbed_weight_is_noticed(pair: Pair, name: str, amount: float, reason: str):
    names = [own for own, _ in pair.peer.named_parameters()]
    name = next(own for own in names if own.endswith("conv1.weight")) if " " in name else name
    parameter = pair.peer.get_parameter(name)
    before = parameter.detach().clone()
    generator = torch.Generator().manual_seed(0)
    batch, _ = random_batch(1, SIZE)
    try:
        with torch.no_grad():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
        with pytest.raises(GateError, match=reason):
            check_detections(pair, batch)
    finally:
        with torch.no_grad():
            parameter.copy_(before)


@pytest.mark.parametrize("model", ["c4", "fpn"])
def test_the_twin_has_the_same_gradients(model: str):
    assert check_gradients(model, "resnet18", SIZE) < 1e-12


def test_another_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch):
    def perturbed(*arguments: Any, **settings: Any) -> Pair:
        pair = make_pair(*arguments, **settings)
        with torch.no_grad():
            pair.peer.get_parameter("rpn.head.conv.0.0.weight").mul_(1 + 1e-5)
        return pair

    monkeypatch.setattr(detectors, "make_pair", perturbed)
    with pytest.raises(GateError, match=r"gradients differ by .* in float64"):
        check_gradients("fpn", "resnet18", SIZE)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subject_has_help(subject: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error:
        main([subject, "--help"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: resdet benchmark {subject} ")


def test_an_unknown_subject(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as error:
        main(["speed"])
    assert error.value.code == 2
    assert "infer" in capsys.readouterr().err


@pytest.mark.parametrize("subject", ["infer", "train"])
def test_speed(
    subject: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(train_subject, "check_gradients", lambda *_: 0.0)
    file = tmp_path / "new" / "report.json"
    options = ["--model", "fpn", "--backbone", "resnet18", "--threads", "1", "--rounds", "2"]
    options += ["--output", str(file)]
    assert main([subject, *options]) == 0
    report = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["subject"] == f"{subject} fpn resnet18 float32"
    assert report["rounds"] == 2
    least, most = report["ratio_range"]
    assert 0 < least <= report["ratio"] <= most
    assert report["ours_wall_s"] > 0
    assert report["command"] == shlex.join(["resdet", "benchmark", subject, *options])
    assert report["kind"] == read_artefact(file).facts["kind"] == "speed"
    assert report["environment"]["torch"] == importlib.metadata.version("torch")


def test_a_closed_gate_stops_the_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def closed(*_: Any) -> float:
        raise GateError("gradients differ")

    monkeypatch.setattr(train_subject, "check_gradients", closed)
    assert main(["train", "--backbone", "resnet18", "--threads", "1"]) == 1
    assert capsys.readouterr().err == "resdet benchmark: gradients differ\n"


def start_up(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    assert main(["startup", "--rounds", "1"]) == 0
    seconds = json.loads(capsys.readouterr().out)["median_s"]
    assert all(value > 0 for value in seconds.values())
    return seconds


def test_startup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in startup.COMMANDS if name != "resdet --help"]:
        monkeypatch.delitem(startup.COMMANDS, name)
    assert start_up(capsys).keys() == {"resdet --help"}
    monkeypatch.setitem(startup.COMMANDS, "broken", ["-c", "raise SystemExit(3)"])
    with pytest.raises(subprocess.CalledProcessError):
        main(["startup", "--rounds", "1"])


@pytest.mark.slow
def test_startup_beside_the_peers(capsys: pytest.CaptureFixture[str]):
    assert len(start_up(capsys)) == len(startup.COMMANDS) > 2


def test_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("faster_coco_eval")
    file = tmp_path / "report.json"
    assert main(["evaluation", "--scale", "0.002", "--rounds", "1", "--output", str(file)]) == 0
    report = json.loads(file.read_text())
    assert (report["images"], report["objects"], report["detections"]) == (10, 72, 1000)
    assert report["figures_differ_by"]["pycocotools"] == 0.0
    assert 0.05 < report["figures"][0] < 0.95
    for side in evaluation.SIDES:
        own = report[side]
        assert min(own.values()) > 0
        assert own["imports_s"] + own["work_s"] == pytest.approx(own["wall_s"], abs=0.002)
    for side in ("pycocotools", "faster_coco_eval"):
        beside = report[f"beside_{side}"]
        own = report[side]["work_s"] / report["ours"]["work_s"]
        assert beside["work"] == beside["work_range"][0] == pytest.approx(own, rel=0.05)


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "SETTLING", 0.0)
    file = tmp_path / "report.json"
    sizes = ["--reading", "--scale", "0.0001", "--rounds", "1"]
    assert main(["evaluation", *sizes, "--output", str(file)]) == 0
    report = json.loads(file.read_text())
    assert (report["images"], report["objects"]) == (12, 86)
    for side in reading.SIDES:
        # Rounded, the reading of 12 images may take 0.000 s.
        assert report[side]["wall_s"] > report[side]["work_s"] >= 0
    for peer in ("pycocotools", "msgspec"):
        assert report[f"beside_{peer}"].keys() == {"first", "cached"}


def test_other_figures_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("faster_coco_eval")
    values = {side: [0.5] * 12 for side in evaluation.SIDES}
    values["pycocotools"][3] += 1e-15
    sides = {side: Script("", "", f"figures = {own}") for side, own in values.items()}
    monkeypatch.setattr(evaluation, "SIDES", sides)
    assert main(["evaluation", "--scale", "0.001"]) == 1
    assert "pycocotools: figures differ by" in capsys.readouterr().err
    monkeypatch.setitem(sides, "ours", Script("", "raise SystemExit('broken')", ""))
    assert main(["evaluation", "--scale", "0.001"]) == 1
    assert "ours: broken" in capsys.readouterr().err
    monkeypatch.setattr(reading, "SETTLING", 0.0)
    monkeypatch.setattr(reading, "SIDES", {"first": Script("", "", "figures = 1, 2")})
    assert main(["evaluation", "--reading", "--scale", "0.0001"]) == 1
    assert "first: found [1.0, 2.0], not 12, 86" in capsys.readouterr().err


def test_accuracy(shapes: Path, tmp_path: Path):
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    sides = ["--short-side", "64", "--long-side", "64", "--threads", "1"]
    own = ["--data", str(shapes), "--weights", str(weights), "--epochs", "1", "--seeds", "3"]
    file = tmp_path / "report.json"
    assert main(["accuracy", *own, *sides, "--output", str(file)]) == 0
    report = read_artefact(file).facts
    assert report["seeds"] == [3]
    assert report["config_sha256"] == config_sha256(report["configuration"])
    assert report["predictions_sha256"].keys() == {"ours/3", "torchvision/3"}
    assert [(run["side"], run["seed"]) for run in report["runs"]] == [
        ("ours", 3),
        ("torchvision", 3),
    ]
    assert report["configuration"]["epochs"] == 1
    for run in report["runs"]:
        assert 0 <= run["voc07"] <= 1
