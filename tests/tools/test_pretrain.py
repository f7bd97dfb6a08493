import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from backbones import load_weights
from backbones.classification.module import ClassifierModule
from detection.model.build import DetectorSpec, faster_rcnn
from resdet.tools.pretrain import main

pytestmark = pytest.mark.filterwarnings("ignore:`ModelCheckpoint.monitor='val/top1'.` could not")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light images: two classes, eight to train on and three to test on."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name, grey in (("dark", 60), ("light", 190)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(grey - 60, grey + 60, (40, 50, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def options(folder: Path) -> Sequence[str]:
    return [
        "--config=pretrain_imagenet.yaml",
        f"--data.root={folder}",
        "--data.workers=0",
        "--data.batch_size=4",
        "--data.augmentation={crop: 32, short_side: [36, 44]}",
        "--data.test_short_side=36",
        "--model.backbone=resnet18",
        "--model.options={width: 8}",
        "--model.schedule.lr=0.02",
        "--scales=[32, 40]",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.max_steps=8",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.log_every_n_steps=1",
    ]


@pytest.fixture(scope="module")
def run(options: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs."""
    output = tmp_path_factory.mktemp("runs") / "small"
    assert main([*options, f"--output={output}"]) == 0
    return output


def test_what_a_run_leaves(run: Path, folder: Path):
    names = {path.name for path in run.iterdir()}
    assert names == {
        "best.ckpt",
        "last.ckpt",
        "weights.safetensors",
        "config.yaml",
        "log",
        "curves.svg",
        "responses.svg",
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["root"] == str(folder)
    assert config["model"]["schedule"]["weight_decay"] == 0.0001
    (log,) = run.glob("log/version_*/metrics.csv")
    rows = list(csv.DictReader(log.read_text().splitlines()))
    for name in ("train/loss", "train/top1", "train/top5", "val/loss", "val/top1", "val/top5"):
        assert len([row for row in rows if row[name]]) == (8 if name.startswith("train") else 2)
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    assert rates == pytest.approx([0.02] * 8)
    assert list(run.rglob("events.out.tfevents.*"))


def test_checkpoints_reload(run: Path):
    module = ClassifierModule.load_from_checkpoint(run / "last.ckpt", weights_only=True)
    assert module.class_names == ("dark", "light")
    assert module.network.fc.out_features == 2
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["network.fc.weight"], module.network.fc.weight)


def test_the_weights_have_exact_statistics(run: Path):
    module = ClassifierModule.load_from_checkpoint(run / "last.ckpt", weights_only=True)
    trained = {name: tensor.clone() for name, tensor in module.network.state_dict().items()}
    assert load_weights(module.network, run / "weights.safetensors") == ()
    differ = {
        name
        for name, tensor in module.network.state_dict().items()
        if not torch.equal(tensor, trained[name])
    }
    assert all(".running_" in f".{name}" or "num_batches" in name for name in differ)
    assert "bn1.running_mean" in differ


def test_the_weights_go_into_a_detector(run: Path):
    spec = DetectorSpec(backbone="resnet18", width=8, frozen_stages=2, pyramid=True)
    weights = str(run / "weights.safetensors")
    detector = faster_rcnn(3, spec, weights=weights, fresh=("fc",))
    module = ClassifierModule.load_from_checkpoint(run / "last.ckpt", weights_only=True)
    ours = module.network.state_dict()["layer4.1.conv2.weight"]
    assert any(ours.shape == x.shape and torch.equal(ours, x) for x in detector.parameters())


def test_testing(options: Sequence[str], run: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("last.ckpt", "weights.safetensors"):
        assert main([*options, f"--output={run}", f"--test={run / name}"]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if name in line]
        assert [line.split(": ")[0].split(", ")[1] for line in lines] == ["center", "ten", "scales"]
        assert all("top-5 error 0.00 %, 6 images" in line for line in lines)
        assert all(0 <= float(line.split("top-1 error ")[1].split()[0]) <= 100 for line in lines)


def test_a_resumed_run_ends_in_the_same_weights(options: Sequence[str], run: Path, tmp_path: Path):
    # An epoch has four updates: this one stops within the second.
    output = f"--output={tmp_path}"
    assert main([*options, output, "--trainer.max_steps=6"]) == 0
    assert main([*options, output, "--resume"]) == 0
    whole = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    parts = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_the_warm_up_of_110_layers_ends_in_a_run(options: Sequence[str], tmp_path: Path):
    own = ["--model.schedule.warmup_lr=0.001", "--model.schedule.warmup_error=95"]
    assert main([*options, *own, f"--output={tmp_path}", "--testing=[center]"]) == 0
    (log,) = tmp_path.glob("log/version_*/metrics.csv")
    rates = [float(row["lr"]) for row in csv.DictReader(log.read_text().splitlines()) if row["lr"]]
    # Errors of at most 75 % take at least 7 updates from 100 % to 95 % when averaged; all but the
    # last of these then have the warm-up's rate.
    changes = sum(before != after for before, after in pairwise(rates))
    assert rates[0] == pytest.approx(0.001)
    assert rates[-1] == pytest.approx(0.02)
    assert changes == 1


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--resume", "--resume: no checkpoint"),
        ("--model.backbone=resnet19", "unknown backbone 'resnet19'; expected one of resnet18"),
        ("--model.options={widht: 8}", "resnet18: ResNet.__init__() got an unexpected keyword"),
        ("--data.root=nowhere", "nowhere: expected CIFAR-10's"),
        ("--data.test_short_side=20", "expected an image of at least 32×32"),
        ("--model.schedule.lr=1e30", "lower the learning rate"),
        ("--test=nothing.ckpt", "nothing.ckpt"),
        ("--test=nothing.safetensors", "nothing.safetensors"),
    ],
)
def test_errors_are_one_line(
    options: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    reason: str,
):
    assert main([*options, f"--output={tmp_path}", option]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "resdet pretrain:" in line]
    assert reason in line


def test_a_workers_error_is_one_line(
    options: Sequence[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = folder / "train" / "dark" / "broken.png"
    path.write_text("no image")
    try:
        assert main([*options, f"--output={tmp_path}", "--data.workers=1"]) == 1
    finally:
        path.unlink()
    error = capsys.readouterr().err
    assert f"resdet pretrain: {path}: not a readable image: " in error
    assert "Traceback" not in error


def test_a_checkpoint_of_other_classes_is_refused(
    options: Sequence[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for split in ("train", "val"):
        for name in ("dark", "grey"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / split / name / "0.png")
    own = [f"--data.root={tmp_path}", f"--test={run / 'last.ckpt'}"]
    assert main([*options, *own, f"--output={tmp_path}"]) == 1
    assert "in one of them alone, or in another order: ['grey', 'light']" in capsys.readouterr().err


def test_a_broken_checkpoint_is_refused(
    options: Sequence[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "half.ckpt"
    path.write_bytes((run / "last.ckpt").read_bytes()[:5000])
    assert main([*options, f"--output={tmp_path}", f"--test={path}"]) == 1
    assert f"resdet pretrain: {path}: not a classifier's checkpoint" in capsys.readouterr().err


def test_a_broken_image_in_a_validation(
    options: Sequence[str],
    run: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    path = folder / "val" / "dark" / "0.png"
    content = path.read_bytes()
    path.write_bytes(b"no image")
    try:
        assert main([*options, f"--output={tmp_path}"]) == 1
    finally:
        path.write_bytes(content)
    assert f"resdet pretrain: {path}: not a readable image" in capsys.readouterr().err
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4
    assert main([*options, f"--output={tmp_path}", "--resume"]) == 0
    whole, parts = (torch.load(x / "last.ckpt", weights_only=True) for x in (run, tmp_path))
    assert whole["learning_rate"] == parts["learning_rate"]
    state = whole["state_dict"]
    assert [n for n in state if not torch.equal(state[n], parts["state_dict"][n])] == []


@pytest.mark.parametrize(
    "without",
    [["--trainer.logger=false"], ["--trainer.max_steps=1", "--trainer.log_every_n_steps=2"]],
)
def test_without_log(without: Sequence[str], options: Sequence[str], tmp_path: Path):
    assert main([*options, f"--output={tmp_path}", *without]) == 0
    assert (tmp_path / "weights.safetensors").is_file()
    assert not (tmp_path / "curves.svg").exists()
