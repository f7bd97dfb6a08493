"""Other views of a batch, made on its device: resized, or mirrored.

Shape shorthand:
    B: images     H, W: height and width of the padded batch     D: detection slots of an image
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.structures import Batch, Detections


def resized(batch: Batch, factor: float, divisible: int = 32) -> Batch:
    """Resizes each image, bilinear, with antialiasing where it shrinks.

    An image is resized without its padding, which would darken its border.

    Args:
        batch: B images.
        factor: of both sides, which are rounded to whole pixels, at least 1.
        divisible: H and W are the next multiples of this.

    Returns:
        The batch itself where no size changes; otherwise a batch of uint8 images, padded with
        zeros, of the same original images.
    """
    sizes = (batch.sizes * factor).round().clamp(min=1).long()
    if torch.equal(sizes, batch.sizes):
        return batch
    height, width = (-(-sizes.amax(dim=0) // divisible) * divisible).tolist()
    # Channels last, as the batch that comes from the data.
    images = batch.images.new_zeros(len(sizes), height, width, 3).permute(0, 3, 1, 2)
    for new, old, after, before in zip(
        images, batch.images, sizes.tolist(), batch.sizes.tolist(), strict=True
    ):
        pixels = old[None, :, : before[0], : before[1]].float()
        pixels = F.interpolate(pixels, after, mode="bilinear", antialias=True)
        new[:, : after[0], : after[1]] = pixels[0].round()
    return batch._replace(images=images, sizes=sizes)


def mirrored(batch: Batch) -> Batch:
    """Mirrors each image, left and right exchanged; its padding stays where it is."""
    columns = torch.arange(batch.images.shape[3], device=batch.images.device)
    sources = batch.sizes[:, 1:] - 1 - columns
    sources = torch.where(sources < 0, columns, sources)
    images = torch.take_along_dim(batch.images, sources[:, None, None], dim=3)
    return batch._replace(images=images)


def unmirrored(detections: Detections, original_sizes: Tensor) -> Detections:
    """Turns what was found in mirrored images back.

    Args:
        detections: D slots an image, boxes in pixels of the original image.
        original_sizes: (B, 2) int64, size of each original image, pixels.

    Returns:
        The detections in the images as they were; empty slots stay zero.
    """
    width = original_sizes[:, 1:]
    x1, y1, x2, y2 = detections.boxes.unbind(dim=2)
    boxes = torch.stack((width - x2, y1, width - x1, y2), dim=2)
    return detections._replace(boxes=boxes * (detections.scores > 0)[..., None])
