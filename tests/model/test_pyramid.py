import pytest
import torch
from torch import Tensor, nn

from detection.model.pyramid import Scale, maxout_features, propose, see, two_nearest
from detection.model.roi_head import RoIHead
from detection.model.views import resized


@pytest.mark.parametrize(
    ("side", "wanted"),
    [
        (10, {800, 1000}),
        (140, {800, 1000}),  # 187 and 233 there
        (224, {600, 400}),  # 224 and 149, 27,876 off; at 800 it is 299, 39,026 off
        (400, {400, 200}),  # 267 and 133; at 600 it is 400
        (672, {200, 400}),
        (5000, {200, 400}),
    ],
)
def test_the_two_scales_of_a_region(side, wanted):
    scales = torch.tensor([200.0, 400, 600, 800, 1000])
    areas = (side * scales / 600)[None] ** 2  # of a region of this side at 600
    assert {int(scales[row]) for row in two_nearest(areas)[0]} == wanted


def test_the_natural_side_is_an_argument():
    areas = torch.tensor([[50.0, 100.0, 200.0]]) ** 2
    assert set(two_nearest(areas, 200.0)[0].tolist()) == {2, 1}
    assert set(two_nearest(areas, 60.0)[0].tolist()) == {0, 1}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_scales_are_adjacent(count):
    scales = torch.rand(count).sort().values + 0.05
    chosen = two_nearest((torch.rand(200, 1) * 1000 * scales) ** 2)
    assert chosen.shape == (200, min(2, count))
    if count > 1:
        assert (chosen.sort(dim=1).values.diff() == 1).all()


class Corners(nn.Module):
    """A pool that tells the scale, by the level's value, and the roi itself."""

    def forward(self, levels: list[Tensor], rois: Tensor) -> Tensor:
        return torch.cat((levels[0][rois[:, 0].long(), :, 0, 0], rois), dim=1)


def test_maxout_by_hand():
    head = RoIHead(Corners(), nn.Identity(), 7, 1)
    # Two images of 400 x 600 and 400 x 500 at scale 1; the maps' values: one falls, one rises.
    sizes = torch.tensor([[400, 600], [400, 500]])
    values = [(3.0, 1.0), (2.0, 2.0), (1.0, 3.0)]
    scales = [
        Scale([torch.tensor(value).view(1, 2, 1, 1).repeat(2, 1, 1, 1)], own)
        for value, own in zip(values, (sizes // 4, sizes // 2, sizes), strict=True)
    ]
    rois = torch.tensor([[1.0, 8, 16, 48, 56], [0, 8, 0, 408, 400]])  # sides 40 and 400
    features = maxout_features(head, scales, rois, sizes)
    # The small one: scales 1/2 and 1, whose coordinates are the larger. The large one, of sides
    # 100, 200 and 400: 200 and 100.
    wanted = [[2.0, 3, 1, 8, 16, 48, 56], [3, 2, 0, 4, 0, 204, 200]]
    assert torch.equal(features, torch.tensor(wanted))


def test_one_scale_is_the_head(make_detector, make_batch):
    detector, batch = make_detector("context"), make_batch((96, 128), (80, 100))
    rois = torch.tensor([[0.0, 3, 4, 50, 60], [1, 10, 10, 90, 70]], dtype=torch.float64)
    with torch.no_grad():
        scale = see(detector, batch)
        features = maxout_features(detector.roi_head, [scale], rois, batch.sizes)
        wanted = detector.roi_head.features(scale.levels, rois, batch.sizes)
    assert torch.equal(features, wanted)


def test_no_regions_have_no_features(make_detector, make_batch):
    detector, batch = make_detector("c4"), make_batch((96, 128))
    with torch.no_grad():
        scales = [see(detector, resized(batch, factor)) for factor in (0.5, 1.0)]
        rois = torch.zeros(0, 5, dtype=torch.float64)
        features = maxout_features(detector.roi_head, scales, rois, batch.sizes)
    assert features.shape == (0, detector.roi_head.class_logits.in_features)


def test_regions_of_another_scale_are_in_pixels_of_the_batch(make_detector, make_batch):
    detector, batch = make_detector("c4"), make_batch((96, 128), (80, 100))
    with torch.no_grad():
        small = resized(batch, 0.7)
        scale = see(detector, small)
        own = detector.rpn.propose(detector.rpn(scale.levels), small.sizes, detector.proposals)
        found = propose(detector, scale, batch.sizes)
    assert small.sizes.tolist() == [[67, 90], [56, 70]]
    for image, (height, width) in enumerate([(96 / 67, 128 / 90), (80 / 56, 100 / 70)]):
        wanted = own.boxes[image] * torch.tensor([width, height, width, height])
        torch.testing.assert_close(found.boxes[image], wanted.double(), rtol=1e-6, atol=1e-5)
    assert torch.equal(found.valid, own.valid)
