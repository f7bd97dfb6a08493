"""The pairs of detections and ground-truth boxes that overlap, over a whole data set.

Shape shorthand:
    N: detections        G: ground-truth boxes        P: pairs of a detection and a box
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CHUNK = 2**20  # pairs held at once; a data set of proposals has many millions


class Boxes(NamedTuple):
    """Boxes that are compared only with those of the same key.

    Attributes:
        keys: (N,) int64, such as the image, or the image and class.
        boxes: (N, 4) float, xyxy, pixels.
        extents: (N, 2) float64, width and height, pixels; None where the boxes say them.
    """

    keys: NDArray[np.int64]
    boxes: NDArray[np.floating]
    extents: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.int64]) -> "Boxes":
        """Returns the given rows."""
        extents = None if self.extents is None else self.extents[rows]
        return Boxes(self.keys[rows], self.boxes[rows], extents)


class Pairs(NamedTuple):
    """Overlapping pairs, by rising detection, then rising ground truth.

    Attributes:
        detection: (P,) int64, row of the detection.
        truth: (P,) int64, row of the ground-truth box.
        iou: (P,) float64.
    """

    detection: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlapping_pairs(found: Boxes, truth: Boxes, crowd: NDArray[np.bool_], least: float) -> Pairs:
    """Finds all pairs of equal key whose IoU reaches a threshold.

    Args:
        found: N detections.
        truth: G ground-truth boxes.
        crowd: (G,) bool, regions whose overlap is the intersection over the detection's area.
        least: the least IoU of a pair, above 0.

    Returns:
        The P pairs.
    """
    by_key = np.argsort(truth.keys, kind="stable")
    ordered = truth.keys[by_key]
    starts = np.searchsorted(ordered, found.keys, side="left")
    counts = np.searchsorted(ordered, found.keys, side="right") - starts
    parts = []
    for rows in _chunks(counts):
        detection = np.repeat(np.arange(rows.start, rows.stop), counts[rows])
        firsts = np.cumsum(counts[rows]) - counts[rows]
        within = np.arange(len(detection)) - np.repeat(firsts, counts[rows])
        box = by_key[starts[detection] + within]
        # Converted pair by pair: a copy of all proposals of a data set would be long.
        one, other = (xywh(*side[1:]) for side in (found.take(detection), truth.take(box)))
        iou = coco_iou(one, other, crowd[box])
        kept = iou >= least
        parts.append(Pairs(detection[kept], box[kept], iou[kept]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def coco_iou(
    found: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of row i with row i, in the very arithmetic of pycocotools' ``bbIou``.

    Args:
        found: (P, 4) float64, x, y, width, height, pixels.
        truth: (P, 4) float64, as ``found``.
        crowd: (P,) bool, truths whose overlap is the intersection over the detection's area.

    Returns:
        (P,) float64, 0 for boxes that are apart or have no area.
    """
    x, y, width, height = found.T
    other_x, other_y, other_width, other_height = truth.T
    across = np.minimum(x + width, other_x + other_width) - np.maximum(x, other_x)
    down = np.minimum(y + height, other_y + other_height) - np.maximum(y, other_y)
    intersection = across.clip(min=0) * down.clip(min=0)
    area = width * height
    union = np.where(crowd, area, area + other_width * other_height - intersection)
    iou = np.zeros(len(intersection))
    np.divide(intersection, union, out=iou, where=intersection > 0)
    return iou


def xywh(boxes: NDArray[np.floating], extents: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Returns COCO's boxes.

    Args:
        boxes: (N, 4) float, xyxy, pixels.
        extents: (N, 2) float64, width and height; those of the boxes when None.

    Returns:
        (N, 4) float64, x, y, width, height, pixels.
    """
    found = boxes.astype(np.float64)
    found[:, 2:] = found[:, 2:] - found[:, :2] if extents is None else extents
    return found


def _chunks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Cuts the detections where another ``_CHUNK`` pairs are reached; at least one slice."""
    totals = np.cumsum(counts)
    pairs = int(totals[-1]) if len(totals) else 0
    cuts = np.searchsorted(totals, np.arange(_CHUNK, pairs, _CHUNK), side="right").tolist()
    for start, stop in zip([0, *cuts], [*cuts, len(counts)], strict=True):
        yield slice(start, stop)
