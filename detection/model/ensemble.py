"""Ensembles: several detectors propose regions, and all of them judge the union (ResNet app. B).

Shape shorthand:
    R: rois      K: classes
"""

import math
from collections.abc import Sequence

import torch

from detection.model.faster_rcnn import FasterRCNN
from detection.model.roi_head import RoIOutput


def check_classes(members: Sequence[FasterRCNN]) -> None:
    """Refuses what cannot be averaged.

    Raises:
        ValueError: if there is no member, or their numbers of classes differ.
    """
    classes = [member.roi_head.classes for member in members]
    if len(set(classes)) != 1:
        raise ValueError(f"expected detectors of the same classes, at least one; got K = {classes}")


def average(outputs: Sequence[RoIOutput]) -> RoIOutput:
    """Averages what several heads say of the same regions.

    The probabilities are averaged, not the logits; and so are the deltas, class by class. (The
    paper says "averaged" only.)

    Args:
        outputs: for the same R regions.

    Returns:
        The logarithms of the mean probabilities as logits, (R, K + 1), and the mean deltas; the
        output itself where there is one.
    """
    if len(outputs) == 1:
        return outputs[0]
    logits, deltas = (torch.stack(parts) for parts in zip(*outputs, strict=True))
    logits = logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
    return RoIOutput(logits, deltas.mean(dim=0))
