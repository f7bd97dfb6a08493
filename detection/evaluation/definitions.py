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
VOC_IGNORED = "difficult and crowd count neither way"


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
    engine: Engine = "hotcoco",
) -> tuple[Score, ...]:
    """Scores detections by every definition.

    Args:
        annotations: the ground truth of I images.
        predictions: detections on these images, in any order.
        class_names: the K names of labels 1…K.
        engine: the library that counts COCO's.

    Returns:
        The figures: COCO's three, VOC's two, then the variants that papers and tools use.

    Raises:
        ValueError: bad input, as in `checks.canonical_predictions`.
    """
    coco = evaluate_coco(annotations, predictions, class_names, engine=engine)
    voc = evaluate_voc(annotations, predictions, class_names)
    above = evaluate_voc(annotations, predictions, class_names, float(np.nextafter(0.5, 1)))
    every = evaluate_voc(_without_difficult(annotations), predictions, class_names)
    most = coco.max_detections[-1]
    variants = (
        Score("VOC07 >", above.voc07, "11 points", "> 0.50", "all", VOC_IGNORED),
        Score("VOC10 >", above.voc10, "area", "> 0.50", "all", VOC_IGNORED),
        Score("VOC10 all", every.voc10, "area", ">= 0.50", "all", "difficult objects count"),
        Score(
            "AP50 all",
            evaluate_coco(
                _without_difficult(annotations), predictions, class_names, engine=engine
            ).ap50,
            "101 points",
            ">= 0.50",
            f"{most} per image and class",
            "crowd absorbs, difficult objects count",
        ),
    )
    return (*official(coco, voc), *variants)


def official(coco: CocoFigures, voc: VocFigures) -> tuple[Score, ...]:
    """COCO's and VOC's own figures with their definitions.

    Args:
        coco: from `evaluate_coco`.
        voc: from `evaluate_voc`.
    """
    limit = f"{coco.max_detections[-1]} per image and class"
    ious = (("AP", coco.ap, "0.50:0.95"), ("AP50", coco.ap50, "0.50"), ("AP75", coco.ap75, "0.75"))
    threshold = f">= {voc.iou_threshold:.2f}"
    return (
        *(Score(n, x, "101 points", f">= {iou}", limit, COCO_IGNORED) for n, x, iou in ious),
        Score("VOC07", voc.voc07, "11 points", threshold, "all", VOC_IGNORED),
        Score("VOC10", voc.voc10, "area", threshold, "all", VOC_IGNORED),
    )


def _without_difficult(annotations: Annotations) -> Annotations:
    return annotations._replace(difficult=np.zeros_like(annotations.difficult))
