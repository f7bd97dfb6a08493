"""Box refinement and box voting (ResNet appendix B, after Gidaris and Komodakis, ICCV 2015).

Shape shorthand:
    B: images      N: proposals of an image      R: rois, B * N
    K: classes     D: detection slots of an image     M: candidates of an image
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from detection.boxes import clip, decode
from detection.model.roi_head import DELTA_STD, Candidates, RoIOutput
from detection.model.rpn import Proposals, union
from detection.structures import Detections


def refine(output: RoIOutput, proposals: Proposals, sizes: Tensor) -> Proposals:
    """Makes the regressed boxes the proposals of a second round.

    A region has a box for every class and is pooled once: its box for the best foreground class
    is taken. The paper leaves this open.

    Args:
        output: of the head, for the B * N proposals, image by image.
        proposals: N regions an image.
        sizes: (B, 2) int64, size of each resized image, pixels.

    Returns:
        N regions an image; one whose box is empty or not a number is an empty slot.
    """
    best = output.class_logits[:, 1:].argmax(dim=1)
    deltas = output.deltas[torch.arange(len(best), device=best.device), best]
    boxes = clip(decode(deltas.view_as(proposals.boxes), proposals.boxes, DELTA_STD), sizes)
    # NaN would end RoI pooling in a segmentation fault; as a zero box it is dropped.
    boxes = boxes.nan_to_num(0.0)
    valid = proposals.valid & (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    return Proposals(boxes * valid[..., None], valid)


def join(
    outputs: Sequence[RoIOutput], proposals: Sequence[Proposals]
) -> tuple[RoIOutput, Proposals]:
    """Puts the rounds' predictions side by side: 300 and 300 in the paper.

    Args:
        outputs: of the head, for each round's proposals.
        proposals: each round's regions.

    Returns:
        All predictions and their regions, image by image.
    """
    batch = len(proposals[0].valid)
    logits, deltas = (
        torch.cat([part.unflatten(0, (batch, -1)) for part in parts], dim=1).flatten(0, 1)
        for parts in zip(*outputs, strict=True)
    )
    return RoIOutput(logits, deltas), union(proposals)


def vote(detections: Detections, found: Candidates, threshold: float = 0.5) -> Detections:
    """Moves each kept box to the score-weighted mean of its class's candidates around it.

    The candidates are those that suppression chose from; a kept box is one of them.

    Args:
        detections: in pixels of the resized image, as `suppress` returns them.
        found: the candidates they were chosen from.
        threshold: IoU from which on a candidate votes.

    Returns:
        The detections with other boxes; scores and labels stay.
    """
    boxes = found.boxes.masked_fill(~found.valid[..., None], 0.0)
    scores = found.scores.masked_fill(~found.valid, 0.0)
    iou = torch.stack([box_iou(*pair) for pair in zip(detections.boxes, boxes, strict=True)])
    votes = (detections.labels[..., None] == found.labels[:, None]) & (iou >= threshold)
    weights = (votes * scores[:, None])[..., None]
    total = weights.sum(dim=2)
    # Not a matrix product, which would be one of halves under autocast.
    voted = (weights * boxes[:, None]).sum(dim=2) / total
    return detections._replace(boxes=torch.where(total > 0, voted, detections.boxes))
