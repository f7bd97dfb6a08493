"""Which image is drawn when: training batches in a reproducible order, and evaluation shards.

Nothing here depends on the process, on workers or on global random states: the order follows
from (seed, epoch), and an image's augmentation from (seed, epoch, image).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One image of a data set, with the seed of its augmentation.

    Attributes:
        image: index of the image in the data set.
        seed: in [0, 2^32).
    """

    image: int
    seed: int


def augmentation_seed(seed: int, epoch: int, image: int) -> int:
    """Mixes the run's seed, the epoch and the image's index into one seed in [0, 2^32)."""
    return int(np.random.SeedSequence([seed, epoch, image]).generate_state(1)[0])


def shard(images: int, rank: int, world: int) -> range:
    """Returns the images that process ``rank`` of ``world`` evaluates.

    No image is repeated to even the shards out, which would change the figures.
    """
    return range(rank, images, world)


class TrainBatches(Sampler[list[Draw]]):
    """Shuffled batches of one rank, to be used as a DataLoader's ``batch_sampler``.

    They form one endless stream, epoch after epoch, of which an iteration yields a part.

    In each epoch every rank has the same number of batches, ``n // (batch_size * world)`` of n
    images, and no image is in two batches. The remainder, fewer than ``batch_size * world``
    images, is chosen at random each epoch and left out. If there are too few images for one
    full batch per rank, they are dealt out to one smaller batch per rank.

    To save padding, a batch holds landscape images (width >= height) or portrait images; at
    most one batch of an epoch, made of what is left of both, holds both kinds.

    Args:
        images: (n,) int64, indices of the images to draw from.
        sizes: (n, 2) int64, their (height, width), pixels.
        batch_size: images in a batch of one rank.
        seed: decides all orders and augmentations; non-negative.
        rank: this process.
        world: number of processes.

    Raises:
        ValueError: there are fewer images than processes, or none.
    """

    def __init__(
        self,
        images: NDArray[np.int64],
        sizes: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(images) < world:
            raise ValueError(f"{len(images)} training images do not feed {world} process(es)")
        self._images = images
        self._portrait = sizes[:, 0] > sizes[:, 1]
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world = world
        self._position = 0

    def seek(self, batch: int) -> None:
        """Goes to a position; the next iteration starts there.

        Args:
            batch: number of batches before it, over all epochs: ``epoch * len(self) + b`` is
                batch b of an epoch.
        """
        self._position = batch

    def settings(self) -> dict[str, int]:
        """Returns what the order depends on: a position means the same only where all agree."""
        return {
            "images": len(self._images),
            "batch_size": self._batch_size,
            "processes": self._world,
            "seed": self._seed,
        }

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return max(1, len(self._images) // (self._batch_size * self._world))

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yields as many batches as an epoch has, if need be on into the next epoch."""
        return islice(self._batches_from(self._position), len(self))

    def _batches_from(self, position: int) -> Iterator[list[Draw]]:
        first_epoch, skip = divmod(position, len(self))
        for epoch in count(first_epoch):
            for batch in self._order(epoch)[self._rank :: self._world][skip:]:
                yield [
                    Draw(image, augmentation_seed(self._seed, epoch, image))
                    for image in batch.tolist()
                ]
            skip = 0

    def _order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Returns the batches of all ranks; batch b belongs to rank ``b % world``."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._images))
        if len(order) < self._batch_size * self._world:
            return [self._images[order[rank :: self._world]] for rank in range(self._world)]
        # The remainder leaves before grouping, or a lone portrait would be left out every time.
        order = order[: len(self) * self._batch_size * self._world]
        grouped = order[np.argsort(self._portrait[order], kind="stable")]
        return list(rng.permutation(self._images[grouped].reshape(-1, self._batch_size)))
