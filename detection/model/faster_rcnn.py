"""Faster R-CNN: one trunk, a region proposal network on it, and a head for the regions.

Shape shorthand:
    B: images     H, W: height and width of the padded batch
"""

import torch
from torch import Tensor, nn

from backbones.preprocessing import Preprocessing
from detection.model.roi_head import (
    DetectionSelection,
    RoIHead,
    candidates,
    suppress,
    with_image_index,
)
from detection.model.rpn import RPN, ProposalSelection
from detection.structures import Batch, Detections


class FasterRCNN(nn.Module):
    """A detector that knows no targets: images in, detections out.

    `detection.model.criterion.Criterion` walks the same parts with targets in hand.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        rpn: RPN,
        roi_head: RoIHead,
        preprocessing: Preprocessing,
        *,
        proposals: ProposalSelection = ProposalSelection(before_nms=6000, after_nms=300),
        detections: DetectionSelection = DetectionSelection(),
    ) -> None:
        """Joins the parts.

        Args:
            trunk: normalised images (B, 3, H, W) to a list of feature maps, one a level.
            rpn: levels to objectness and deltas.
            roi_head: levels and rois to classes and boxes.
            preprocessing: what the trunk's weights expect of an image.
            proposals: how many regions the head sees in inference.
            detections: which detections are reported.
        """
        super().__init__()
        self.trunk = trunk
        self.rpn = rpn
        self.roi_head = roi_head
        self.preprocessing = preprocessing
        self.proposals = proposals
        self.detections = detections
        scale, shift = preprocessing.affine()
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def normalize(self, batch: Batch) -> Tensor:
        """Turns bytes into what the trunk expects.

        Args:
            batch: images (B, 3, H, W) uint8, RGB.

        Returns:
            (B, 3, H, W) float32, channels last in memory, zero outside of each image.
        """
        images = batch.images.contiguous(memory_format=torch.channels_last)
        if self.preprocessing.order == "bgr":
            images = images.flip(1)
        normalized = torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)
        rows = torch.arange(images.shape[2], device=images.device)
        columns = torch.arange(images.shape[3], device=images.device)
        inside_rows = rows < batch.sizes[:, :1]
        inside_columns = columns < batch.sizes[:, 1:]
        return normalized * (inside_rows[:, None, :, None] & inside_columns[:, None, None, :])

    def forward(self, batch: Batch) -> Detections:
        """Detects objects.

        Args:
            batch: images with their sizes.

        Returns:
            Detections in pixels of the original images.
        """
        levels = self.trunk(self.normalize(batch))
        rpn_output = self.rpn(levels)
        proposals = self.rpn.propose(rpn_output, batch.sizes, self.proposals)
        roi_output = self.roi_head(levels, with_image_index(proposals.boxes), batch.sizes)
        found = candidates(roi_output, proposals, batch.sizes, self.detections)
        return in_original_pixels(suppress(found, batch.sizes, self.detections), batch)


def in_original_pixels(detections: Detections, batch: Batch) -> Detections:
    """Turns boxes in pixels of a batch's resized images into pixels of the original ones."""
    ratios = batch.original_sizes / batch.sizes
    scale = ratios.flip(1).repeat(1, 2)[:, None]
    return detections._replace(boxes=detections.boxes * scale)
