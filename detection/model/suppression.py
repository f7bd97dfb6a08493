"""Non-maximum suppression as a mask over a fixed number of slots.

Shape shorthand:
    B: images      M: candidates of an image
"""

import torch
from torch import Tensor
from torchvision.ops import nms


def keep_mask(boxes: Tensor, valid: Tensor, threshold: float, limit: int) -> Tensor:
    """Marks the candidates that greedy suppression keeps, at least the best ``limit`` of them.

    What suppression keeps of the best candidates does not depend on the rest, so it starts with
    the best ``2 * limit`` and goes on only while fewer than ``limit`` were kept.

    Args:
        boxes: (B, M, 4) float32, xyxy, best first.
        valid: (B, M) bool; the others are neither kept nor suppress.
        threshold: IoU above which the later candidate is dropped.
        limit: how many kept candidates the caller uses.

    Returns:
        (B, M) bool. Where more than ``limit`` would be kept, those beyond may be missing.
    """
    keep = torch.zeros_like(valid)
    for image, (image_boxes, image_valid) in enumerate(zip(boxes, valid, strict=True)):
        rows = image_valid.nonzero().squeeze(1)
        keep[image, rows[_nms_sorted(image_boxes[rows], threshold, limit)]] = True
    return keep


def _nms_sorted(boxes: Tensor, threshold: float, limit: int) -> Tensor:
    """Returns rows kept of boxes (M, 4) sorted best first."""
    ranks = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    count = len(boxes) if torch.compiler.is_compiling() else min(2 * limit, len(boxes))
    while True:
        kept: Tensor = nms(boxes[:count], ranks[:count], threshold)
        if count == len(boxes) or len(kept) >= limit:
            return kept
        count = min(2 * count, len(boxes))
