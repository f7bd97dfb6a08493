"""One image with its target, and perhaps its proposals; several of them in a padded batch.

Shape shorthand:
    B: images in a batch        h, w: height and width of a resized image
    G: ground-truth boxes       H, W: height and width of the padded batch
    N: proposals of an image
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detection.data.images import read_image
from detection.data.proposals import StoredProposals
from detection.data.records import DataError, Records
from detection.data.sampling import Draw
from detection.data.transforms import Transform
from detection.structures import Batch, Target


class Item(NamedTuple):
    """One image, ready to be collated.

    Attributes:
        image: (3, h, w) uint8, RGB, resized.
        target: what there is to find in it.
        original_size: (height, width) of the stored image, upright, pixels.
        image_id: the data set's own id.
    """

    image: Tensor
    target: Target
    original_size: tuple[int, int]
    image_id: int


class DetectionDataset(Dataset[Item]):
    """The images of some records, read and transformed on demand.

    Args:
        records: images and ground truth.
        transform: resizing and augmentation.
    """

    def __init__(self, records: Records, transform: Transform) -> None:
        self._records = records
        self._transform = transform

    def __len__(self) -> int:
        return len(self._records.files)

    def __getitem__(self, draw: Draw) -> Item:
        """Reads an image.

        Args:
            draw: which image, and the seed of its augmentation.

        Returns:
            The image and its target.

        Raises:
            DataError: the file cannot be read, or has another size than its record.
        """
        return self.read(draw, np.empty((0, 4)))[0]

    def read(self, draw: Draw, others: NDArray[Any]) -> tuple[Item, Tensor]:
        """Reads an image, and takes more boxes than its objects' through the transform.

        Args:
            draw: which image, and the seed of its augmentation.
            others: (N, 4) float, xyxy, pixels of the stored image.

        Returns:
            The image and its target, and those of the other boxes that have an area inside the
            image: (n, 4) float32, xyxy, pixels of the resized image, in their order.

        Raises:
            DataError: as `__getitem__`.
        """
        index, seed = draw
        path, truth = self._records.path(index), self._records.annotations
        image = read_image(path)
        original_size = (int(truth.sizes[index, 0]), int(truth.sizes[index, 1]))
        if image.shape[:2] != original_size:
            raise DataError(
                f"{path}: expected (height, width) {original_size} as annotated,"
                f" got {image.shape[:2]}; `resdet check --repair` makes a copy without such images"
            )
        rows = slice(truth.offsets[index], truth.offsets[index + 1])
        own = truth.boxes[rows]
        transformed = self._transform(image, np.concatenate((own, others)), seed)
        boxes = torch.from_numpy(transformed.boxes)
        kept = transformed.kept[transformed.kept < len(own)]
        ignore = truth.crowd[rows] | truth.difficult[rows]
        target = Target(
            boxes=boxes[: len(kept)],
            labels=torch.from_numpy(truth.labels[rows][kept]),
            ignore=torch.from_numpy(ignore[kept]),
        )
        pixels = torch.from_numpy(transformed.image).permute(2, 0, 1)
        item = Item(pixels, target, original_size, int(truth.image_ids[index]))
        return item, boxes[len(kept) :]


class ProposedItem(NamedTuple):
    """One image with its proposals, ready to be collated.

    Attributes:
        item: the image and its target.
        proposals: (N, 4) float32, xyxy, pixels of the resized image, best first.
    """

    item: Item
    proposals: Tensor


class ProposalDataset(Dataset[ProposedItem]):
    """The images of some records, with stored proposals that are resized and flipped as they are.

    Args:
        images: the images.
        proposals: of the same images, in the same order.
    """

    def __init__(self, images: DetectionDataset, proposals: StoredProposals) -> None:
        self._images = images
        self._proposals = proposals

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, draw: Draw) -> ProposedItem:
        """Reads an image and its proposals; arguments and errors as in `DetectionDataset`."""
        return ProposedItem(*self._images.read(draw, self._proposals.of(draw.image)))


def collate(items: Sequence[Item], divisible: int = 32) -> tuple[Batch, list[Target]]:
    """Pads images to one size and puts them into a batch.

    Args:
        items: B images, at least one.
        divisible: H and W are the next multiples of this. 1 is the paper's, without padding for
            a single image; 32 fits every level of a feature pyramid and repeats sizes more
            often.

    Returns:
        The batch, images (B, 3, H, W) with zeros at the bottom and on the right, and the B
        targets.
    """
    sizes = torch.tensor([item.image.shape[1:] for item in items])
    height, width = (-(-sizes.amax(dim=0) // divisible) * divisible).tolist()
    # Decoders and the model both have the channels last: nothing is reordered on the way.
    images = torch.zeros(len(items), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for padded, item in zip(images, items, strict=True):
        padded[:, : item.image.shape[1], : item.image.shape[2]] = item.image
    batch = Batch(
        images=images,
        sizes=sizes,
        original_sizes=torch.tensor([item.original_size for item in items]),
        image_ids=torch.tensor([item.image_id for item in items]),
    )
    return batch, [item.target for item in items]


def collate_proposed(
    items: Sequence[ProposedItem], divisible: int = 32
) -> tuple[Batch, list[Target], list[Tensor]]:
    """Collates as `collate` does; the B images' proposals stay apart."""
    batch, targets = collate([image for image, _ in items], divisible)
    return batch, targets, [proposals for _, proposals in items]
