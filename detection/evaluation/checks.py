"""What every metric asks of its input, and the one order in which detections are counted.

Shape shorthand:
    I: images        N: ground-truth boxes or detections        K: classes, without background
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.overlaps import xywh
from detection.structures import Annotations, Predictions


def canonical_predictions(
    annotations: Annotations, predictions: Predictions, class_names: Sequence[str]
) -> Predictions:
    """Checks ground truth and detections, and returns the detections in canonical order.

    Metrics break ties of the score by the order of their input. In canonical order (image id,
    label, falling score, box coordinates) the figures depend on the detections alone.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.

    Returns:
        The same detections, sorted.

    Raises:
        ValueError: an array has the wrong shape or type; an image id is listed twice or unknown;
            a label is outside 1…K; a box, score or area is not finite; a size is negative. The
            message names the image.
    """
    classes = len(class_names)
    check_annotations(annotations, classes)
    check_predictions(predictions, classes)
    ids = np.sort(annotations.image_ids)
    images = np.searchsorted(ids, predictions.image_ids)
    _refuse(
        images == np.searchsorted(ids, predictions.image_ids, side="right"),
        "predictions",
        predictions.image_ids,
        predictions.image_ids,
        "this image id is not among the annotated images",
    )
    groups = images * (classes + 1) + predictions.labels
    return select(predictions, _canonical_order(groups, predictions))


def _canonical_order(groups: NDArray[np.int64], predictions: Predictions) -> NDArray[np.int64]:
    """Sorts by group of image and label, falling score, box; boxes are compared in ties only."""
    order = np.argsort(-predictions.scores)
    order = order[_stable_order(groups[order])]
    sorted_groups, sorted_scores = groups[order], predictions.scores[order]
    tied = (sorted_groups[1:] == sorted_groups[:-1]) & (sorted_scores[1:] == sorted_scores[:-1])
    places = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    rows = order[places]
    x1, y1, x2, y2 = predictions.boxes[rows].T
    sides = () if predictions.extents is None else tuple(predictions.extents[rows].T)
    keys = (*sides, y2, x2, y1, x1, -sorted_scores[places], groups[rows])
    order[places] = rows[np.lexsort(keys)]
    return order


def _stable_order(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns ``np.argsort(groups, kind="stable")``; distinct numbers sort in a sixth of its time.

    Args:
        groups: (N,) int64, not negative.
    """
    n = len(groups)
    if n * (int(groups.max(initial=0)) + 1) > np.iinfo(np.int64).max:
        return np.argsort(groups, kind="stable")
    return np.sort(groups * n + np.arange(n)) % max(n, 1)


def select(predictions: Predictions, rows: NDArray[np.int64]) -> Predictions:
    """Returns the given rows of the detections, in the given order."""
    image_ids, boxes, scores, labels, extents = predictions
    return Predictions(
        image_ids[rows],
        boxes.take(rows, axis=0),
        scores[rows],
        labels[rows],
        None if extents is None else extents.take(rows, axis=0),
    )


def join(parts: Sequence[Predictions]) -> Predictions:
    """Returns the detections of several parts, at least one, part by part."""
    *columns, extents = zip(*parts, strict=True)
    joined = Predictions(*map(np.concatenate, columns))
    if all(one is None for one in extents):
        return joined
    sides = [xywh(part.boxes, part.extents)[:, 2:] for part in parts]
    return joined._replace(extents=np.concatenate(sides))


def check_predictions(predictions: Predictions, classes: int) -> None:
    """Refuses detections that a metric would count wrongly.

    Args:
        predictions: detections, in any order.
        classes: K, the number of classes.

    Raises:
        ValueError: as in `canonical_predictions`, except that any image id is accepted.
    """
    n = len(predictions.image_ids)
    shapes = {"image_ids": (n,), "boxes": (n, 4), "scores": (n,), "labels": (n,)}
    _check_arrays("predictions", predictions, shapes, integers=("image_ids", "labels"))
    image_ids, scores = predictions.image_ids, predictions.scores
    _check_boxes("predictions", image_ids, predictions, classes)
    _refuse(~np.isfinite(scores), "predictions", image_ids, scores, "the score is not finite")


def check_annotations(annotations: Annotations, classes: int) -> None:
    """Refuses ground truth that a metric would count wrongly.

    Args:
        annotations: the ground truth.
        classes: K, the number of classes.

    Raises:
        ValueError: as in `canonical_predictions`.
    """
    images, n = len(annotations.image_ids), len(annotations.boxes)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("labels", "areas", "crowd"), (n,))
    shapes |= {"difficult": (n,), "boxes": (n, 4), "image_ids": (images,), "offsets": (images + 1,)}
    _check_arrays("annotations", annotations, shapes, ("image_ids", "offsets", "labels"))
    offsets, areas = annotations.offsets, annotations.areas
    if offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        raise ValueError(f"annotations: offsets must rise from 0 to the {n} boxes")
    ids, counts = np.unique(annotations.image_ids, return_counts=True)
    _refuse(counts > 1, "annotations", ids, counts, "an image id must be listed once")
    image_ids = image_ids_of_boxes(annotations)
    _check_boxes("annotations", image_ids, annotations, classes)
    bad = ~(np.isfinite(areas) & (areas >= 0))
    _refuse(bad, "annotations", image_ids, areas, "the area must be finite and not negative")


def image_ids_of_boxes(annotations: Annotations) -> NDArray[np.int64]:
    """Returns the image id of each ground-truth box: (N,) int64."""
    return np.repeat(annotations.image_ids, np.diff(annotations.offsets))


def _check_arrays(
    source: str,
    arrays: Annotations | Predictions,
    shapes: dict[str, tuple[int, ...]],
    integers: Sequence[str],
) -> None:
    for name, shape in shapes.items():
        array: NDArray[np.generic] = getattr(arrays, name)
        if array.shape != shape:
            raise ValueError(f"{source}: expected {name} of shape {shape}, got {array.shape}")
        if name in integers and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{source}: expected integers in {name}, got {array.dtype}")


def _check_boxes(
    source: str,
    image_ids: NDArray[np.int64],
    arrays: Annotations | Predictions,
    classes: int,
) -> None:
    boxes, labels, extents = arrays.boxes, arrays.labels, arrays.extents
    if extents is not None and extents.shape != (len(boxes), 2):
        expected = (len(boxes), 2)
        raise ValueError(f"{source}: expected extents of shape {expected}, got {extents.shape}")
    numbers = boxes if extents is None else np.hstack([boxes, extents])
    _refuse(~np.isfinite(numbers), source, image_ids, boxes, "the box is not finite")
    x1, y1, x2, y2 = boxes.T
    negative = (x2 < x1) | (y2 < y1)
    if extents is not None:
        negative |= (extents < 0).any(axis=1)
    _refuse(negative, source, image_ids, boxes, "the box has a negative size")
    outside = (labels < 1) | (labels > classes)
    _refuse(outside, source, image_ids, labels, f"the label is outside 1…{classes}")


def _refuse(
    bad: NDArray[np.bool_],
    source: str,
    image_ids: NDArray[np.int64],
    values: NDArray[np.generic],
    reason: str,
) -> None:
    """Names the first image of which something is bad: (N,) or (N, 4) bool."""
    if bad.any():
        rows: NDArray[np.bool_] = np.any(bad.reshape(len(bad), -1), axis=1)
        first = int(np.argmax(rows))
        raise ValueError(
            f"{source}: image {image_ids[first]}: {reason}, got {values[first].tolist()}"
            f" ({np.count_nonzero(rows)} such in all)"
        )
