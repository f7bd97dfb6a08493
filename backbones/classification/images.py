"""Labelled images, in memory or in a folder: what every reader gives and every loader takes."""

import os
import warnings
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

MAX_PIXELS = 80_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")


class Images(Protocol):
    """Labelled images.

    Attributes:
        labels: (N,) int64, 0 … classes - 1.
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64, 0 … classes - 1."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, RGB."""

    def name(self, index: int) -> str:
        """What an error calls the image."""


class ArrayImages:
    """Images of one size in memory.

    Args:
        pixels: (N, H, W, 3) uint8, RGB.
        labels: (N,) int64.
    """

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pixels = pixels
        self.labels = labels

    def read(self, index: int) -> NDArray[np.uint8]:
        """See ``Images.read``."""
        image: NDArray[np.uint8] = self.pixels[index]
        return image

    def name(self, index: int) -> str:
        """See ``Images.name``."""
        return f"image {index}"


class FolderImages:
    """Images in a folder per class, ``ROOT/CLASS/FILE``, as ImageNet is laid out.

    Args:
        root: the folder of the split; classes are its subfolders in alphabetical order.

    Attributes:
        class_names: the classes.
        labels: (N,) int64.

    Raises:
        OSError: the folder is absent, or holds no classes, or a class holds no images.
    """

    def __init__(self, root: Path) -> None:
        found = ImageFolder(str(root))
        self._root = root
        self.class_names = tuple(found.classes)
        # One array of bytes: workers would copy a list, page by page, as they count references.
        self._files = np.array(
            [os.fsencode(Path(path).relative_to(root)) for path, _ in found.imgs]
        )
        self.labels = np.array(found.targets, dtype=np.int64)

    def read(self, index: int) -> NDArray[np.uint8]:
        """See ``Images.read``.

        Raises:
            ValueError: the file is not a whole image.
        """
        return read_image(Path(self.name(index)))

    def name(self, index: int) -> str:
        """See ``Images.name``."""
        return str(self._root / os.fsdecode(self._files[index]))


class KeptImages:
    """Images that stay in memory from their first reading on, uncompressed, in each process.

    Args:
        images: where they are first read.
    """

    def __init__(self, images: Images) -> None:
        self._images = images
        self._kept: dict[int, NDArray[np.uint8]] = {}

    @property
    def labels(self) -> NDArray[np.int64]:
        """See ``Images.labels``."""
        return self._images.labels

    def read(self, index: int) -> NDArray[np.uint8]:
        """See ``Images.read``; the array cannot be written to.

        Raises:
            ValueError: see the images.
        """
        if index not in self._kept:
            self._kept[index] = self._images.read(index)
            self._kept[index].flags.writeable = False
        return self._kept[index]

    def name(self, index: int) -> str:
        """See ``Images.name``."""
        return self._images.name(index)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file, upright; a file that is not a whole image is refused, not guessed at.

    Args:
        path: a JPEG, PNG, BMP, PPM, TIFF or WebP file, whatever its ending.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ValueError: the file is missing, corrupt, truncated, or larger than ``MAX_PIXELS``.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of metadata, which some of ImageNet's files have odd
            image = _open(file)
            if image.format == "PNG":  # whose checksums decoding alone does not look at
                image.verify()
                file.seek(0)
                image = _open(file)
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # decoders raise nearly anything on corrupt bytes
        raise ValueError(f"{path}: not a readable image: {error}") from error


def _open(file: IO[bytes]) -> Any:
    image = Image.open(file, formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} × {image.height} is above {MAX_PIXELS} pixels")
    return image
