import csv
import os
import signal
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml

from detection.training.parts import HeadModule
from detection.training.proposing import Proposer
from resdet.tools import evaluate, predict
from resdet.tools.alternate import main

# Four batches of two images are an epoch, after which the last step validates.
STEPS = ["--rpn.updates=3", "--head.updates=4", "--head.lr_per_16_images=0.08"]


@pytest.fixture(scope="session")
def alternated(small_run: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `resdet alternate`."""
    output = tmp_path_factory.mktemp("runs") / "alternated"
    with redirect_stdout(StringIO()) as shown:
        assert main([*small_run, *STEPS, f"--output={output}"]) == 0
    (output / "shown.txt").write_text(shown.getvalue())
    return output


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def test_the_folder_of_a_run(alternated: Path):
    names = {path.relative_to(alternated).as_posix() for path in alternated.rglob("*.*")}
    steps = {f"step{number}/{name}" for number in range(1, 5) for name in ("last.ckpt",)}
    assert names >= steps | {"last.ckpt", "best.ckpt", "step4/best.ckpt"}
    assert names >= {f"proposals{n}.{suffix}" for n in (1, 3) for suffix in ("npz", "json")}
    # Only the last step has a whole detector to validate.
    assert not (alternated / "step2" / "best.ckpt").exists()
    assert (alternated / "best.ckpt").read_bytes() == (
        alternated / "step4" / "best.ckpt"
    ).read_bytes()


def test_each_step_keeps_its_log_and_configuration(alternated: Path):
    for number in range(1, 5):
        folder = alternated / f"step{number}"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["rpn"]["updates"] == 3
        assert config["rpn"]["batch_size"] == 1
        assert config["head"]["lr_per_16_images"] == 0.08
        assert list(folder.glob("log/events.out.tfevents.*"))
        (metrics,) = folder.glob("log/version_*/metrics.csv")
        rows = list(csv.DictReader(metrics.read_text().splitlines()))
        loss = "train/roi_box" if number % 2 == 0 else "train/rpn_box"
        assert sum(bool(row[loss]) for row in rows) == 3 + (number % 2 == 0)
        assert ("val/AP" in rows[0]) == (number == 4)


def test_the_detector_is_evaluated_and_predicts(alternated: Path, shapes: Path, tmp_path: Path):
    for name in ("last.ckpt", "best.ckpt"):
        options = ["--checkpoint", str(alternated / name), "--data", str(shapes)]
        options += ["--workers", "0", "--accelerator", "cpu", "--output", str(tmp_path / name)]
        assert evaluate.main(options) == 0
        assert (tmp_path / name / "figures.json").is_file()
    photo = next((shapes / "JPEGImages").iterdir())
    options = ["--checkpoint", str(alternated / "last.ckpt"), str(photo)]
    assert predict.main([*options, "--output", str(tmp_path / "drawn")]) == 0


def test_the_bars_name_their_steps(alternated: Path):
    text = (alternated / "shown.txt").read_text()
    for number, part in enumerate(("RPN", "head", "RPN", "head"), 1):
        updates = {"RPN": 3, "head": 4}[part]
        assert f"step {number} of 4, {part}: update 0 of {updates}" in text
        assert (f"step {number} of 4, {part}: proposals" in text) == (part == "head")
    assert f"detector: {alternated}/last.ckpt" in text


def test_a_run_is_broken_off_and_resumed(
    small_run: Sequence[str],
    alternated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    output, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(HeadModule, "training_step", interrupt)
        try:
            assert main([*small_run, *STEPS, f"--output={output}"]) == 130
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert not (output / "last.ckpt").exists()
    first = (output / "step1" / "last.ckpt").stat()
    other = ["--resume", "--model.detector.roi_size=5"]
    reason = f"{output}/step1/last.ckpt: is of a detector with roi_size None, not 5"
    assert reason in refused(capsys, small_run, output, *STEPS, *other)
    assert main([*small_run, *STEPS, f"--output={output}", "--resume"]) == 0
    assert (output / "step1" / "last.ckpt").stat().st_mtime_ns == first.st_mtime_ns
    one, other = (weights(folder / "last.ckpt") for folder in (alternated, output))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_told_to_stop_in_its_last_validation(
    small_run: Sequence[str], alternated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def told(self: HeadModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(HeadModule, "on_validation_start", told)
        assert main([*small_run, *STEPS, f"--output={tmp_path}"]) == 130
    assert not list(tmp_path.rglob("best.ckpt"))
    assert main([*small_run, *STEPS, f"--output={tmp_path}", "--resume"]) == 0
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (weights(folder / name) for folder in (alternated, tmp_path))
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_told_to_stop_while_it_proposes_says_so(
    small_run: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def told(self: Proposer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Proposer, "on_predict_start", told)
    assert main([*small_run, *STEPS, f"--output={tmp_path / 'run'}"]) == 130
    assert not list(tmp_path.glob("run/proposals*"))
    assert not (tmp_path / "run/step2/last.ckpt").exists()


def refused(
    capsys: pytest.CaptureFixture[str], small_run: Sequence[str], output: Path, *options: str
) -> str:
    assert main([*small_run, f"--output={output}", *options]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    return next(line for line in lines if line.startswith("resdet alternate: "))


def test_a_run_is_not_overwritten(
    alternated: Path, small_run: Sequence[str], capsys: pytest.CaptureFixture[str]
):
    before = (alternated / "last.ckpt").stat().st_mtime_ns
    assert "holds a run: --resume goes on with it" in refused(capsys, small_run, alternated)
    assert (alternated / "last.ckpt").stat().st_mtime_ns == before


def test_the_run_of_another_tool_is_not_overwritten(
    tmp_path: Path, small_run: Sequence[str], capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "last.ckpt").touch()
    assert "holds a run" in refused(capsys, small_run, tmp_path)
    assert "--resume: no checkpoint" in refused(capsys, small_run, tmp_path, "--resume")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--data.root=nowhere", "nowhere"),
        ("--rpn.lr_per_16_images=1e30", "lower the learning rate"),
        ("--rpn.updates=0", "a step's updates: expected at least 1, got 0"),
        ("--head.batch_size=0", "a step's batch_size: expected at least 1, got 0"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str],
    small_run: Sequence[str],
    tmp_path: Path,
    option: str,
    reason: str,
):
    assert reason in refused(capsys, small_run, tmp_path / "run", option)
