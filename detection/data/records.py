"""What a reader returns: a data set's images and ground truth, and what was left out."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.data.labels import LabelMap
from detection.structures import Annotations

# Of an image; below the size at which Pillow starts to warn (89 megapixels), above any photo.
MAX_PIXELS = 80_000_000


class DataError(ValueError):
    """A data set that cannot be used; the message names file, record and reason."""


class Skipped(NamedTuple):
    """One record that was left out.

    Attributes:
        file: the annotation or image file.
        record: which record of the file, such as ``object 3`` or ``annotation 17``.
        reason: what was expected and what was found.
    """

    file: str
    record: str
    reason: str


class Records(NamedTuple):
    """A split of a data set in packed arrays, which workers share without copies.

    Attributes:
        files: (I,) str, image files, relative to ``root``.
        root: folder that holds the images.
        annotations: the ground truth of the I images, in the same order.
        labels: names and ids of the classes.
        skipped: every record that was left out, with the reason.
        renumbered: whether the image ids are positions, as those of joined splits repeat.
    """

    files: NDArray[np.str_]
    root: Path
    annotations: Annotations
    labels: LabelMap
    skipped: tuple[Skipped, ...]
    renumbered: bool = False

    def path(self, index: int) -> Path:
        """Returns the file of image ``index``."""
        return self.root / str(self.files[index])


def digest(annotations: Annotations) -> str:
    """Returns the sha256 of all that a metric counts by."""
    found = hashlib.sha256()
    for name, array in annotations._asdict().items():
        if array is not None:
            found.update(f"{name} {array.shape} {array.dtype.str} ".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


_REASONS = 3  # how many skipped records a summary names


def summary(name: str, records: Records) -> str:
    """Says in a line what a split holds and what was left out.

    Args:
        name: of the split.
        records: the split.
    """
    truth, skipped = records.annotations, records.skipped
    ignored = int((truth.crowd | truth.difficult).sum())
    counts = (
        f"{name}: {len(records.files)} images, {len(truth.labels) - ignored} objects,"
        f" {ignored} ignored (crowd or difficult), {len(skipped)} records skipped"
    )
    first = "; ".join(f"{it.file}, {it.record}: {it.reason}" for it in skipped[:_REASONS])
    return f"{counts}, the first: {first}" if first else counts


class UnusableError(Exception):
    """A record that a reader leaves out and counts; the message is the reason."""


class ObjectRow(NamedTuple):
    """One object of an image, as a reader found it.

    Attributes:
        box: (x1, y1, x2, y2), pixels of the original image.
        label: 1…K.
        area: square pixels.
        crowd: COCO's ``iscrowd``.
        difficult: VOC's ``difficult``.
        extent: width and height as COCO's file states them, pixels; None where it is VOC's.
    """

    box: tuple[float, float, float, float]
    label: int
    area: float
    crowd: bool = False
    difficult: bool = False
    extent: tuple[float, float] | None = None


class Use(NamedTuple):
    """What records are read for.

    Attributes:
        clipped: for training: boxes are cut at the borders of their image, and those that are
            empty or lie outside are left out. A metric counts the boxes that the file gives.
        with_files: an image without a file is left out. Stored detections need no image.
    """

    clipped: bool = True
    with_files: bool = True


TRAINING = Use()
DETECTION = Use(clipped=False)
SCORING = Use(clipped=False, with_files=False)


class ImageRow(NamedTuple):
    """One image, as a reader found it.

    Attributes:
        file: image file, relative to the root.
        image_id: the data set's own id.
        size: upright height and width, pixels.
        objects: its ground truth.
    """

    file: str
    image_id: int
    size: tuple[int, int]
    objects: list[ObjectRow]


def clip_box(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Cuts a box at the borders of its image.

    Args:
        box: (x1, y1, x2, y2), pixels.
        size: height and width of the image, pixels.

    Returns:
        The part of the box inside the image.

    Raises:
        UnusableError: the box is not finite, is empty or reversed, or lies outside.
    """
    x1, y1, x2, y2 = box
    text = f"box ({x1:.10g}, {y1:.10g}, {x2:.10g}, {y2:.10g})"
    if not all(map(math.isfinite, box)):
        raise UnusableError(f"{text} is not finite")
    if x2 <= x1 or y2 <= y1:
        raise UnusableError(f"{text} is empty or reversed")
    height, width = size
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise UnusableError(f"{text} lies outside the image of {width} × {height}")
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def pack(root: Path, rows: Sequence[ImageRow], labels: LabelMap, skipped: list[Skipped]) -> Records:
    """Packs the rows of a split into arrays.

    Args:
        root: folder that holds the images.
        rows: the images and their objects, at least one image.
        labels: names and ids of the classes.
        skipped: the records that were left out.
    """
    objects = [item for row in rows for item in row.objects]
    annotations = Annotations(
        image_ids=np.array([row.image_id for row in rows], np.int64),
        sizes=np.array([row.size for row in rows], np.int64).reshape(-1, 2),
        offsets=np.cumsum([0, *(len(row.objects) for row in rows)], dtype=np.int64),
        boxes=np.array([item.box for item in objects], np.float64).reshape(-1, 4),
        labels=np.array([item.label for item in objects], np.int64),
        areas=np.array([item.area for item in objects], np.float64),
        crowd=np.array([item.crowd for item in objects], np.bool_),
        difficult=np.array([item.difficult for item in objects], np.bool_),
    )
    files = np.array([row.file for row in rows], np.str_)
    return Records(files, root, annotations, labels, tuple(skipped))
