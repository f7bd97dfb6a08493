"""A finished detector on images of any size, in original pixels.

Shape shorthand:
    B: images                D: detections of an image
    H, W: height and width of an image, pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detection.checkpoint import Description, load_detector
from detection.data.transforms import resize
from detection.inference.assembly import assemble
from detection.model.improved import Detector, Improvements
from detection.structures import Batch


class ImageDetections(NamedTuple):
    """What was found in one image, best first.

    Attributes:
        boxes: (D, 4) float32, xyxy, pixels of the original image.
        scores: (D,) float32, in [0, 1].
        labels: (D,) int64, 1…K.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Predictor:
    """A detector, the size its images are resized to, and the device it runs on.

    Attributes:
        labels: names and category ids of the classes; label k is entry k - 1.
        device: where the detector runs.
    """

    def __init__(
        self, detector: Detector, description: Description, device: torch.device | str = "cpu"
    ) -> None:
        """Moves the detector to the device and into evaluation mode.

        Args:
            detector: a detector.
            description: its classes, and the sides that images are resized to.
            device: where it is to run.
        """
        self.labels = description.labels
        self.device = torch.device(device)
        self._detector = detector.to(self.device).eval()
        self._sides = (description.short_side, description.long_side)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | None = None,
        *,
        others: Sequence[str | Path] = (),
        improvements: Improvements = Improvements(),
    ) -> Predictor:
        """Loads the detector of a training checkpoint, or an ensemble of several.

        Args:
            path: a file that ``resdet train`` wrote.
            device: ``cpu``, ``cuda`` or ``cuda:N``; the best one available if None.
            others: files that make an ensemble with the first.
            improvements: what is done in inference; its scales decide what images are resized to.

        Raises:
            CheckpointError: if a file holds no detector.
            ValueError: if the device is CUDA and there is none, or the classes of an ensemble
                differ.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device {device!r}: no CUDA device is available")
        trained = [load_detector(Path(file)) for file in (path, *others)]
        return cls(*assemble(trained, improvements), device)

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageDetections]:
        """Detects objects in images, all in one batch.

        The images are padded to the largest; beside a larger one, features near the right and
        bottom border, and so scores, may differ slightly from those of the image alone.

        Args:
            images: B arrays (H, W, 3) uint8, RGB, of any sizes; there may be none.

        Returns:
            B results, in the order of the images.

        Raises:
            ValueError: if an array is not such an image; the message says which.
        """
        if not len(images):
            return []
        for index, image in enumerate(images):
            _check(index, image)
        found = self._detector(self._batch(images))
        columns = (column.cpu().numpy() for column in found)
        return [
            ImageDetections(boxes[labels > 0], scores[labels > 0], labels[labels > 0])
            for boxes, scores, labels in zip(*columns, strict=True)
        ]

    def _batch(self, images: Sequence[NDArray[np.uint8]]) -> Batch:
        resized = [resize(image, *self._sides) for image in images]
        sizes = torch.tensor([image.shape[:2] for image in resized])
        height, width = sizes.amax(dim=0).tolist()
        padded = np.zeros((len(images), height, width, 3), np.uint8)
        for slot, image in zip(padded, resized, strict=True):
            slot[: image.shape[0], : image.shape[1]] = image
        return Batch(
            images=torch.from_numpy(padded).permute(0, 3, 1, 2).to(self.device),
            sizes=sizes.to(self.device),
            original_sizes=torch.tensor([image.shape[:2] for image in images]).to(self.device),
            image_ids=torch.arange(len(images)).to(self.device),
        )


def _check(index: int, image: NDArray[np.uint8]) -> None:
    expected = f"image {index}: expected an array (H, W, 3) uint8, RGB, got"
    if not isinstance(image, np.ndarray):
        raise ValueError(f"{expected} {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{expected} {image.shape} {image.dtype}")
