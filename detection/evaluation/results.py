"""COCO result files: a JSON list of ``{"image_id", "category_id", "bbox", "score"}``.

A result file is data from elsewhere: reading is strict, and every error names file and entry.
"""

import json
import os
import struct
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import check_predictions
from detection.evaluation.overlaps import xywh
from detection.json_rows import Columns, Rows, column, read_columns
from detection.structures import Predictions

LARGEST = float(np.finfo(np.float32).max)
ID_RANGE = np.iinfo(np.int64)


def write_results(
    path: str | os.PathLike[str], predictions: Predictions, category_ids: Sequence[int]
) -> None:
    """Writes detections as a COCO result file, in full precision; a reader sees all or nothing.

    Args:
        path: the file; an existing one is replaced.
        predictions: detections, in any order, which is kept.
        category_ids: the data set's ids of classes 1…K.

    Raises:
        ValueError: a box or score is not finite, a size is negative or a label is outside 1…K;
            the message names the image.
    """
    check_predictions(predictions, len(category_ids))
    columns = zip(
        predictions.image_ids.tolist(),
        [int(category_ids[label - 1]) for label in predictions.labels.tolist()],
        xywh(predictions.boxes, predictions.extents).tolist(),
        predictions.scores.tolist(),
        strict=True,
    )
    names = ("image_id", "category_id", "bbox", "score")
    text = json.dumps([dict(zip(names, row, strict=True)) for row in columns], allow_nan=False)
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_results(path: str | os.PathLike[str], category_ids: Sequence[int]) -> Predictions:
    """Reads a COCO result file.

    Args:
        path: the file. Fields other than the four are allowed and left unread.
        category_ids: the data set's ids of classes 1…K.

    Returns:
        The detections, in the file's order. Boxes and scores are float64: rounded to float32,
        scores could tie and overlaps move across a threshold.

    Raises:
        ValueError: not JSON, not a list, or an entry with a missing or repeated field, an unknown
            category id, a number that is not finite in float32, or a negative size.
        OSError: the file cannot be read.
    """
    path = Path(path)
    columns = _read_columns(path, category_ids)
    return _read_entries(path, category_ids) if columns is None else columns


class _Entry(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


_ENTRIES = msgspec.json.Decoder(list[_Entry])


def _read_columns(path: Path, category_ids: Sequence[int]) -> Predictions | None:
    """Reads a file without a fault, fast; None means that `_read_entries` has to look at it."""
    try:
        columns = read_columns(path, Rows(0, path.stat().st_size), _columns)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error):
        return None
    image_ids, categories, scores, numbers = columns
    label_of = {category: label for label, category in enumerate(category_ids, start=1)}
    found, place = np.unique(categories, return_inverse=True)
    if not label_of.keys() >= set(found.tolist()):
        return None
    labels = np.array([label_of[category] for category in found.tolist()], np.int64)[place]
    boxes = numbers.reshape(-1, 4)
    extents = boxes[:, 2:].copy()
    if (extents < 0).any():
        return None
    boxes[:, 2:] += boxes[:, :2]
    if not (_all_finite(boxes) and _all_finite(scores)):
        return None
    return Predictions(image_ids, boxes, scores, labels, extents)


def _columns(piece: bytes) -> Columns:
    """Returns image ids, category ids, scores and, one after the other, the boxes' numbers."""
    entries = _ENTRIES.decode(piece)
    if _repeats_fields(piece, len(entries)):
        raise msgspec.ValidationError("a field may be repeated")
    return (
        column("q", [entry.image_id for entry in entries]),
        column("q", [entry.category_id for entry in entries]),
        column("d", [entry.score for entry in entries]),
        column("d", list(chain.from_iterable([entry.bbox for entry in entries]))),
    )


def _repeats_fields(piece: bytes, n: int) -> bool:
    """Says whether one of the four fields may stand twice in one of n complete entries."""
    quotes = np.count_nonzero(np.frombuffer(piece, np.uint8) == ord('"'))  # bytes.count is slower
    if quotes == 8 * n:  # the four names and no other text
        return False
    names = (b'"image_id"', b'"category_id"', b'"bbox"', b'"score"')
    return b"\\" in piece or any(piece.count(name) != n for name in names)


def _all_finite(values: NDArray[np.float64]) -> bool:
    return bool(np.all(np.abs(values) <= LARGEST))


def _read_entries(path: Path, category_ids: Sequence[int]) -> Predictions:
    """Reads entry by entry, and names the one at fault."""
    constants: list[str] = []

    def keep_constant(name: str) -> float:
        constants.append(name)
        return float(name)  # refused below, where the entry is known

    try:
        entries = json.loads(
            path.read_bytes().decode(),
            parse_constant=keep_constant,
            object_pairs_hook=_unique_fields,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a valid result file: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of results, got {type(entries).__name__}")
    label_of_id = {category: label for label, category in enumerate(category_ids, start=1)}
    n = len(entries)
    image_ids, labels = np.empty(n, np.int64), np.empty(n, np.int64)
    boxes, scores = np.empty((n, 4)), np.empty(n)
    for i, entry in enumerate(entries):
        try:
            image_ids[i], labels[i], boxes[i], scores[i] = _parse(entry, label_of_id)
        except ValueError as error:
            known = isinstance(entry, dict) and "image_id" in entry
            where = f"entry {i} (image {entry['image_id']!r})" if known else f"entry {i}"
            raise ValueError(f"{path}: {where}: {error}") from error
    if constants:
        raise ValueError(f"{path}: not a valid result file: it holds {constants[0]}")
    extents = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    return Predictions(image_ids, boxes, scores, labels, extents)


def _parse(
    entry: Any, label_of_id: dict[int, int]
) -> tuple[int, int, tuple[float, float, float, float], float]:
    """Returns image id, label, box of x, y, width and height, and score of one entry."""
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, got {type(entry).__name__}")
    missing = {"image_id", "category_id", "bbox", "score"} - entry.keys()
    if missing:
        raise ValueError(f"missing {', '.join(sorted(missing))}")
    image_id, category, bbox = entry["image_id"], entry["category_id"], entry["bbox"]
    if type(image_id) is not int or not ID_RANGE.min <= image_id <= ID_RANGE.max:
        raise ValueError(f"image_id must be an integer of 64 bits, got {image_id!r}")
    if type(category) is not int or category not in label_of_id:
        raise ValueError(f"unknown category_id {category!r}")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"bbox must be [x, y, width, height], got {bbox!r}")
    x, y, width, height = (_number("bbox", value) for value in bbox)
    if width < 0 or height < 0:
        raise ValueError(f"bbox has a negative size: {bbox}")
    for end in (x + width, y + height):
        _number("bbox", end)
    score = _number("score", entry["score"])
    return image_id, label_of_id[category], (x, y, width, height), score


def _number(field: str, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= LARGEST:
        raise ValueError(f"{field} must hold finite numbers, got {value!r}")
    return float(value)


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"a field is repeated in {pairs}")
    return fields
