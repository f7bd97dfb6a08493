"""Per-class RPN and the localization of given classes (ResNet appendix C).

Shape shorthand:
    B: images     C: classes asked for, of each image     K: classes there are
    A: anchors per position     H, W: size of the map     S: anchors of an image, H * W * A

The class of an image is the business of a classifier; here each class has a score and a box of
its own for every anchor. Of 1000 classes one or five are asked for, and only their channels are
computed.

The paper leaves open how a class's box is chosen from its anchors: here it is the highest-scored
anchor's, over all views; or, with ``merge``, the score-weighted mean of the boxes around it.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.preprocessing import Preprocessing
from detection.boxes import at_least_float32, clip, decode
from detection.model.anchors import AnchorGenerator
from detection.structures import Views


class LocalizationOutput(NamedTuple):
    """What the network says of every anchor for the classes asked for.

    Attributes:
        class_logits: (B, C, S) float32, of being an object of the class, or not.
        deltas: (B, C, S, 4) float32.
        anchors: (S, 4) float32, xyxy, pixels of the view.
    """

    class_logits: Tensor
    deltas: Tensor
    anchors: Tensor


class Localizations(NamedTuple):
    """One box for each class asked for.

    Attributes:
        boxes: (B, C, 4) float32, xyxy, pixels of the original image.
        scores: (B, C) float32, in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


class Candidates(NamedTuple):
    """A box of each anchor, for each class asked for.

    Attributes:
        boxes: (B, C, S, 4) float32, xyxy, pixels of the original image, inside the view.
        scores: (B, C, S) float32, in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


class LocalizationRPN(nn.Module):
    """The RPN with both sibling layers per class: K scores and 4 K deltas for each anchor."""

    def __init__(
        self, channels: int, anchors: AnchorGenerator, classes: int, width: int = 512
    ) -> None:
        """Builds the layers, initialised from N(0, 0.01) (Faster R-CNN section 3.1.3).

        Args:
            channels: channels of the map.
            anchors: anchors of one level.
            classes: K.
            width: channels of the 3x3 convolution.
        """
        super().__init__()
        self.anchors = anchors
        self.classes = classes
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.class_logits = nn.Conv2d(width, classes * anchors.per_position, 1)
        self.deltas = nn.Conv2d(width, classes * anchors.per_position * 4, 1)
        for layer in (self.conv, self.class_logits, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, level: Tensor, labels: Tensor) -> LocalizationOutput:
        """Scores and refines every anchor for some classes.

        Args:
            level: (B, channels, H, W), the trunk's map.
            labels: (B, C) int64, 1…K, the classes asked for.

        Returns:
            Logits and deltas in float32, whatever the precision of the map.
        """
        hidden = F.relu(self.conv(level), inplace=True)
        per_position = self.anchors.per_position
        logits = _of_classes(self.class_logits, hidden, labels, per_position)
        deltas = _of_classes(self.deltas, hidden, labels, per_position * 4)
        return LocalizationOutput(
            logits.transpose(2, 3).flatten(2),
            deltas.transpose(2, 3).reshape(*logits.shape[:2], -1, 4),
            self.anchors([level])[0],
        )


def _of_classes(layer: nn.Conv2d, hidden: Tensor, labels: Tensor, values: int) -> Tensor:
    """Applies a 1x1 convolution to some classes' channels: (B, C, values, H * W).

    The channels of a class lie together, so that each image gets a small layer of its own.
    """
    weight = layer.weight.view(-1, values, hidden.shape[1])[labels - 1]
    bias = cast(Tensor, layer.bias).view(-1, values)[labels - 1]
    maps = at_least_float32(weight.flatten(1, 2) @ hidden.flatten(2))
    return maps.view(*labels.shape, values, -1) + bias[..., None]


class Localizer(nn.Module):
    """A trunk and a per-class RPN: images and classes in, a box for each class out.

    `detection.model.localization_criterion.LocalizationCriterion` walks the same parts with
    targets in hand.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        rpn: LocalizationRPN,
        preprocessing: Preprocessing,
        merge: float | None = None,
    ) -> None:
        """Joins the parts.

        Args:
            trunk: normalised images (B, 3, H, W) to a list of one feature map.
            rpn: map and classes to scores and boxes.
            preprocessing: what the trunk's weights expect of an image.
            merge: IoU from which on a box votes for the best one's place; None takes the best one
                as it is.
        """
        super().__init__()
        self.trunk = trunk
        self.rpn = rpn
        self.preprocessing = preprocessing
        self.merge = merge
        scale, shift = preprocessing.affine()
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    def score_anchors(self, images: Tensor, labels: Tensor) -> LocalizationOutput:
        """Runs trunk and RPN.

        Args:
            images: (B, 3, H, W) uint8, RGB, without padding.
            labels: (B, C) int64, 1…K.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        if self.preprocessing.order == "bgr":
            images = images.flip(1)
        normalized = torch.addcmul(self.shift, images.to(self.scale.dtype), self.scale)
        (level,) = self.trunk(normalized)
        output: LocalizationOutput = self.rpn(level, labels)
        return output

    def forward(self, views: Sequence[Views], labels: Tensor) -> Localizations:
        """Localizes classes.

        Args:
            views: views of the same B images, such as one for each scale; at least one.
            labels: (B, C) int64, 1…K, the classes to localize.

        Returns:
            The best box of each class over all views, in pixels of the original images.
        """
        parts = [candidates(self.score_anchors(view.images, labels), view) for view in views]
        boxes, scores = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        return choose(Candidates(boxes, scores), self.merge)


def candidates(output: LocalizationOutput, view: Views) -> Candidates:
    """Turns the output for a view into boxes and scores.

    Args:
        output: of the RPN, for B images and C classes of each.
        view: what the RPN saw.
    """
    sizes = output.anchors.new_tensor([view.images.shape[2:]]).expand(len(view.images), 2)
    boxes = clip(decode(output.deltas, output.anchors), sizes)
    x1, y1, x2, y2 = view.frames.to(boxes.dtype).T[..., None]
    height, width = sizes.T[..., None]
    ratios = torch.stack(((x2 - x1) / width, (y2 - y1) / height) * 2, dim=-1)
    corners = torch.stack((x1, y1) * 2, dim=-1)
    return Candidates(boxes * ratios[:, None] + corners[:, None], output.class_logits.sigmoid())


def choose(found: Candidates, merge: float | None = None) -> Localizations:
    """Chooses a box for each class.

    Args:
        found: the candidates.
        merge: IoU with the best box from which on a candidate takes part in the score-weighted
            mean (the voting of ResNet appendix B); None takes the best box.
    """
    scores, rows = found.scores.max(dim=2, keepdim=True)
    best = found.boxes.gather(2, rows[..., None].expand(-1, -1, -1, 4))
    if merge is not None:
        voters = _iou(best, found.boxes) >= merge
        voters.scatter_(2, rows, value=True)  # an empty box has no IoU, not even with itself
        weights = (found.scores * voters)[..., None]
        best = (weights * found.boxes).sum(2, keepdim=True) / weights.sum(2, keepdim=True)
    return Localizations(best.squeeze(2), scores.squeeze(2))


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (..., 4) and others (..., 4), broadcast; 0 where both are empty."""
    corner1 = torch.maximum(boxes[..., :2], others[..., :2])
    corner2 = torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = (corner2 - corner1).clamp(min=0).prod(dim=-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (boxes, others)]
    iou: Tensor = overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-6)
    return iou
