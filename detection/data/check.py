"""Every record of a data set against the promises that training relies on.

Shape shorthand:
    I: images of a split      N: objects of a split

Wrong is what would be skipped or would end a run: records that the readers leave out, image files
that cannot be decoded or have another size than their annotation, objects that stand twice, and
official splits that are not complete. Noted is what may be meant: tiny boxes, images with the same
content, images without objects.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.data.folder import (
    CocoSource,
    VocSource,
    find_sources,
    folder_labels,
    read_source,
)
from detection.data.images import read_image
from detection.data.official import shortfall
from detection.data.records import DataError, Records, Skipped

TINY = 2.0
"""A box with a shorter side than this is noted, pixels."""

Progress = Callable[[str, int, int], None]
"""Told which split is looked at, and how many of its images are done, of how many."""


class ClassCount(NamedTuple):
    """How often a class occurs in a split.

    Attributes:
        name: of the class.
        objects: that count.
        ignored: that do not, being crowds or difficult.
        images: with an object that counts.
    """

    name: str
    objects: int
    ignored: int
    images: int


class Findings(NamedTuple):
    """What was found in one split of one folder.

    Attributes:
        split: as it was asked for.
        source: its files.
        records: what its reader made of it, and what that left out.
        broken: rows of images whose file is not what its record says, and why.
        repeated: (N,) bool, objects that stand before in the same image.
        copies: rows of images, and the image with the same content that came before.
        shortfall: what an official split lacks; empty if nothing.
    """

    split: str
    source: VocSource | CocoSource
    records: Records
    broken: Mapping[int, str]
    repeated: NDArray[np.bool_]
    copies: Mapping[int, str]
    shortfall: str

    def wrong(self) -> dict[str, list[Skipped]]:
        """Lists what is wrong, by kind; kinds without an entry are empty."""
        name = str(self.records.root)
        return {
            "left out by the reader": list(self.records.skipped),
            "image file is not as annotated": [
                Skipped(str(self.records.path(row)), "image", reason)
                for row, reason in self.broken.items()
            ],
            "object stands twice": list(self._objects(self.repeated, "stands before")),
            "not complete": [Skipped(name, self.split, self.shortfall)] if self.shortfall else [],
        }

    def noted(self) -> dict[str, list[Skipped]]:
        """Lists what may be meant, by kind; kinds without an entry are empty."""
        truth = self.records.annotations
        tiny = (truth.boxes[:, 2:] - truth.boxes[:, :2]).min(axis=1) < TINY
        empty = np.flatnonzero(np.diff(truth.offsets) == 0).tolist()
        return {
            f"box has a side under {TINY:g} pixels": list(self._objects(tiny, "is tiny")),
            "image with the content of another one": [
                Skipped(str(self.records.path(row)), "image", f"is {other}")
                for row, other in self.copies.items()
            ],
            "image without objects": [
                Skipped(str(self.records.path(row)), "image", "no objects") for row in empty
            ],
        }

    def classes(self) -> tuple[ClassCount, ...]:
        """Counts objects and images of each class."""
        truth, names = self.records.annotations, self.records.labels.names
        ignored = truth.crowd | truth.difficult
        images = np.repeat(np.arange(len(truth.sizes)), np.diff(truth.offsets))
        pairs = np.unique(np.stack([images, truth.labels])[:, ~ignored], axis=1)[1]
        columns = [
            np.bincount(labels, minlength=len(names) + 1)[1:].tolist()
            for labels in (truth.labels[~ignored], truth.labels[ignored], pairs)
        ]
        return tuple(ClassCount(*row) for row in zip(names, *columns, strict=True))

    def to_plain(self) -> dict[str, Any]:
        """Returns all there is to say, as JSON has it."""
        groups = {"wrong": self.wrong(), "noted": self.noted()}
        return {
            "split": self.split,
            "root": str(self.records.root),
            "images": len(self.records.files),
            "objects": len(self.records.annotations.labels),
            "classes": [row._asdict() for row in self.classes()],
        } | {
            group: {kind: [one._asdict() for one in found] for kind, found in kinds.items()}
            for group, kinds in groups.items()
        }

    def _objects(self, which: NDArray[np.bool_], reason: str) -> Iterator[Skipped]:
        truth, names = self.records.annotations, self.records.labels.names
        for row in np.flatnonzero(which).tolist():
            image = int(np.searchsorted(truth.offsets, row, side="right")) - 1
            box = ", ".join(f"{value:.10g}" for value in truth.boxes[row])
            what = f"{names[truth.labels[row] - 1]} ({box})"
            yield Skipped(str(self.records.path(image)), what, reason)


def check_folder(
    root: Path,
    splits: Sequence[str],
    *,
    images: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Findings, ...]:
    """Checks splits of a folder.

    Args:
        root: the folder.
        splits: each as `read_folder` takes it. The parts of a union are checked one by one.
        images: whether image files are decoded; records alone are a matter of seconds.
        workers: threads that decode; one a core when None.
        progress: called after each image.

    Returns:
        The findings, a part of a split each.

    Raises:
        DataError: a split cannot be read at all, or the splits' classes differ.
    """
    parts = [part.strip() for split in splits for part in split.split("+")]
    labels = folder_labels(root, "+".join(parts))
    seen: dict[bytes, str] = {}
    found = []
    for part in dict.fromkeys(parts):
        (source,) = find_sources(root, part)
        records = read_source(source, labels)
        broken, copies = {}, {}
        with closing(_look(records, part, workers, progress)) as looks:
            for row, (digest, reason) in enumerate(looks if images else ()):
                own = f"{records.path(row)} of {part}"
                first = seen.setdefault(digest, own)
                if reason:
                    broken[row] = reason
                elif first != own:
                    copies[row] = first
        lacks = shortfall(source, records)
        found.append(Findings(part, source, records, broken, _repeated(records), copies, lacks))
    return tuple(found)


def _look(
    records: Records, part: str, workers: int | None, progress: Progress | None
) -> Generator[tuple[bytes, str], None, None]:
    """Decodes each image: the digest of its file, and what is wrong with it, if anything."""
    total = len(records.files)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        rows = range(total)
        sizes = [(int(height), int(width)) for height, width in records.annotations.sizes]
        for done, result in enumerate(pool.map(_decode, map(records.path, rows), sizes), start=1):
            if progress is not None:
                progress(part, done, total)
            yield result


def _decode(path: Path, size: tuple[int, int]) -> tuple[bytes, str]:
    try:
        found = read_image(path).shape[:2]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except (DataError, OSError) as error:
        return b"", str(error).removeprefix(f"{path}: ")
    if found == size:
        return digest, ""
    turned = ", the sides exchanged" if found == size[::-1] else ""
    return digest, f"expected (height, width) {size} as annotated, got {found}{turned}"


def _repeated(records: Records) -> NDArray[np.bool_]:
    """Finds objects of the same image, label, kind and box as one before: (N,) bool."""
    truth = records.annotations
    images = np.repeat(np.arange(len(truth.sizes)), np.diff(truth.offsets))
    kinds = [images, truth.labels, truth.crowd, truth.difficult]
    rows = np.column_stack([*kinds, truth.boxes])
    repeated = np.ones(len(rows), np.bool_)
    repeated[np.unique(rows, axis=0, return_index=True)[1]] = False
    return repeated
