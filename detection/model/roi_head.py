"""The second stage: pooled regions to classes and boxes (Fast R-CNN; ResNet section 4.3).

Shape shorthand:
    B: images      N: proposals of an image     R: rois, B * N in inference
    K: classes     D: detection slots of an image     F: channels of a region's feature
    M: candidates of an image
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detection.boxes import at_least_float32, clip, decode
from detection.model.rpn import Proposals
from detection.model.suppression import keep_mask
from detection.structures import Detections

# Fast R-CNN divides its regression targets by these.
DELTA_STD = (0.1, 0.1, 0.2, 0.2)
_PLANES = 32  # of classes, in a row


class RoIOutput(NamedTuple):
    """What the head says of every region.

    Attributes:
        class_logits: (R, K + 1) float32, background first.
        deltas: (R, K, 4) float32, one set a class, in units of `DELTA_STD`.
    """

    class_logits: Tensor
    deltas: Tensor


class Candidates(NamedTuple):
    """Boxes of single classes that may become detections, best first.

    Attributes:
        boxes: (B, M, 4) float32, xyxy, pixels of the resized image.
        scores: (B, M) float32, in [0, 1].
        labels: (B, M) int64, 1…K.
        valid: (B, M) bool, False where the score is too low or the box is empty.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor


@dataclass(frozen=True)
class DetectionSelection:
    """Which detections of an image are reported (the authors' code).

    Attributes:
        score_threshold: a detection's score must be above this. Alternatives: 0. Sources:
            py-faster-rcnn and Detectron2 (0.05).
        nms_threshold: IoU above which the lower-scored detection of a class is dropped.
            Alternatives: 0.5. Sources: py-faster-rcnn (0.3), Detectron2 (0.5).
        per_image: detections of an image, all classes together.
        candidates: detections that enter suppression, by score.
    """

    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    per_image: int = 100
    candidates: int = 10_000


class RoIHead(nn.Module):
    """Pools each region, sees it through the tail, and predicts its class and box."""

    def __init__(self, pool: nn.Module, tail: nn.Module, tail_channels: int, classes: int) -> None:
        """Joins the parts; the sibling layers are initialised as in Fast R-CNN section 3.1.

        Args:
            pool: levels and rois (R, 5) to maps (R, C, P, P).
            tail: maps (R, C, P, P) to features (R, tail_channels).
            tail_channels: channels of the features.
            classes: K, without background.
        """
        super().__init__()
        self.pool = pool
        self.tail = tail
        self.class_logits = nn.Linear(tail_channels, classes + 1)
        self.deltas = nn.Linear(tail_channels, 4 * classes)
        for layer, std in ((self.class_logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.constant_(layer.bias, 0.0)

    @property
    def classes(self) -> int:
        """K, the number of classes without background."""
        return self.class_logits.out_features - 1

    def features(self, levels: Sequence[Tensor], rois: Tensor, sizes: Tensor) -> Tensor:
        """Pools regions and sees them through the tail.

        Args:
            levels: feature maps (B, C, H, W); those the pool uses, and perhaps coarser ones.
            rois: (R, 5) float32: image index, then xyxy in pixels of the resized image.
            sizes: (B, 2) int64, size of each resized image, pixels.

        Returns:
            (R, F) float: what the sibling layers see of each region.
        """
        del sizes  # for heads that look beyond their regions
        features: Tensor = self.tail(self.pool(levels, rois))
        return features

    def predict(self, features: Tensor) -> RoIOutput:
        """Classifies and refines regions by the sibling layers.

        Args:
            features: (R, F) float, as `features` returns them.

        Returns:
            Logits and deltas in float32, whatever the precision of the features.
        """
        deltas = at_least_float32(self.deltas(features)).view(-1, self.classes, 4)
        return RoIOutput(at_least_float32(self.class_logits(features)), deltas)

    def forward(self, levels: Sequence[Tensor], rois: Tensor, sizes: Tensor) -> RoIOutput:
        """Classifies and refines regions: `predict` of `features`, with their arguments."""
        return self.predict(self.features(levels, rois, sizes))


def candidates(
    output: RoIOutput, proposals: Proposals, sizes: Tensor, selection: DetectionSelection
) -> Candidates:
    """Turns the output for an image's proposals into a box and a score for every class.

    Args:
        output: of the head, for the B * N proposals, image by image.
        proposals: N regions an image.
        sizes: (B, 2) int64, size of each resized image, pixels.
        selection: which detections to report.

    Returns:
        The M best of an image, M at most ``selection.candidates``.
    """
    batch, count = proposals.valid.shape
    classes = output.deltas.shape[1]
    scores = output.class_logits.softmax(dim=1)[:, 1:].reshape(batch, count, classes)
    scores = (scores * proposals.valid[..., None]).flatten(1)
    scores, rows = scores.topk(min(selection.candidates, scores.shape[1]), dim=1)
    deltas = output.deltas.reshape(batch, -1, 4).gather(1, _four(rows))
    references = proposals.boxes.gather(1, _four(rows // classes))
    boxes = clip(decode(deltas, references, DELTA_STD), sizes)
    valid = (scores > selection.score_threshold) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return Candidates(boxes, scores, rows % classes + 1, valid)


def suppress(found: Candidates, sizes: Tensor, selection: DetectionSelection) -> Detections:
    """Keeps the best of candidates of one class that overlap.

    Args:
        found: candidates.
        sizes: (B, 2) int64, size of each resized image, pixels.
        selection: which detections to report.

    Returns:
        Detections in pixels of the resized image.
    """
    boxes, scores, labels, valid = found
    # Classes do not suppress each other: each has a plane of its own. In a grid these lie close
    # enough for float32 to hold a box of 1000 classes to the 256th of a pixel.
    corners = torch.stack((labels % _PLANES, labels // _PLANES), dim=-1) * (sizes.max() + 1)
    planes = boxes + corners.repeat(1, 1, 2)
    keep = keep_mask(planes, valid, selection.nms_threshold, selection.per_image)
    # Filled, not multiplied by 0: that would let NaN through.
    scores = scores.masked_fill(~keep, 0.0)
    scores, kept = scores.topk(min(selection.per_image, keep.shape[1]), dim=1)
    filled = scores > 0
    boxes = boxes.gather(1, _four(kept)).masked_fill(~filled[..., None], 0.0)
    return Detections(boxes, scores, labels.gather(1, kept) * filled)


def _four(rows: Tensor) -> Tensor:
    return rows[..., None].expand(-1, -1, 4)


def with_image_index(boxes: Tensor) -> Tensor:
    """Turns boxes of B images (B, N, 4) into rois (B * N, 5) with the image index in front."""
    batch, count, _ = boxes.shape
    index = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)
    return torch.cat((index.repeat_interleave(count)[:, None], boxes.reshape(-1, 4)), dim=1)
