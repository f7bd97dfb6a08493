import numpy as np
import pytest

from backbones.classification.order import TrainBatches


def batches(count: int = 23, size: int = 4, **options) -> TrainBatches:
    return TrainBatches(np.arange(100, 100 + count), size, **options)


def test_an_epoch_has_no_image_twice():
    found = list(batches())
    assert len(found) == len(batches()) == 5
    images = [image for batch in found for image, *_ in batch]
    assert len(set(images)) == 20
    assert set(images) <= set(range(100, 123))


def test_processes_share_an_epoch():
    parts = [list(batches(rank=rank, world=2)) for rank in range(2)]
    images = [image for part in parts for batch in part for image, *_ in batch]
    assert len(images) == len(set(images)) == 16


def test_the_order_follows_from_seed_and_epoch():
    one, other = batches(), batches()
    assert list(one) == list(other)
    other.seek(5)
    assert list(one) != list(other)
    assert list(batches(seed=1)) != list(one)
    assert {draw[1:] for batch in other for draw in batch} == {(0, 1)}


def test_a_position_continues_the_stream():
    whole, later = batches(), batches()
    stream = list(whole)
    whole.seek(5)
    stream += list(whole)
    later.seek(3)
    assert list(later) == stream[3:8]


def test_few_images():
    assert [len(batch) for batch in batches(3)] == [3]
    with pytest.raises(ValueError, match="1 training images do not feed 2"):
        batches(1, world=2)
