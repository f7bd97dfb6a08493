"""Parameters and multiply-adds of a detector, split by what they grow with: images or regions.

The trunk and the RPN run once an image; the tail and the sibling layers run once a region, which
is most of the work where the tail is conv5_x (ResNet section 4.3) or fc6 and fc7 (VGG).
"""

from typing import NamedTuple, cast

import torch

from backbones.complexity import Cost, add, blank_image, cost, on_meta
from detection.model.context import ContextRoIHead
from detection.model.faster_rcnn import FasterRCNN
from detection.model.improved import ImprovedDetector


class DetectorCost(NamedTuple):
    """What a detector costs; its pooling and its suppression have no multiply-adds to count.

    Attributes:
        trunk: for one image.
        rpn: for one image, all levels.
        tail: for one region.
        siblings: the layers that classify and regress, for one region.
        context: whether the tail sees the whole image as one more region.
    """

    trunk: Cost
    rpn: Cost
    tail: Cost
    siblings: Cost
    context: bool

    @property
    def roi(self) -> Cost:
        """All that is done for one region."""
        return add((self.tail, self.siblings))

    def total(self, proposals: int = 300) -> Cost:
        """Returns the cost of an image.

        Args:
            proposals: N, how many regions the head sees.
        """
        regions = proposals * self.roi.multiply_adds + self.context * self.tail.multiply_adds
        return add((self.trunk, self.rpn, self.roi._replace(multiply_adds=regions)))


def detector_cost(detector: FasterRCNN, size: tuple[int, int]) -> DetectorCost:
    """Counts a detector without running it; the detector is left as it is.

    Args:
        detector: any.
        size: (height, width) of the padded image, pixels.

    Returns:
        Its cost.

    Raises:
        ValueError: if the detector does not run on images of this size.
    """
    image, head = blank_image(detector, size), detector.roi_head
    trunk = cost(detector.trunk, image)
    with torch.no_grad():
        levels = on_meta(detector.trunk)(image)
    side = cast(int, head.pool.size)
    region = levels[0].new_empty(1, levels[0].shape[1], side, side)
    features = region.new_empty(1, head.class_logits.in_features)
    return DetectorCost(
        trunk,
        cost(detector.rpn, levels),
        cost(head.tail, region),
        add(cost(layer, features) for layer in (head.class_logits, head.deltas)),
        isinstance(head, ContextRoIHead),
    )


def improved_cost(improved: ImprovedDetector, size: tuple[int, int]) -> Cost:
    """Counts an improved detector or an ensemble without running it.

    Args:
        improved: any.
        size: (height, width) of the image at the detector's own short side, pixels.

    Returns:
        Its cost for an image: all members, views, scales and rounds.

    Raises:
        ValueError: if a member does not run on images of this size.
    """
    proposals = sum(detector.proposals.after_nms for detector in improved.detectors)
    rounds = 1 + improved.improvements.refinement
    parameters = sum(p.numel() for p in improved.parameters())
    total = 0
    for view in improved.views:
        for detector, (rpn, head) in zip(improved.detectors, view, strict=True):
            factors = {side: side / improved.short_side for side in (rpn, *head)}
            costs = {
                side: detector_cost(detector, (round(size[0] * factor), round(size[1] * factor)))
                for side, factor in factors.items()
            }
            one = costs[rpn]
            tails = min(2, len(head)) * proposals + len(head) * one.context
            total += sum(each.trunk.multiply_adds for each in costs.values())
            total += one.rpn.multiply_adds + rounds * (
                tails * one.tail.multiply_adds + proposals * one.siblings.multiply_adds
            )
    return Cost(parameters, total * (1 + improved.improvements.flip))
