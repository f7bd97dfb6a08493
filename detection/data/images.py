"""The one way an image file becomes an array.

Shape shorthand:
    H, W: height and width of the upright image, pixels

Only a fixed list of bitmap formats is opened: Pillow would hand some others (EPS) to external
programs. Images come back upright, by the same EXIF rule for pixels and for sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from detection.data.records import MAX_PIXELS, DataError

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

# What turns an image of each EXIF orientation upright (EXIF 2.32, tag 274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decodes an image file into upright RGB.

    16-bit grey is divided by 256; palettes, grey and CMYK become RGB; alpha is dropped.

    Args:
        path: image file.

    Returns:
        image: (H, W, 3) uint8, RGB, writable.

    Raises:
        DataError: the file is missing, not an image, truncated, corrupt, of a kind that has no
            RGB (32-bit float), or larger than ``MAX_PIXELS``.
    """
    with _reading(path) as file:
        image = _open(file)
        if image.format == "PNG":  # which decodes to garbage where a checksum is wrong
            image.verify()
            file.seek(0)
            image = _open(file)
        orientation = _orientation(image)
        image.load()
        rgb = _rgb(image)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        return np.array(rgb)


def image_size(path: Path) -> tuple[int, int]:
    """Reads the size of the upright image from the file's header, without decoding.

    Args:
        path: image file.

    Returns:
        Height and width in pixels, as ``read_image`` would give them.

    Raises:
        DataError: the file is missing, not an image, or larger than ``MAX_PIXELS``.
    """
    with _reading(path) as file:
        image = _open(file)
        width, height = image.size
        return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file and turns whatever goes wrong with it into a DataError that names it."""
    try:
        with path.open("rb") as file:
            yield file
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image in one of {', '.join(_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: more than the limit of {MAX_PIXELS} pixels") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # decoders raise nearly anything on corrupt bytes
        raise DataError(f"{path}: {error or type(error).__name__}") from error


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    image = Image.open(file, formats=_FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} × {height} is more than the limit of {MAX_PIXELS} pixels")
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation that is left to apply; 1 where there is none to read."""
    if image.format == "TIFF":  # Pillow turns these itself, their size at opening
        return 1
    try:
        # The PNG class's own getexif would decode the pixels in search of a late chunk.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable EXIF does not spoil the pixels
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey values {values.min()}…{values.max()}, expected 16 bits")
        image = Image.fromarray((values // 256).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits")
    elif image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparency warns on the direct way
    return image.convert("RGB")
