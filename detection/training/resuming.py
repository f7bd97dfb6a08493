"""What a resumed run does otherwise than Lightning: it has its own rates, and validates its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

from detection.training.checkpointing import trained_batches

WAITS = "validation_waits"  # in a checkpoint: the batches after which it is due, or None


class OwnRates(Callback):
    """Lets a resumed run train by its own schedule and batch, which may have been changed.

    Lightning restores learning rate, momentum and weight decay with the optimizer's state.
    """

    def __init__(self) -> None:
        """Starts without any."""
        self._groups: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps what the run was configured to, before its checkpoint is restored."""
        del pl_module
        self._groups = [dict(group, params=None) for group in _groups(trainer)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets it again; an unchanged run finds the very values of its checkpoint."""
        del pl_module
        for group, own in zip(_groups(trainer), self._groups, strict=True):
            group.update(own, params=group["params"])
        for config in trainer.lr_scheduler_configs:
            scheduler = cast(LambdaLR, config.scheduler)
            groups = scheduler.optimizer.param_groups
            scheduler.base_lrs = [group["initial_lr"] for group in groups]
            for group, factor in zip(groups, scheduler.lr_lambdas, strict=True):
                group["lr"] = group["initial_lr"] * factor(scheduler.last_epoch)


def _groups(trainer: pl.Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


class LastValidation(Callback):
    """Makes up for the validation after a run's last update, if the run was stopped before its end.

    Lightning takes a run of ``max_steps`` updates for done by these, and validates no more.
    """

    def __init__(self, file: Path) -> None:
        """Sets the checkpoint that knows whether a validation waits."""
        self._file = file
        self._validated = -1
        self._waits: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes that it is done."""
        del pl_module
        self._validated = trained_batches(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Says whether a validation is due here, and not done."""
        del pl_module
        trained, loop = trained_batches(trainer), trainer.fit_loop
        waits = self._validated != trained and loop.epoch_loop._should_check_val_fx(
            cast(Any, loop._data_fetcher)
        )
        checkpoint[WAITS] = trained if waits else None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes what was said."""
        del trainer, pl_module
        self._waits = checkpoint.get(WAITS)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates, if nothing was left to train."""
        del pl_module
        trained = trained_batches(trainer)
        if self._waits == trained != self._validated:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            trainer.save_checkpoint(self._file, weights_only=False)
