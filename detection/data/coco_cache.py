"""What was read from a large COCO file, kept as arrays in the user's cache folder.

The folder is ``$XDG_CACHE_HOME/resdet``, else ``~/.cache/resdet``: data folders are often
read-only, and a cache that comes along with data would have to be distrusted. An entry holds for
the annotation file's size and time of modification and for those times of the image folders,
which change whenever a file comes or goes. A cache that is missing, stale, broken or cannot be
written costs time, never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.labels import LabelMap
from detection.data.records import DETECTION, SCORING, TRAINING, Records, Skipped, Use
from detection.structures import Annotations

VERSION = 2
SMALLEST = 2**20  # bytes; a smaller file is read as fast
SETTLED = 2_000_000_000  # nanoseconds after which a change must alter the time of modification


def stamp(annotation_file: Path) -> tuple[int, int]:
    """Returns the file's size in bytes and time of modification in nanoseconds; zeros if none.

    Args:
        annotation_file: the file, before it is read.
    """
    try:
        status = annotation_file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def load_records(annotation_file: Path, image_root: Path, use: Use) -> Records | None:
    """Returns what `store` kept, if it still holds.

    Args:
        annotation_file: the annotation file.
        image_root: folder of the images.
        use: what the records are for.
    """
    root = image_root.resolve()
    # Whatever is wrong with the entry, reading the annotations anew mends it.
    with contextlib.suppress(Exception), _open(annotation_file, use) as (head, archive):
        times = {name: (root / name).stat().st_mtime_ns for name in head["folders"]}
        if head["root"] == str(root) and head["folders"] == times:
            arrays = {name: archive[name] for name in Annotations._fields if name in archive}
            annotations = Annotations(**arrays)
            skipped = tuple(Skipped(str(annotation_file), *pair) for pair in head["skipped"])
            return Records(archive["files"], image_root, annotations, _labels(head), skipped)
    return None


def load_labels(annotation_file: Path) -> LabelMap | None:
    """Returns the categories of what `store` kept, if the annotation file is still that one.

    Args:
        annotation_file: the annotation file.
    """
    for use in (TRAINING, DETECTION, SCORING):
        with contextlib.suppress(Exception), _open(annotation_file, use) as (head, _):
            return _labels(head)
    return None


def store(
    annotation_file: Path,
    then: tuple[int, int],
    folders: dict[str, int],
    records: Records,
    use: Use,
) -> None:
    """Keeps what was read, if it is worth it and was not changed just now.

    Args:
        annotation_file: the annotation file.
        then: its `stamp` before it was read.
        folders: the image folders relative to the root, with their times of modification before
            they were listed, nanoseconds.
        records: what was read.
        use: what for.
    """
    size, modified = then
    age = time.time_ns() - max(modified, *folders.values(), 0)
    if size < SMALLEST or age < SETTLED:
        return
    head = {
        "version": [VERSION, *then],
        "root": str(records.root.resolve()),
        "folders": folders,
        "names": records.labels.names,
        "ids": records.labels.ids,
        "skipped": [entry[1:] for entry in records.skipped],
    }
    arrays: dict[str, Any] = {"files": records.files}
    for name, array in records.annotations._asdict().items():
        if array is not None:
            arrays[name] = array
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        path = _entry(annotation_file, use)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _open(
    annotation_file: Path, use: Use
) -> Iterator[tuple[dict[str, Any], Mapping[str, NDArray[Any]]]]:
    """Opens the entry of a file that has not changed since."""
    now = stamp(annotation_file)
    if now[0] < SMALLEST:
        raise LookupError("small files are not kept")
    with _entry(annotation_file, use).open("rb") as file, np.load(file) as archive:
        head = json.loads(archive["head"].tobytes())
        if head["version"] != [VERSION, *now]:
            raise LookupError("the annotation file has changed")
        yield head, archive


def _entry(annotation_file: Path, use: Use) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(os.fsencode(annotation_file.resolve())).hexdigest()[:32]
    return folder / "resdet" / f"{name}{use.clipped:d}{use.with_files:d}.npz"


def _labels(head: dict[str, Any]) -> LabelMap:
    return LabelMap(tuple(head["names"]), tuple(head["ids"]))
