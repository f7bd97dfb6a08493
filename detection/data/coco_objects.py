"""The annotations of a COCO file, one by one, which says what is wrong; in columns: `coco_columns`.

Shape shorthand:
    N: objects in use        A: annotations of the file
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from detection.data.coco_fields import integer, record, short
from detection.data.coco_images import Images, Sizes
from detection.data.records import ObjectRow, Skipped, UnusableError, clip_box

_Found = TypeVar("_Found")


class Objects(NamedTuple):
    """The objects in use, in the file's order.

    Attributes:
        image_ids: (N,) int64.
        boxes: (N, 4) float64, xyxy, pixels.
        labels: (N,) int64, 1…K.
        areas: (N,) float64, square pixels.
        crowd: (N,) bool.
        extents: (N, 2) float64, width and height as the file states them; None of clipped boxes.
    """

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    extents: NDArray[np.float64] | None


def read_objects(
    table: Sequence[Any], images: Images, label_of: Mapping[int, int], path: Path, clipped: bool
) -> tuple[Objects, list[Skipped]]:
    """Reads annotations one by one.

    Args:
        table: the A annotations, whatever they are.
        images: the images of the file.
        label_of: each category id's label.
        path: the annotation file, for the messages.
        clipped: whether boxes are cut at the border, and left out where nothing remains.
    """
    sizes = images.by_id()
    seen: set[int] = set()
    rows: list[tuple[int, ObjectRow]] = []
    skipped = []
    for position, fields in enumerate(table, start=1):
        try:
            identity = integer(fields, "id")
            used = identity in seen
            seen.add(identity)
            if item := read_object(fields, used, sizes, label_of, clipped):
                rows.append((fields["image_id"], item))
        except UnusableError as error:
            skipped.append(Skipped(str(path), record("annotation", fields, position), str(error)))
    objects = Objects(
        np.array([image_id for image_id, _ in rows], np.int64),
        np.array([item.box for _, item in rows], np.float64).reshape(-1, 4),
        np.array([item.label for _, item in rows], np.int64),
        np.array([item.area for _, item in rows], np.float64),
        np.array([item.crowd for _, item in rows], np.bool_),
        None if clipped else np.array([item.extent for _, item in rows]).reshape(-1, 2),
    )
    return objects, skipped


def read_object(
    fields: dict[str, Any], used: bool, sizes: Sizes, label_of: Mapping[int, int], clipped: bool
) -> ObjectRow | None:
    """Reads one annotation; None if its image is left out.

    Args:
        fields: the annotation, a dictionary with an integer ``id``.
        used: whether the id stands before.
        sizes: of the images.
        label_of: each category id's label.
        clipped: as for `read_objects`.

    Raises:
        UnusableError: it cannot be used.
    """
    if used:
        raise UnusableError("the id is used before")
    size, label = _known(fields, "image_id", sizes), _known(fields, "category_id", label_of)
    if size is None:
        return None
    bbox = fields.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise UnusableError(f"bbox is {short(bbox)}, expected [x, y, width, height]")
    x, y, width, height = (_number(value, "bbox") for value in bbox)
    smallest = min(width, height)
    if smallest < 0 or (smallest == 0 and clipped):
        found, least = f"{width} × {height}", "a positive" if clipped else "no negative"
        raise UnusableError(f"bbox is of {found}, expected {least} width and height")
    box = x, y, x + width, y + height
    extent = width, height
    if clipped:
        x1, y1, x2, y2 = box = clip_box(box, size)
        width, height = x2 - x1, y2 - y1
    elif not all(map(math.isfinite, box)):
        raise UnusableError(f"bbox is {short(bbox)}, which is not finite")
    area = fields.get("area")
    area = width * height if area is None else _number(area, "area")
    if area < 0:
        raise UnusableError(f"area is {area}, expected no less than 0")
    crowd = fields.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UnusableError(f"iscrowd is {short(crowd)}, expected 0 or 1")
    return ObjectRow(box, label, area, crowd=bool(crowd), extent=extent)


def _known(fields: dict[str, Any], key: str, table: Mapping[int, _Found]) -> _Found:
    value = integer(fields, key)
    if value not in table:
        raise UnusableError(f"{key} {value} is unknown")
    return table[value]


def _number(value: Any, key: str) -> float:
    with suppress(OverflowError):  # JSON integers have no bound
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise UnusableError(f"{key} holds {short(value)}, expected finite numbers")
