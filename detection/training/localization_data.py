"""Classification folders with boxes as Lightning's training and validation batches.

Use it with ``Trainer(use_distributed_sampler=False)``: the loaders shard by themselves. A run that
is resumed in the middle of an epoch continues with the very next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from backbones.classification.loading import TrainLoader
from backbones.classification.order import TrainBatches
from detection.data.labels import LabelMap
from detection.data.loading import info, worker_settings
from detection.data.localization import localization_labels, read_localization
from detection.data.localization_views import (
    CropAugmentation,
    CropDataset,
    Testing,
    ViewDataset,
    collate_crops,
    collate_views,
)
from detection.data.records import DataError, Records, summary


class LocalizationData(LightningDataModule):
    """Images with a class and the boxes of that class.

    A training batch is a `CropBatch`; a validation batch is a `ViewBatch` of centre crops.

    Args:
        root: the folder, as ``read_localization`` takes it.
        train: the split to train on.
        val: the split to evaluate on.
        batch_size: training images per process and step; the paper's is 256 over all processes.
        val_batch_size: validation images per process and step.
        workers: processes that read images, for each loader; 0 reads in the main process.
        augmentation: how training images vary.
        test_short_side: what an image's short side becomes before its centre is cropped, pixels.
        seed: decides the order and the augmentation of the training images.

    Attributes:
        watch: what shows the progress while XML files are read.

    Raises:
        ValueError: a number is below its smallest sensible value.
    """

    watch: Callable[[Sequence[Any]], Iterable[Any]]

    def __init__(
        self,
        root: str,
        *,
        train: str = "train",
        val: str = "val",
        batch_size: int = 256,
        val_batch_size: int = 100,
        workers: int = 4,
        augmentation: CropAugmentation = CropAugmentation(),
        test_short_side: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, val_batch_size) < 1 or min(workers, seed) < 0:
            raise ValueError(
                "expected batch sizes >= 1, and workers and seed >= 0, got "
                f"{batch_size}, {val_batch_size}, {workers}, {seed}"
            )
        if test_short_side < augmentation.crop:
            raise ValueError(
                f"test_short_side: expected at least {augmentation.crop}, got {test_short_side}"
            )
        self._root = Path(root)
        self._splits = {"train": train, "val": val}
        self.batch_size, self._val_batch_size = batch_size, val_batch_size
        self._workers = workers
        self.augmentation, self._test_short_side = augmentation, test_short_side
        self.seed = seed
        self.watch = iter
        self._labels: LabelMap | None = None
        self._records: dict[str, Records] = {}

    @property
    def labels(self) -> LabelMap:
        """The classes, read from the folder.

        Raises:
            DataError: it names none.
        """
        if self._labels is None:
            self._labels = localization_labels(self._root)
        return self._labels

    @labels.setter
    def labels(self, labels: LabelMap) -> None:
        """Sets the classes of a localizer that is tested here; images of others are left out."""
        self._labels = labels

    def records(self, part: str) -> Records:
        """The images of "train" or "val", read on first use.

        Raises:
            DataError: the split cannot be used.
        """
        if part not in self._records:
            split = self._splits[part]
            records = read_localization(self._root, split, self.labels, self.watch)
            info(summary(f"{self._root}, split {split}", records))
            self._records[part] = records
        return self._records[part]

    def train_dataloader(self) -> TrainLoader:
        """Makes the loader of training batches, which goes on where the trainer stands.

        Raises:
            DataError: the split cannot be used.
            ValueError: there are fewer images than processes.
        """
        records, (rank, world) = self.records("train"), self._process()
        images = np.arange(len(records.files))
        batches = TrainBatches(images, self.batch_size, seed=self.seed, rank=rank, world=world)
        return TrainLoader(
            CropDataset(records, self.augmentation),
            batch_sampler=batches,
            trainer=self.trainer,
            collate_fn=collate_crops,
            **worker_settings(self._workers),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Makes the loader of this process's share of the centre crops, in order.

        Raises:
            DataError: the split cannot be used, or has fewer images than processes.
        """
        rank, world = self._process()
        if (images := len(self.records("val").files)) < world:
            raise DataError(f"{self._root}: {images} image(s) in val for {world} process(es)")
        return self._views_loader("1-crop", [self._test_short_side], slice(rank, None, world))

    def test_loader(self, testing: Testing, scales: Sequence[int]) -> DataLoader[Any]:
        """Makes the loader of all validation images, in order, for a process on its own.

        Args:
            testing: which views; for "dense" a batch is an image, as their sizes differ.
            scales: short sides for "dense", pixels.

        Raises:
            DataError: the split cannot be used.
            ValueError: there are no scales.
        """
        chosen = [self._test_short_side] if testing == "1-crop" else scales
        return self._views_loader(testing, chosen, slice(None))

    def _views_loader(
        self, testing: Testing, scales: Sequence[int], share: slice
    ) -> DataLoader[Any]:
        records = self.records("val")
        return DataLoader(
            ViewDataset(records, testing, self.augmentation.crop, scales),
            batch_size=1 if testing == "dense" else self._val_batch_size,
            sampler=range(len(records.files))[share],
            collate_fn=collate_views,
            **worker_settings(self._workers),
        )

    def _process(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
