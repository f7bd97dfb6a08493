"""A run that is broken off and resumed ends in the very weights of an unbroken one."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from detection.checkpoint import KEY, CheckpointError
from detection.data.transforms import Augmentation
from detection.training.module import DetectorModule
from detection.training.schedule import Schedule

Make = Callable[..., pl.Trainer]

pytestmark = pytest.mark.usefixtures("one_thread")


class Save(Callback):
    """Saves after a step, and ends the run there."""

    def __init__(self, file: Path, step: int) -> None:
        self.file, self.step = file, step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)
            trainer.should_stop = True


def small_module_with_dropout(small: ModuleType, data) -> DetectorModule:
    module = small.small_module(data, schedule=Schedule(0.02, milestones=(0.7,), warmup_steps=3))
    module.detector.roi_head.tail = nn.Sequential(module.detector.roi_head.tail, nn.Dropout(0.5))
    return module


def run(
    small: ModuleType,
    root: Path,
    trainer: pl.Trainer,
    *,
    resume: Path | None = None,
    noise: int,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Trains; returns weights, statistics of the norms, and momenta."""
    augmentation = Augmentation(flip=0.5, color=0.3)
    data = small.small_data(root, augmentation=augmentation, seed=seed)
    module = small_module_with_dropout(small, data)
    torch.manual_seed(noise)  # a resumed process has drawn other numbers before
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    state = dict(module.state_dict())
    momenta = trainer.optimizers[0].state.values()
    state |= {str(i): momentum["momentum_buffer"] for i, momentum in enumerate(momenta)}
    return state


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.fixture(scope="module")
def whole(small: ModuleType, shapes: Path, make_trainer: Make) -> dict[str, Tensor]:
    return run(small, shapes, make_trainer(max_epochs=2), noise=1)


@pytest.mark.parametrize("step", [2, 4, 6])  # within an epoch, at its end, within the second
def test_ends_in_the_same_weights(
    small: ModuleType,
    shapes: Path,
    make_trainer: Make,
    tmp_path: Path,
    whole: dict[str, Tensor],
    step: int,
):
    file = tmp_path / "last.ckpt"
    broken = make_trainer(max_epochs=2, callbacks=[Save(file, step)])
    first = run(small, shapes, broken, noise=2)
    assert broken.global_step == step
    assert difference(first, whole)
    resumed = make_trainer(max_epochs=2)
    assert not difference(run(small, shapes, resumed, resume=file, noise=3), whole)
    assert resumed.global_step == 8


def test_another_seed_gives_other_weights(small: ModuleType, shapes: Path, make_trainer: Make):
    one, other = (
        run(small, shapes, make_trainer(max_steps=1), noise=1, seed=seed) for seed in (0, 1)
    )
    assert difference(one, other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": ["a", "b"], "ids": [1, 2]}, "is of the classes LabelMap"),
        ({"short_side": 96}, ""),
        ({"spec": {"roi_size": 9}}, "is of a detector with roi_size 9, not"),
        ({"spec": {"odd": 9}}, "does not describe its detector"),
        (None, "expected a checkpoint of `resdet train`"),
    ],
)
def test_another_detectors_checkpoint_is_refused(
    small: ModuleType,
    shapes: Path,
    make_trainer: Make,
    tmp_path: Path,
    change: dict[str, Any] | None,
    reason: str,
):
    file = tmp_path / "last.ckpt"
    run(small, shapes, make_trainer(max_steps=3, callbacks=[Save(file, 2)]), noise=1)
    checkpoint = torch.load(file, weights_only=True)
    if change is None:
        del checkpoint[KEY]
    else:
        spec = checkpoint[KEY]["spec"] | change.pop("spec", {})
        checkpoint[KEY] |= {**change, "spec": spec}
    torch.save(checkpoint, file)
    resumed = make_trainer(max_steps=3)
    if not reason:
        run(small, shapes, resumed, resume=file, noise=1)
        return
    with pytest.raises(CheckpointError, match=re.escape(f"{file}: {reason}")):
        run(small, shapes, resumed, resume=file, noise=1)
