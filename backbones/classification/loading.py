"""What the loaders are made of: images as tensors, and a loader that resumes where it was."""

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones.classification.augmentation import Augmentation, Pixels
from backbones.classification.images import Images
from backbones.classification.order import Draw, TrainBatches
from backbones.classification.views import Testing, views


class TrainLoader(DataLoader[Any]):
    """A loader that goes on after the batches that the trainer has processed.

    Their total is the position: Lightning's epoch counters run ahead or behind after a resume.
    """

    batch_sampler: TrainBatches

    def __init__(self, *args: Any, trainer: Trainer | None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._trainer = trainer

    def __iter__(self) -> Any:
        # A generator starts at the first batch. Lightning may ask for the iterator long before,
        # when it has not restored the position yet.
        if self._trainer is not None:
            total: Any = self._trainer.fit_loop.epoch_loop.batch_progress.total
            self.batch_sampler.seek(total.processed)
        yield from super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """What the order depends on; with this, Lightning takes the loader for resumable."""
        return self.batch_sampler.settings()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Compare what a resumed run's order depends on.

        Raises:
            ValueError: the position of the first run means another one here.
        """
        if state != (settings := self.batch_sampler.settings()):
            raise ValueError(f"expected to be resumed with {state}, got {settings}")


class ImageDataset(Dataset[Any]):
    """Images through a function.

    Args:
        images: the images.
        transform: from an image's (H, W, 3) uint8 pixels and its draw to what is batched.
    """

    def __init__(self, images: Images, transform: Callable[[Pixels, Draw], Any]) -> None:
        self._images, self._transform = images, transform

    def __getitem__(self, draw: Draw) -> tuple[Any, int]:
        """What ``transform`` makes of an image, and its label.

        Raises:
            ValueError: the image cannot be used; the message names it.
        """
        index = draw[0]
        pixels = self._images.read(index)
        try:
            return self._transform(pixels, draw), int(self._images.labels[index])
        except ValueError as error:
            raise ValueError(f"{self._images.name(index)}: {error}") from error


def augmented(augmentation: Augmentation, pixels: Pixels, draw: Draw) -> Tensor:
    """A training image as (3, crop, crop) uint8."""
    index, seed, epoch = draw
    return _tensor(augmentation.apply(pixels, np.random.default_rng([seed, epoch, index])))


def viewed(
    testing: Testing,
    crop: int,
    short_side: int | None,
    scales: tuple[int, ...],
    pixels: Pixels,
    _: Draw,
) -> list[Tensor]:
    """A test image's views, see ``views``, as (V, 3, H, W) uint8."""
    return [_tensor(view) for view in views(pixels, testing, crop, short_side, scales)]


def _tensor(pixels: Pixels) -> Tensor:
    """(…, H, W, 3) -> (…, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))


def start_worker(_: int) -> None:
    """What a worker process does first."""
    # Ctrl-C reaches the workers too; the main process still needs them to stop in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
