"""The annotations of a COCO file: all at once in columns, or one by one to say what is wrong.

Shape shorthand:
    N: objects in use        A: annotations of the file
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.data.coco_fields import MAX_ID, integer, record, short
from detection.data.coco_images import Images, Sizes
from detection.data.records import ObjectRow, Skipped, UnusableError, clip_box
from detection.json_rows import Columns, column

DENSE = 2**22  # ids within this range are looked up in a table

_Found = TypeVar("_Found")


class Objects(NamedTuple):
    """The objects in use, in the file's order.

    Attributes:
        image_ids: (N,) int64.
        boxes: (N, 4) float64, xyxy, pixels, clipped.
        labels: (N,) int64, 1…K.
        areas: (N,) float64, square pixels.
        crowd: (N,) bool.
    """

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def read_objects(
    table: Sequence[Any], images: Images, label_of: Mapping[int, int], path: Path
) -> tuple[Objects, list[Skipped]]:
    """Reads annotations one by one.

    Args:
        table: the A annotations, whatever they are.
        images: the images of the file.
        label_of: each category id's label.
        path: the annotation file, for the messages.
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
            if item := _object(fields, used, sizes, label_of):
                rows.append((fields["image_id"], item))
        except UnusableError as error:
            skipped.append(Skipped(str(path), record("annotation", fields, position), str(error)))
    objects = Objects(
        np.array([image_id for image_id, _ in rows], np.int64),
        np.array([item.box for _, item in rows], np.float64).reshape(-1, 4),
        np.array([item.label for _, item in rows], np.int64),
        np.array([item.area for _, item in rows], np.float64),
        np.array([item.crowd for _, item in rows], np.bool_),
    )
    return objects, skipped


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool = 0


_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])


def pack_annotations(table: bytes) -> Columns:
    """Decodes annotations whose fields have the right types; masks are passed over.

    Args:
        table: the text of the list of A annotations.

    Returns:
        id, image_id, category_id, iscrowd: (A,) int64 each; area: (A,) float64, nan if absent;
        bbox: (4A,) float64, x, y, width, height.

    Raises:
        msgspec.DecodeError: the text is no such list; an annotation misses a field or has one of
            another type.
        struct.error: an id has more than 64 bits.
        UnicodeDecodeError: the text is not UTF-8.
        RecursionError: the text is nested too deeply.
    """
    rows = _ANNOTATIONS.decode(table)
    return (
        column("q", [row.id for row in rows]),
        column("q", [row.image_id for row in rows]),
        column("q", [row.category_id for row in rows]),
        column("q", [row.iscrowd for row in rows]),
        np.array([row.area for row in rows], np.float64),  # None becomes nan
        column("d", list(chain.from_iterable([row.bbox for row in rows]))),
    )


def read_columns(
    columns: Columns, images: Images, label_of: Mapping[int, int], path: Path
) -> tuple[Objects, list[Skipped]]:
    """Reads annotations whose fields have the right types, all at once.

    Args:
        columns: what `pack_annotations` makes of the A annotations.
        images: as for `read_objects`.
        label_of: as for `read_objects`.
        path: as for `read_objects`.

    Returns:
        What `read_objects` returns.
    """
    identity, image_id, category_id, crowd, area, numbers = columns
    bbox = numbers.reshape(-1, 4)
    image, has_image = _look_up(images.ids, image_id)
    categories = np.fromiter(label_of, np.int64, len(label_of))
    category, has_category = _look_up(categories, category_id)
    sizes = np.append(images.sizes, [[0, 0]], axis=0)[image]
    labels = np.array([*label_of.values(), 0], np.int64)[category]
    used = _used_before(identity)
    boxes, areas, sound = _clip(bbox, area, sizes)
    known = has_image & has_category & ~used & (identity > -MAX_ID) & (identity < MAX_ID)
    left_out = known & (sizes[:, 0] < 0)
    keep = known & sound & ~left_out & ((crowd == 0) | (crowd == 1))
    skipped: list[Skipped] = []
    wrong = np.flatnonzero(~keep & ~left_out).tolist()
    by_id = images.by_id() if wrong else {}
    for position in wrong:
        fields = {
            "id": int(identity[position]),
            "image_id": int(image_id[position]),
            "category_id": int(category_id[position]),
            "bbox": bbox[position].tolist(),
            "area": None if np.isnan(area[position]) else float(area[position]),
            "iscrowd": int(crowd[position]),
        }
        try:
            integer(fields, "id")
            _object(fields, bool(used[position]), by_id, label_of)
        except UnusableError as error:
            where = record("annotation", fields, position + 1)
            skipped.append(Skipped(str(path), where, str(error)))
    objects = Objects(image_id, boxes, labels, areas, crowd.astype(np.bool_))
    return objects if keep.all() else Objects(*(array[keep] for array in objects)), skipped


def _look_up(
    keys: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Finds values among keys: (A,) int64, the place or len(keys), and (A,) bool, if there."""
    first, last = (int(keys.min()), int(keys.max())) if len(keys) else (0, 0)
    if last - first < DENSE:
        table = np.full(last - first + 3, len(keys))  # with a place on either side
        table[keys - first + 1] = np.arange(len(keys))
        place = table[np.clip(values, first - 1, last + 1) - (first - 1)]
        return place, place < len(keys)
    order = np.append(np.argsort(keys), len(keys))
    ordered = np.append(keys, 0)[order]
    place = np.searchsorted(ordered[:-1], values)
    known = (place < len(keys)) & (ordered[place] == values)
    return np.where(known, order[place], len(keys)), known


def _used_before(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    used = np.zeros(len(ids), np.bool_)
    ordered = np.sort(ids)
    if (ordered[1:] == ordered[:-1]).any():
        used[:] = True
        used[np.unique(ids, return_index=True)[1]] = False
    return used


def _clip(
    bbox: NDArray[np.float64], area: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Does for columns what `_object` does for one: boxes, areas, and which are usable."""
    (x1, y1, width, height), (bottom, right) = bbox.T, sizes.T
    with np.errstate(over="ignore", invalid="ignore"):
        x2, y2 = x1 + width, y1 + height
        sound = (width > 0) & (x1 < x2) & (x1 < right) & (x2 > 0) & np.isfinite(x2)
        sound &= (height > 0) & (y1 < y2) & (y1 < bottom) & (y2 > 0) & np.isfinite(y2)
        x1, y1 = np.maximum(x1, 0.0), np.maximum(y1, 0.0)
        x2, y2 = np.minimum(x2, right), np.minimum(y2, bottom)
        areas = np.where(np.isnan(area), (x2 - x1) * (y2 - y1), area)
    return np.stack([x1, y1, x2, y2], axis=1), areas, sound & (areas >= 0)


def _object(
    fields: dict[str, Any], used: bool, sizes: Sizes, label_of: Mapping[int, int]
) -> ObjectRow | None:
    """Reads one annotation; None if its image is left out."""
    if used:
        raise UnusableError("the id is used before")
    size, label = _known(fields, "image_id", sizes), _known(fields, "category_id", label_of)
    if size is None:
        return None
    bbox = fields.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise UnusableError(f"bbox is {short(bbox)}, expected [x, y, width, height]")
    x, y, width, height = (_number(value, "bbox") for value in bbox)
    if width <= 0 or height <= 0:
        found = f"{width} × {height}"
        raise UnusableError(f"bbox is of {found}, expected a positive width and height")
    x1, y1, x2, y2 = box = clip_box((x, y, x + width, y + height), size)
    area = fields.get("area")
    area = (x2 - x1) * (y2 - y1) if area is None else _number(area, "area")
    if area < 0:
        raise UnusableError(f"area is {area}, expected no less than 0")
    crowd = fields.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UnusableError(f"iscrowd is {short(crowd)}, expected 0 or 1")
    return ObjectRow(box, label, area, crowd=bool(crowd))


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
