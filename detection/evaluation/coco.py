"""COCO's box metric: pycocotools' figures, by hotcoco or by pycocotools itself, in memory.

Crowd regions are COCO's: they absorb any number of detections, by intersection over the
detection's area. A VOC difficult object is ignored one to one: the detection that matches it
counts neither way, the object is not missed, and a further detection of it is a false positive.

Differs from pycocotools: VOC's difficult flag is honoured; annotations are renumbered from 1,
because an annotation 0 is never matched; ties of the score are broken by image id and box, not
by the order of the detections (ties of the IoU go by the order of the objects, as there); a
figure without ground truth is nan, not -1; what pycocotools skips or counts without a word
(non-finite boxes and scores, unknown images and labels) is refused.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import canonical_predictions
from detection.evaluation.engines import CocoArrays, Engine, accumulate
from detection.structures import Annotations, Predictions

IOU_50, IOU_75 = 0, 5  # positions in COCOeval's thresholds .50:.05:.95
ALL, SMALL, MEDIUM, LARGE = range(4)  # positions in COCOeval's area ranges, cut at 32² and 96²


class CocoClassFigures(NamedTuple):
    """COCO's figures of one class, at the most detections; nan without objects.

    Attributes:
        name: the class.
        objects: ground-truth objects that count (neither crowd nor difficult).
        ap: AP at IoU .50:.05:.95, in [0, 1].
        ap50: AP at IoU .50, in [0, 1].
    """

    name: str
    objects: int
    ap: float
    ap50: float


class CocoFigures(NamedTuple):
    """COCO's twelve figures, in COCO's order, in [0, 1]; nan where there is no ground truth.

    Attributes:
        ap: AP at IoU .50:.05:.95, mean over classes.
        ap50: AP at IoU .50.
        ap75: AP at IoU .75.
        ap_small: AP over objects below 32² pixels by the annotation's ``area``.
        ap_medium: AP over objects of 32² to 96² pixels.
        ap_large: AP over objects above 96² pixels.
        ar1: recall with ``max_detections[0]`` per image and class, mean over IoU .50:.05:.95.
        ar10: recall with ``max_detections[1]``.
        ar100: recall with ``max_detections[2]``, as all figures but the two before.
        ar_small: ``ar100`` over small objects.
        ar_medium: ``ar100`` over medium objects.
        ar_large: ``ar100`` over large objects.
        per_class: the figures of classes 1…K.
        images: number of images evaluated.
        max_detections: the most detections counted per image and class.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: tuple[CocoClassFigures, ...]
    images: int
    max_detections: tuple[int, int, int]

    def scalars(self) -> dict[str, float]:
        """Returns the twelve figures by name, in COCO's order."""
        return dict(zip(self._fields[:12], self[:12], strict=True))


def evaluate_coco(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    max_detections: tuple[int, int, int] = (1, 10, 100),
    engine: Engine = "hotcoco",
) -> CocoFigures:
    """Computes COCO's box figures.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.
        max_detections: the most detections per image and class, rising; the last is used by all
            figures but ``ar1`` and ``ar10``.
        engine: the library that counts, hotcoco or pycocotools; the figures are the same.

    Returns:
        The figures: 0 without detections, nan without ground truth.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`, ``max_detections`` is not
            three rising positive numbers, or ``engine`` is neither.
    """
    arrays = coco_arrays(annotations, predictions, class_names, max_detections, engine)
    return coco_figures(annotations, arrays, class_names, max_detections)


def coco_arrays(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    max_detections: tuple[int, int, int] = (1, 10, 100),
    engine: Engine = "hotcoco",
) -> CocoArrays:
    """Checks, matches and accumulates: precision, recall and scores of every setting.

    Args:
        annotations: as for `evaluate_coco`.
        predictions: as for `evaluate_coco`.
        class_names: as for `evaluate_coco`.
        max_detections: as for `evaluate_coco`.
        engine: as for `evaluate_coco`.

    Raises:
        ValueError: as for `evaluate_coco`.
    """
    few, some, most = max_detections
    if not 0 < few < some < most:
        raise ValueError(f"max_detections: expected three rising positives, got {max_detections}")
    predictions = canonical_predictions(annotations, predictions, class_names)
    return accumulate(annotations, predictions, len(class_names), max_detections, engine)


def coco_figures(
    annotations: Annotations,
    arrays: CocoArrays,
    class_names: Sequence[str],
    max_detections: tuple[int, int, int] = (1, 10, 100),
) -> CocoFigures:
    """Takes the means of accumulated arrays.

    Args:
        annotations: the ground truth that was accumulated.
        arrays: from `coco_arrays`.
        class_names: the K names of labels 1…K.
        max_detections: as for `coco_arrays`.
    """
    precision, recall = arrays.precision, arrays.recall
    return CocoFigures(
        ap=_mean(precision[..., ALL, -1]),
        ap50=_mean(precision[IOU_50, ..., ALL, -1]),
        ap75=_mean(precision[IOU_75, ..., ALL, -1]),
        ap_small=_mean(precision[..., SMALL, -1]),
        ap_medium=_mean(precision[..., MEDIUM, -1]),
        ap_large=_mean(precision[..., LARGE, -1]),
        ar1=_mean(recall[..., ALL, 0]),
        ar10=_mean(recall[..., ALL, 1]),
        ar100=_mean(recall[..., ALL, 2]),
        ar_small=_mean(recall[..., SMALL, -1]),
        ar_medium=_mean(recall[..., MEDIUM, -1]),
        ar_large=_mean(recall[..., LARGE, -1]),
        per_class=_per_class(annotations, precision, class_names),
        images=len(annotations.image_ids),
        max_detections=max_detections,
    )


def _per_class(
    annotations: Annotations, precision: NDArray[np.float64], class_names: Sequence[str]
) -> tuple[CocoClassFigures, ...]:
    counted = annotations.labels[~(annotations.crowd | annotations.difficult)]
    objects = np.bincount(counted, minlength=len(class_names) + 1)[1:].tolist()
    return tuple(
        CocoClassFigures(name, n, _mean(values), _mean(values[IOU_50]))
        for name, n, values in zip(
            class_names, objects, np.moveaxis(precision[..., ALL, -1], 2, 0), strict=True
        )
    )


def _mean(values: NDArray[np.float64]) -> float:
    """The mean over the settings with ground truth; COCOeval marks the others by -1."""
    present = values[values > -1]
    return float(np.mean(present)) if present.size else math.nan
