"""One set of detections under every definition of AP that published figures use, side by side.

The definitions differ in how precision is averaged over recall (101 points, 11 points, the area),
in whether an IoU of exactly the threshold counts, in how many detections count, and in what
becomes of difficult objects and crowd regions. Figures of different definitions do not compare.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detection.evaluation.coco import CocoFigures, Engine, evaluate_coco
from detection.evaluation.voc import VocFigures, evaluate_voc
from detection.structures import Annotations, Predictions

COCO_IGNORED = "crowd absorbs, difficult ignored one to one"
COCO_ALL = "crowd absorbs, difficult objects count"
VOC_IGNORED = "difficult and crowd count neither way"
VOC_ALL = "difficult objects count, crowd counts neither way"


class Score(NamedTuple):
    """A figure with its definition.

    Attributes:
        name: short name.
        value: mean over the classes with objects, in [0, 1]; nan without objects.
        metric: how precision is averaged over recall.
        iou: what makes a true positive.
        detections: which count.
        ignored: what becomes of difficult objects and crowd regions.
    """

    name: str
    value: float
    metric: str
    iou: str
    detections: str
    ignored: str


def side_by_side(
    annotations: Annotations,
    predictions: Predictions,
    class_names: Sequence[str],
    coco: CocoFigures,
    voc: VocFigures,
    engine: Engine = "hotcoco",
) -> tuple[Score, ...]:
    """Sets COCO's and VOC's own figures beside those of the variants in use.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.
        coco: from `evaluate_coco`, of the same.
        voc: from `evaluate_voc`, of the same.
        engine: the library that counts COCO's variant.

    Returns:
        The figures: COCO's three, VOC's two, then the variants that papers and tools use.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`.
    """
    case = predictions, class_names
    above = evaluate_voc(annotations, *case, float(np.nextafter(0.5, 1)))
    all_count = annotations._replace(difficult=np.zeros_like(annotations.difficult))
    voc_all = evaluate_voc(all_count, *case)
    coco_all = evaluate_coco(all_count, *case, engine=engine)
    return (
        *official(coco, voc),
        Score("VOC07 >", above.voc07, "11 points", "> 0.50", "all", VOC_IGNORED),
        Score("VOC10 >", above.voc10, "area", "> 0.50", "all", VOC_IGNORED),
        Score("VOC10 all", voc_all.voc10, "area", ">= 0.50", "all", VOC_ALL),
        Score("AP50 all", coco_all.ap50, "101 points", ">= 0.50", _limit(coco_all), COCO_ALL),
    )


def official(coco: CocoFigures, voc: VocFigures) -> tuple[Score, ...]:
    """COCO's and VOC's own figures with their definitions.

    Args:
        coco: from `evaluate_coco`.
        voc: from `evaluate_voc`.
    """
    limit = _limit(coco)
    ious = (("AP", coco.ap, "0.50:0.95"), ("AP50", coco.ap50, "0.50"), ("AP75", coco.ap75, "0.75"))
    threshold = f">= {voc.iou_threshold:.2f}"
    return (
        *(Score(n, x, "101 points", f">= {iou}", limit, COCO_IGNORED) for n, x, iou in ious),
        Score("VOC07", voc.voc07, "11 points", threshold, "all", VOC_IGNORED),
        Score("VOC10", voc.voc10, "area", threshold, "all", VOC_IGNORED),
    )


def _limit(coco: CocoFigures) -> str:
    return f"{coco.max_detections[-1]} per image and class"


def coco_heading(figures: CocoFigures) -> str:
    """Says in a line how COCO's figures are defined."""
    limits = "/".join(str(limit) for limit in figures.max_detections)
    return (
        f"COCO AP, boxes | IoU=0.50:0.95 | maxDets={limits} per image and class"
        f" | crowd regions ignored, difficult objects ignored one to one | {figures.images} images"
    )


def voc_heading(figures: VocFigures) -> str:
    """Says in a line how VOC's figures are defined."""
    return (
        f"VOC AP, 11 points (VOC07) and area (VOC10) | IoU>={figures.iou_threshold:.2f}"
        f" | all detections | difficult and crowd count neither way | {figures.images} images"
    )
