"""ImageNet, CIFAR-10 or a folder of images as Lightning's training, validation and test batches.

Use it with ``Trainer(use_distributed_sampler=False)``: the loaders shard by themselves. A run that
is resumed in the middle of an epoch continues with the very next batch.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from backbones.classification import cifar10
from backbones.classification.augmentation import Augmentation
from backbones.classification.images import FolderImages, Images, KeptImages
from backbones.classification.loading import (
    ImageDataset,
    TrainLoader,
    augmented,
    start_worker,
    viewed,
)
from backbones.classification.order import TrainBatches
from backbones.classification.views import SCALES, Testing

_WORKER_TIMEOUT = 300.0  # seconds after which a hung worker ends the run


class Split(NamedTuple):
    """Images, and which of them belong to a split.

    Attributes:
        images: the images.
        indices: (n,) int64.
    """

    images: Images
    indices: NDArray[np.int64]


class ClassificationData(LightningDataModule):
    """Images and labels from a folder.

    What the folder holds decides how it is read: CIFAR-10's binary batches, or the folders
    ``train`` and ``val`` or ``test`` with a folder per class. Validation is on ``val`` (CIFAR-10:
    the test batch) unless images of ``train`` are held out for it; testing is on ``test`` where
    there is one, else on ``val``.

    A training batch is (images (B, 3, crop, crop) uint8, labels (B,) int64). A validation or test
    batch is (views, labels): a list of (B, V, 3, H, W) uint8, one for each size (see ``views``).

    Args:
        root: the folder.
        batch_size: training images per process and step.
        val_batch_size: validation images per process and step.
        workers: processes that read images; 0 reads in the main process.
        augmentation: how training images vary.
        test_short_side: what the short side of test images is made, pixels; None leaves it.
        in_memory: whether images stay in memory, uncompressed, from their first reading on: 3
            bytes per pixel in every process that reads.
        holdout: how many training images, chosen at random, are held out for validation (CIFAR-10:
            5000 of 50000).
        holdout_seed: decides which; runs with several ``seed`` share them.
        seed: decides order and augmentation of the training images.

    Raises:
        ValueError: a number is below its smallest sensible value.
    """

    def __init__(
        self,
        root: str,
        *,
        batch_size: int = 256,
        val_batch_size: int = 100,
        workers: int = 4,
        augmentation: Augmentation = Augmentation(),
        test_short_side: int | None = 256,
        in_memory: bool = False,
        holdout: int = 0,
        holdout_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, val_batch_size) < 1 or min(workers, holdout, holdout_seed, seed) < 0:
            raise ValueError(
                "expected batch sizes >= 1, and workers, holdout and seeds >= 0, got "
                f"{batch_size}, {val_batch_size}, {workers}, {holdout}, {holdout_seed}, {seed}"
            )
        self._root = Path(root)
        self.batch_size, self._val_batch_size = batch_size, val_batch_size
        self._workers, self._in_memory = workers, in_memory
        self.augmentation, self._test_short_side = augmentation, test_short_side
        self._holdout, self._holdout_seed = holdout, holdout_seed
        self.seed = seed
        self._read: dict[str, Images] = {}
        self._names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels.

        Raises:
            OSError, ValueError: the folder cannot be read.
        """
        self._images("train")
        return self._names

    def split(self, name: str) -> Split:
        """The images of "train", "val" or "test", read on first use.

        Raises:
            OSError, ValueError: the folder cannot be read, or there are too few images.
        """
        if name == "test" or (name == "val" and not self._holdout):
            images = self._images(name)
            return Split(images, np.arange(len(images.labels)))
        images = self._images("train")
        count = len(images.labels) - self._holdout
        if count < 1:
            raise ValueError(f"holdout={self._holdout}: there are {len(images.labels)} images")
        order = np.random.default_rng(self._holdout_seed).permutation(len(images.labels))
        return Split(images, np.sort(order[:count] if name == "train" else order[count:]))

    def train_dataloader(self) -> TrainLoader:
        """Make the loader of training batches, which goes on where the trainer stands.

        Raises:
            OSError, ValueError: see ``split``; or there are fewer images than processes.
        """
        rank, world = self._process()
        return self._train_loader(rank, world, self.trainer)

    def statistics_dataloader(self) -> TrainLoader:
        """Make a loader of one epoch's training batches, for a process on its own."""
        return self._train_loader(0, 1, None)

    def val_dataloader(self) -> DataLoader[Any]:
        """Make the loader of this process's share of the validation images, in order.

        Raises:
            OSError, ValueError: see ``split``.
        """
        rank, world = self._process()
        return self._views_loader("val", "center", SCALES, slice(rank, None, world))

    def test_loader(self, testing: Testing, scales: Sequence[int] = SCALES) -> DataLoader[Any]:
        """Make the loader of all test images, in order, for a process on its own.

        Args:
            testing: which views; for "scales" a batch is an image, as their sizes differ.
            scales: short sides for "scales", pixels.

        Raises:
            OSError, ValueError: see ``split``.
        """
        return self._views_loader("test", testing, scales, slice(None))

    def _images(self, name: str) -> Images:
        """A part of the folder as it lies there."""
        if cifar10.is_cifar10(self._root):
            name = "train" if name == "train" else "test"
        elif name != "train" and not (self._root / name).is_dir():
            name = "test" if name == "val" else "val"
        if name not in self._read:
            self._read[name] = self._open(name)
        return self._read[name]

    def _open(self, name: str) -> Images:
        if cifar10.is_cifar10(self._root):
            self._names = cifar10.read_names(self._root)
            files = cifar10.TRAIN_FILES if name == "train" else cifar10.TEST_FILES
            return cifar10.read_batches(self._root, files)
        if not (self._root / name).is_dir():
            raise FileNotFoundError(
                f"{self._root}: expected CIFAR-10's data_batch_1.bin …, or folders train and val "
                f"(or test) with a folder per class; there is no {name}"
            )
        images = FolderImages(self._root / name)
        if name == "train":
            self._names = images.class_names
        elif images.class_names != self.class_names:
            odd = sorted(set(images.class_names) ^ set(self._names))
            raise ValueError(f"{self._root / name}: other classes than train's: {odd[:5]}")
        return KeptImages(images) if self._in_memory else images

    def _train_loader(self, rank: int, world: int, trainer: Trainer | None) -> TrainLoader:
        images, indices = self.split("train")
        batches = TrainBatches(indices, self.batch_size, seed=self.seed, rank=rank, world=world)
        dataset = ImageDataset(images, partial(augmented, self.augmentation))
        return TrainLoader(dataset, batch_sampler=batches, trainer=trainer, **self._loading())

    def _views_loader(
        self, split: str, testing: Testing, scales: Sequence[int], share: slice
    ) -> DataLoader[Any]:
        images, indices = self.split(split)
        crop, side = self.augmentation.crop, self._test_short_side
        return DataLoader(
            ImageDataset(images, partial(viewed, testing, crop, side, tuple(scales))),
            batch_size=1 if testing == "scales" else self._val_batch_size,
            sampler=[(index, 0, 0) for index in indices[share].tolist()],
            **self._loading(),
        )

    def _process(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _loading(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "num_workers": self._workers,
            "pin_memory": torch.cuda.is_available(),
        }
        if self._workers > 0:
            settings |= {
                "persistent_workers": True,
                "timeout": _WORKER_TIMEOUT,
                "worker_init_fn": start_worker,
            }
        return settings
