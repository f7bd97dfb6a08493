"""The views of a test image whose predictions are averaged (ResNet section 3.4)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from backbones.classification.augmentation import (
    Pixels,
    center_crop,
    resize_short_side,
    ten_crops,
)

Testing = Literal["center", "ten", "scales"]
"""center: one crop in the middle. ten: four corners and the middle, mirrored too. scales: the
whole image and its mirror image at several sizes, for fully convolutional testing."""

SCALES = (224, 256, 384, 480, 640)
"""The short sides of the paper's fully convolutional testing, pixels."""


def views(
    image: Pixels,
    testing: Testing,
    crop: int,
    short_side: int | None,
    scales: Sequence[int] = SCALES,
) -> list[Pixels]:
    """Make the views of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        testing: which views.
        crop: side of the crops, pixels.
        short_side: what the image's is made before cropping, pixels; None leaves it.
        scales: short sides for "scales", pixels.

    Returns:
        One (V, H', W', 3) uint8 for each size: V is 1, 10 or 2.

    Raises:
        ValueError: the image is smaller than the crop.
    """
    if testing == "scales":
        resized = [resize_short_side(image, side) for side in scales]
        return [np.stack([one, one[:, ::-1]]) for one in resized]
    if short_side is not None:
        image = resize_short_side(image, short_side)
    return [ten_crops(image, crop) if testing == "ten" else center_crop(image, crop)[None]]
