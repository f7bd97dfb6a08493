"""Parameters and multiply-adds of a detector, split by what they grow with: images or regions.

The trunk and the RPN run once an image; the tail and the sibling layers run once a region, which
is most of the work where the tail is conv5_x (ResNet section 4.3) or fc6 and fc7 (VGG).
"""

from typing import NamedTuple, cast

import torch

from backbones.complexity import Cost, add, blank_image, cost, on_meta
from detection.model.faster_rcnn import FasterRCNN


class DetectorCost(NamedTuple):
    """What a detector costs; its pooling and its suppression have no multiply-adds to count.

    Attributes:
        trunk: for one image.
        rpn: for one image, all levels.
        roi: the tail and the sibling layers, for one region.
    """

    trunk: Cost
    rpn: Cost
    roi: Cost

    def total(self, proposals: int = 300) -> Cost:
        """Returns the cost of an image.

        Args:
            proposals: N, how many regions the head sees.
        """
        regions = self.roi._replace(multiply_adds=proposals * self.roi.multiply_adds)
        return add((self.trunk, self.rpn, regions))


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
    siblings = [cost(layer, features) for layer in (head.class_logits, head.deltas)]
    return DetectorCost(
        trunk, cost(detector.rpn, levels), add((cost(head.tail, region), *siblings))
    )
