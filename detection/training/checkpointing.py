"""Checkpoints that are whole or absent, and what a run that starts or breaks off does with them."""

from __future__ import annotations

import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from detection.atomic import replacing
from detection.training.resuming import LastValidation, trained_batches

_log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then replaces it.

    Lightning stages files in the temporary folder, which may be another file system, where the
    final move is a copy that a kill or a full disk cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Saves so that ``path`` is the old file or the whole new one at every moment.

        Raises:
            OSError: if the file cannot be written; the old one, if any, still stands.
        """
        del storage_options
        try:
            with replacing(Path(path)) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(f"{path}: cannot be written: {error}") from error


class RemoveOthers(Callback):
    """Removes another run's checkpoints when a new run starts to train in its folder."""

    def __init__(self, *files: Path) -> None:
        """Sets which files."""
        self._files = files

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes them, unless the run goes on from one of them, or writes none itself."""
        del pl_module
        old = [file for file in self._files if file.is_file()]
        resumed_or_test = trainer.ckpt_path or trainer.fast_dev_run  # type: ignore[attr-defined]
        if not old or resumed_or_test or not trainer.is_global_zero:
            return
        names = ", ".join(map(str, old))
        _log.warning("a new run replaces %s; --resume would have gone on with it", names)
        for file in old:
            file.unlink()


class SaveOnExit(Callback):
    """Saves where a run of one process is stopped or fails, so that it can be resumed from there.

    What is saved lies between two updates: a resumed run ends in the very weights of an unbroken
    one. Ctrl-C and SIGTERM therefore wait for the end of the update; a second Ctrl-C does not.
    Nothing is saved if the run breaks off within an update, which may leave its weights and the
    statistics of its norms half-way, or if its numbers are not finite.
    """

    def __init__(self, file: Path, validation: LastValidation) -> None:
        """Sets where to save, and what knows whether a validation is over."""
        self._file = file
        self._validation = validation
        self._first = -1
        self._asked: BaseException | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes where the run starts, and listens to signals; Lightning listens to no more then."""
        del pl_module
        self._first, self._asked = trained_batches(trainer), None
        main = threading.current_thread() is threading.main_thread()
        if main and trainer.world_size == 1:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background jobs
                    signal.signal(number, partial(self._ask, trainer))

    def _ask(self, trainer: pl.Trainer, number: int, _: object) -> None:
        if number == signal.SIGTERM:
            self._asked = SIGTERMException()
            # Who stops a job often stops the loaders' workers too. The death of one would end the
            # update under way; and who waits for it waits in vain.
            signal.signal(signal.SIGCHLD, lambda *_: self._stop(trainer))
        elif self._asked is None:
            self._asked = KeyboardInterrupt()
            _log.info("stops after this update; Ctrl-C again stops at once")
        else:
            raise KeyboardInterrupt

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stops if asked to."""
        self._stop(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stops if asked to."""
        self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stops if asked to."""
        self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops if asked to: whatever follows is not to start."""
        del pl_module
        self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        if self._asked is not None and _between_updates(trainer):
            asked, self._asked = self._asked, None  # once: the next worker's death is no news
            raise asked

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Saves, if there is anything new, and says so."""
        nothing_new = self._first < 0 or trained_batches(trainer) == self._first
        if nothing_new or isinstance(exception, FloatingPointError) or trainer.world_size > 1:
            return
        if not _between_updates(trainer) or not _finite(pl_module):
            _log.warning("broken off within an update: %s is left as it was", self._file)
            return
        _settle(trainer, validated=self._validation.is_over(trainer))
        try:
            trainer.save_checkpoint(self._file, weights_only=False)
        except OSError as error:
            _log.error("%s", error)
            return
        step = trainer.global_step
        _log.warning("update %d is saved in %s: --resume goes on from it", step, self._file)


def _progress(trainer: pl.Trainer) -> tuple[Any, Any]:
    """The counters of batches and of epochs, each with a total and a current part."""
    loop = trainer.fit_loop
    return loop.epoch_loop.batch_progress, loop.epoch_progress


def _between_updates(trainer: pl.Trainer) -> bool:
    """Whether no batch is half-way, and no gradient waits for further batches."""
    batches, _ = _progress(trainer)
    processed = batches.current.processed
    full = processed % trainer.accumulate_grad_batches == 0
    whole: bool = batches.total.started == batches.total.processed
    return whole and (full or processed == trainer.num_training_batches)


def _finite(module: pl.LightningModule) -> bool:
    return all(bool(torch.isfinite(values).all()) for values in module.parameters())


def _settle(trainer: pl.Trainer, *, validated: bool) -> None:
    """Sets Lightning's counters so that a resumed run neither skips nor repeats anything.

    Lightning resumes what it saves within its hooks. Between them, its counters may be of a batch
    that has been fetched but not trained on, of an epoch that has no batch yet, or of a
    validation that it would take for finished.

    Args:
        trainer: between two updates.
        validated: whether the validation that is due here, if any, is over.
    """
    loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    fetcher: Any = loop._data_fetcher
    batches, epochs = _progress(trainer)
    for count in (batches.total, batches.current):
        count.completed = count.processed
        count.reset_on_restart()
    processed = batches.current.processed
    batches.is_last_batch = processed == trainer.num_training_batches
    waits = processed > 0 and not validated and epoch_loop._should_check_val_fx(fetcher)
    within = waits or 0 < processed < trainer.num_training_batches
    for count in (epochs.total, epochs.current):
        if processed and not within:
            count.processed = count.started
        count.completed = count.processed
        count.reset_on_restart()
        count.ready = count.started = count.processed + within
    if not within:
        batches.reset_on_run()
    validation: Any = epoch_loop.val_loop.batch_progress
    validation.reset()
    for count in (validation.total, validation.current):
        count.ready = count.started = int(waits)
    # A resumed loop first passes over a validation that is due or over, and counts that.
    passes = (within or trainer.max_steps != -1) and epoch_loop._should_check_val_fx(fetcher)
    epoch_loop._batches_that_stepped = trainer.global_step - passes
