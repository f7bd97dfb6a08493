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
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from detection.data.records import DataError
from detection.data.shape_drawing import DrawnImage, DrawnObject, draw_image
from detection.data.shape_parts import CLASS_NAMES

DEFAULT_SPLITS: Mapping[str, int] = MappingProxyType({"train": 2000, "val": 500, "test": 500})

_VERSION = 1  # goes up with every change of what is drawn or written
_STAMP = "shapes.json"
_JPEG_QUALITY = 90
_SHORTEST_SIDE = 64


def draw_shapes(
    split: str, index: int, image_size: tuple[int, int] = (256, 256), seed: int = 0
) -> DrawnImage:
    """Draws one image of the data set, which depends on nothing but the arguments.

    Args:
        split: name of the split; each has its own images.
        index: number of the image in its split, from 0.
        image_size: largest height and width, pixels; the least are three quarters of them.
        seed: a non-negative number; each gives another data set.

    Returns:
        The image and what can be seen in it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    height, width = (int(rng.integers(side * 3 // 4, side + 1)) for side in image_size)
    return draw_image(rng, (height, width))


def write_shapes(
    root: Path,
    splits: Mapping[str, int] = DEFAULT_SPLITS,
    image_size: tuple[int, int] = (256, 256),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws the data set into a new folder, which appears only once it is complete.

    Args:
        root: the folder to make; it may exist if it is empty.
        splits: names and numbers of images. Names are letters and underscores, because digits in
            a file name become the image id of VOC's reader.
        image_size: largest height and width, pixels; the least are three quarters of them.
        seed: a non-negative number; each gives another data set.
        progress: called after each image with the number of images done and of all.

    Raises:
        DataError: ``root`` is a file or a folder with something in it.
        ValueError: a split's name or number, or the image size, is not possible.
    """
    _check(splits, image_size)
    if _occupied(root):
        raise DataError(f"{root}: expected a new or an empty folder to draw the shapes into")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f".{root.name}.{os.getpid()}")
    try:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "annotations"):
            # Where file names ignore case, two of them are one.
            (draft / folder).mkdir(parents=True, exist_ok=True)
        done, total = 0, sum(splits.values())
        for split, count in splits.items():
            for _ in _write_split(draft, split, count, image_size, seed):
                done += 1
                if progress is not None:
                    progress(done, total)
        stamp = _stamp(splits, image_size, seed)
        (draft / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        _publish(draft, root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def ensure_shapes(
    root: Path,
    splits: Mapping[str, int] = DEFAULT_SPLITS,
    image_size: tuple[int, int] = (256, 256),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draws the data set if the folder does not hold it yet; the arguments of ``write_shapes``.

    Raises:
        DataError: ``root`` holds something else, or shapes made from other arguments.
        ValueError: a split's name or number, or the image size, is not possible.
    """
    if not _occupied(root):
        write_shapes(root, splits, image_size, seed, progress)
        return
    expected = _stamp(splits, image_size, seed)
    try:
        found = json.loads((root / _STAMP).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{root}: not a folder of shapes (no readable {_STAMP}); name another folder"
        ) from error
    if found != expected:
        raise DataError(
            f"{root}: holds shapes made from {found}, expected {expected}; "
            "name another folder or delete this one"
        )


def _check(splits: Mapping[str, int], image_size: tuple[int, int]) -> None:
    if not splits:
        raise ValueError("splits: expected at least one")
    for split, count in splits.items():
        if not re.fullmatch("[A-Za-z_]+", split):
            raise ValueError(f"split {split!r}: expected a name of letters and underscores")
        if count < 1:
            raise ValueError(f"split {split!r}: expected at least one image, got {count}")
    if min(image_size) < _SHORTEST_SIDE:
        raise ValueError(f"image_size: expected at least {_SHORTEST_SIDE}, got {image_size}")


def _occupied(root: Path) -> bool:
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _stamp(splits: Mapping[str, int], image_size: tuple[int, int], seed: int) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "seed": seed,
        "image_size": list(image_size),
        "splits": dict(splits),
    }


def _publish(draft: Path, root: Path) -> None:
    try:
        if root.exists():
            root.rmdir()  # empty; not every system renames onto a folder
        draft.rename(root)
    except OSError as error:
        raise DataError(f"{root}: something else was put there meanwhile ({error})") from error


def _write_split(
    root: Path, split: str, count: int, image_size: tuple[int, int], seed: int
) -> Iterator[None]:
    """Writes a split, image by image, and last the two lists of them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names = [f"{split}_{index + 1:06d}" for index in range(count)]
    for index, name in enumerate(names):
        drawn = draw_shapes(split, index, image_size, seed)
        drawn.image.save(root / "JPEGImages" / f"{name}.jpg", quality=_JPEG_QUALITY)
        (root / "Annotations" / f"{name}.xml").write_text(_voc(name, drawn), encoding="utf-8")
        width, height = drawn.image.size
        file = {"file_name": f"{name}.jpg", "width": width, "height": height}
        images.append({"id": index + 1, **file})
        for item in drawn.objects:
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **_coco(item)})
        yield
    content = {
        "info": {"description": f"shapes, {split}, seed {seed}", "version": str(_VERSION)},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": label, "name": name, "supercategory": "shape"}
            for label, name in enumerate(CLASS_NAMES, start=1)
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(
        json.dumps(content, separators=(",", ":")), encoding="utf-8"
    )
    (root / "ImageSets/Main" / f"{split}.txt").write_text(
        "".join(f"{name}\n" for name in names), encoding="utf-8"
    )


def _coco(item: DrawnObject) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    return {
        "category_id": CLASS_NAMES.index(item.name) + 1,
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
