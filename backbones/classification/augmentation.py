"""How training images vary, and how test images are cropped (ResNet sections 3.4 and 4.2).

Images are (H, W, 3) uint8 arrays, RGB, before and after.

Differs from the paper: the colour shift is rounded to whole uint8 values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# Principal components of ImageNet's RGB values in [0, 1], published with fb.resnet.torch and
# cuda-convnet: per component its eigenvalue, and a column of the matrix.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each training image; the defaults are the paper's for ImageNet.

    Attributes:
        crop: side of the square crop, pixels; of test images too.
        short_side: the range, inclusive, from which the image's new short side is drawn, pixels;
            None leaves the size.
        pad: zeros put on each side before cropping, pixels (CIFAR: 4).
        flip: whether half of the images are mirrored.
        lighting: standard deviation of the multiples of ImageNet's principal components that are
            added to all pixels (Krizhevsky et al. 2012, section 4.1); 0 is none.

    Raises:
        ValueError: a number is negative, or the range is empty or below the crop.
    """

    crop: int = 224
    short_side: tuple[int, int] | None = (256, 480)
    pad: int = 0
    flip: bool = True
    lighting: float = 0.1

    def __post_init__(self) -> None:
        if self.crop < 1 or self.pad < 0 or self.lighting < 0:
            raise ValueError(f"expected crop >= 1, pad >= 0 and lighting >= 0, got {self}")
        if self.short_side is not None:
            low, high = self.short_side
            if not self.crop <= low + 2 * self.pad or low > high:
                raise ValueError(f"short_side: expected a range above crop={self.crop}, got {self}")

    def apply(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """Vary an image.

        Args:
            image: (H, W, 3) uint8.
            rng: where all the randomness comes from.

        Returns:
            (crop, crop, 3) uint8.

        Raises:
            ValueError: the image is smaller than the crop.
        """
        if self.short_side is not None:
            low, high = self.short_side
            image = resize_short_side(image, int(rng.integers(low, high + 1)))
        image = np.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))
        room = _room(image, self.crop)
        top, left = (int(rng.integers(cells + 1)) for cells in room)
        image = image[top : top + self.crop, left : left + self.crop]
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        return light(image, rng.normal(0, self.lighting, 3)) if self.lighting else image


def light(image: Pixels, multiples: NDArray[np.float64]) -> Pixels:
    """Shift all pixels along ImageNet's principal components.

    Args:
        image: (H, W, 3) uint8.
        multiples: (3,) float64, of each component's eigenvalue.

    Returns:
        (H, W, 3) uint8, rounded and clipped.
    """
    shift = 255 * EIGENVECTORS @ (multiples * EIGENVALUES)
    values = np.arange(256)[:, None] + shift  # a table: cheaper than arithmetic on each pixel
    table = np.rint(values).clip(0, 255).astype(np.uint8)
    return np.stack([table[image[..., i], i] for i in range(3)], axis=-1)


def resize_short_side(image: Pixels, side: int) -> Pixels:
    """Resize, keeping the aspect ratio: antialiased bilinear.

    Args:
        image: (H, W, 3) uint8.
        side: what the shorter side becomes, pixels.

    Returns:
        (H', W', 3) uint8.
    """
    height, width = image.shape[:2]
    if side == min(height, width):
        return image
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def center_crop(image: Pixels, size: int) -> Pixels:
    """(H, W, 3) uint8 -> the (size, size, 3) in the middle.

    Raises:
        ValueError: the image is smaller than that.
    """
    top, left = (round(cells / 2) for cells in _room(image, size))
    return image[top : top + size, left : left + size]


def ten_crops(image: Pixels, size: int) -> Pixels:
    """The four corners and the middle, then the same of the mirrored image (Krizhevsky et al.).

    Args:
        image: (H, W, 3) uint8.
        size: side of the crops, pixels.

    Returns:
        (10, size, size, 3) uint8.

    Raises:
        ValueError: the image is smaller than that.
    """
    bottom, right = _room(image, size)
    middle = round(bottom / 2), round(right / 2)
    starts = (0, 0), (0, right), (bottom, 0), (bottom, right), middle
    return np.stack(
        [
            view[top : top + size, left : left + size]
            for view in (image, image[:, ::-1])
            for top, left in starts
        ]
    )


def _room(image: Pixels, size: int) -> tuple[int, int]:
    """How far a square crop can move down and to the right."""
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"expected an image of at least {size}×{size}, got {height}×{width}")
    return height - size, width - size
