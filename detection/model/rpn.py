"""Region proposal network (Faster R-CNN section 3.1).

Shape shorthand:
    B: images     L: levels     A: anchors per position     H, W: size of a level's map
    S: anchors of a level, H * W * A     M: candidates of an image     N: proposals of an image

Objectness is one logit an anchor, the logistic alternative to the two-class softmax that the
paper names in section 3.1.1.

Differs from the paper: with several levels, candidates are chosen and suppressed level by level
(FPN section 4.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.boxes import at_least_float32, clip, decode
from detection.model.anchors import AnchorGenerator
from detection.model.suppression import keep_mask


class RPNOutput(NamedTuple):
    """What the network says of every anchor.

    Attributes:
        objectness: L tensors (B, S) float32, logits.
        deltas: L tensors (B, S, 4) float32.
        anchors: L tensors (S, 4) float32, xyxy, pixels of the resized image.
    """

    objectness: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class Proposals(NamedTuple):
    """Regions that may hold an object, best first, in a fixed number of slots per image.

    Attributes:
        boxes: (B, N, 4) float32, xyxy, pixels of the resized image; zeros in an empty slot.
        valid: (B, N) bool, False in an empty slot.
    """

    boxes: Tensor
    valid: Tensor


@dataclass(frozen=True)
class ProposalSelection:
    """How many proposals an image gets (Faster R-CNN section 3.3, and the authors' code).

    Attributes:
        before_nms: candidates by score, on each level.
        after_nms: proposals of an image, all levels together.
        nms_threshold: IoU above which the lower-scored candidate is dropped.
        min_side: candidates with a shorter side are dropped, pixels of the resized image.
            Alternatives: 0, 1. Sources: py-faster-rcnn (16, of the image before it is resized),
            Detectron2 (0).
    """

    before_nms: int
    after_nms: int
    nms_threshold: float = 0.7
    min_side: float = 16.0


class RPN(nn.Module):
    """A small network slid over every level, and the choice of proposals from its output."""

    def __init__(self, channels: int, anchors: AnchorGenerator, width: int = 512) -> None:
        """Builds the layers, initialised from N(0, 0.01) (section 3.1.3).

        Args:
            channels: channels of the levels.
            anchors: anchors of the levels.
            width: channels of the 3x3 convolution.
        """
        super().__init__()
        self.anchors = anchors
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, anchors.per_position, 1)
        self.deltas = nn.Conv2d(width, 4 * anchors.per_position, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, levels: Sequence[Tensor]) -> RPNOutput:
        """Scores and refines every anchor.

        Args:
            levels: L feature maps (B, C, H, W).

        Returns:
            Objectness and deltas in float32, whatever the precision of the levels.
        """
        objectness, deltas = [], []
        for level in levels:
            hidden = F.relu(self.conv(level), inplace=True)
            objectness.append(_by_anchor(self.objectness(hidden), 1).squeeze(-1))
            deltas.append(_by_anchor(self.deltas(hidden), 4))
        return RPNOutput(objectness, deltas, self.anchors(levels))

    @torch.no_grad()
    def propose(self, output: RPNOutput, sizes: Tensor, selection: ProposalSelection) -> Proposals:
        """Turns the output into proposals, which carry no gradient.

        Args:
            output: what `forward` returned.
            sizes: (B, 2) int64, size of each resized image, pixels.
            selection: how many to take.

        Returns:
            N proposals an image; N is at most ``selection.after_nms``.
        """
        return self.propose_scored(output, sizes, selection)[0]

    @torch.no_grad()
    def propose_scored(
        self, output: RPNOutput, sizes: Tensor, selection: ProposalSelection
    ) -> tuple[Proposals, Tensor]:
        """Proposes as `propose` does, and says how sure the network is.

        Returns:
            The proposals, and their objectness: (B, N) float32, logits, -inf in an empty slot.
        """
        scores, boxes = _best_of_each_level(output, selection.before_nms)
        candidates = clip(torch.cat(boxes, dim=1), sizes)
        # NaN would end RoI pooling in a segmentation fault; as a zero box it is dropped.
        candidates = candidates.nan_to_num(0.0)
        sides = candidates[..., 2:] - candidates[..., :2]
        valid = (sides >= selection.min_side).all(dim=-1)
        counts = [level.shape[1] for level in boxes]
        keep = [
            keep_mask(*level, selection.nms_threshold, selection.after_nms)
            for level in zip(
                torch.split(candidates, counts, dim=1),
                torch.split(valid, counts, dim=1),
                strict=True,
            )
        ]
        ranked = torch.cat(scores, dim=1).masked_fill(~torch.cat(keep, dim=1), -torch.inf)
        ranked, rows = ranked.topk(min(selection.after_nms, ranked.shape[1]), dim=1)
        valid = ranked > -torch.inf
        chosen = candidates.gather(1, rows[..., None].expand(-1, -1, 4))
        return Proposals(chosen * valid[..., None], valid), ranked


def union(parts: Sequence[Proposals]) -> Proposals:
    """Puts several proposals for the same images side by side; they are no longer best first."""
    return Proposals(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


def _by_anchor(maps: Tensor, values: int) -> Tensor:
    """Turns maps (B, A * values, H, W) into rows (B, S, values)."""
    rows = at_least_float32(maps).permute(0, 2, 3, 1)
    return rows.reshape(len(maps), -1, values)


def _best_of_each_level(output: RPNOutput, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Returns, per level, the scores (B, M) and boxes (B, M, 4) of the best anchors, best first."""
    scores, boxes = [], []
    for objectness, deltas, anchors in zip(*output, strict=True):
        best, rows = objectness.topk(min(count, objectness.shape[1]), dim=1)
        chosen = deltas.gather(1, rows[..., None].expand(-1, -1, 4))
        scores.append(best)
        boxes.append(decode(chosen, anchors[rows]))
    return scores, boxes
