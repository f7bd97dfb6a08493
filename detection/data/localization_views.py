"""What a localizer sees of an image: random crops to train on, one or several views to test on.

Shape shorthand:
    B: images     G: boxes of an image     H, W: size of a view

The paper trains on 224x224 crops as its classifiers do (ResNet appendix C and section 3.4), and
tests on the centre crop ("1-crop") or on the whole image at several scales ("dense").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from backbones.classification.augmentation import Pixels, light, resize_short_side
from backbones.classification.order import Draw
from detection.data.images import read_image
from detection.data.localization import image_labels
from detection.data.records import DataError, Records
from detection.structures import Target, Views

Boxes = NDArray[np.float64]

Testing = Literal["1-crop", "dense"]
"""1-crop: the centre crop. dense: the whole image at several scales."""


class CropBatch(NamedTuple):
    """A batch to train on.

    Attributes:
        images: (B, 3, H, W) uint8, RGB.
        labels: (B,) int64, 1…K, the images' classes.
        targets: B targets, the boxes of the images' classes, pixels of ``images``.
    """

    images: Tensor
    labels: Tensor
    targets: list[Target]


class ViewBatch(NamedTuple):
    """A batch to test on.

    Attributes:
        views: of the same B images, one for each scale.
        labels: (B,) int64, 1…K, the images' classes.
        boxes: B tensors (G, 4) float64, xyxy, pixels of the original images.
    """

    views: list[Views]
    labels: Tensor
    boxes: list[Tensor]


@dataclass(frozen=True)
class CropAugmentation:
    """What is drawn anew for each training image; the defaults are the paper's for ImageNet.

    Attributes:
        crop: side of the square crop, pixels.
        short_side: the range, inclusive, from which the image's new short side is drawn, pixels.
        flip: whether half of the images are mirrored.
        lighting: standard deviation of the multiples of ImageNet's principal components that are
            added to all pixels; 0 is none.
        min_visible: the part of a box that the crop must show for the object to count. Of less it
            is neither object nor background. The paper leaves this open.

    Raises:
        ValueError: a value is out of its range, or the crop does not fit.
    """

    crop: int = 224
    short_side: tuple[int, int] = (256, 480)
    flip: bool = True
    lighting: float = 0.1
    min_visible: float = 0.25

    def __post_init__(self) -> None:
        low, high = self.short_side
        if not 1 <= self.crop <= low <= high or self.lighting < 0 or not 0 < self.min_visible <= 1:
            raise ValueError(
                "expected 1 <= crop <= short_side, a range, lighting >= 0 and min_visible in "
                f"(0, 1], got {self}"
            )

    def apply(
        self, image: Pixels, boxes: Boxes, rng: np.random.Generator
    ) -> tuple[Pixels, Boxes, NDArray[np.float64]]:
        """CropBatch and varies an image and its boxes.

        Args:
            image: (H, W, 3) uint8.
            boxes: (G, 4) float64, xyxy, pixels of ``image``.
            rng: where all the randomness comes from.

        Returns:
            image: (crop, crop, 3) uint8.
            boxes: (G, 4) float64, xyxy, pixels of the crop, cut at its borders.
            visible: (G,) float64, in [0, 1], the part of each box that the crop shows.
        """
        resized = resize_short_side(image, int(rng.integers(*self.short_side, endpoint=True)))
        top, left = (int(rng.integers(side - self.crop + 1)) for side in resized.shape[:2])
        part = resized[top : top + self.crop, left : left + self.crop]
        scaled = boxes * _ratios(resized, image) - (left, top, left, top)
        cut = scaled.clip(0, self.crop)
        visible = _areas(cut) / _areas(scaled)
        if self.flip and rng.random() < 0.5:
            part = part[:, ::-1]
            cut = np.stack((self.crop - cut[:, 2], cut[:, 1], self.crop - cut[:, 0], cut[:, 3]), 1)
        if self.lighting:
            part = light(part, rng.normal(0, self.lighting, 3))
        return part, cut, visible


class CropDataset(Dataset[CropBatch]):
    """Training images, each a batch of one.

    Args:
        records: as ``read_localization`` returns them.
        augmentation: how images vary.
    """

    def __init__(self, records: Records, augmentation: CropAugmentation) -> None:
        self._records, self._labels = records, image_labels(records)
        self._augmentation = augmentation

    def __getitem__(self, draw: Draw) -> CropBatch:
        """Reads and crops an image.

        Raises:
            DataError: the file cannot be read.
        """
        index, seed, epoch = draw
        image, rows = _read(self._records, index)
        truth = self._records.annotations
        rng = np.random.default_rng([seed, epoch, index])
        part, boxes, visible = self._augmentation.apply(image, truth.boxes[rows], rng)
        ignore = truth.difficult[rows] | (visible < self._augmentation.min_visible)
        seen, label = visible > 0, torch.tensor([self._labels[index]])
        target = Target(
            torch.from_numpy(boxes[seen].astype(np.float32)),
            label.expand(int(seen.sum())),
            torch.from_numpy(ignore[seen]),
        )
        return CropBatch(_tensor(part)[None], label, [target])


class ViewDataset(Dataset[ViewBatch]):
    """Test images, each a batch of one.

    Args:
        records: as ``read_localization`` returns them.
        testing: which views.
        crop: side of the centre crop, pixels.
        scales: short sides of the resized image, pixels: one for the crop, any for dense testing.

    Raises:
        ValueError: the crop does not fit, or there is no scale, or several for one crop.
    """

    def __init__(
        self, records: Records, testing: Testing, crop: int, scales: Sequence[int]
    ) -> None:
        if not scales or min(scales) < 1:
            raise ValueError(f"expected scales of at least one pixel, got {list(scales)}")
        if testing == "1-crop" and (len(scales) > 1 or scales[0] < crop):
            raise ValueError(f"expected one scale above the crop's {crop}, got {list(scales)}")
        self._records, self._labels = records, image_labels(records)
        self._crop = crop if testing == "1-crop" else None
        self._scales = tuple(scales)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> ViewBatch:
        """Reads an image and makes its views.

        Raises:
            DataError: the file cannot be read.
        """
        image, rows = _read(self._records, index)
        views = [view(image, scale, self._crop) for scale in self._scales]
        boxes = torch.from_numpy(self._records.annotations.boxes[rows])
        return ViewBatch(views, torch.tensor([self._labels[index]]), [boxes])


def view(image: Pixels, short_side: int, crop: int | None) -> Views:
    """Makes a view of an image.

    Args:
        image: (H, W, 3) uint8.
        short_side: what its short side becomes, pixels.
        crop: side of the part in the middle that is taken, pixels; None takes all.

    Returns:
        The view, as a batch of one.
    """
    resized = resize_short_side(image, short_side)
    height, width = resized.shape[:2]
    top, left = (0, 0) if crop is None else (round((s - crop) / 2) for s in (height, width))
    bottom, right = (height, width) if crop is None else (top + crop, left + crop)
    frame = np.array([left, top, right, bottom]) * _ratios(image, resized)
    return Views(
        _tensor(resized[top:bottom, left:right])[None],
        torch.from_numpy(frame.astype(np.float32))[None],
    )


def collate_crops(items: Sequence[CropBatch]) -> CropBatch:
    """Joins batches to train on."""
    images, labels, targets = zip(*items, strict=True)
    return CropBatch(
        torch.cat(images), torch.cat(labels), [one for part in targets for one in part]
    )


def collate_views(items: Sequence[ViewBatch]) -> ViewBatch:
    """Joins batches to test on; their views must be of the same sizes."""
    views, labels, boxes = zip(*items, strict=True)
    joined = [Views(*map(torch.cat, zip(*one, strict=True))) for one in zip(*views, strict=True)]
    return ViewBatch(joined, torch.cat(labels), [one for part in boxes for one in part])


def _read(records: Records, index: int) -> tuple[Pixels, slice]:
    """An image, and the rows of its boxes."""
    path, truth = records.path(index), records.annotations
    image = read_image(path)
    if image.shape[:2] != (size := tuple(truth.sizes[index].tolist())):
        raise DataError(f"{path}: expected (height, width) {size}, got {image.shape[:2]}")
    return image, slice(truth.offsets[index], truth.offsets[index + 1])


def _ratios(new: Pixels, old: Pixels) -> Boxes:
    """What boxes are multiplied by when an image is resized: (4,) float64."""
    y, x = (a / b for a, b in zip(new.shape[:2], old.shape[:2], strict=True))
    return np.array([x, y, x, y])


def _areas(boxes: Boxes) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
