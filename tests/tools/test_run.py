"""What all training tools share: how a run starts, stops, fails and goes on."""

import logging
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.data.shapes import write_shapes
from detection.training.module import DetectorModule
from resdet.tools._run import reason_of, shipped_configs
from resdet.tools.train import main

ONE_RATE = ["--model.schedule.warmup_steps=0", "--model.schedule.milestones=[]"]

pytestmark = pytest.mark.filterwarnings("ignore:`ModelCheckpoint.monitor='val/AP'.` could not")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    yield
    for number, handler in found.items():  # Lightning ignores Ctrl-C once it has come
        signal.signal(number, handler)


def train(options: Sequence[str], output: Path, *more: str) -> dict[str, Any]:
    """Trains to the end; returns the last checkpoint."""
    assert main([*options, f"--output={output}", *more]) == 0
    return torch.load(output / "last.ckpt", weights_only=True)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    one, other = one["state_dict"], other["state_dict"]
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "usage: " not in error
    return error.strip().splitlines()[-1]


def test_the_reason_of_an_error():
    assert reason_of(ValueError("a.jpg: broken")) == "a.jpg: broken"
    worker = "Caught DataError in DataLoader worker process 0.\nTraceback:\n  x\nDataError: a: b\n"
    assert reason_of(ValueError(worker)) == "a: b"
    link = ValueError("Call to compute_fn of link failed")
    link.__cause__ = OSError("no folder")
    assert reason_of(link) == "no folder"


def test_a_broken_image_in_the_middle_of_an_epoch(
    small_run: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root, whole = tmp_path / "data", tmp_path / "whole"
    write_shapes(root, {"train": 8, "val": 2}, (64, 64))
    options = [*small_run, f"--data.root={root}", "--trainer.max_epochs=2"]
    expected = train(options, whole)
    updates = set()
    for image in sorted((root / "JPEGImages").glob("train_*")):
        content, output = image.read_bytes(), tmp_path / image.stem
        image.write_bytes(b"no image")
        capsys.readouterr()
        assert main([*options, f"--output={output}"]) == 1
        image.write_bytes(content)
        assert image.name in last_line(capsys)
        if not (output / "last.ckpt").exists():  # in the first batch of all
            continue
        updates.add(torch.load(output / "last.ckpt", weights_only=True)["global_step"])
        assert same(train(options, output, "--resume"), expected)
        if len(updates) == 2:
            break
    assert max(updates) < 4


def test_ctrl_c_says_what_is_saved(
    small_run: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    options = [*small_run, "--trainer.max_steps=4"]
    expected = train(options, tmp_path / "whole")
    forward = DetectorModule.training_step

    def interrupt(module: DetectorModule, *arguments: Any) -> torch.Tensor:
        if module.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        return forward(module, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(DetectorModule, "training_step", interrupt)
        assert main([*options, f"--output={tmp_path / 'run'}"]) == 130
    file = tmp_path / "run" / "last.ckpt"
    assert f"update 2 is saved in {file}: --resume goes on from it" in caplog.messages
    assert same(train(options, tmp_path / "run", "--resume"), expected)


@pytest.mark.parametrize("length", [["max_epochs=1"], ["max_epochs=-1", "max_steps=4"]])
def test_a_run_stopped_in_its_last_validation_makes_up_for_it(
    small_run: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: list[str]
):
    options = [*small_run, *(f"--trainer.{option}" for option in length)]
    validations = []

    def told(module: DetectorModule) -> None:
        validations.append(module.global_step)
        if len(validations) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(DetectorModule, "on_validation_start", told)
    assert main([*options, f"--output={tmp_path}"]) == 130
    assert not (tmp_path / "best.ckpt").exists()
    for _ in range(2):  # but once
        last = train(options, tmp_path, "--resume")
        assert same(torch.load(tmp_path / "best.ckpt", weights_only=True), last)
    assert validations == [4, 4]


def test_how_often_the_last_checkpoint_is_written(
    small_run: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    forward = DetectorModule.training_step

    def fail(module: DetectorModule, *arguments: Any) -> torch.Tensor:
        if module.global_step == 3:
            raise ValueError("within an update, where nothing is saved")
        return forward(module, *arguments)

    monkeypatch.setattr(DetectorModule, "training_step", fail)
    assert main([*small_run, f"--output={tmp_path}", "--checkpoint_every=2"]) == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    "options",
    [
        ["max_epochs=3", "check_val_every_n_epoch=2"],
        ["max_epochs=3", "check_val_every_n_epoch=2", "limit_val_batches=0"],
        ["max_epochs=3", "val_check_interval=3"],
        ["max_epochs=-1", "max_steps=7", "val_check_interval=3", "check_val_every_n_epoch=null"],
    ],
)
def test_the_last_checkpoint_is_of_the_end(
    small_run: Sequence[str], tmp_path: Path, options: list[str]
):
    # An epoch has four updates.
    options = [*small_run, *ONE_RATE, *(f"--trainer.{option}" for option in options)]
    whole = train(options, tmp_path / "whole")
    assert whole["global_step"] == (7 if "--trainer.max_steps=7" in options else 12)
    broken = train(options, tmp_path / "broken", "--trainer.max_epochs=1")
    assert broken["global_step"] == 4
    assert same(train(options, tmp_path / "broken", "--resume"), whole)


def test_a_resumed_run_has_its_own_rates(small_run: Sequence[str], tmp_path: Path):
    options = [*small_run, *ONE_RATE]
    changed = ["--data.batch_size=4", "--model.schedule.lr_per_16_images=0.008"]
    more = ["--model.schedule.weight_decay=0.5", "--model.schedule.momentum=0.5"]
    train(options, tmp_path, "--trainer.max_epochs=1")
    last = train(options, tmp_path, "--resume", "--trainer.max_epochs=2", *changed, *more)
    (optimizer,), (scheduler,) = last["optimizer_states"], last["lr_schedulers"]
    rates = [group["lr"] for group in optimizer["param_groups"]]
    assert rates == pytest.approx([0.002] * 3)
    assert scheduler["base_lrs"] == rates
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.5, 0, 0]
    assert {group["momentum"] for group in optimizer["param_groups"]} == {0.5}


def test_a_new_run_in_a_used_folder(
    small_run: Sequence[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    train(small_run, tmp_path, "--trainer.max_epochs=1")
    best, last = tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    assert f"checkpoints: {best}, {last}; log" in capsys.readouterr().out
    assert not [line for line in caplog.messages if "replaces" in line]
    # What fails before it trains replaces nothing.
    assert main([*small_run, f"--output={tmp_path}", "--data.val=nothing"]) == 1
    assert best.exists()
    train(small_run, tmp_path, "--trainer.max_steps=2", "--trainer.limit_val_batches=0")
    assert f"checkpoints: {last}; log" in capsys.readouterr().out
    (line,) = [one for one in caplog.records if "replaces" in one.message]
    assert line.levelno == logging.WARNING
    assert f"{last}, {best}; --resume" in line.message


def test_without_log_and_progress_bar(
    small_run: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    off = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    train(small_run, tmp_path, "--trainer.max_epochs=1", *off)
    shown = capsys.readouterr()
    assert "epoch 1 of 1" not in shown.err + shown.out
    assert shown.out.endswith("last.ckpt\n")
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("default_root_dir=x", "--trainer.default_root_dir is not to be set: the run's folder"),
        ("plugins=SLURMEnvironment", "--trainer.plugins is not to be set: "),
        ("overfit_batches=2", "--trainer.overfit_batches is not to be set: "),
        ("logger=CSVLogger", "--trainer.logger: expected true, for TensorBoard and CSV, or false"),
        ("max_epochs=0", "--trainer.max_epochs 0: there is nothing to train"),
        ("max_steps=0", "--trainer.max_steps 0: there is nothing to train"),
        ("limit_train_batches=0", "--trainer.limit_train_batches 0: there is nothing to train"),
        ("check_val_every_n_epoch=0", "--trainer.check_val_every_n_epoch 0: use --trainer.limit"),
        ("devices=-1", "--trainer: `devices` selected with `CPUAccelerator`"),
        ("max_epochs=-1", "the learning rate follows the length of the run: set --trainer."),
        ("precision=bf16-true", "precision bf16-true: boxes need float32, as bf16-mixed has them"),
    ],
)
def test_options_that_a_run_has_no_use_for(
    small_run: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    reason: str,
):
    options = [f"--trainer.{option}", "--trainer.logger.save_dir=x"]
    assert main([*small_run, f"--output={tmp_path}", *options[: 1 + ("CSV" in option)]]) == 1
    assert last_line(capsys).startswith(f"resdet train: {reason}")


@pytest.mark.parametrize("name", ["optimizer", "lr_scheduler"])
def test_the_schedule_alone_sets_the_optimizer(
    small_run: Sequence[str], capsys: pytest.CaptureFixture[str], name: str
):
    with pytest.raises(SystemExit):
        main([*small_run, f"--{name}=Adam"])
    assert f"--{name}=Adam" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"data:\n  workers: 1\n bad: [\n", "own.yaml, line 3: not YAML: "),
        (b"a: \xff", "own.yaml: not YAML: "),
        (b"a: \x00", "own.yaml: not YAML: "),
    ],
)
def test_a_broken_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    assert main(["--config", str(file)]) == 1
    assert last_line(capsys).startswith(f"resdet train: {tmp_path}/{reason}")
    with pytest.raises(ValueError, match="not YAML"):
        shipped_configs([f"--config={file}"])


def test_a_checkpoint_that_was_cut_short(
    run: Path, small_run: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "last.ckpt"
    file.write_bytes((run / "last.ckpt").read_bytes()[:50000])
    assert main([*small_run, f"--output={tmp_path}", "--resume"]) == 1
    assert last_line(capsys).startswith(f"resdet train: {file}: cannot be read")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("data: {bathc_size: 2}\n", "bathc_size"),
        ("model:\n  detector:\n    backboen: resnet18\n", "backboen"),
        ("modle: 3\n", "modle"),
    ],
)
def test_an_unknown_key_names_its_file(
    small_run: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    key: str,
):
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit) as error:
        main([*small_run, "--config", str(file)])
    assert error.value.code == 2
    line = last_line(capsys)
    assert line.startswith(f"resdet train: {file}: ")
    assert key in line
