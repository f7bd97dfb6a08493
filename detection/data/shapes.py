"""The embedded data set ``shapes``: images drawn on the spot, for trying things out anywhere.

The folder can be read as VOC and as COCO; both hold the same boxes::

    JPEGImages/SPLIT_NUMBER.jpg
    Annotations/SPLIT_NUMBER.xml, ImageSets/Main/SPLIT.txt         VOC
    annotations/instances_SPLIT.json                               COCO, images in JPEGImages
    shapes.json                                                    what the folder was made from

Boxes are tight around what is visible of an object. COCO's ``area`` counts its visible pixels;
there are no segmentations. A crowd is ``iscrowd`` in COCO and difficult in VOC. Objects that VOC
marks difficult for being mostly hidden or tiny are ordinary ones in COCO.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from detection.data.drawn_folder import check_splits, draw_folder, is_drawn
from detection.data.shape_drawing import DrawnImage, DrawnObject, draw_image
from detection.data.shape_variants import HARD, PLAIN, Variant

DEFAULT_SPLITS: Mapping[str, int] = MappingProxyType({"train": 2000, "val": 500, "test": 500})

VERSION = 1  # goes up with every change of what is drawn or written
JPEG_QUALITY = 90
_SHORTEST_SIDE = 64


def draw_shapes(
    split: str,
    index: int,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    variant: Variant = PLAIN,
) -> DrawnImage:
    """Draws one image of the data set, which depends on nothing but the arguments.

    Args:
        split: name of the split; each has its own images.
        index: number of the image in its split, from 0.
        image_size: largest height and width, pixels; the least are three quarters of them. None:
            the variant's.
        seed: a non-negative number; each gives another data set.
        variant: what there is to draw.

    Returns:
        The image and what can be seen in it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    sides = image_size or variant.image_size
    height, width = (int(rng.integers(side * 3 // 4, side + 1)) for side in sides)
    return draw_image(rng, (height, width), variant)


def write_shapes(
    root: Path,
    splits: Mapping[str, int] = DEFAULT_SPLITS,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    hard: bool = False,
) -> None:
    """Draws the data set into a new folder, which appears only once it is complete.

    Args:
        root: the folder to make; it may exist if it is empty.
        splits: names and numbers of images. Names are letters and underscores, because digits in
            a file name become the image id of VOC's reader.
        image_size: largest height and width, pixels; the least are three quarters of them. None:
            256 × 256, and 160 × 160 for the hard variant.
        seed: a non-negative number; each gives another data set.
        progress: called after each image with the number of images done and of all.
        hard: draw the variant ``HARD``, for comparing networks, instead of ``PLAIN``.

    Raises:
        DataError: ``root`` is a file or a folder with something in it.
        ValueError: a split's name or number, or the image size, is not possible.
    """
    variant, sides = _chosen(image_size, hard)
    _check(splits, sides)

    def write(draft: Path) -> None:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "annotations"):
            # Where file names ignore case, two of them are one.
            (draft / folder).mkdir(parents=True, exist_ok=True)
        done, total = 0, sum(splits.values())
        for split, count in splits.items():
            for _ in _write_split(draft, split, count, sides, seed, variant):
                done += 1
                if progress is not None:
                    progress(done, total)

    draw_folder(root, _stamp(splits, sides, seed, variant), write)


def ensure_shapes(
    root: Path,
    splits: Mapping[str, int] = DEFAULT_SPLITS,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    hard: bool = False,
) -> None:
    """Draws the data set if the folder does not hold it yet; the arguments of ``write_shapes``.

    Raises:
        DataError: ``root`` holds something else, or shapes made from other arguments.
        ValueError: a split's name or number, or the image size, is not possible.
    """
    variant, sides = _chosen(image_size, hard)
    if not is_drawn(root, _stamp(splits, sides, seed, variant)):
        write_shapes(root, splits, sides, seed, progress, hard=hard)


def _chosen(image_size: tuple[int, int] | None, hard: bool) -> tuple[Variant, tuple[int, int]]:
    variant = HARD if hard else PLAIN
    return variant, image_size or variant.image_size


def _check(splits: Mapping[str, int], image_size: tuple[int, int]) -> None:
    check_splits(splits)
    if min(image_size) < _SHORTEST_SIDE:
        raise ValueError(f"image_size: expected at least {_SHORTEST_SIDE}, got {image_size}")


def _stamp(
    splits: Mapping[str, int], image_size: tuple[int, int], seed: int, variant: Variant
) -> dict[str, Any]:
    return {
        "version": VERSION,
        **({} if variant is PLAIN else {"variant": variant.name}),
        "seed": seed,
        "image_size": list(image_size),
        "splits": dict(splits),
    }


def _write_split(
    root: Path,
    split: str,
    count: int,
    image_size: tuple[int, int],
    seed: int,
    variant: Variant,
) -> Iterator[None]:
    """Writes a split, image by image, and last the two lists of them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = [f"{split}_{index + 1:06d}" for index in range(count)]
    for index, name in enumerate(names):
        drawn = draw_shapes(split, index, image_size, seed, variant)
        drawn.image.save(root / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY)
        (root / "Annotations" / f"{name}.xml").write_text(_voc(name, drawn), encoding="utf-8")
        width, height = drawn.image.size
        file = {"file_name": f"{name}.jpg", "width": width, "height": height}
        images.append({"id": index + 1, **file})
        for item in drawn.objects:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index + 1} | _coco(item, variant)
            )
        yield
    title = "shapes" if variant is PLAIN else f"{variant.name} shapes"
    content = {
        "info": {"description": f"{title}, {split}, seed {seed}", "version": str(VERSION)},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": label, "name": name, "supercategory": "shape"}
            for label, name in enumerate(variant.classes, start=1)
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(
        json.dumps(content, separators=(",", ":")), encoding="utf-8"
    )
    (root / "ImageSets/Main" / f"{split}.txt").write_text(
        "".join(f"{name}\n" for name in names), encoding="utf-8"
    )


def _coco(item: DrawnObject, variant: Variant) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    return {
        "category_id": variant.classes.index(item.name) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": item.area,
        "iscrowd": int(item.crowd),
        "segmentation": [],
    }


def _voc(name: str, drawn: DrawnImage) -> str:
    width, height = drawn.image.size
    objects = "".join(_voc_object(item) for item in drawn.objects)
    return (
        f"<annotation>\n\t<folder>shapes</folder>\n\t<filename>{name}.jpg</filename>\n"
        f"\t<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _voc_object(item: DrawnObject) -> str:
    x1, y1, x2, y2 = item.box
    # VOC counts pixels from 1 and includes the last one.
    return (
        f"\t<object>\n\t\t<name>{item.name}</name>\n\t\t<pose>Unspecified</pose>\n"
        f"\t\t<truncated>{int(item.truncated)}</truncated>\n"
        f"\t\t<difficult>{int(item.difficult)}</difficult>\n"
        f"\t\t<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>\n\t</object>\n"
    )
