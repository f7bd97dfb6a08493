"""Box arithmetic that torchvision.ops does not have: deltas and clipping.

Differs from the paper: a width is ``x2 - x1``, in half-open pixels. The authors' code counts the
last pixel, ``x2 - x1 + 1``, in encoding, decoding, IoU and clipping alike. A predicted scale is
bounded by ``MAX_LOG_SCALE``, as in Detectron.

Shape shorthand:
    ...: any leading dimensions, equal (or broadcastable) in all arguments
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# So that exp cannot overflow: a 16-pixel reference grows to 1000 pixels at most.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)

UNIT_STD = (1.0, 1.0, 1.0, 1.0)


def at_least_float32(values: Tensor) -> Tensor:
    """Returns values in float32, or float64 where they are: half precision cannot hold a box."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode(boxes: Tensor, references: Tensor, std: Sequence[float] = UNIT_STD) -> Tensor:
    """Parameterises boxes relative to references (R-CNN; Faster R-CNN eq. 2).

    Args:
        boxes: (..., 4) float, xyxy, pixels; sides must be positive.
        references: (..., 4) float, anchors or proposals, same units; sides must be positive.
        std: the deltas are divided by these, so that targets have about unit variance.

    Returns:
        (..., 4) float deltas ``(dx, dy, dw, dh)``: offsets in units of the reference's sides and
        logarithms of the scale, divided by ``std``.
    """
    centers, sides = _centers_and_sides(boxes)
    reference_centers, reference_sides = _centers_and_sides(references)
    offsets = (centers - reference_centers) / reference_sides
    scales = torch.log(sides / reference_sides)
    return torch.cat((offsets, scales), dim=-1) * offsets.new_tensor([1 / value for value in std])


def decode(deltas: Tensor, references: Tensor, std: Sequence[float] = UNIT_STD) -> Tensor:
    """Applies deltas to references: the inverse of `encode`.

    Args:
        deltas: (..., 4) float, as `encode` returns them.
        references: (..., 4) float, xyxy, pixels.
        std: the one the deltas were encoded with.

    Returns:
        (..., 4) float boxes, xyxy, in the references' pixels, not clipped. Scales are bounded by
        `MAX_LOG_SCALE`.
    """
    centers, sides = _centers_and_sides(references)
    deltas = deltas * deltas.new_tensor(std)
    centers = deltas[..., :2] * sides + centers
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * sides
    return torch.cat((centers - half, centers + half), dim=-1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clips boxes to their images.

    Args:
        boxes: (B, ..., 4) float, xyxy, pixels.
        sizes: (B, 2) int, height and width of each image, pixels.

    Returns:
        (B, ..., 4) float boxes inside ``[0, width] x [0, height]``.
    """
    height, width = sizes.to(boxes.dtype).view(-1, *[1] * (boxes.dim() - 2), 2).unbind(-1)
    limits = torch.stack((width, height, width, height), dim=-1)
    return torch.minimum(boxes.clamp(min=0), limits)
