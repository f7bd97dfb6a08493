from pathlib import Path

import numpy as np
import pytest

from backbones.classification.cifar10 import (
    TEST_FILES,
    TRAIN_FILES,
    is_cifar10,
    read_batches,
    read_names,
)


def test_records(cifar):
    root, records = cifar
    assert is_cifar10(root)
    train, test = read_batches(root, TRAIN_FILES), read_batches(root, TEST_FILES)
    assert train.labels.tolist() == records[:20, 0].tolist()
    assert test.labels.tolist() == records[20:, 0].tolist()
    assert train.labels.dtype == np.int64
    image = train.read(7)
    assert image.shape == (32, 32, 3)
    # "The first 1024 bytes are the red channel values, the next 1024 the green, and the final 1024
    # the blue", row by row.
    for row, column in ((0, 0), (0, 31), (5, 9), (31, 31)):
        at = 1 + 32 * row + column
        assert image[row, column].tolist() == records[7, [at, at + 1024, at + 2048]].tolist()


def test_names(cifar):
    root, _ = cifar
    assert read_names(root)[::9] == ("airplane", "truck")
    (root / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"batches\.meta\.txt: expected 10 names, got 2"):
        read_names(root)


@pytest.mark.parametrize("size", [0, 1, 3072, 3073 * 3 + 17])
def test_a_file_that_ends_within_a_record_is_refused(cifar, size: int):
    root, records = cifar
    (root / "data_batch_3.bin").write_bytes(records.tobytes()[:size])
    reason = rf"data_batch_3\.bin: .* got {size % 3073} bytes in record {size // 3073}$"
    with pytest.raises(ValueError, match=reason):
        read_batches(root, TRAIN_FILES)


def test_a_label_above_nine_is_refused(cifar):
    root, records = cifar
    records[18, 0] = 10
    (root / "data_batch_5.bin").write_bytes(records[16:20].tobytes())
    with pytest.raises(ValueError, match=r"data_batch_5\.bin, record 2: .* 0 … 9, got 10$"):
        read_batches(root, TRAIN_FILES)


def test_a_missing_file(tmp_path: Path):
    assert not is_cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match="test_batch"):
        read_batches(tmp_path, TEST_FILES)
