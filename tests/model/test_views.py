import numpy as np
import pytest
import torch
from PIL import Image

from detection.model.views import mirrored, resized, unmirrored
from detection.structures import Batch, Detections


def test_a_factor_of_one_changes_nothing(make_batch):
    batch = make_batch((64, 96), (40, 50))
    assert resized(batch, 1.0) is batch


@pytest.mark.parametrize("factor", [0.31, 0.5, 1.7])
def test_pixels_are_pillows(factor, make_batch):
    batch = make_batch((64, 96), (41, 50))
    small = resized(batch, factor)
    assert small.images.dtype == torch.uint8
    for image, (height, width) in enumerate([(64, 96), (41, 50)]):
        rows, columns = round(height * factor), round(width * factor)
        assert small.sizes[image].tolist() == [rows, columns]
        pixels = batch.images[image, :, :height, :width].permute(1, 2, 0).numpy()
        peer = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        own = small.images[image, :, :rows, :columns].permute(1, 2, 0).numpy()
        difference = own.astype(int) - np.asarray(peer).astype(int)
        assert abs(difference).max() <= 1  # its arithmetic is in integers
        assert not small.images[image, :, rows:].any()
        assert not small.images[image, :, :, columns:].any()
    assert torch.equal(small.original_sizes, batch.original_sizes)
    assert torch.equal(small.image_ids, batch.image_ids)


def test_padding_does_not_darken_the_border():
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, :, :50, :40] = 200
    sizes = torch.tensor([[50, 40]])
    small = resized(Batch(images, sizes, sizes, torch.arange(1)), 0.5)
    assert small.images.shape == (1, 3, 32, 32)
    assert (small.images[:, :, :25, :20] == 200).all()


def test_batches_are_padded_to_multiples(make_batch):
    batch = make_batch((64, 96), (41, 50))
    assert resized(batch, 0.5).images.shape == (2, 3, 32, 64)
    assert resized(batch, 0.5, divisible=1).images.shape == (2, 3, 32, 48)
    assert resized(batch, 0.001).sizes.tolist() == [[1, 1], [1, 1]]


def test_an_image_is_mirrored_within_its_size(make_batch):
    batch = make_batch((8, 6), (8, 4))
    mirror = mirrored(batch)
    assert torch.equal(mirror.images[0], batch.images[0].flip(2))
    assert torch.equal(mirror.images[1, :, :, :4], batch.images[1, :, :, :4].flip(2))
    assert not mirror.images[1, :, :, 4:].any()
    assert torch.equal(mirrored(mirror).images, batch.images)


def test_boxes_are_mirrored_back_by_hand():
    boxes = torch.tensor([[[10.0, 5, 30, 20], [0, 0, 0, 0]], [[0.0, 1, 50, 2], [10, 0, 20, 9]]])
    found = Detections(
        boxes, torch.tensor([[0.5, 0.0], [0.5, 0.4]]), torch.tensor([[1, 0], [1, 2]])
    )
    back = unmirrored(found, torch.tensor([[40, 100], [40, 50]]))
    wanted = torch.tensor([[[70.0, 5, 90, 20], [0, 0, 0, 0]], [[0.0, 1, 50, 2], [30, 0, 40, 9]]])
    assert torch.equal(back.boxes, wanted)
    assert torch.equal(back.scores, found.scores)
    assert torch.equal(back.labels, found.labels)
