"""The tables of a COCO file, checked as JSON; no mask is ever built.

A long file is read as head, rows and tail. The head ends where the annotations begin, the tail
begins with one of the last; both are decoded as they stand, and the rows between in pieces.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from detection.data.coco_columns import pack_annotations
from detection.data.coco_images import ImageRow
from detection.data.records import DataError
from detection.json_rows import BETWEEN_ROWS, Columns, Rows, read_columns_beside

LONG = 2**24  # bytes; a shorter file is decoded at once
TAIL = 2**20  # bytes, in which the tables after the annotations should lie
SPACES = 2**10  # bytes; more are not expected before the annotations' bracket
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[')

_Kind = TypeVar("_Kind")
_Image = TypeVar("_Image")
_Prepare = Callable[[Sequence[Any], list[Any]], _Kind]


class Tables(NamedTuple, Generic[_Kind]):
    """What a COCO file holds.

    Attributes:
        others: what was made of the images and categories.
        annotations: `coco_columns.pack_annotations` of all, or the records, whatever they are.
    """

    others: _Kind
    annotations: Columns | list[Any]


def load(path: Path, prepare: _Prepare[_Kind]) -> Tables[_Kind]:
    """Reads the tables, the annotations as columns if each has the right types.

    Args:
        path: the file.
        prepare: makes what is wanted of the images, an `ImageRow` each if they have the right
            types, else records, whatever they are, as the categories are. Called again for a file
            that turns out to be laid out in an unusual way.

    Raises:
        DataError: the file cannot be read, is not JSON, or a table is missing or no list.
        Exception: what ``prepare`` raises.
    """
    found = _read(path, partial(_in_pieces, prepare)) or _read(path, partial(_at_once, prepare))
    if found:
        return found
    content = load_records(path)
    return Tables(prepare(content.images, content.categories), content.annotations)


def load_categories(path: Path) -> list[Any]:
    """Reads the categories; what stands between a long file's head and tail is not looked at.

    Args:
        path: the file.

    Raises:
        DataError: as for `load`.
    """
    found = _read(path, lambda file: _decode(_ends(file))) or _read(path, _whole)
    return (found or load_records(path)).categories


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


class _Content(NamedTuple):
    images: list[Any]
    categories: list[Any]
    annotations: list[Any]


class _Whole(msgspec.Struct, Generic[_Image]):
    images: list[_Image]
    categories: list[Any]
    annotations: msgspec.Raw = msgspec.Raw(b"[]")


def _at_once(prepare: _Prepare[_Kind], path: Path) -> Tables[_Kind]:
    file = _whole(path)
    annotations = pack_annotations(bytes(file.annotations))
    return Tables(prepare(file.images, file.categories), annotations)


def _whole(path: Path) -> _Whole[Any]:
    text = path.read_bytes()
    try:
        file = msgspec.json.decode(text, type=_Whole[ImageRow])
    except msgspec.ValidationError:
        file = msgspec.json.decode(text, type=_Whole[Any])
    if bytes(memoryview(file.annotations)[:1]) != b"[":
        raise _UnfitError("annotations are no list")
    return file


def _in_pieces(prepare: _Prepare[_Kind], path: Path) -> Tables[_Kind]:
    ends = _ends(path)

    def rest() -> tuple[_Kind, Columns]:
        tables = _decode(ends)
        last = pack_annotations(bytes(tables.last))
        return prepare(tables.images, tables.categories), last

    first, (others, last) = read_columns_beside(path, ends.rows, pack_annotations, rest)
    pairs = zip(first, last, strict=True)
    return Tables(others, tuple(np.concatenate(pair) for pair in pairs))


class _Ends(NamedTuple):
    """A long file's text around the rows, each end with what makes it an object."""

    head: bytes | bytearray
    rows: Rows
    tail: bytes


class _End(msgspec.Struct, Generic[_Image]):
    """An end of the file; the annotations in it are given a name that no table has."""

    images: list[_Image] | UnsetType = UNSET
    categories: list[Any] | UnsetType = UNSET
    annotations: msgspec.Raw | UnsetType = UNSET
    rows: msgspec.Raw = msgspec.field(name="", default=msgspec.Raw(b"[]"))


class _Tables(NamedTuple):
    images: list[Any]
    categories: list[Any]
    last: msgspec.Raw


def _ends(path: Path) -> _Ends:
    """Reads head and tail of a long file, and finds the rows between."""
    size = path.stat().st_size
    if size < LONG:
        raise _UnfitError("short")
    with path.open("rb") as file:
        head = bytearray()
        while not (begin := _ANNOTATIONS.search(head, max(0, len(head) - TAIL - SPACES))):
            if not (block := file.read(TAIL)):
                raise _UnfitError("no annotations")
            head += block
        file.seek(max(begin.end(), size - TAIL))
        tail = file.read()
    if not (cut := BETWEEN_ROWS.search(tail)):
        raise _UnfitError("no rows in the tail")
    rows = Rows(begin.end(), size - len(tail) + cut.start() + 1, b"[", b"]")
    head[begin.start() :] = b'"": []}'
    return _Ends(head, rows, b'{"": [' + tail[cut.end() - 1 :])


def _decode_end(text: bytes | bytearray) -> _End[Any]:
    try:
        return msgspec.json.decode(text, type=_End[ImageRow])
    except msgspec.ValidationError:
        return msgspec.json.decode(text, type=_End[Any])


def _decode(ends: _Ends) -> _Tables:
    before, after = _decode_end(ends.head), _decode_end(ends.tail)
    images = before.images if after.images is UNSET else after.images
    categories = before.categories if after.categories is UNSET else after.categories
    once = before.annotations is after.annotations is UNSET
    if images is UNSET or categories is UNSET or not once:
        raise _UnfitError("a table is missing, or stands twice")
    return _Tables(images, categories, after.rows)


def load_records(path: Path) -> _Content:
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
    return _Content(content["images"], content["categories"], content["annotations"])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name} is no JSON")


def _without_masks(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("segmentation", None)  # most of the file, and never used
    return fields
