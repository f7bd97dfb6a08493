"""The annotations of a COCO file all at once, in columns, where each has the right types.

Shape shorthand:
    N: objects in use        A: annotations of the file
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.data.coco_fields import MAX_ID, integer, record
from detection.data.coco_images import Images
from detection.data.coco_objects import Objects, read_object
from detection.data.records import Skipped, UnusableError
from detection.json_rows import Columns, column

DENSE = 2**22  # ids within this range are looked up in a table


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
    columns: Columns, images: Images, label_of: Mapping[int, int], path: Path, clipped: bool
) -> tuple[Objects, list[Skipped]]:
    """Reads annotations whose fields have the right types, all at once.

    Args:
        columns: what `pack_annotations` makes of the A annotations.
        images: as for `coco_objects.read_objects`.
        label_of: as for `coco_objects.read_objects`.
        path: as for `coco_objects.read_objects`.
        clipped: as for `coco_objects.read_objects`.

    Returns:
        What `coco_objects.read_objects` returns.
    """
    identity, image_id, category_id, crowd, area, numbers = columns
    bbox = numbers.reshape(-1, 4)
    image, has_image = _look_up(images.ids, image_id)
    categories = np.fromiter(label_of, np.int64, len(label_of))
    category, has_category = _look_up(categories, category_id)
    sizes = np.append(images.sizes, [[0, 0]], axis=0)[image]
    labels = np.array([*label_of.values(), 0], np.int64)[category]
    used = _used_before(identity)
    boxes, areas, sound = _corners(bbox, area, sizes if clipped else None)
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
            read_object(fields, bool(used[position]), by_id, label_of, clipped)
        except UnusableError as error:
            where = record("annotation", fields, position + 1)
            skipped.append(Skipped(str(path), where, str(error)))
    extents = None if clipped else bbox[:, 2:]
    objects = Objects(image_id, boxes, labels, areas, crowd.astype(np.bool_), extents)
    return objects if keep.all() else _those(objects, keep), skipped


def _those(objects: Objects, keep: NDArray[np.bool_]) -> Objects:
    return Objects(
        objects.image_ids[keep],
        objects.boxes[keep],
        objects.labels[keep],
        objects.areas[keep],
        objects.crowd[keep],
        None if objects.extents is None else objects.extents[keep],
    )


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


def _corners(
    bbox: NDArray[np.float64], area: NDArray[np.float64], sizes: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Does for columns what `_object` does for one: boxes, areas, and which are usable.

    Boxes are clipped to the sizes, if there are any.
    """
    x1, y1, width, height = bbox.T
    with np.errstate(over="ignore", invalid="ignore"):
        x2, y2 = x1 + width, y1 + height
        sound = np.isfinite(x2) & np.isfinite(y2)
        if sizes is None:
            sound &= (width >= 0) & (height >= 0)
        else:
            bottom, right = sizes.T
            sound &= (width > 0) & (x1 < x2) & (x1 < right) & (x2 > 0)
            sound &= (height > 0) & (y1 < y2) & (y1 < bottom) & (y2 > 0)
            x1, y1 = np.maximum(x1, 0.0), np.maximum(y1, 0.0)
            x2, y2 = np.minimum(x2, right), np.minimum(y2, bottom)
            width, height = x2 - x1, y2 - y1
        areas = np.where(np.isnan(area), width * height, area)
    return np.stack([x1, y1, x2, y2], axis=1), areas, sound & (areas >= 0)
