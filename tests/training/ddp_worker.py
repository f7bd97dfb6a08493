"""What every rank of a run does: python ddp_worker.py DATA OUTPUT DEVICES; OUTPUT gets RANK.json.

Lightning starts the other rank by calling this script again.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from small import Oracle, digest, small_data, small_module

from detection.structures import Predictions
from detection.training.schedule import Schedule
from detection.training.validation import Evaluation, ValidationModule


class Watch(Callback):
    """Notes the images, and the rate, of every step."""

    def __init__(self) -> None:
        self.images: list[list[int]] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.images.append(batch[0].image_ids.tolist())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def make_trainer(devices: int, *callbacks: Callback, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=DDPStrategy(timeout=timedelta(seconds=60)) if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )


def in_order(predictions: Predictions) -> list[list[Any]]:
    order = predictions.image_ids.argsort(kind="stable")
    return [array[order].tolist() for array in predictions[:4]]


def plain(evaluation: Evaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "coco": repr(evaluation.coco),
        "voc": repr(evaluation.voc),
        "predictions": in_order(evaluation.predictions),
    }


def main(root: Path, output: Path, devices: int) -> None:
    torch.set_num_threads(1)
    data = small_data(root)
    oracle = ValidationModule(Oracle(data.val_annotations, len(data.labels.names)), data.labels)
    module = small_module(data, schedule=Schedule(0.02))
    report: dict[str, Any] = {}
    for name, validated in {"oracle": oracle, "detector": module}.items():
        trainer = make_trainer(devices)
        (report[f"{name} logged"],) = trainer.validate(validated, data, verbose=False)
        report[name] = plain(validated.evaluation)
    before, watch = digest(module), Watch()
    trainer = make_trainer(devices, watch, max_steps=3, max_epochs=-1, limit_val_batches=0)
    trainer.fit(module, data)
    report |= {
        "trained": digest(module) != before,
        "weights": digest(module),
        "images": watch.images,
        "rates": watch.rates,
        "world": trainer.world_size,
    }
    (output / f"{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
