"""What the data module's loaders are made of: resuming, and what a worker process does first."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from detection.data.sampling import TrainBatches
from detection.data.transforms import use_calling_thread

_WORKER_TIMEOUT = 300.0  # seconds after which a hung worker ends the run

_log = logging.getLogger(__name__)


class TrainLoader(DataLoader[Any]):
    """A loader that goes on after the batches that the trainer has processed.

    Their total is the position. Lightning's epoch counters are not: after a resume they run
    ahead or behind, depending on where the checkpoint was written.

    Args:
        *args: as `DataLoader` takes them.
        position: tells how many batches the trainer has processed; without a trainer, None, the
            batches start where their sampler stands.
        **settings: as `DataLoader` takes them, ``batch_sampler`` among them.
    """

    batch_sampler: TrainBatches

    def __init__(self, *args: Any, position: Callable[[], int] | None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._position = position

    def __iter__(self) -> Any:
        # A generator starts at the first batch. Lightning may ask for the iterator long before,
        # to count the batches, when it has not restored the position yet.
        if self._position is not None:
            self.batch_sampler.seek(self._position())
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """What the order depends on; with this, Lightning takes the loader for resumable."""
        return self.batch_sampler.settings()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Says so, if a resumed run draws its images in another order."""
        if state != (settings := self.batch_sampler.settings()):
            info(f"resumed with {settings} instead of {state}: images come in another order")


def worker_settings(workers: int) -> dict[str, Any]:
    """Returns what a `DataLoader` is told of its processes.

    Args:
        workers: how many; 0 reads in the main process.
    """
    settings: dict[str, Any] = {
        "num_workers": workers,
        "pin_memory": torch.cuda.is_available(),
    }
    if workers > 0:
        settings |= {
            "persistent_workers": True,
            "timeout": _WORKER_TIMEOUT,
            "worker_init_fn": _start_worker,
        }
    return settings


def _start_worker(_: int) -> None:
    use_calling_thread()
    # Ctrl-C reaches the workers too; the main process still needs them to stop in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@rank_zero_only
def info(message: str) -> None:
    """Logs once, whatever the number of processes."""
    _log.info(message)
