import csv
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detection.checkpoint import load_detector
from detection.data.folder import folder_labels
from detection.training.module import DetectorModule
from resdet.tools._run import shipped_configs
from resdet.tools.train import main


def rows(run: Path) -> list[dict[str, str]]:
    """All metrics of a run; a resumed one has a file of its own."""
    files = sorted(run.glob("log/version_*/metrics.csv"))
    return [row for file in files for row in csv.DictReader(file.read_text().splitlines())]


def test_checkpoints(run: Path, shapes: Path):
    assert sorted(path.name for path in run.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    for path in run.glob("*.ckpt"):
        detector, description = load_detector(path)
        assert description.labels == folder_labels(shapes, "train")
        assert (description.short_side, description.long_side) == (64, 64)
        assert detector.roi_head.class_logits.out_features == 10
        assert torch.load(path, weights_only=True)["global_step"] == 2


def test_the_merged_configuration_is_kept(run: Path):
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["data"]["batch_size"] == 2  # shapes.yaml: 4, the second file: 8, the option: 2
    assert config["trainer"]["max_epochs"] == 1  # 2, 1
    assert config["model"]["schedule"]["milestones"] == [0.5]  # [0.7, 0.9], [0.5]
    assert config["model"]["detector"]["width"] == 16
    assert config["model"]["detector"]["backbone"] == "resnet18"
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["trainer"]["gradient_clip_val"] == 10


def test_metrics(run: Path):
    found = rows(run)
    names = {name for row in found for name, value in row.items() if value}
    assert names >= {"train/loss", "train/rpn_box", "val/AP", "val/VOC07", "images/s", "step"}
    rates = [row["lr-SGD/pg1"] for row in found if row.get("lr-SGD/pg1")]
    # Two accumulated batches of two images an update; the rate drops for the second.
    full = 0.08 * 4 / 16
    assert {round(float(rate), 8) for rate in rates} == {full, round(full / 10, 8)}


def test_tensorboard_has_figures_and_pictures(run: Path):
    (file,) = run.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= {"val/AP", "train/loss"}
    assert sorted(events.Tags()["images"]) == [f"detections/{number}" for number in range(1, 6)]
    (picture,) = events.Images("detections/1")
    assert picture.encoded_image_string.startswith(b"\x89PNG")
    assert 48 <= picture.height <= 64
    assert picture.step == 2


def test_shipped_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("config").write_text("")
    Path("voc07.yaml").write_text("")
    arguments = ["--config", "coco.yaml", "--config=resnet50.yaml", "-c", "vgg16.yaml"]
    found = shipped_configs(arguments)
    assert found[::3] == ["--config", "-c"]
    coco, resnet, vgg = found[1], found[2].removeprefix("--config="), found[4]
    names = ["coco.yaml", "resnet50.yaml", "vgg16.yaml"]
    assert [Path(path).name for path in (coco, resnet, vgg)] == names
    assert all(Path(path).is_file() for path in (coco, resnet, vgg))
    # A file here comes first; other arguments are left alone.
    own = ["--config", "voc07.yaml", "--config=config", "--output", "coco.yaml"]
    assert shipped_configs(own) == own


def test_an_unknown_configuration(capsys: pytest.CaptureFixture[str]):
    assert main(["--config", "shapes.yml"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("resdet train: no configuration 'shapes.yml' here; shipped: alter")
    assert "shapes.yaml, vgg16.yaml" in error
    assert error.count("\n") == 1


def refused(
    capsys: pytest.CaptureFixture[str], small_run: Sequence[str], tmp_path: Path, *options: str
) -> str:
    """Returns the last line of the error."""
    assert main([*small_run, f"--output={tmp_path / 'run'}", *options]) == 1
    assert not list(tmp_path.rglob("*.ckpt"))
    lines = capsys.readouterr().err.strip().splitlines()
    return next(line for line in lines if line.startswith("resdet train: "))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--resume", "resdet train: --resume: no checkpoint"),
        ("--model.detector.backbone=resnet19", "unknown backbone 'resnet19'; expected one of"),
        ("--model.detector.frozen_stages=2", "frozen_stages=2 would keep random weights"),
        ("--model.weights=IMAGENET", "IMAGENET"),
        ("--data.root=nowhere", "nowhere"),
        ("--data.val=nothing", "nothing"),
        ("--model.schedule.lr_per_16_images=1e30", "lower the learning rate"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str],
    small_run: Sequence[str],
    tmp_path: Path,
    option: str,
    reason: str,
):
    assert reason in refused(capsys, small_run, tmp_path, option)


def test_an_unknown_backbone_lists_the_known(
    capsys: pytest.CaptureFixture[str], small_run: Sequence[str], tmp_path: Path
):
    error = refused(capsys, small_run, tmp_path, "--model.detector.backbone=resnet19")
    assert "resnet18" in error
    assert "vgg16" in error


def test_an_unknown_option(capsys: pytest.CaptureFixture[str], small_run: Sequence[str]):
    with pytest.raises(SystemExit) as error:
        main([*small_run, "--model.detector.backbones=resnet18"])
    assert error.value.code == 2
    assert "backbones" in capsys.readouterr().err


def train(small_run: Sequence[str], output: Path, *options: str) -> dict[str, torch.Tensor]:
    schedule = ["--model.schedule.milestones=[5]", "--model.schedule.warmup_steps=3"]
    assert main([*small_run, *schedule, f"--output={output}", *options]) == 0
    return torch.load(output / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.filterwarnings("ignore:`ModelCheckpoint.monitor='val/AP'.` could not find")
def test_a_resumed_run_ends_in_the_same_weights(small_run: Sequence[str], tmp_path: Path):
    # An epoch has four updates: the first run ends within the first, the last within the second.
    options = ("--trainer.max_epochs=-1", "--trainer.max_steps=6")
    whole = train(small_run, tmp_path / "whole", *options)
    first = train(small_run, tmp_path / "broken", options[0], "--trainer.max_steps=3")
    resumed = train(small_run, tmp_path / "broken", *options, "--resume")
    name = "detector.roi_head.class_logits.weight"
    assert not torch.equal(first[name], whole[name])
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    # The figures of the first part are still there.
    losses = [
        {row["step"]: row["train/loss"] for row in rows(tmp_path / run) if row["train/loss"]}
        for run in ("whole", "broken")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_ctrl_c(small_run: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectorModule, "training_step", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main([*small_run, f"--output={tmp_path / 'run'}"]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on


@pytest.mark.slow
def test_help_of_a_run():
    text = subprocess.run(
        [sys.executable, "-m", "resdet.tools", "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in ("--resume", "--data.short_side", "--model.schedule.gamma", "later ones win"):
        assert option in text


@pytest.mark.slow
def test_the_console_command_trains_on_two_processes(
    shapes: Path, small_run: Sequence[str], tmp_path: Path
):
    options = [option for option in small_run if "devices" not in option]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=2"]
    command = [sys.executable, "-m", "resdet.tools", "train", *options, *two]
    done = subprocess.run(
        [*command, "--trainer.max_epochs=1", f"--output={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr
    assert (tmp_path / "run" / "last.ckpt").is_file()
