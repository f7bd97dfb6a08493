"""The images of a COCO file: all at once, or one by one to say what is wrong.

Shape shorthand:
    I: images of the file        n: images in use
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.data.coco_fields import MAX_ID, integer, record
from detection.data.image_files import ImageFiles
from detection.data.records import MAX_PIXELS, DataError, Skipped, UnusableError
from detection.json_rows import column

Sizes = Mapping[int, tuple[int, int] | None]
"""Each image id's height and width, pixels; None where the image is left out."""


class ImageRow(msgspec.Struct, gc=False):
    """What is read of an image whose fields have the right types; most of it is addresses."""

    id: int
    file_name: str
    height: int
    width: int


class Images(NamedTuple):
    """The images, in the file's order.

    Attributes:
        ids: (I,) int64, each once.
        sizes: (I, 2) int64, height and width, pixels; -1 where the image is left out.
        files: (n,) str, of the images in use.
    """

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    files: NDArray[np.str_]

    def by_id(self) -> Sizes:
        """Maps ids to sizes."""
        pairs = zip(self.ids.tolist(), self.sizes.tolist(), strict=True)
        return {key: (height, width) if height >= 0 else None for key, (height, width) in pairs}


def read_images(
    table: Sequence[Any], path: Path, files: ImageFiles
) -> tuple[Images, list[Skipped]]:
    """Reads the images.

    Args:
        table: the I images: an `ImageRow` each, or records, whatever they are.
        path: the annotation file, for the messages.
        files: where their files are.

    Raises:
        DataError: an image id is no integer or is used twice; a ``file_name`` is no path, or leads
            out of the root.
    """
    if table and isinstance(table[0], ImageRow):
        if images := _all_sound(table, files):
            return images, []
        table = [msgspec.structs.asdict(row) for row in table]
    return _one_by_one(table, path, files)


def _all_sound(rows: Sequence[ImageRow], files: ImageFiles) -> Images | None:
    """Packs images with none to leave out, and whose files lie in the root itself; else None."""
    names = [row.file_name for row in rows]
    try:
        ids = column("q", [row.id for row in rows])
        heights = column("q", [row.height for row in rows])
        widths = column("q", [row.width for row in rows])
    except struct.error:
        return None
    sizes = np.stack([heights, widths], axis=1)
    sound = (ids > -MAX_ID) & (ids < MAX_ID) & (sizes > 0).all(1) & (sizes <= MAX_PIXELS).all(1)
    sound &= heights * widths <= MAX_PIXELS
    if not sound.all() or len(np.unique(ids)) < len(ids) or not files.hold(names):
        return None
    return Images(ids, sizes, np.array(names))


def _one_by_one(
    table: Sequence[Any], path: Path, files: ImageFiles
) -> tuple[Images, list[Skipped]]:
    sizes: dict[int, tuple[int, int]] = {}
    names = []
    skipped = []
    prefix = f"{path}: "
    for position, fields in enumerate(table, start=1):
        try:
            identity = integer(fields, "id")
        except UnusableError as error:
            raise DataError(f"{prefix}{record('image', fields, position)}: {error}") from error
        where = f"image {identity}"
        if identity in sizes:
            raise DataError(f"{prefix}{where}: the id is used before")
        sizes[identity] = (-1, -1)
        try:
            name = files.find(fields.get("file_name"), prefix + where)
            sizes[identity] = _size(fields)
            names.append(name)
        except UnusableError as error:
            skipped.append(Skipped(str(path), where, str(error)))
    ids = np.array(list(sizes), np.int64)
    return Images(
        ids, np.array([*sizes.values()], np.int64).reshape(-1, 2), np.array(names)
    ), skipped


def _size(fields: dict[str, Any]) -> tuple[int, int]:
    height, width = integer(fields, "height"), integer(fields, "width")
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise UnusableError(
            f"size {height} × {width}, expected positive and at most {MAX_PIXELS} pixels"
        )
    return height, width
