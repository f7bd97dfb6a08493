"""CIFAR-10 in its official binary form, https://www.cs.toronto.edu/~kriz/cifar.html.

A record is a byte of label and 3072 bytes of pixels: 32×32 red, then green, then blue.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backbones.classification.images import ArrayImages

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
NAMES_FILE = "batches.meta.txt"

CLASSES = 10
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE


def is_cifar10(root: Path) -> bool:
    """Whether a folder holds the binary batches, or any of them."""
    return any((root / name).exists() for name in (*TRAIN_FILES, *TEST_FILES, NAMES_FILE))


def read_names(root: Path) -> tuple[str, ...]:
    """Read the names of the classes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold ten names.
    """
    path = root / NAMES_FILE
    names = tuple(path.read_text(encoding="utf-8").split())
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise ValueError(f"{path}: expected {CLASSES} names, got {len(names)}: {names[:12]}")
    return names


def read_batches(root: Path, files: tuple[str, ...]) -> ArrayImages:
    """Read batches, one after another.

    Args:
        root: the folder ``cifar-10-batches-bin``.
        files: ``TRAIN_FILES`` or ``TEST_FILES``.

    Returns:
        The images, 32×32.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is empty, ends within a record, or has a label above 9.
    """
    records = np.concatenate([_records(root / name) for name in files])
    pixels = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return ArrayImages(np.ascontiguousarray(pixels), records[:, 0].astype(np.int64))


def _records(path: Path) -> NDArray[np.uint8]:
    """(N, 3073) uint8."""
    content = np.fromfile(path, dtype=np.uint8)
    count, rest = divmod(len(content), _RECORD)
    if rest or not count:
        raise ValueError(
            f"{path}: expected records of {_RECORD} bytes, got {rest} bytes in record {count}"
        )
    records = content.reshape(count, _RECORD)
    if len(wrong := np.flatnonzero(records[:, 0] >= CLASSES)):
        label = records[wrong[0], 0]
        raise ValueError(f"{path}, record {wrong[0]}: expected a label of 0 … 9, got {label}")
    return records
