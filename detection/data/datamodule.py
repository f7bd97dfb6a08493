"""A folder of images and annotations as Lightning's training and validation batches.

Use it with ``Trainer(use_distributed_sampler=False)``: the loaders shard by themselves. A run
that is resumed in the middle of an epoch continues with the very next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from detection.data.dataset import DetectionDataset, ProposalDataset, collate, collate_proposed
from detection.data.folder import folder_labels, read_folder
from detection.data.labels import LabelMap
from detection.data.loading import TrainLoader, info, worker_settings
from detection.data.proposals import StoredProposals
from detection.data.records import DETECTION, TRAINING, DataError, Records, summary
from detection.data.sampling import Draw, TrainBatches, shard
from detection.data.transforms import NONE, PAPER, Augmentation, Transform
from detection.structures import Annotations


class DetectionData(LightningDataModule):
    """Training and validation data from a folder in VOC's or COCO's layout.

    Each training batch is ``(Batch, list[Target])``, and so is each validation batch. With
    ``proposals``, a training batch is ``(Batch, list[Target], list[Tensor])``: each image's
    proposals, (N, 4) float32, xyxy, in pixels of the resized image, best first.

    Attributes:
        batch_size: as the argument; it and the proposals may be set between runs of a trainer.
        proposals: of all training images; None without.

    Args:
        root: the folder, as ``read_folder`` takes it.
        train: the split(s) to train on.
        val: the split(s) to evaluate on.
        batch_size: training images per process and step. The paper's is 1, on 8 GPUs.
        workers: processes that read images, for each loader; 0 reads in the main process.
        short_side: what the shorter side of an image becomes, pixels.
        long_side: what the longer side may at most become, pixels.
        augmentation: how training images vary.
        divisible: batches are padded to multiples of this; 1 is the paper's. Alternatives: 1.
            Sources: py-faster-rcnn (1), Detectron2's pyramids (32).
        skip_empty: leaves images with nothing but ignored objects, or none, out of training, as
            Detectron2 does. Alternatives: false. Sources: open in the papers; py-faster-rcnn and
            Detectron2 leave them out.
        seed: decides the order and the augmentation of the training images.
        val_batch_size: validation images per process and step.

    Raises:
        ValueError: a number is below its smallest sensible value, or the sides or the
            augmentation make no sense.
    """

    def __init__(
        self,
        root: str,
        *,
        train: str = "train",
        val: str = "val",
        batch_size: int = 2,
        workers: int = 2,
        short_side: int = 600,
        long_side: int = 1000,
        augmentation: Augmentation = PAPER,
        divisible: int = 32,
        skip_empty: bool = True,
        seed: int = 0,
        val_batch_size: int = 1,
    ) -> None:
        super().__init__()
        _at_least(1, batch_size=batch_size, val_batch_size=val_batch_size, divisible=divisible)
        _at_least(0, workers=workers, seed=seed)
        self._root = Path(root)
        self._splits = {"train": train, "val": val}
        self.batch_size = batch_size
        self._val_batch_size = val_batch_size
        self._workers = workers
        self.short_side = short_side
        self.long_side = long_side
        self._train_transform = Transform(short_side, long_side, augmentation)
        self._val_transform = Transform(short_side, long_side, NONE)
        self._divisible = divisible
        self._skip_empty = skip_empty
        self.seed = seed
        self.proposals: StoredProposals | None = None
        self._labels: LabelMap | None = None
        self._records: dict[str, Records] = {}

    @property
    def labels(self) -> LabelMap:
        """The classes of the training split, which hold for validation too."""
        if self._labels is None:
            self._labels = folder_labels(self._root, self._splits["train"])
        return self._labels

    @labels.setter
    def labels(self, labels: LabelMap) -> None:
        """Sets the classes of a detector that is evaluated here; unknown ones are refused."""
        self._labels = labels

    @property
    def train_records(self) -> Records:
        """The training split, images without objects included."""
        return self._read("train")

    @property
    def val_records(self) -> Records:
        """The validation split, its boxes as a metric counts them."""
        return self._read("val")

    @property
    def val_annotations(self) -> Annotations:
        """The validation split's ground truth, in original pixels."""
        return self.val_records.annotations

    def setup(self, stage: str | None = None) -> None:
        """Reads the annotations that ``stage`` needs, once.

        Args:
            stage: Lightning's stage; "fit" or None for both splits, "predict" for the training
                split, else the validation split.

        Raises:
            DataError: the data set cannot be used.
        """
        needed = {"fit": ("train", "val"), None: ("train", "val"), "predict": ("train",)}
        for part in needed.get(stage, ("val",)):
            self._read(part)

    def train_dataloader(self) -> DataLoader[Any]:
        """Makes the loader of training batches, which goes on where the trainer stands.

        Raises:
            DataError: there are fewer images to train on than processes.
            ValueError: Lightning would shard the data a second time.
        """
        records, (rank, world) = self.train_records, self._process()
        truth = records.annotations
        images = np.arange(len(records.files))
        if self._skip_empty:
            images = images[_has_objects(truth)]
            info(
                f"training on {len(images)} images;"
                f" {len(records.files) - len(images)} without objects are left out"
            )
        self._check_enough("train", len(images), world)
        batches = TrainBatches(
            images,
            truth.sizes[images],
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world=world,
        )
        dataset = DetectionDataset(records, self._train_transform)
        position = None if self.trainer is None else partial(_processed, self.trainer)
        settings: dict[str, Any] = {"batch_sampler": batches, "position": position}
        if self.proposals is None:
            return TrainLoader(dataset, **settings, **self._loading(collate))
        proposed = ProposalDataset(dataset, self.proposals)
        return TrainLoader(proposed, **settings, **self._loading(collate_proposed))

    def val_dataloader(self) -> DataLoader[Any]:
        """Makes the loader of this process's share of the validation images, in order.

        Raises:
            DataError: there are fewer images than processes.
            ValueError: Lightning would shard the data a second time.
        """
        return self._in_order("val")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Makes the loader of this process's share of all training images, in order, unaugmented.

        Raises:
            DataError: there are fewer images than processes.
            ValueError: Lightning would shard the data a second time.
        """
        return self._in_order("train")

    def _in_order(self, part: str) -> DataLoader[Any]:
        records, (rank, world) = self._read(part), self._process()
        self._check_enough(part, len(records.files), world)
        return DataLoader(
            DetectionDataset(records, self._val_transform),
            batch_size=self._val_batch_size,
            sampler=[Draw(index, 0) for index in shard(len(records.files), rank, world)],
            **self._loading(collate),
        )

    def _read(self, part: str) -> Records:
        if part not in self._records:
            split = self._splits[part]
            use = TRAINING if part == "train" else DETECTION
            records = read_folder(self._root, split, self.labels, use)
            info(summary(f"{self._root}, split {split}", records))
            self._records[part] = records
        return self._records[part]

    def _check_enough(self, part: str, images: int, world: int) -> None:
        if images < world:
            raise DataError(
                f"{self._root}, split {self._splits[part]}: {images} usable image(s),"
                f" expected at least one for each of {world} process(es)"
            )

    def _process(self) -> tuple[int, int]:
        """Returns this process's rank and the number of processes."""
        if self.trainer is None:
            return 0, 1
        rank, world = self.trainer.global_rank, self.trainer.world_size
        if world > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "DetectionData gives each process its share of the images:"
                " expected Trainer(use_distributed_sampler=False), got True"
            )
        return rank, world

    def _loading(self, gather: Callable[..., Any]) -> dict[str, Any]:
        collate_fn = partial(gather, divisible=self._divisible)
        return {"collate_fn": collate_fn, **worker_settings(self._workers)}


def _processed(trainer: Trainer) -> int:
    """How many training batches are behind a trainer, over all epochs."""
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    processed: int = total.processed
    return processed


def _has_objects(truth: Annotations) -> NDArray[np.bool_]:
    """Says for each of the I images whether any of its objects counts."""
    counts = np.concatenate([[0], np.cumsum(~(truth.crowd | truth.difficult))])
    return np.diff(counts[truth.offsets]) > 0


def _at_least(smallest: int, **values: int) -> None:
    for name, value in values.items():
        if value < smallest:
            raise ValueError(f"expected {name} >= {smallest}, got {value}")
