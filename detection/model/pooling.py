"""RoI pooling: a fixed-size map for each region, from one level or several.

Shape shorthand:
    B: images    C: channels    H, W: size of a level's map    R: rois    P: pooled size

On a CPU, RoIAlign is a product with a sparse matrix: each of the R * P * P bins is a weighted sum
of a few cells of the channels-last map. The figures are torchvision's, with one rounding order in
place of another; its gradient is the product with the transposed matrix.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align, roi_pool

from detection.boxes import at_least_float32


class RoIPool(nn.Module):
    """RoI max-pooling on one level (Fast R-CNN section 2.1).

    Differs from the paper: boxes are half-open here, so a region's last cell is found from the
    pixel after its last one. Caffe's, with inclusive boxes, can be one cell smaller.
    """

    def __init__(self, size: int, stride: int) -> None:
        """Sets the pooled size and the stride of the level, in pixels per cell."""
        super().__init__()
        self.size = size
        self.stride = stride

    def forward(self, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pools each region.

        Args:
            levels: one map (B, C, H, W).
            rois: (R, 5) float32: image index, then xyxy in pixels of the resized image.

        Returns:
            (R, C, P, P) float32.
        """
        (level,) = levels
        pooled: Tensor = roi_pool(at_least_float32(level), rois, self.size, 1 / self.stride)
        return pooled


class RoIAlign(nn.Module):
    """RoIAlign, each region on the level that fits its size (FPN eq. 1)."""

    def __init__(
        self, size: int, strides: Sequence[int], sampling_ratio: int = 2, aligned: bool = False
    ) -> None:
        """Sets the pooled size and the levels.

        Args:
            size: P.
            strides: pixels per cell of each level, ascending by factors of two.
            sampling_ratio: samples per bin and axis.
            aligned: whether cell centres lie at half-integers (Detectron2's choice) or at
                integers (Mask R-CNN's code and torchvision's detectors).
        """
        super().__init__()
        self.size = size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pools each region; arguments and result as in `RoIPool`, with one map a stride."""
        if len(self.strides) == 1:
            return self._align(levels[0], rois, self.strides[0])
        assigned = self._assign(rois)
        rows = [(assigned == index).nonzero().squeeze(1) for index in range(len(self.strides))]
        pooled = [
            self._align(level, rois[chosen], stride)
            for level, chosen, stride in zip(levels, rows, self.strides, strict=False)
        ]
        return torch.cat(pooled)[torch.cat(rows).argsort()]

    def _assign(self, rois: Tensor) -> Tensor:
        """Returns the level of each region: (R,) int64. A 224-pixel region has stride 16."""
        sides = (rois[:, 3:] - rois[:, 1:3]).clamp(min=0).prod(dim=1).sqrt()
        # The margin keeps a side of exactly a power of two times 224 on its level.
        stride = torch.floor(4 + torch.log2(sides / 224) + 1e-6)
        first = torch.tensor(float(self.strides[0])).log2()
        return (stride - first).clamp(0, len(self.strides) - 1).long()

    def _align(self, level: Tensor, rois: Tensor, stride: int) -> Tensor:
        level = at_least_float32(level)
        if level.device.type != "cpu" or torch.compiler.is_compiling():
            pooled: Tensor = roi_align(
                level, rois, self.size, 1 / stride, self.sampling_ratio, self.aligned
            )
            return pooled
        cells, weights = self._sparse(rois, stride, *level.shape[-2:])
        table = level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])
        bins: Tensor = _SparseProduct.apply(table, cells, weights)
        shape = (len(rois), self.size, self.size, level.shape[1])
        return bins.view(shape).permute(0, 3, 1, 2)

    def _sparse(self, rois: Tensor, stride: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns the matrix: cells (R * P * P, E) int64 and weights (R * P * P, E) float."""
        offset = 0.5 if self.aligned else 0.0
        corners = rois[:, 1:] / stride - offset
        sides = corners[:, 2:] - corners[:, :2]
        if not self.aligned:
            sides = sides.clamp(min=1.0)
        x, x_weights = self._interpolate(corners[:, 0], sides[:, 0], width)
        y, y_weights = self._interpolate(corners[:, 1], sides[:, 1], height)
        first = rois[:, 0].long() * (height * width)
        rows = first[:, None, None] + y * width
        cells = rows[:, :, None, :, None] + x[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        entries = x.shape[-1] * y.shape[-1]
        return cells.view(-1, entries), weights.view(-1, entries)

    def _interpolate(self, start: Tensor, side: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """Linear interpolation along one axis.

        Returns:
            Cells (R, P, 2 * samples) int64 and their weights, in the precision of the rois.
        """
        samples = self.size * self.sampling_ratio
        steps = (torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5) / samples
        position = start[:, None] + steps * side[:, None]
        outside = (position < -1) | (position > limit)
        position = position.clamp(0, limit - 1)
        low = position.floor()
        fraction = position - low
        cells = torch.stack((low, (low + 1).clamp(max=limit - 1)), dim=-1).long()
        weights = torch.stack((1 - fraction, fraction), dim=-1) / self.sampling_ratio
        weights = weights.masked_fill(outside[..., None], 0.0)
        shape = (len(start), self.size, 2 * self.sampling_ratio)
        return cells.view(shape), weights.view(shape)


class _SparseProduct(torch.autograd.Function):
    """Bag sums of table rows; the gradient is the product with the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(cells, weights)
        ctx.table_length = len(table)
        return F.embedding_bag(cells, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cells, weights = ctx.saved_tensors
        order = cells.flatten().argsort()
        counts = torch.bincount(cells.flatten(), minlength=ctx.table_length)
        transposed = F.embedding_bag(
            order // cells.shape[1],
            gradient.contiguous(),
            counts.cumsum(0) - counts,
            per_sample_weights=weights.flatten()[order],
            mode="sum",
        )
        return transposed, None, None
