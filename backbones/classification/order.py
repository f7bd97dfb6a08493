"""Which training image comes when, and with which random numbers: functions of the seed alone."""

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Draw = tuple[int, int, int]
"""Index of an image, and the run's seed and the epoch, which together seed its augmentation."""


class TrainBatches(Sampler[list[Draw]]):
    """Shuffled batches of one process, epoch after epoch: one endless stream, read in parts.

    In an epoch every process has n // (batch_size · world) batches and no image comes twice; the
    remainder, another one each epoch, is left out. Fewer images than one batch for each process
    make a smaller batch.

    Args:
        images: (n,) int64, what to draw from.
        batch_size: images in a batch of one process.
        seed: decides the order; non-negative.
        rank: this process.
        world: number of processes.

    Raises:
        ValueError: there are fewer images than processes.
    """

    def __init__(
        self,
        images: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(images) < world:
            raise ValueError(f"{len(images)} training images do not feed {world} process(es)")
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self._rank, self._world = rank, world
        self._position = 0

    def seek(self, batch: int) -> None:
        """Let the next iteration start after this many batches, over all epochs."""
        self._position = batch

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return max(1, len(self._images) // (self._batch_size * self._world))

    def __iter__(self) -> Iterator[list[Draw]]:
        """As many batches as an epoch has, if need be on into the next epoch."""
        return islice(self._stream(), len(self))

    def settings(self) -> dict[str, int]:
        """What the order depends on: a position means the same only where all agree."""
        return {
            "images": len(self._images),
            "batch_size": self._batch_size,
            "processes": self._world,
            "seed": self._seed,
        }

    def _stream(self) -> Iterator[list[Draw]]:
        first, skip = divmod(self._position, len(self))
        for epoch in count(first):
            order = np.random.default_rng([self._seed, epoch]).permutation(self._images)
            mine = order[self._rank :: self._world]
            for i in range(skip, len(self)):
                batch = mine[i * self._batch_size : (i + 1) * self._batch_size]
                yield [(index, self._seed, epoch) for index in batch.tolist()]
            skip = 0
