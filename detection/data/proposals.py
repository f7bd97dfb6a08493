"""Proposals for a whole data set in one file: what the detector's steps train on (alternating).

Shape shorthand:
    I: images of a data set     N: proposals of all of them
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.atomic import replacing
from detection.data.records import DataError
from detection.structures import Predictions


class StoredProposals(NamedTuple):
    """The proposals of a data set in packed arrays, which workers share without copies.

    The proposals of image i are rows ``offsets[i]:offsets[i + 1]``, best first.

    Attributes:
        image_ids: (I,) int64, unique.
        offsets: (I + 1,) int64, the first is 0 and the last is N.
        boxes: (N, 4) float32, xyxy, pixels of the original image.
        scores: (N,) float32, objectness, logits.
    """

    image_ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def of(self, index: int) -> NDArray[np.float32]:
        """Returns the boxes of image ``index``: (n, 4) float32."""
        return self.boxes[self.offsets[index] : self.offsets[index + 1]]


_KINDS = {"image_ids": np.int64, "offsets": np.int64, "boxes": np.float32, "scores": np.float32}


def pack_proposals(image_ids: NDArray[np.int64], found: Predictions) -> StoredProposals:
    """Puts proposals into the order of a data set.

    Args:
        image_ids: (I,) int64, unique; images without proposals are among them too.
        found: proposals of these images, each image's own best first; labels are not looked at.
    """
    by_id = np.argsort(image_ids)
    places = by_id[np.searchsorted(image_ids[by_id], found.image_ids)]
    rows = np.argsort(places, kind="stable")
    counts = np.bincount(places, minlength=len(image_ids))
    return StoredProposals(
        image_ids,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        found.boxes[rows].astype(np.float32, copy=False),
        found.scores[rows].astype(np.float32, copy=False),
    )


def write_proposals(file: Path, proposals: StoredProposals, origin: str) -> None:
    """Writes proposals as an npz archive, whole or not at all.

    Args:
        file: the archive.
        proposals: what to write.
        origin: what says which checkpoint proposed them, and how it was asked.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(file) as target:
        np.savez(target, origin=np.array(origin), **proposals._asdict())


def origin_of(file: Path) -> str | None:
    """Returns the origin of what a file holds, None if there is none.

    Raises:
        DataError: the file is damaged.
        OSError: it cannot be read.
    """
    if not file.exists():
        return None
    with _open(file) as archive:
        return str(archive["origin"])


def read_proposals(file: Path, image_ids: NDArray[np.int64], origin: str) -> StoredProposals:
    """Reads what `write_proposals` wrote, for these images and of this origin.

    Args:
        file: the archive.
        image_ids: (I,) int64, the data set's images, in its order.
        origin: as it was written.

    Raises:
        DataError: the file is damaged, or is of other images or another origin.
        OSError: it cannot be read.
    """
    with _open(file) as archive:
        written = str(archive["origin"])
        found = StoredProposals(*(archive[name] for name in StoredProposals._fields))
    if written != origin:
        raise DataError(f"{file}: of another checkpoint or other settings: {written}, not {origin}")
    if not np.array_equal(found.image_ids, image_ids):
        raise DataError(
            f"{file}: of {len(found.image_ids)} images, which are not the {len(image_ids)} of the "
            "data set, or in another order"
        )
    _check(file, found)
    return found


@contextmanager
def _open(file: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    try:
        with file.open("rb") as source, np.load(source) as archive:
            yield archive
    except (AttributeError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a file of proposals, or damaged: {error}") from error


def _check(file: Path, found: StoredProposals) -> None:
    for name, kind in _KINDS.items():
        if (array := getattr(found, name)).dtype != kind:
            raise DataError(f"{file}: {name}: expected {kind.__name__}, got {array.dtype}")
    _, offsets, boxes, scores = found
    shapes = offsets.shape, boxes.shape, scores.shape
    if shapes != ((len(found.image_ids) + 1,), (len(scores), 4), (len(scores),)):
        raise DataError(f"{file}: offsets, boxes and scores of shapes {shapes}")
    if offsets[0] != 0 or offsets[-1] != len(scores) or (np.diff(offsets) < 0).any():
        raise DataError(f"{file}: offsets must rise from 0 to the {len(scores)} proposals")
    if not np.isfinite(boxes).all():
        row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise DataError(f"{file}: proposal {row} is not finite: {boxes[row].tolist()}")
