from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def cifar(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, NDArray[np.uint8]]:
    """Batches of 4 in the official form, and the 24 records, the test batch's last."""
    records = rng.integers(0, 256, (24, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for i, name in enumerate(files):
        (tmp_path / name).write_bytes(records[4 * i : 4 * i + 4].tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")  # as the official one
    return tmp_path, records


@pytest.fixture
def image_folder(tmp_path: Path, rng: np.random.Generator) -> Callable[..., Path]:
    """Write a folder per split and class, with images of noise; returns the root."""

    def write(root: str = "folder", **splits: int) -> Path:
        for split, count in splits.items():
            for name in ("cat", "dog"):
                folder = tmp_path / root / split / name
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 256, (40, 52, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return tmp_path / root

    return write
