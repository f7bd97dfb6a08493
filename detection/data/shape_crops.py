"""Single shapes with a class each, for pre-training the networks of detectors.

The folder is ImageNet's layout, which ``resdet pretrain`` reads::

    SPLIT/CLASS/NUMBER.jpg
    shapes.json                what the folder was made from

A picture is an object of an image of the data set ``shapes`` with some of what surrounds it. The
images are drawn for this alone: none is in the data set itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from detection.data.drawn_folder import check_splits, draw_folder, is_drawn
from detection.data.shape_drawing import DrawnObject
from detection.data.shape_variants import HARD, PLAIN, Variant
from detection.data.shapes import JPEG_QUALITY, VERSION, draw_shapes

DEFAULT_CROPS: Mapping[str, int] = MappingProxyType({"train": 6000, "val": 600})

_SIDE = 72
# Side of a picture, as a multiple of the object's longer side, and how far its middle lies from
# the object's, as a fraction of it.
_CONTEXT = (1.15, 1.6)
_SHIFT = 0.1


def draw_crops(
    split: str, seed: int = 0, variant: Variant = PLAIN, side: int = _SIDE
) -> Iterator[tuple[str, Image.Image]]:
    """Draws pictures of single objects, without end; difficult ones and crowds are left out.

    Args:
        split: name of the split; each has its own pictures.
        seed: a non-negative number; each gives other pictures.
        variant: what there is to draw.
        side: of a picture, pixels.

    Yields:
        The class and the picture, ``side`` × ``side``.
    """
    # No split of the data set has a space in its name, so its images are others.
    images = f"single {split}"
    for index in count():
        drawn = draw_shapes(images, index, seed=seed, variant=variant)
        rng = np.random.default_rng([seed, index])
        for item in drawn.objects:
            if not item.difficult:
                window = _window(rng, item, drawn.image.size)
                size = (side, side)
                yield item.name, drawn.image.resize(size, Image.Resampling.BILINEAR, window)


def ensure_crops(
    root: Path,
    splits: Mapping[str, int] = DEFAULT_CROPS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    hard: bool = False,
) -> None:
    """Draws the pictures into a folder, which appears once it is complete, if it is not there yet.

    Args:
        root: the folder to make; it may exist if it is empty.
        splits: names and numbers of pictures.
        seed: a non-negative number; each gives other pictures.
        progress: called after each picture with the number of pictures done and of all.
        hard: draw the variant ``HARD``.

    Raises:
        DataError: ``root`` holds something else, or pictures made from other arguments.
        ValueError: a split's name or number is not possible.
    """
    check_splits(splits)
    variant = HARD if hard else PLAIN
    stamp = _stamp(splits, seed, variant)
    if not is_drawn(root, stamp):
        draw_folder(root, stamp, lambda draft: _write(draft, splits, seed, variant, progress))


def _stamp(splits: Mapping[str, int], seed: int, variant: Variant) -> dict[str, Any]:
    return {
        "version": VERSION,
        "variant": variant.name,
        "layout": "classification",
        "seed": seed,
        "side": _SIDE,
        "splits": dict(splits),
    }


def _write(
    root: Path,
    splits: Mapping[str, int],
    seed: int,
    variant: Variant,
    progress: Callable[[int, int], None] | None,
) -> None:
    done, total = 0, sum(splits.values())
    for split, number in splits.items():
        for name in variant.classes:
            (root / split / name).mkdir(parents=True)
        for i, (name, picture) in enumerate(islice(draw_crops(split, seed, variant), number), 1):
            picture.save(root / split / name / f"{i:06d}.jpg", quality=JPEG_QUALITY)
            done += 1
            if progress is not None:
                progress(done, total)


def _window(
    rng: Generator, item: DrawnObject, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A square around the object, inside the image of ``size`` (width, height)."""
    x1, y1, x2, y2 = item.box
    extent = max(x2 - x1, y2 - y1)
    side = min(extent * rng.uniform(*_CONTEXT), *size)
    middle = np.array((x1 + x2, y1 + y2)) / 2 + rng.uniform(-_SHIFT, _SHIFT, 2) * extent
    left, top = (middle - side / 2).clip(0, np.array(size) - side).tolist()
    return left, top, left + side, top + side
