"""The tables of a COCO file, checked as JSON; no mask is ever built.

A long file is read as head, rows and tail. The head ends where the annotations begin, the tail
begins with one of the last; both are decoded as they stand, and the rows between in pieces.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from detection.data.coco_objects import pack_annotations
from detection.data.records import DataError
from detection.json_rows import BETWEEN_ROWS, Columns, Rows, read_columns

LONG = 2**24  # bytes; a shorter file is decoded at once
TAIL = 2**20  # bytes, in which the tables after the annotations should lie
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[')

_Kind = TypeVar("_Kind")


class Tables(NamedTuple):
    """What a COCO file holds.

    Attributes:
        images: the records, whatever they are.
        categories: the records, whatever they are.
        annotations: `coco_objects.pack_annotations` of all, or the records, whatever they are.
    """

    images: list[Any]
    categories: list[Any]
    annotations: Columns | list[Any]


def load(path: Path) -> Tables:
    """Reads the tables, the annotations as columns if each has the right types.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be read, is not JSON, or a table is missing or no list.
    """
    return _read(path, _in_pieces) or _read(path, _at_once) or load_records(path)


def load_categories(path: Path) -> list[Any]:
    """Reads the categories; what stands between a long file's head and tail is not looked at.

    Args:
        path: the file.

    Raises:
        DataError: as for `load`.
    """
    found = _read(path, _ends) or _read(path, _whole) or load_records(path)
    return found.categories


class _UnfitError(ValueError):
    """The file is not laid out in the way that was expected."""


def _read(path: Path, way: Callable[[Path], _Kind]) -> _Kind | None:
    """Reads the file in this way; None if it is not fit for it."""
    try:
        return way(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error, _UnfitError):
        return None


def _in_pieces(path: Path) -> Tables:
    images, categories, rows, last = _ends(path)
    columns = zip(read_columns(path, rows, pack_annotations), last, strict=True)
    return Tables(images, categories, tuple(np.concatenate(pair) for pair in columns))


def _at_once(path: Path) -> Tables:
    file = _whole(path)
    return Tables(file.images, file.categories, pack_annotations(bytes(file.annotations)))


class _Whole(msgspec.Struct):
    images: list[Any]
    categories: list[Any]
    annotations: msgspec.Raw = msgspec.Raw(b"[]")


def _whole(path: Path) -> _Whole:
    file = msgspec.json.decode(path.read_bytes(), type=_Whole)
    if bytes(memoryview(file.annotations)[:1]) != b"[":
        raise _UnfitError("annotations are no list")
    return file


class _Ends(NamedTuple):
    images: list[Any]
    categories: list[Any]
    rows: Rows
    last: Columns


class _End(msgspec.Struct):
    """An end of the file; the annotations in it are given a name that no table has."""

    images: list[Any] | UnsetType = UNSET
    categories: list[Any] | UnsetType = UNSET
    annotations: msgspec.Raw | UnsetType = UNSET
    rows: msgspec.Raw = msgspec.field(name="", default=msgspec.Raw(b"[]"))


def _ends(path: Path) -> _Ends:
    """Decodes head and tail of a long file, and finds the rows between."""
    size = path.stat().st_size
    if size < LONG:
        raise _UnfitError("short")
    with path.open("rb") as file:
        head = bytearray()
        while not (begin := _ANNOTATIONS.search(head, max(0, len(head) - 2 * TAIL))):
            if not (block := file.read(TAIL)):
                raise _UnfitError("no annotations")
            head += block
        file.seek(max(begin.end(), size - TAIL))
        tail = file.read()
    if not (cut := BETWEEN_ROWS.search(tail)):
        raise _UnfitError("no rows in the tail")
    before = msgspec.json.decode(head[: begin.start()] + b'"": []}', type=_End)
    after = msgspec.json.decode(b'{"": [' + tail[cut.end() - 1 :], type=_End)
    images = before.images if after.images is UNSET else after.images
    categories = before.categories if after.categories is UNSET else after.categories
    once = before.annotations is after.annotations is UNSET
    if images is UNSET or categories is UNSET or not once:
        raise _UnfitError("a table is missing, or stands twice")
    rows = Rows(begin.end(), size - len(tail) + cut.start() + 1, b"[", b"]")
    return _Ends(images, categories, rows, pack_annotations(bytes(after.rows)))


def load_records(path: Path) -> Tables:
    """Decodes all records, whatever they are, or says what is wrong with the file.

    Args:
        path: the file.

    Raises:
        DataError: as for `load`.
    """
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
    if content.keys() >= {"images", "categories"}:
        content.setdefault("annotations", [])
    for table in ("images", "annotations", "categories"):
        if not isinstance(content.get(table), list):
            kind = type(content[table]).__name__ if table in content else "nothing"
            raise DataError(f"{path}: table {table!r}: expected a list, got {kind}")
    return Tables(content["images"], content["categories"], content["annotations"])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name} is no JSON")


def _without_masks(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("segmentation", None)  # most of the file, and never used
    return fields
