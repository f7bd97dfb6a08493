"""Alternating training: python alternating_worker.py DATA OUTPUT DEVICES; OUTPUT gets RANK.json.

Lightning starts the other rank by calling this script again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from small import digest, small_data, small_module

from detection.training.alternating import AlternatingTraining, Step, StepOptions
from detection.training.checkpointing import AtomicCheckpointIO

RPN = StepOptions(updates=6, batch_size=1, lr_per_16_images=0.16)
HEAD = StepOptions(updates=4, batch_size=2, lr_per_16_images=0.08)


def alternating(
    root: Path,
    folder: Path,
    callbacks: Callable[[Step], Sequence[Callback]] = lambda step: (),
    devices: int = 1,
    rpn: StepOptions = RPN,
) -> AlternatingTraining:
    """A run on the small detector and data, which saves after every second update."""

    def trainer(step: Step, updates: int, into: Path) -> pl.Trainer:
        often = ModelCheckpoint(into, "last", every_n_train_steps=2, enable_version_counter=False)
        return pl.Trainer(
            accelerator="cpu",
            devices=devices,
            strategy=DDPStrategy(timeout=timedelta(seconds=60)) if devices > 1 else "auto",
            max_steps=updates,
            max_epochs=-1,
            limit_val_batches=2 if step.number == 4 else 0,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=[often, *callbacks(step)],
        )

    data = small_data(root)
    return AlternatingTraining(small_module(data), data, folder, trainer, rpn, HEAD)


class Watch(Callback):
    """Notes the weights at the end of each step, as this rank has them."""

    def __init__(self) -> None:
        self.digests: list[str] = []

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.digests.append(digest(pl_module))


def main(root: Path, output: Path, devices: int) -> None:
    torch.set_num_threads(1)
    watch = Watch()
    training = alternating(root, output / "run", lambda step: [watch], devices)
    finished = training.run()
    rank = pl.utilities.rank_zero_only.rank
    report = {"finished": finished, "weights": watch.digests}
    (output / f"{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
