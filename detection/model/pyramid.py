"""Multi-scale testing: a region is seen at the two scales that suit it (ResNet appendix B).

Shape shorthand:
    S: scales     B: images     R: rois     F: channels of a region's feature

The trunk sees every scale; each region is pooled and sees the tail at two adjacent scales, and the
features are merged by maxout (Ren et al., "Object detection networks on convolutional feature
maps"). Only the head does so: regions are proposed at one scale.

Differs from the paper: the scales are made from the images of the batch, which come at the
largest of them, and not from the original images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from detection.model.faster_rcnn import FasterRCNN
from detection.model.roi_head import RoIHead
from detection.model.rpn import Proposals
from detection.structures import Batch

# Side of the images that classification networks are pre-trained on.
NATURAL_SIDE = 224.0


class Scale(NamedTuple):
    """What a trunk makes of a batch at one scale.

    Attributes:
        levels: feature maps (B, C, H, W), one a level.
        sizes: (B, 2) int64, size of each image at this scale, pixels.
    """

    levels: Sequence[Tensor]
    sizes: Tensor


def see(detector: FasterRCNN, batch: Batch) -> Scale:
    """Sends a batch through a detector's trunk."""
    return Scale(detector.trunk(detector.normalize(batch)), batch.sizes)


def propose(detector: FasterRCNN, scale: Scale, sizes: Tensor) -> Proposals:
    """Proposes regions at one scale.

    Args:
        detector: whose trunk has seen the scale.
        scale: of a batch.
        sizes: (B, 2) int64, size of each image of the batch, pixels.

    Returns:
        Proposals in pixels of the batch.
    """
    own = detector.rpn.propose(detector.rpn(scale.levels), scale.sizes, detector.proposals)
    ratios = (sizes / scale.sizes).flip(1).repeat(1, 2)
    return own._replace(boxes=own.boxes * ratios[:, None])


def two_nearest(areas: Tensor, natural_side: float = NATURAL_SIDE) -> Tensor:
    """Chooses the scales at which a region is seen.

    The paper refers to "two adjacent scales" and leaves the rule open: here those at which the
    region's area is closest to ``natural_side`` squared. As areas grow with the scales, the two
    are adjacent.

    Args:
        areas: (R, S) float, of each region at each scale, square pixels.
        natural_side: of a square region that is seen best, pixels.

    Returns:
        (R, min(S, 2)) int64, rows of the scales.
    """
    distance = (areas - natural_side**2).abs()
    return distance.topk(min(2, areas.shape[1]), dim=1, largest=False).indices


def maxout_features(
    head: RoIHead,
    scales: Sequence[Scale],
    rois: Tensor,
    sizes: Tensor,
    natural_side: float = NATURAL_SIDE,
) -> Tensor:
    """Sees regions at two scales each, and keeps the larger of each feature.

    A head with global context sees image and region at the same scale, and maxout takes both.

    Args:
        head: a detector's.
        scales: S of them, seen by the detector's own trunk.
        rois: (R, 5) float32: image index, then xyxy in pixels of the batch.
        sizes: (B, 2) int64, size of each image of the batch, pixels.
        natural_side: as `two_nearest` takes it.

    Returns:
        (R, F) float: what the sibling layers see of each region.
    """
    resized = [_resized(rois, scale.sizes / sizes) for scale in scales]
    areas = [(own[:, 3:] - own[:, 1:3]).prod(dim=1) for own in resized]
    chosen = two_nearest(torch.stack(areas, dim=1), natural_side)
    merged = rois.new_empty(0)
    for index, (scale, own) in enumerate(zip(scales, resized, strict=True)):
        rows = (chosen == index).any(dim=1).nonzero().squeeze(1)
        features = head.features(scale.levels, own[rows], scale.sizes)
        if index == 0:
            merged = features.new_full((len(rois), features.shape[1]), -torch.inf)
        merged[rows] = torch.maximum(merged[rows], features)
    return merged


def _resized(rois: Tensor, ratios: Tensor) -> Tensor:
    """Scales rois (R, 5) by ratios (B, 2) of heights and widths."""
    factors = ratios.flip(1).repeat(1, 2)[rois[:, 0].long()]
    return torch.cat((rois[:, :1], rois[:, 1:] * factors), dim=1)
