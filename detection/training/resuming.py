"""What a resumed run does otherwise than Lightning: it has its own rates, and validates its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

WAITS = "validation_waits"  # in a checkpoint: the batches after which it is due, or None


def trained_batches(trainer: pl.Trainer) -> int:
    """Returns how many batches a run has trained on, those before it was resumed included."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    trained: int = total.processed
    return trained


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

    def is_over(self, trainer: pl.Trainer) -> bool:
        """Whether this process has validated since the last batch that it trained on."""
        return self._validated == trained_batches(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts without any."""
        del trainer, pl_module
        self._validated = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes that it is done."""
        del pl_module
        self._validated = trained_batches(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Says whether a validation is due here, and not done."""
        del pl_module
        loop = trainer.fit_loop
        fetcher = cast(Any, loop._data_fetcher)
        waits = not self.is_over(trainer) and loop.epoch_loop._should_check_val_fx(fetcher)
        checkpoint[WAITS] = trained_batches(trainer) if waits else None

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes what was said."""
        del trainer, pl_module
        self._waits = checkpoint.get(WAITS)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates, if nothing was left to train."""
        del pl_module
        if self._waits == trained_batches(trainer) and not self.is_over(trainer):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            trainer.save_checkpoint(self._file, weights_only=False)
