"""Anchors: reference boxes at every position of every level (Faster R-CNN section 3.1.1).

Shape shorthand:
    L: levels      A: anchors per position      H, W: size of a level's map
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def paper_anchors(
    sizes: Sequence[int] = (128, 256, 512),
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    stride: int = 16,
) -> Tensor:
    """Returns the anchors of one position as the authors' code (py-faster-rcnn) makes them.

    The sides of a stride x stride square are rounded once per ratio, then multiplied: 184 x 96,
    not 181.02 x 90.51. Anchors are centred on the middle of the stride x stride cell.

    Args:
        sizes: square roots of the anchors' areas, pixels.
        ratios: height divided by width.
        stride: pixels of the input per position.

    Returns:
        (A, 4) float32, xyxy, pixels, for the top-left position; ratios outermost.
    """
    centre = stride / 2
    anchors = []
    for ratio in ratios:
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        for size in sizes:
            half_width, half_height = (side * size / stride / 2 for side in (width, height))
            corner = (centre - half_width, centre - half_height)
            anchors.append((*corner, centre + half_width, centre + half_height))
    return torch.tensor(anchors)


def corner_anchors(sizes: Sequence[int], ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> Tensor:
    """Returns the anchors of one position as torchvision's pyramid detectors make them.

    Anchors are centred on the cell's top-left corner and rounded to whole pixels.

    Args:
        sizes: square roots of the anchors' areas, pixels.
        ratios: height divided by width.

    Returns:
        (A, 4) float32, xyxy, pixels, for the top-left position; ratios outermost.
    """
    roots = torch.tensor(ratios).sqrt()
    scales = torch.tensor(sizes, dtype=torch.float32)
    heights = (roots[:, None] * scales).flatten()
    widths = ((1 / roots)[:, None] * scales).flatten()
    return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).round()


class AnchorGenerator(nn.Module):
    """Repeats the anchors of one position over each level's grid."""

    def __init__(self, cell_anchors: Sequence[Tensor], strides: Sequence[int]) -> None:
        """Sets the anchors of each level.

        Args:
            cell_anchors: L tensors (A, 4) float32, xyxy, pixels, for the top-left position; every
                level has the same A.
            strides: L strides, pixels of the input per position.

        Raises:
            ValueError: if the numbers of levels or of anchors per position disagree.
        """
        super().__init__()
        counts = {len(anchors) for anchors in cell_anchors}
        if len(cell_anchors) != len(strides) or len(counts) != 1:
            raise ValueError(
                f"expected one set of anchors a level, all of one length, for strides "
                f"{tuple(strides)}; got lengths {[len(anchors) for anchors in cell_anchors]}"
            )
        self.strides = tuple(strides)
        self.per_position = counts.pop()
        for level, anchors in enumerate(cell_anchors):
            self.register_buffer(f"cell_anchors{level}", anchors.float(), persistent=False)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Returns the anchors of each level.

        Args:
            levels: L feature maps (B, C, H, W).

        Returns:
            L tensors (H * W * A, 4) float32, xyxy, pixels of the input; positions row by row,
            the A anchors of a position together.

        Raises:
            ValueError: if the number of maps is not the number of strides.
        """
        if len(levels) != len(self.strides):
            raise ValueError(f"expected {len(self.strides)} levels, got {len(levels)}")
        return [self._on_grid(index, *level.shape[-2:]) for index, level in enumerate(levels)]

    def _on_grid(self, level: int, height: int, width: int) -> Tensor:
        cell: Tensor = getattr(self, f"cell_anchors{level}")
        stride = self.strides[level]
        x = torch.arange(width, device=cell.device, dtype=cell.dtype) * stride
        y = torch.arange(height, device=cell.device, dtype=cell.dtype) * stride
        shifts = torch.stack(
            (x.expand(height, width), y[:, None].expand(height, width)), dim=-1
        ).repeat(1, 1, 2)
        return (shifts[:, :, None] + cell).view(-1, 4)
