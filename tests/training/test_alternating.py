"""The four steps: what each starts from and leaves alone, and runs that are broken off."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

import detection
from detection.checkpoint import load_detector
from detection.data.proposals import origin_of, pack_proposals, read_proposals
from detection.data.records import DataError
from detection.training import alternating as steps
from detection.training.alternating import (
    HEAD_OPTIONS,
    RPN_OPTIONS,
    STEPS,
    AlternatingTraining,
    Step,
    _sha256,
)
from detection.training.proposing import Proposer

State = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("one_thread")


class Watch(Callback):
    """Notes the weights that a step starts from, its losses, rates and batches."""

    def __init__(self) -> None:
        self.start: State = {}
        self.losses: set[str] = set()
        self.rates: list[float] = []
        self.images: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *rest: Any) -> None:
        self.losses |= {name for name in trainer.callback_metrics if name.startswith("train/")}
        self.images.append(len(rest[1][0].images))

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: object) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class Run:
    """A finished run, and what was watched."""

    def __init__(self, worker: ModuleType, shapes: Path, folder: Path) -> None:
        self.folder = folder
        self.watched = {step.number: Watch() for step in STEPS}
        self.training = worker.alternating(shapes, folder, lambda step: [self.watched[step.number]])
        self.pretrained: State = dict(self.training.model.state_dict())
        self.finished = self.training.run()


def state(folder: Path, step: int) -> State:
    file = folder / f"step{step}" / "last.ckpt"
    return torch.load(file, weights_only=True)["state_dict"]


def changed(before: State, after: State) -> set[str]:
    """The parts of the detector in which a parameter or a statistic is another one now."""
    assert before.keys() == after.keys()
    names = (name for name in before if not torch.equal(before[name], after[name]))
    return {name.split(".")[1] for name in names}


@pytest.fixture(scope="module")
def run(alternating_worker: ModuleType, shapes: Path, tmp_path_factory: Any) -> Run:
    return Run(alternating_worker, shapes, tmp_path_factory.mktemp("runs") / "whole")


def test_the_papers_numbers():
    assert [(step.part, step.train_trunk, step.start) for step in STEPS] == [
        ("RPN", True, 0),
        ("head", True, 0),
        ("RPN", False, 2),
        ("head", False, 3),
    ]
    assert [options.updates for options in (RPN_OPTIONS, HEAD_OPTIONS)] == [80_000, 40_000]
    for options, drop in ((RPN_OPTIONS, 60_000), (HEAD_OPTIONS, 30_000)):
        assert options.milestones[0] * options.updates == drop
        assert options.lr_per_16_images * options.batch_size / 16 == 0.001


def test_what_each_step_starts_from(run: Run):
    start = {number: watch.start for number, watch in run.watched.items()}
    assert not changed(run.pretrained, start[1])
    # Not from step 1: only its proposals come in.
    assert not changed(run.pretrained, start[2])
    assert not changed(state(run.folder, 2), start[3])
    assert not changed(state(run.folder, 3), start[4])


def test_what_each_step_trains(run: Run):
    trained = [changed(run.watched[n].start, state(run.folder, n)) for n in (1, 2, 3, 4)]
    assert trained == [{"trunk", "rpn"}, {"trunk", "roi_head"}, {"rpn"}, {"roi_head"}]
    # The trunk of step 2 is not that of step 1; it is the one of the result.
    assert "trunk" in changed(state(run.folder, 1), state(run.folder, 2))
    assert changed(state(run.folder, 2), state(run.folder, 4)) == {"rpn", "roi_head"}


def test_each_step_has_its_own_losses_batches_and_rates(run: Run):
    rpn = {"train/loss", "train/rpn_objectness", "train/rpn_box"}
    head = {"train/loss", "train/roi_class", "train/roi_box"}
    watched = run.watched.values()
    assert [watch.losses for watch in watched] == [rpn, head, rpn, head]
    assert [watch.images for watch in watched] == [[1] * 6, [2] * 4, [1] * 6, [2] * 4]
    # 0.16 and 0.08 per 16 images, dropped after three quarters: at 4.5 of 6, and 3 of 4.
    for number, watch in run.watched.items():
        wanted = [0.01] * 5 + [0.001] if number % 2 else [0.01] * 3 + [0.001]
        assert watch.rates == pytest.approx(wanted)


def test_the_result_is_one_ordinary_detector(run: Run, shapes: Path):
    assert run.finished
    assert (run.folder / "last.ckpt").read_bytes() == (
        run.folder / "step4" / "last.ckpt"
    ).read_bytes()
    detector, description = load_detector(run.folder / "last.ckpt")
    assert description.labels == run.training.model.labels
    assert (description.short_side, description.long_side) == (64, 64)
    images, _ = next(iter(run.training.data.val_dataloader()))
    assert torch.isfinite(detector(images).boxes).all()


def test_the_proposals_are_those_of_the_rpns(
    run: Run, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
):
    data = run.training.data
    truth = data.train_records.annotations
    for number in (1, 3):
        checkpoint = run.folder / f"step{number}" / "last.ckpt"
        found = read_proposals(
            run.folder / f"proposals{number}.npz",
            truth.image_ids,
            run.training.proposed_by(number),
        )
        detector, _ = load_detector(checkpoint)
        proposer = Proposer(detector, run.training.model.criterion.proposals, truth)
        make_trainer().predict(proposer, datamodule=data, return_predictions=False)
        assert np.array_equal(pack_proposals(truth.image_ids, proposer.found).boxes, found.boxes)
        facts = json.loads((run.folder / f"proposals{number}.json").read_text())
        assert facts["origin"].startswith(_sha256(checkpoint))
        assert facts["recall"] == proposer.recall
        # Others would be made if they were to be chosen otherwise.
        origin = run.training.proposed_by(number)
        assert origin_of(run.folder / f"proposals{number}.npz") == origin
        criterion = run.training.model.criterion
        other = replace(criterion, proposals=replace(criterion.proposals, after_nms=5))
        with monkeypatch.context() as patch:
            patch.setattr(run.training.model, "criterion", other)
            assert run.training.proposed_by(number) != origin


class Break(Callback):
    """Ends the process, as far as a test can, at an update."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.update:
            raise InterruptedError("broken off")


def resume(worker: ModuleType, shapes: Path, folder: Path) -> dict[int, int]:
    """Goes on; returns how many batches of each step were trained."""
    watched = {step.number: Watch() for step in STEPS}
    torch.manual_seed(99)  # a new process has drawn other numbers before
    assert worker.alternating(shapes, folder, lambda step: [watched[step.number]]).run()
    return {number: len(watch.images) for number, watch in watched.items()}


@pytest.mark.parametrize(
    ("number", "update", "left"),
    [
        (1, 3, [4, 4, 6, 4]),  # last saved after the second update
        (3, 0, [0, 0, 6, 4]),  # after step 2
        # Nothing saved; the proposals are there.
        pytest.param(2, 1, [0, 4, 6, 4], marks=pytest.mark.slow),
        pytest.param(4, 3, [0, 0, 0, 2], marks=pytest.mark.slow),
    ],
)
def test_a_broken_run_ends_in_the_same_weights(
    alternating_worker: ModuleType,
    shapes: Path,
    tmp_path: Path,
    run: Run,
    number: int,
    update: int,
    left: list[int],
):
    def broken(step: Step) -> list[Callback]:
        return [Break(update)] if step.number == number else []

    with pytest.raises(InterruptedError):
        alternating_worker.alternating(shapes, tmp_path, broken).run()
    assert not (tmp_path / "last.ckpt").exists()
    assert list(resume(alternating_worker, shapes, tmp_path).values()) == left
    for step in range(1, 5):
        assert not changed(state(run.folder, step), state(tmp_path, step))
    # A finished run has nothing left to do.
    assert set(resume(alternating_worker, shapes, tmp_path).values()) == {0}


def test_a_run_that_ends_while_proposals_are_written(
    alternating_worker: ModuleType,
    shapes: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "store", fail)
        with pytest.raises(OSError, match="disk full"):
            alternating_worker.alternating(shapes, tmp_path).run()
    assert not list(tmp_path.glob("proposals*"))
    assert list(resume(alternating_worker, shapes, tmp_path).values()) == [0, 4, 6, 4]
    assert not changed(state(run.folder, 4), state(tmp_path, 4))


class Terminate(Callback):
    """Sends this process SIGTERM after a batch of proposals."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.batches = 0

    def on_predict_batch_end(self, *_: object) -> None:
        if self.batches == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)
        self.batches += 1


@pytest.mark.parametrize("batch", [1, 3])
def test_a_run_told_to_stop_while_it_proposes(
    alternating_worker: ModuleType, shapes: Path, tmp_path: Path, batch: int
):
    """In the second of four batches of two images, and in the last one."""
    stop = Terminate(batch)
    with pytest.raises(SIGTERMException):
        alternating_worker.alternating(shapes, tmp_path, lambda step: [stop]).run()
    assert stop.batches == batch + 1
    assert not list(tmp_path.glob("proposals*"))
    assert not (tmp_path / "step2").exists()


class Stop(Callback):
    """Tells the trainer to stop."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.should_stop = True


def test_a_step_that_stops_early_is_not_taken_for_done(
    alternating_worker: ModuleType, shapes: Path, tmp_path: Path
):
    assert not alternating_worker.alternating(shapes, tmp_path, lambda step: [Stop()]).run()
    assert not (tmp_path / "step2").exists()


def test_a_step_on_something_else_than_the_last_one_left_is_refused(
    alternating_worker: ModuleType, shapes: Path, tmp_path: Path
):
    def broken(step: Step) -> list[Callback]:
        return [Break(3)] if step.number == 2 else []

    def training(**options: Any) -> AlternatingTraining:
        return alternating_worker.alternating(shapes, tmp_path, broken, **options)

    with pytest.raises(InterruptedError):
        training().run()
    longer = alternating_worker.RPN.__class__(updates=8, batch_size=1)
    with pytest.raises(ValueError, match=r"step2/last\.ckpt does not build on .*step1/last\.ckpt"):
        training(rpn=longer).run()


def test_damaged_proposals_are_refused(
    alternating_worker: ModuleType, shapes: Path, tmp_path: Path
):
    def broken(step: Step) -> list[Callback]:
        return [Break(0)] if step.number == 2 else []

    with pytest.raises(InterruptedError):
        alternating_worker.alternating(shapes, tmp_path, broken).run()
    (tmp_path / "proposals1.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"proposals1\.npz: not a file of proposals, or damaged"):
        alternating_worker.alternating(shapes, tmp_path).run()


@pytest.mark.slow
def test_two_processes(shapes: Path, tmp_path: Path, make_trainer: Any, run: Run):
    project = str(Path(detection.__file__).parents[1])
    worker = Path(__file__).with_name("alternating_worker.py")
    process = subprocess.Popen(
        [sys.executable, str(worker), str(shapes), str(tmp_path), "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": project},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=300)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-5000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["finished"]
    assert len(set(ranks[0]["weights"])) == 4
    folder = tmp_path / "run"
    assert changed(state(folder, 2), state(folder, 4)) == {"rpn", "roi_head"}
    # The proposals of both ranks, in the data set's order, are those of one process.
    checkpoint = folder / "step1" / "last.ckpt"
    data = run.training.data
    truth = data.train_records.annotations
    selection = run.training.model.criterion.proposals
    proposer = Proposer(load_detector(checkpoint)[0], selection, truth)
    make_trainer().predict(proposer, datamodule=data, return_predictions=False)
    wanted = pack_proposals(truth.image_ids, proposer.found)
    file = folder / "proposals1.npz"
    origin = origin_of(file)
    assert origin is not None
    assert origin.startswith(_sha256(checkpoint))
    found = read_proposals(file, truth.image_ids, origin)
    facts = json.loads((folder / "proposals1.json").read_text())
    assert facts["recall"] == proposer.recall
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)
