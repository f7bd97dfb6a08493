"""Reader for COCO's JSON annotations (https://cocodataset.org/#format-data).

Boxes ``[x, y, width, height]`` become xyxy; they are half-open already. The categories, in the
order of their ids, are the labels 1…K.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from detection.data.images import MAX_PIXELS
from detection.data.labels import LabelMap
from detection.data.records import (
    DataError,
    ImageRow,
    ObjectRow,
    Records,
    Skipped,
    UnusableError,
    clip_box,
    pack,
)

_MAX_ID = 2**53  # a larger id would not survive JSON readers that use doubles

_Found = TypeVar("_Found")


def read_coco(annotation_file: Path, image_root: Path, labels: LabelMap | None = None) -> Records:
    """Reads a COCO annotation file.

    Images without annotations stay. Boxes that reach over the border are clipped. Left out and
    counted are images without a file or a usable size (their annotations go with them), and
    annotations of unknown images or categories, with an id seen before, or whose box is not
    finite, is empty or lies outside.

    Args:
        annotation_file: JSON with the tables ``images``, ``annotations`` and ``categories``.
        image_root: folder that ``file_name`` is relative to.
        labels: the categories to expect; those of the file when None.

    Returns:
        The images in the order of the file; ``areas`` is the field ``area``, or the area of the
        clipped box where that is absent.

    Raises:
        DataError: the file is not such JSON; an image id is no integer or is used twice; a
            ``file_name`` leads out of ``image_root``; the categories are not those of ``labels``;
            or not one image can be used.
    """
    tables = _load(annotation_file)
    found = _labels(tables["categories"], annotation_file)
    if labels is not None and labels != found:
        raise DataError(f"{annotation_file}: {_difference(labels, found)}")
    skipped: list[Skipped] = []
    images = _images(tables["images"], annotation_file, image_root.resolve(), skipped)
    label_of = found.label_of_id()
    seen: set[int] = set()
    for position, fields in enumerate(tables["annotations"], start=1):
        try:
            identity = _integer(fields, "id")
            if identity in seen:
                raise UnusableError("the id is used before")
            seen.add(identity)
            row = _known(fields, "image_id", images)
            label = _known(fields, "category_id", label_of)
            if row is not None:
                row.objects.append(_object(fields, label, row.size))
        except UnusableError as error:
            record = _record("annotation", fields, position)
            skipped.append(Skipped(str(annotation_file), record, str(error)))
    rows = [row for row in images.values() if row is not None]
    if not rows:
        first = f", first {skipped[0].record}: {skipped[0].reason}" if images else ""
        raise DataError(f"{annotation_file}: none of {len(images)} images can be used{first}")
    return pack(image_root, rows, found, skipped)


def coco_labels(annotation_file: Path) -> LabelMap:
    """Reads the categories of a COCO annotation file, in the order of their ids.

    Args:
        annotation_file: JSON with the tables ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: the file is not such JSON, or ids or names of categories are not unique.
    """
    return _labels(_load(annotation_file)["categories"], annotation_file)


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse_constant, object_hook=_without_masks
        )
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with tables, got a {type(content).__name__}")
    for table in ("images", "annotations", "categories"):
        if not isinstance(content.get(table), list):
            kind = type(content[table]).__name__ if table in content else "nothing"
            raise DataError(f"{path}: table {table!r}: expected a list, got {kind}")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name} is no JSON")


def _without_masks(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("segmentation", None)  # most of the file, and never used
    return fields


def _labels(table: list[Any], path: Path) -> LabelMap:
    names: dict[int, str] = {}
    for position, fields in enumerate(table, start=1):
        where = f"{path}: {_record('category', fields, position)}"
        try:
            identity = _integer(fields, "id")
        except UnusableError as error:
            raise DataError(f"{where}: {error}") from error
        name = fields.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: name is {name!r}, expected text")
        if identity in names or name in names.values():
            raise DataError(f"{where}: id {identity} or name {name!r} is used before")
        names[identity] = name
    if not names:
        raise DataError(f"{path}: no categories")
    ids = tuple(sorted(names))
    return LabelMap(tuple(names[identity] for identity in ids), ids)


def _difference(expected: LabelMap, found: LabelMap) -> str:
    """Says how two different category lists differ."""
    wanted = set(zip(expected.ids, expected.names, strict=True))
    present = set(zip(found.ids, found.names, strict=True))
    missing, more = sorted(wanted - present), sorted(present - wanted)
    if not missing and not more:
        return f"categories in another order: expected {expected.names}, got {found.names}"
    return (
        f"categories differ (id, name): missing {missing or 'none'}, not expected {more or 'none'}"
    )


def _images(
    table: list[Any], path: Path, root: Path, skipped: list[Skipped]
) -> dict[int, ImageRow | None]:
    """Maps each image id to its row, or to None where the image is left out."""
    images: dict[int, ImageRow | None] = {}
    for position, fields in enumerate(table, start=1):
        record = _record("image", fields, position)
        try:
            identity = _integer(fields, "id")
        except UnusableError as error:
            raise DataError(f"{path}: {record}: {error}") from error
        if identity in images:
            raise DataError(f"{path}: {record}: the id is used before")
        file = _contained(root, fields.get("file_name"), f"{path}: {record}")
        images[identity] = None
        try:
            if not os.path.isfile(root / file):
                raise UnusableError(f"{root / file}: no such file")
            images[identity] = ImageRow(file, identity, _size(fields), [])
        except UnusableError as error:
            skipped.append(Skipped(str(path), record, str(error)))
    return images


def _contained(root: Path, name: Any, where: str) -> str:
    """Resolves a file name and returns it relative to the root, which it must not leave."""
    inside = os.path.join(root, "")
    try:
        path = os.path.realpath(os.path.join(root, name))
    except (TypeError, ValueError) as error:  # no text; text that cannot be a path
        raise DataError(f"{where}: file_name is {name!r}, expected a relative path") from error
    if not path.startswith(inside):
        raise DataError(f"{where}: file_name {name!r} leads out of {root}")
    return path[len(inside) :]


def _size(fields: dict[str, Any]) -> tuple[int, int]:
    height, width = _integer(fields, "height"), _integer(fields, "width")
    if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
        raise UnusableError(
            f"size {height} × {width}, expected positive and at most {MAX_PIXELS} pixels"
        )
    return height, width


def _object(fields: dict[str, Any], label: int, size: tuple[int, int]) -> ObjectRow:
    bbox = fields.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise UnusableError(f"bbox is {_short(bbox)}, expected [x, y, width, height]")
    x, y, width, height = (_number(value, "bbox") for value in bbox)
    if width <= 0 or height <= 0:
        raise UnusableError(f"bbox is {_short(bbox)}, expected a positive width and height")
    x1, y1, x2, y2 = box = clip_box((x, y, x + width, y + height), size)
    area = fields.get("area")
    area = (x2 - x1) * (y2 - y1) if area is None else _number(area, "area")
    if area < 0:
        raise UnusableError(f"area is {area}, expected no less than 0")
    crowd = fields.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UnusableError(f"iscrowd is {_short(crowd)}, expected 0 or 1")
    return ObjectRow(box, label, area, crowd=bool(crowd))


def _integer(fields: Any, key: str) -> int:
    value = fields.get(key) if isinstance(fields, dict) else None
    if type(value) is not int or abs(value) >= _MAX_ID:
        raise UnusableError(f"{key} is {_short(value)}, expected an integer")
    return value


def _known(fields: dict[str, Any], key: str, table: Mapping[int, _Found]) -> _Found:
    value = _integer(fields, key)
    if value not in table:
        raise UnusableError(f"{key} {value} is unknown")
    return table[value]


def _number(value: Any, key: str) -> float:
    with suppress(OverflowError):  # JSON integers have no bound
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise UnusableError(f"{key} holds {_short(value)}, expected finite numbers")


def _record(kind: str, fields: Any, position: int) -> str:
    identity = fields.get("id") if isinstance(fields, dict) else None
    return f"{kind} at position {position}" if identity is None else f"{kind} {_short(identity)}"


def _short(value: Any) -> str:
    return repr(value)[:80]
