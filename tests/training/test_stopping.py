"""A run that is stopped, or fails, is saved where it can go on as if nothing had happened."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from detection.training.checkpointing import RemoveOthers, SaveOnExit
from detection.training.resuming import LastValidation
from detection.training.schedule import Schedule

Make = Callable[..., pl.Trainer]

pytestmark = pytest.mark.usefixtures("one_thread")
EPOCHS = {"max_epochs": 2}  # of four batches each
# Lightning counts epochs by updates, and resumes otherwise.
UPDATES = {"max_epochs": -1, "max_steps": 8}


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    yield
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)  # Lightning ignores Ctrl-C once it has come


class Validated(Callback):
    """Notes after how many batches a run is validated, and what step its logs have then."""

    def __init__(self) -> None:
        self.at: list[tuple[int, int]] = []
        self.steps: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        self.at.append((total.processed, trainer.fit_loop.epoch_loop._batches_that_stepped))

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)


class Break(Callback):
    """Does something in a hook, once, when a number of batches has been processed."""

    def __init__(self, hook: str, batches: int, action: Callable[[], None]) -> None:
        self._batches, self._action = batches, action
        setattr(self, hook, self._act)

    def _act(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        if total.processed == self._batches and not trainer.sanity_checking:
            self._action()


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise ValueError("failed")


def kill(*numbers: int) -> Callable[[], None]:
    def act() -> None:
        for number in numbers:
            signal.raise_signal(number)

    return act


def train(
    small: ModuleType, root: Path, trainer: pl.Trainer, resume: Path | None = None
) -> dict[str, Tensor]:
    """Trains; returns weights, statistics of the norms, and momenta."""
    data = small.small_data(root, val="two")
    schedule = Schedule(0.02, milestones=(0.7,), warmup_steps=3)
    module = small.small_module(data, schedule=schedule)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    state = dict(module.state_dict())
    momenta = trainer.optimizers[0].state.values()
    return state | {f"momentum {i}": one["momentum_buffer"] for i, one in enumerate(momenta)}


def saving(file: Path) -> tuple[Callback, Callback]:
    validation = LastValidation(file)
    return validation, SaveOnExit(file, validation)


class Case:
    """An unbroken run, and what to compare with it."""

    def __init__(self, small: ModuleType, root: Path, make: Make, **settings: Any) -> None:
        self._parts = small, root
        self._make, self._settings = make, {"limit_val_batches": 1.0, **settings}
        self.whole, self.validated, self.steps = self.run()

    def run(
        self, *callbacks: Callback, resume: Path | None = None
    ) -> tuple[dict[str, Tensor], list[tuple[int, int]], list[int]]:
        notes = Validated()
        trainer = self._make(callbacks=[notes, *callbacks], **self._settings)
        return train(*self._parts, trainer, resume), notes.at, notes.steps

    def broken(self, file: Path, *callbacks: Callback) -> None:
        """Runs until something breaks."""
        with pytest.raises((SystemExit, ValueError, FloatingPointError)):  # Ctrl-C: SystemExit
            self.run(*saving(file), *callbacks)

    def check(self, file: Path, batches: int, validated: int) -> None:
        """Resumes a run that was broken off after a number of batches, and of validations."""
        weights, at, steps = self.run(LastValidation(file), resume=file)
        assert [name for name in weights if not torch.equal(weights[name], self.whole[name])] == []
        assert at == self.validated[validated:]
        assert steps == self.steps[batches:]


@pytest.fixture(scope="module", params=[EPOCHS, UPDATES], ids=["epochs", "updates"])
def case(
    request: pytest.FixtureRequest, small: ModuleType, shapes: Path, make_trainer: Make
) -> Case:
    return Case(small, shapes, make_trainer, **request.param)


@pytest.mark.parametrize(
    ("hook", "batches", "validated", "action"),
    [
        ("on_train_batch_start", 2, 0, interrupt),
        ("on_train_batch_end", 2, 0, interrupt),
        ("on_train_batch_end", 4, 0, fail),  # the last of an epoch: it has not been validated
        ("on_validation_start", 4, 0, fail),
        ("on_validation_batch_start", 4, 0, interrupt),
        ("on_validation_batch_end", 4, 0, fail),
        ("on_train_epoch_end", 4, 1, fail),
        ("on_train_epoch_start", 4, 1, fail),
        ("on_train_batch_start", 4, 1, interrupt),
        ("on_train_batch_end", 5, 1, fail),
        ("on_train_batch_start", 7, 1, interrupt),
        ("on_before_zero_grad", 2, 0, kill(signal.SIGINT)),  # waits for the end of the update
        ("on_before_zero_grad", 2, 0, kill(signal.SIGTERM)),
        ("on_before_zero_grad", 3, 0, kill(signal.SIGTERM)),  # before the validation
        ("on_before_zero_grad", 2, 0, kill(signal.SIGTERM, signal.SIGCHLD)),
        ("on_validation_batch_start", 4, 0, kill(signal.SIGTERM)),
    ],
)
def test_ends_in_the_same_weights(
    case: Case,
    tmp_path: Path,
    hook: str,
    batches: int,
    validated: int,
    action: Callable[[], None],
):
    file = tmp_path / "last.ckpt"
    case.broken(file, Break(hook, batches, action))
    batches += hook == "on_before_zero_grad"
    assert torch.load(file, weights_only=True)["global_step"] == batches
    case.check(file, batches, validated)


@pytest.fixture(scope="module")
def epochs(small: ModuleType, shapes: Path, make_trainer: Make) -> Case:
    return Case(small, shapes, make_trainer, **EPOCHS)


def test_the_last_validation_is_made_up_for(case: Case, tmp_path: Path):
    file = tmp_path / "last.ckpt"
    case.broken(file, Break("on_validation_batch_end", 8, fail))
    case.check(file, 8, 1)


def test_without_validation(small: ModuleType, shapes: Path, make_trainer: Make, tmp_path: Path):
    case = Case(small, shapes, make_trainer, max_epochs=2, limit_val_batches=0)
    file = tmp_path / "last.ckpt"
    case.broken(file, Break("on_train_batch_end", 4, fail))
    case.check(file, 4, 0)


def test_gradients_that_wait_for_further_batches(
    small: ModuleType, shapes: Path, make_trainer: Make, tmp_path: Path
):
    case = Case(small, shapes, make_trainer, max_epochs=2, accumulate_grad_batches=2)
    file = tmp_path / "last.ckpt"
    case.broken(file, Break("on_train_batch_start", 1, fail))
    assert not file.exists()
    case.broken(file, Break("on_train_batch_start", 1, kill(signal.SIGTERM)))
    assert torch.load(file, weights_only=True)["global_step"] == 1
    case.check(file, 2, 0)


class Twice(Callback):
    """Two Ctrl-C within an update."""

    def on_before_zero_grad(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            kill(signal.SIGINT)()
            kill(signal.SIGINT)()


def diverge() -> None:
    raise FloatingPointError("losses")


@pytest.mark.parametrize(
    "callback",
    [
        Break("on_before_zero_grad", 2, fail),
        Break("on_train_batch_start", 2, diverge),
        Break("on_train_batch_start", 0, fail),  # nothing is trained yet
        Twice(),
    ],
)
def test_what_cannot_be_resumed_is_not_saved(epochs: Case, tmp_path: Path, callback: Callback):
    epochs.broken(tmp_path / "last.ckpt", callback)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_so(epochs: Case, tmp_path: Path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    weights, *_ = epochs.run(
        *saving(tmp_path / "last.ckpt"), Break("on_before_zero_grad", 2, kill(signal.SIGINT))
    )
    assert [name for name in weights if not torch.equal(weights[name], epochs.whole[name])] == []


def test_broken_weights_are_not_saved(epochs: Case, tmp_path: Path):
    class Spoil(Callback):
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
        ) -> None:
            next(iter(pl_module.parameters())).data.fill_(float("nan"))
            raise ValueError

    epochs.broken(tmp_path / "last.ckpt", Spoil())
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_processes_saves_nothing(
    epochs: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def several() -> None:
        monkeypatch.setattr(pl.Trainer, "world_size", 2)
        raise ValueError

    epochs.broken(tmp_path / "last.ckpt", Break("on_train_batch_start", 2, several))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resumed", [False, True])
def test_a_new_run_removes_anothers_checkpoints(
    epochs: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture, resumed: bool
):
    file, best, other = (tmp_path / name for name in ("last.ckpt", "best.ckpt", "other.ckpt"))
    epochs.broken(file, Break("on_train_batch_start", 2, fail))
    best.touch()
    other.touch()
    epochs.run(RemoveOthers(file, best), resume=file if resumed else None)
    assert file.exists() == best.exists() == resumed
    assert other.exists()
    said = [line for line in caplog.messages if f"replaces {file}, {best}; --resume" in line]
    assert len(said) == (not resumed)
