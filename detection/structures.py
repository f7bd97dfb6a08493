"""The data that moves between the rooms: NamedTuples of tensors or arrays, without behaviour.

Shape shorthand:
    B: images in a batch        H, W: height and width of the padded batch
    G: ground-truth boxes       D: detection slots of an image
    I: images of a data set     N: boxes of a data set
    K: classes, without background

Boxes are ``(x1, y1, x2, y2)`` in half-open pixel coordinates, so a width is ``x2 - x1``.
Sizes are ``(height, width)``. Label 0 is background; classes are 1…K.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who scores files needs no torch
    from torch import Tensor


class Batch(NamedTuple):
    """Images as they travel to the device.

    Attributes:
        images: (B, 3, H, W) uint8, RGB, zero-padded at the bottom and on the right.
        sizes: (B, 2) int64, size of each resized image inside the padding, pixels.
        original_sizes: (B, 2) int64, size of each image as stored (upright), pixels.
        image_ids: (B,) int64, the data set's own image ids.
    """

    images: Tensor
    sizes: Tensor
    original_sizes: Tensor
    image_ids: Tensor


class Views(NamedTuple):
    """Parts of images, all of one size: crops, or whole images.

    Attributes:
        images: (B, 3, H, W) uint8, RGB.
        frames: (B, 4) float32, xyxy, the rectangle that each shows, pixels of the original image.
    """

    images: Tensor
    frames: Tensor


class Target(NamedTuple):
    """What there is to find in one image.

    Attributes:
        boxes: (G, 4) float32, xyxy, pixels of the resized image.
        labels: (G,) int64, 1…K.
        ignore: (G,) bool, regions that are neither objects nor background: COCO crowds and
            VOC difficult objects.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor


class Detections(NamedTuple):
    """Detections of a batch, in a fixed number of slots per image, best first.

    Attributes:
        boxes: (B, D, 4) float32, xyxy, pixels of the original image.
        scores: (B, D) float32, in [0, 1]; 0 in an empty slot.
        labels: (B, D) int64, 1…K; 0 in an empty slot.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Losses(NamedTuple):
    """The four terms of the multi-task loss (Faster R-CNN eq. 1, Fast R-CNN eq. 1).

    Attributes:
        rpn_objectness: () float32.
        rpn_box: () float32.
        roi_class: () float32.
        roi_box: () float32.
    """

    rpn_objectness: Tensor
    rpn_box: Tensor
    roi_class: Tensor
    roi_box: Tensor


class Annotations(NamedTuple):
    """The ground truth of a data set in packed arrays, which workers share without copies.

    The boxes of image i are rows ``offsets[i]:offsets[i + 1]``.

    Attributes:
        image_ids: (I,) int64, unique.
        sizes: (I, 2) int64, upright original size, pixels.
        offsets: (I + 1,) int64, the first is 0 and the last is N.
        boxes: (N, 4) float64, xyxy, pixels of the original image.
        labels: (N,) int64, 1…K.
        areas: (N,) float64, square pixels: COCO's ``area`` field, the box's area for VOC.
        crowd: (N,) bool, COCO's ``iscrowd``.
        difficult: (N,) bool, VOC's ``difficult``.
        extents: (N, 2) float64, width and height as the file states them, pixels; None where the
            boxes say them. ``x1 + width`` is rounded, and COCO's metric counts by the width.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    extents: NDArray[np.float64] | None = None


class Predictions(NamedTuple):
    """Detections of a data set in packed arrays, in any order.

    Attributes:
        image_ids: (N,) int64.
        boxes: (N, 4) float, xyxy, pixels of the original image: float32 from our detectors,
            float64 from files, where rounding could make scores tie.
        scores: (N,) float.
        labels: (N,) int64, 1…K.
        extents: (N, 2) float64 or None, as in `Annotations`.
    """

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    extents: NDArray[np.float64] | None = None
