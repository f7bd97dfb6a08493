"""Weighted box fusion of several views' detections (Solovyev, Wang and Gabruseva, 2021).

Shape shorthand:
    V: views      B: images      D: detection slots of an image in a view
    M: detections of an image, all views together      C: clusters
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from detection.structures import Detections


def fuse(views: Sequence[Detections], per_image: int, threshold: float = 0.55) -> Detections:
    """Fuses what was found in several views of the same images.

    Detections of all views, best first, join the cluster of their class whose fused box they
    overlap most, by more than ``threshold``, or start one. A cluster's fused box is the
    score-weighted mean of its members; its score in the end is their mean score times
    min(members, V) / V, so that what few views found counts less (the paper's equations 1, 2
    and 5).

    Args:
        views: V of them, D slots an image, boxes in pixels of the original image.
        per_image: detections of an image that are kept.
        threshold: IoU above which a detection joins a cluster.

    Returns:
        Detections, ``per_image`` slots an image.
    """
    device = views[0].boxes.device
    # The order of the detections decides, one after another: steps too small for an accelerator.
    columns = [torch.cat(parts, dim=1).cpu() for parts in zip(*views, strict=True)]
    images = [
        _fuse_image(*image, views=len(views), per_image=per_image, threshold=threshold)
        for image in zip(*columns, strict=True)
    ]
    return Detections(*(torch.stack(parts).to(device) for parts in zip(*images, strict=True)))


def _fuse_image(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, views: int, per_image: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuses an image's M detections; returns the columns of `Detections`, without B."""
    order = scores.argsort(descending=True, stable=True)[: int((scores > 0).sum())]
    fused = boxes.new_zeros(len(order), 4, dtype=torch.float64)
    totals, counts = fused.new_zeros(len(order)), fused.new_zeros(len(order))
    kinds = labels.new_zeros(len(order))
    used = 0
    for box, score, label in zip(boxes[order].double(), scores[order], labels[order], strict=True):
        cluster = _matching(box, fused[:used], kinds[:used] == label, threshold)
        if cluster is None:
            cluster, used = used, used + 1
            kinds[cluster] = label
        totals[cluster] += score
        counts[cluster] += 1
        fused[cluster] += (box - fused[cluster]) * (score / totals[cluster])
    means = (totals / counts * counts.clamp(max=views) / views)[:used]
    means, rows = means.topk(min(per_image, used))
    slots = (0, per_image - len(rows))
    return (
        F.pad(fused[rows].to(boxes.dtype), (0, 0, *slots)),
        F.pad(means.to(scores.dtype), slots),
        F.pad(kinds[rows], slots),
    )


def _matching(box: Tensor, fused: Tensor, usable: Tensor, threshold: float) -> int | None:
    """Returns the cluster of C that a box joins."""
    if not len(fused):
        return None
    best, row = (box_iou(box[None], fused)[0] * usable).max(dim=0)
    return int(row) if best > threshold else None
