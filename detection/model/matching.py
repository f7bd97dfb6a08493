"""Which candidate stands for which object, and which candidates train.

Shape shorthand:
    N: candidates, anchors or proposals, of one image      G: ground-truth boxes of the image

Both papers leave open what a region that is neither object nor background (a COCO crowd, a VOC
difficult object) means in training. Here a candidate that would be background, and lies in such
a region, does not train, as in Detectron.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

from detection.structures import Target

POSITIVE, NEGATIVE, UNUSED = 1, 0, -1


class Matches(NamedTuple):
    """The role of each candidate.

    Attributes:
        roles: (N,) int8: `POSITIVE`, `NEGATIVE` or `UNUSED`.
        objects: (N,) int64, the row of the object with the highest IoU; 0 where there is none.
    """

    roles: Tensor
    objects: Tensor


class Sample(NamedTuple):
    """The candidates that train.

    Attributes:
        positives: (P,) int64 rows of the candidates.
        negatives: (Q,) int64 rows of the candidates.
    """

    positives: Tensor
    negatives: Tensor


def match(
    candidates: Tensor,
    target: Target,
    *,
    positive: float,
    negative: tuple[float, float],
    keep_best: bool = False,
    usable: Tensor | None = None,
    ignore_overlap: float = 0.7,
) -> Matches:
    """Gives each candidate its role by its highest IoU with an object.

    Args:
        candidates: (N, 4) float32, xyxy, pixels of the resized image.
        target: the image's ground truth, same pixels.
        positive: IoU from which on a candidate is positive.
        negative: half-open interval of IoU in which a candidate is negative.
        keep_best: whether the candidates of highest IoU with an object are positive at any IoU
            above 0 (Faster R-CNN section 3.1.2, condition i).
        usable: (N,) bool, candidates that may have a role; all, if None.
        ignore_overlap: a negative of which at least this fraction lies in an ignored region is
            unused.

    Returns:
        The candidates' roles and objects.
    """
    objects = target.boxes[~target.ignore]
    iou = box_iou(candidates, objects)
    if usable is not None:
        iou = iou.masked_fill(~usable[:, None], -1.0)
    if len(objects):
        highest, rows = iou.max(dim=1)
        rows = (~target.ignore).nonzero().squeeze(1)[rows]
    else:
        highest = candidates.new_zeros(len(candidates))
        rows = torch.zeros_like(highest, dtype=torch.int64)
    roles = torch.full_like(rows, UNUSED, dtype=torch.int8)
    roles[(highest >= negative[0]) & (highest < negative[1])] = NEGATIVE
    if bool(target.ignore.any()):
        inside = _covered(candidates, target.boxes[target.ignore]) >= ignore_overlap
        roles[inside & (roles == NEGATIVE)] = UNUSED
    roles[highest >= positive] = POSITIVE
    if keep_best and len(objects):
        best = iou.amax(dim=0)
        # An object that no candidate touches has every candidate as its best.
        roles[((iou == best) & (best > 0)).any(dim=1)] = POSITIVE
    if usable is not None:
        roles[~usable] = UNUSED
    return Matches(roles, rows)


def _covered(candidates: Tensor, regions: Tensor) -> Tensor:
    """Returns, per candidate, the largest fraction of it inside one region: (N,) float32."""
    corner1 = torch.maximum(candidates[:, None, :2], regions[:, :2])
    corner2 = torch.minimum(candidates[:, None, 2:], regions[:, 2:])
    overlap = (corner2 - corner1).clamp(min=0).prod(dim=2)
    fraction: Tensor = overlap / box_area(candidates)[:, None].clamp(min=1e-6)
    return fraction.amax(dim=1)


@dataclass(frozen=True)
class Sampler:
    """Draws at random a fixed number of candidates with a bounded share of positives.

    Attributes:
        count: candidates per image.
        positive_fraction: the share that positives may have; negatives fill the rest.
    """

    count: int
    positive_fraction: float

    def __call__(self, roles: Tensor) -> Sample:
        """Draws from the candidates with the given roles: (N,) int8, as in `Matches`."""
        positives = (roles == POSITIVE).nonzero().squeeze(1)
        negatives = (roles == NEGATIVE).nonzero().squeeze(1)
        positives = _draw(positives, int(self.count * self.positive_fraction))
        return Sample(positives, _draw(negatives, self.count - len(positives)))


def _draw(rows: Tensor, count: int) -> Tensor:
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), device=rows.device)[:count]]
