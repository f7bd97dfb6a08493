"""Global context: each region is seen beside its whole image (ResNet appendix B).

Shape shorthand:
    B: images      R: rois      F: channels of a region's feature
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.model.roi_head import RoIHead


class ContextRoIHead(RoIHead):
    """A head whose sibling layers see a region's feature and that of its whole image.

    The image is pooled as one region, its own size without the padding, and passes the same tail;
    both features train end to end.
    """

    def __init__(self, pool: nn.Module, tail: nn.Module, tail_channels: int, classes: int) -> None:
        """Joins the parts as `RoIHead` does; the sibling layers take 2F channels."""
        super().__init__(pool, tail, 2 * tail_channels, classes)

    def features(self, levels: Sequence[Tensor], rois: Tensor, sizes: Tensor) -> Tensor:
        """Pools regions and whole images, and sees them through the tail in one pass.

        Args:
            levels: feature maps (B, C, H, W); those the pool uses, and perhaps coarser ones.
            rois: (R, 5) float32: image index, then xyxy in pixels of the resized image.
            sizes: (B, 2) int64, size of each resized image, pixels.

        Returns:
            (R, 2F) float: the region's feature, then its image's.
        """
        pooled = super().features(levels, torch.cat((rois, whole_images(sizes, rois.dtype))), sizes)
        regions, images = pooled[: len(rois)], pooled[len(rois) :]
        return torch.cat((regions, images[rois[:, 0].long()]), dim=1)


def whole_images(sizes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns each image as one region.

    Args:
        sizes: (B, 2) int64, size of each resized image, pixels.
        dtype: of the result.

    Returns:
        (B, 5) float: image index, then (0, 0, width, height) in pixels of the resized image.
    """
    index = torch.arange(len(sizes), device=sizes.device)
    corners = F.pad(sizes.flip(1), (2, 0))
    return torch.cat((index[:, None], corners), dim=1).to(dtype)
