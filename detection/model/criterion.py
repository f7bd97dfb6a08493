"""The multi-task loss of approximate joint training, as a walk along the detector's parts.

Shape shorthand:
    B: images     G: ground-truth boxes of an image     N: proposals of an image
    S: anchors of an image, all levels together     R: sampled rois, all images together

Gradients do not flow through the proposals' coordinates (Faster R-CNN section 3.2, approximate
joint training).

Differs from the paper: a region that is neither object nor background does not train (see
`detection.model.matching`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.boxes import encode
from detection.model.faster_rcnn import FasterRCNN
from detection.model.matching import Sampler, match
from detection.model.roi_head import DELTA_STD, RoIOutput
from detection.model.rpn import Proposals, ProposalSelection, RPNOutput
from detection.structures import Batch, Losses, Target


@dataclass(frozen=True)
class RPNCriterion:
    """Which anchors train, and their loss (Faster R-CNN section 3.1.2 and 3.1.3, eq. 1).

    Attributes:
        positive: IoU from which on an anchor is positive.
        negative: IoU below which an anchor is negative.
        sampler: draws the anchors that train.
        cross_boundary: whether anchors that leave the image train. Alternatives: true. Sources:
            Faster R-CNN section 3.3 (false), FPN section 5.1 and Detectron2 (true).
        sigma: the smooth-L1 loss is quadratic below ``1 / sigma ** 2`` (Caffe: 3). Alternatives:
            1, inf for L1. Sources: py-faster-rcnn (3), Fast R-CNN eq. 3 (1), Detectron2 (L1).
    """

    positive: float = 0.7
    negative: float = 0.3
    sampler: Sampler = Sampler(count=256, positive_fraction=0.5)
    cross_boundary: bool = False
    sigma: float = 3.0

    def __call__(
        self, output: RPNOutput, sizes: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Computes the objectness and box losses.

        Args:
            output: the network's output for B images.
            sizes: (B, 2) int64, size of each resized image, pixels.
            targets: B targets, pixels of the resized image.

        Returns:
            Two () float32: mean over the sampled anchors, and sum over the positive ones divided
            by the number sampled.
        """
        anchors = torch.cat(output.anchors)
        objectness = torch.cat(output.objectness, dim=1)
        deltas = torch.cat(output.deltas, dim=1)
        logits, classes, predicted, wanted = [], [], [], []
        for image, target in enumerate(targets):
            matches = match(
                anchors,
                target,
                positive=self.positive,
                negative=(0.0, self.negative),
                keep_best=True,
                usable=None if self.cross_boundary else _inside(anchors, sizes[image]),
            )
            positives, negatives = self.sampler(matches.roles)
            logits.append(objectness[image, torch.cat((positives, negatives))])
            classes.append(_ones_then_zeros(logits[-1], len(positives)))
            predicted.append(deltas[image, positives])
            objects = target.boxes[matches.objects[positives]]
            wanted.append(encode(objects, anchors[positives]))
        return _mean_losses(
            F.binary_cross_entropy_with_logits(
                torch.cat(logits), torch.cat(classes), reduction="sum"
            ),
            _smooth_l1(torch.cat(predicted), torch.cat(wanted), self.sigma),
            sum(len(part) for part in logits),
        )


@dataclass(frozen=True)
class RoICriterion:
    """Which proposals train, and their loss (Fast R-CNN section 2.3, eq. 1 to 3).

    Attributes:
        foreground: IoU from which on a proposal is foreground.
        background: half-open interval of IoU in which a proposal is background: VOC's; for COCO
            it starts at 0. Alternatives: (0.0, 0.5). Sources: Fast R-CNN section 2.3 (0.1),
            py-faster-rcnn on COCO and Detectron2 (0).
        sampler: draws the proposals that train.
        sigma: the smooth-L1 loss is quadratic below ``1 / sigma ** 2``. Alternatives: inf for L1.
            Sources: Fast R-CNN eq. 3 (1), Detectron2 (L1).
    """

    foreground: float = 0.5
    background: tuple[float, float] = (0.1, 0.5)
    sampler: Sampler = Sampler(count=128, positive_fraction=0.25)
    sigma: float = 1.0

    @torch.no_grad()
    def sample(
        self, proposals: Proposals, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Chooses the rois that train; the objects themselves join the proposals.

        Args:
            proposals: N regions of each of B images.
            targets: B targets, pixels of the resized image.

        Returns:
            rois: (R, 5) float32: image index, then xyxy in pixels of the resized image.
            labels: (R,) int64, 0 for background.
            boxes: (R, 4) float32, each roi's object, or the roi itself for background.
        """
        rois, labels, boxes = [], [], []
        for image, target in enumerate(targets):
            own = proposals.boxes[image][proposals.valid[image]]
            candidates = torch.cat((own, target.boxes[~target.ignore]))
            matches = match(candidates, target, positive=self.foreground, negative=self.background)
            positives, negatives = self.sampler(matches.roles)
            chosen = candidates[torch.cat((positives, negatives))]
            objects = matches.objects[positives]
            rois.append(F.pad(chosen, (1, 0), value=float(image)))
            labels.append(F.pad(target.labels[objects], (0, len(negatives))))
            boxes.append(torch.cat((target.boxes[objects], candidates[negatives])))
        return torch.cat(rois), torch.cat(labels), torch.cat(boxes)

    def __call__(
        self, output: RoIOutput, rois: Tensor, labels: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes the class and box losses of the sampled rois.

        Args:
            output: the head's output for the R rois.
            rois: (R, 5) float32, as `sample` returned them, likewise labels and boxes.
            labels: (R,) int64.
            boxes: (R, 4) float32.

        Returns:
            Two () float32: mean over the rois, and sum over the foreground divided by R.
        """
        foreground = labels.nonzero().squeeze(1)
        predicted = output.deltas[foreground, labels[foreground] - 1]
        wanted = encode(boxes[foreground], rois[foreground, 1:], DELTA_STD)
        return _mean_losses(
            F.cross_entropy(output.class_logits, labels, reduction="sum"),
            _smooth_l1(predicted, wanted, self.sigma),
            len(labels),
        )


@dataclass(frozen=True)
class Criterion:
    """Losses of a detector for a batch.

    Attributes:
        rpn: the first stage's targets and losses.
        roi: the second stage's.
        proposals: how many proposals the second stage samples from.
    """

    rpn: RPNCriterion = field(default_factory=RPNCriterion)
    roi: RoICriterion = field(default_factory=RoICriterion)
    proposals: ProposalSelection = ProposalSelection(before_nms=12000, after_nms=2000)

    def __call__(self, detector: FasterRCNN, batch: Batch, targets: Sequence[Target]) -> Losses:
        """Walks trunk, RPN and RoI head as `FasterRCNN.forward` does, with targets in hand.

        Args:
            detector: the detector to train.
            batch: B images with their sizes.
            targets: B targets, pixels of the resized image.

        Returns:
            The four losses.
        """
        levels = detector.trunk(detector.normalize(batch))
        rpn_output = detector.rpn(levels)
        proposals = detector.rpn.propose(rpn_output, batch.sizes, self.proposals)
        rois, labels, boxes = self.roi.sample(proposals, targets)
        roi_output = detector.roi_head(levels, rois, batch.sizes)
        return Losses(
            *self.rpn(rpn_output, batch.sizes, targets),
            *self.roi(roi_output, rois, labels, boxes),
        )


def _inside(anchors: Tensor, size: Tensor) -> Tensor:
    height, width = size
    x1, y1, x2, y2 = anchors.unbind(dim=1)
    inside: Tensor = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
    return inside


def _ones_then_zeros(like: Tensor, ones: int) -> Tensor:
    return (torch.arange(len(like), device=like.device) < ones).to(like.dtype)


def _smooth_l1(predicted: Tensor, wanted: Tensor, sigma: float) -> Tensor:
    return F.smooth_l1_loss(predicted, wanted, beta=1 / sigma**2, reduction="sum")


def _mean_losses(classification: Tensor, box: Tensor, count: int) -> tuple[Tensor, Tensor]:
    # Nothing sampled is a loss of zero with a gradient of zero, not a division by zero.
    return classification / max(count, 1), box / max(count, 1)
