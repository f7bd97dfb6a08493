"""Weighted box fusion of several views' detections (Solovyev, Wang and Gabruseva, 2021).

Shape shorthand:
    V: views      B: images      D: detection slots of an image in a view
    M: detections of an image, all views together      C: clusters
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from detection.structures import Detections


def fuse(views: Sequence[Detections], per_image: int, threshold: float = 0.55) -> Detections:
    """Fuses what was found in several views of the same images.

    The detections of all views, best first, join the cluster of their class whose fused box they
    overlap most, by more than ``threshold``, or start one. A cluster's fused box is the
    score-weighted mean of its members; its score in the end is their mean score times
    min(members, V) / V, so that what few views found counts less (section 3 of the paper, with
    equal weights for the views).

    Args:
        views: V of them, D slots an image, boxes in pixels of the original image.
        per_image: detections of an image that are kept.
        threshold: IoU above which a detection joins a cluster.

    Returns:
        Detections, ``per_image`` slots an image.
    """
    boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*views, strict=True))
    slots = len(boxes), per_image
    fused = Detections(boxes.new_zeros(*slots, 4), scores.new_zeros(slots), labels.new_zeros(slots))
    # Each detection waits for those before it: steps too small for an accelerator, or for torch.
    columns = (part.detach().cpu().numpy() for part in (boxes, scores, labels))
    for image, row in enumerate(zip(*columns, strict=True)):
        found = _fuse_image(*row, views=len(views), threshold=threshold)
        best = (-found[1]).argsort(kind="stable")[:per_image]
        for slot, values in zip(fused, found, strict=True):
            slot[image, : len(best)] = torch.from_numpy(values[best]).to(slot)
    return fused


def _fuse_image(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    views: int,
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Fuses an image's M detections into C; returns boxes, scores and labels."""
    order = (-scores).argsort(kind="stable")[: np.count_nonzero(scores)]
    boxes, scores, labels = boxes[order].astype(np.float64), scores[order], labels[order]
    fused, kinds = np.zeros_like(boxes), np.zeros_like(labels)
    totals, counts = np.zeros(len(order)), np.zeros(len(order))
    used = 0
    for box, score, label in zip(boxes, scores.tolist(), labels, strict=True):
        overlaps = _iou(box, fused[:used]) * (kinds[:used] == label)
        cluster = int(overlaps.argmax()) if used else 0
        if not used or overlaps[cluster] <= threshold:
            cluster, used = used, used + 1
            kinds[cluster] = label
        totals[cluster] += score
        counts[cluster] += 1
        fused[cluster] += (box - fused[cluster]) * (score / totals[cluster])
    means = totals[:used] / counts[:used] * counts[:used].clip(max=views) / views
    return fused[:used], means, kinds[:used]


def _iou(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the IoU (C,) of a box with others (C, 4), all of positive area."""
    corners = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = corners.clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlaps: NDArray[np.float64] = shared / (areas - shared)
    return overlaps
