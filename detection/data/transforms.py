"""From a stored image to the network's input: the paper's size rule, and augmentation.

Shape shorthand:
    H, W: height and width of the stored image      h, w: of the resized image
    G: boxes given                                  N: boxes left

The papers (Faster R-CNN section 3.3, ResNet appendix A) resize the shorter side to S = 600 pixels
unless the longer side would exceed 1000, and flip half of the training images. Pixels stay
uint8; the model normalises them.

Differs from the paper: py-faster-rcnn samples the image at steps of exactly 1/scale; here the
step of an axis is the true ratio old/new of its rounded sizes, and boxes are scaled by the same
ratio, so that they fit the pixels exactly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


def resized_size(size: tuple[int, int], short_side: float, long_side: float) -> tuple[int, int]:
    """Computes the size of an image after resizing (Faster R-CNN section 3.3).

    The scale is ``short_side / min(size)``, or ``long_side / max(size)`` where the longer side
    would exceed ``long_side``. Both sides take this one scale and are rounded to the nearest
    integer, halves to the even one, as ``cv2.resize(fx=scale, fy=scale)`` does; at least 1.

    Args:
        size: (height, width) of the image, pixels.
        short_side: what the shorter side becomes, pixels.
        long_side: what the longer side may at most become, pixels.

    Returns:
        (height, width) of the resized image, pixels.
    """
    height, width = size
    scale = short_side / min(size)
    if scale * max(size) > long_side:
        scale = long_side / max(size)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: NDArray[np.uint8], short_side: float, long_side: float) -> NDArray[np.uint8]:
    """Resizes an image by the rule of ``resized_size``, with bilinear interpolation.

    Args:
        image: (H, W, 3) uint8.
        short_side: what the shorter side becomes, pixels.
        long_side: what the longer side may at most become, pixels.

    Returns:
        (h, w, 3) uint8, a new array.
    """
    height, width = resized_size((image.shape[0], image.shape[1]), short_side, long_side)
    resized: NDArray[np.uint8] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def use_calling_thread() -> None:
    """Keeps OpenCV in the calling thread, for data workers: they are the parallelism."""
    cv2.setNumThreads(0)


@dataclass(frozen=True)
class Augmentation:
    """How training images vary; the default is the papers'.

    Attributes:
        flip: probability of a horizontal flip.
        color: strength in [0, 1] of random brightness, contrast and saturation, each a factor in
            [1 - color, 1 + color], and of a hue shift of at most color / 4 of the circle.
        scale_jitter: lowest and highest factor, drawn uniformly for each image, on the short
            side and the limit of the long side.

    Raises:
        ValueError: a value is outside its range.
    """

    flip: float = 0.5
    color: float = 0.0
    scale_jitter: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, value in (("flip", self.flip), ("color", self.color)):
            if not 0 <= value <= 1:
                raise ValueError(f"augmentation: {name} must be in [0, 1], got {value}")
        low, high = self.scale_jitter
        if not 0 < low <= high < float("inf"):
            raise ValueError(
                f"augmentation: scale_jitter must be (low, high), 0 < low <= high, got {low, high}"
            )


PAPER = Augmentation()
NONE = Augmentation(flip=0.0)


class Transformed(NamedTuple):
    """An image and its boxes as the network sees them.

    Attributes:
        image: (h, w, 3) uint8.
        boxes: (N, 4) float32, xyxy, pixels of ``image``.
        kept: (N,) int64, the rows of the boxes that were given; increasing.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    kept: NDArray[np.int64]


class Transform:
    """Resizes an image with its boxes, and augments both.

    Without augmentation the boxes are only scaled, and every row is kept.

    Args:
        short_side: S of the size rule, pixels.
        long_side: limit of the longer side, pixels.
        augmentation: how images vary; ``NONE`` for evaluation.

    Raises:
        ValueError: not 1 <= short_side <= long_side.
    """

    def __init__(
        self, short_side: int = 600, long_side: int = 1000, augmentation: Augmentation = PAPER
    ) -> None:
        if not 1 <= short_side <= long_side:
            raise ValueError(
                f"expected 1 <= short_side <= long_side, got {short_side} and {long_side}"
            )
        self._short_side = short_side
        self._long_side = long_side
        self.augmentation = augmentation
        self._augment = _flip_and_color(augmentation)

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[Any], seed: int) -> Transformed:
        """Transforms one image; the result depends on the arguments alone.

        Args:
            image: (H, W, 3) uint8.
            boxes: (G, 4) float, xyxy, pixels of ``image``.
            seed: non-negative; decides everything that is random.

        Returns:
            The image, the boxes in its pixels, and which rows of ``boxes`` they are. A box
            leaves only if it has no area inside the image.
        """
        # A stream of its own: albumentations below draws from default_rng(seed) itself.
        factor = np.random.default_rng([seed, 1]).uniform(*self.augmentation.scale_jitter)
        resized = resize(image, self._short_side * factor, self._long_side * factor)
        (height, width), (new_height, new_width) = image.shape[:2], resized.shape[:2]
        ratios = np.array([new_width / width, new_height / height] * 2)
        scaled = boxes.reshape(-1, 4) * ratios
        kept = np.arange(len(scaled), dtype=np.int64)
        if self._augment is None:
            return Transformed(resized, scaled.astype(np.float32), kept)
        self._augment.set_random_seed(seed)
        result = self._augment(image=resized, bboxes=scaled, rows=kept)
        return Transformed(
            np.ascontiguousarray(result["image"]),
            np.asarray(result["bboxes"], np.float32).reshape(-1, 4),
            np.asarray(result["rows"], np.int64),
        )


def _flip_and_color(augmentation: Augmentation) -> Any:
    """Builds albumentations' part, or None where it would change nothing."""
    if augmentation.flip == 0 and augmentation.color == 0:
        return None
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks the network
    import albumentations  # noqa: PLC0415  (slow to import, and inference needs only `resize`)

    steps: list[Any] = [albumentations.HorizontalFlip(p=augmentation.flip)]
    if (color := augmentation.color) > 0:
        steps.append(
            albumentations.ColorJitter(
                brightness=color, contrast=color, saturation=color, hue=color / 4, p=1.0
            )
        )
    # Numbers of a list would come back as floats, in boxes and labels alike: the only label
    # that passes through is the row, as an int64 array.
    boxes = albumentations.BboxParams(
        format="pascal_voc", label_fields=["rows"], clip=True, filter_invalid_bboxes=True
    )
    return albumentations.Compose(steps, bbox_params=boxes)
