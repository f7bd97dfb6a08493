import pytest
import torch
from torchvision.ops import nms

from detection.model.suppression import keep_mask


def random_boxes(count: int, extent: float) -> torch.Tensor:
    corners = torch.rand(count, 2) * extent
    return torch.cat((corners, corners + torch.rand(count, 2) * 40 + 10), dim=1)


# In 2000 pixels few boxes touch; in 20 nearly all do, and the search widens many times.
@pytest.mark.parametrize("extent", [2000.0, 150.0, 20.0])
@pytest.mark.parametrize("limit", [1, 10, 400, 5000])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_equals_torchvision_up_to_the_limit(extent, limit, threshold):
    boxes = torch.stack([random_boxes(1000, extent) for _ in range(2)])
    keep = keep_mask(boxes, torch.ones(2, 1000, dtype=torch.bool), threshold, limit)
    assert keep.shape == (2, 1000)
    for mask, image_boxes in zip(keep, boxes, strict=True):
        wanted = nms(image_boxes, torch.linspace(1, 0, 1000), threshold)
        assert torch.equal(mask.nonzero().squeeze(1)[:limit], wanted[:limit])


def test_invalid_rows_are_not_kept_and_do_not_suppress():
    boxes = random_boxes(300, 100.0)
    valid = torch.rand(300) < 0.5
    boxes[~valid] = torch.nan
    (keep,) = keep_mask(boxes[None], valid[None], 0.5, 50)
    rows = valid.nonzero().squeeze(1)
    wanted = rows[nms(boxes[valid], torch.arange(len(rows), 0, -1.0), 0.5)]
    assert torch.equal(keep.nonzero().squeeze(1)[:50], wanted[:50])
    assert not keep[~valid].any()


def test_the_threshold_itself_does_not_suppress():
    # IoU 0.5: 10 of 20 pixels.
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 1.0], [0.0, 0.0, 10.0, 1.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert keep_mask(boxes, valid, 0.5, 2).tolist() == [[True, True]]
    assert keep_mask(boxes, valid, 0.499, 2).tolist() == [[True, False]]


@pytest.mark.parametrize(("batch", "count"), [(2, 0), (0, 5), (2, 5)])
def test_nothing_to_keep(batch, count):
    boxes = torch.zeros(batch, count, 4)
    keep = keep_mask(boxes, torch.zeros(batch, count, dtype=torch.bool), 0.5, 10)
    assert keep.shape == (batch, count)
    assert not keep.any()
