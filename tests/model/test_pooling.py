from collections import OrderedDict

import pytest
import torch
from torchvision import ops

from detection.model.pooling import RoIAlign, RoIPool

# Of a map of 12 x 17 cells with stride 8: 96 x 136 pixels.
HEIGHT, WIDTH, STRIDE = 12, 17, 8
EDGE_CASES = torch.tensor(
    [
        [0, 0, 0, 136, 96],  # the whole image
        [1, 20, 30, 20, 30],  # no area
        [0, 20, 30, 20, 60],  # no width
        [2, 50, 40, 50.3, 40.2],  # tiny
        [0, -40, -30, 20, 25],  # partly outside, on each side
        [1, 120, 80, 200, 170],
        [2, -300, -300, -200, -250],  # outside
        [0, 136, 96, 180, 140],
        [1, 500, 10, 600, 50],
        [2, 60, 50, 30, 20],  # inverted
        [0, -12, -12, -4, -4],  # around the line at -1 cell where samples stop to count
        [1, 132, 92, 144, 104],
    ],
    dtype=torch.float64,
)


def random_rois(count: int, images: int, extent: float) -> torch.Tensor:
    index = torch.randint(images, (count, 1)).double()
    corners = torch.rand(count, 2, dtype=torch.float64) * 1.4 * extent - 0.2 * extent
    sides = torch.rand(count, 2, dtype=torch.float64) ** 2 * extent
    return torch.cat((index, corners, corners + sides), dim=1)


def values_and_gradients(pool, levels, rois):
    leaves = [level.clone().requires_grad_() for level in levels]
    pooled = pool(leaves, rois)
    weights = torch.linspace(-1, 1, max(pooled.numel(), 1)).to(pooled)[: pooled.numel()]
    loss = (pooled * weights.view(pooled.shape)).sum()
    return pooled, torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("size", "sampling_ratio"), [(7, 2), (14, 1), (3, 4)])
def test_roi_align_equals_torchvision(size, sampling_ratio, aligned, dtype, tolerance):
    level = torch.randn(3, 5, HEIGHT, WIDTH).to(dtype)
    rois = torch.cat((EDGE_CASES, random_rois(200, 3, 130.0))).to(dtype)
    pool = RoIAlign(size, [STRIDE], sampling_ratio, aligned)

    def peer(levels, rois):
        return ops.roi_align(levels[0], rois, size, 1 / STRIDE, sampling_ratio, aligned)

    ours, (our_gradient,) = values_and_gradients(pool, [level], rois)
    theirs, (their_gradient,) = values_and_gradients(peer, [level], rois)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    # A cell's gradient sums up to a few hundred bins.
    scale = their_gradient.abs().max().item()
    torch.testing.assert_close(our_gradient, their_gradient, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_does_not_matter(memory_format):
    level = torch.randn(2, 5, HEIGHT, WIDTH).to(memory_format=memory_format)
    rois = random_rois(50, 2, 130.0).float()
    wanted = ops.roi_align(level.contiguous(), rois, 7, 1 / STRIDE, 2)
    torch.testing.assert_close(RoIAlign(7, [STRIDE])([level], rois), wanted, rtol=0, atol=1e-5)


def pyramid_levels() -> list[torch.Tensor]:
    """P2 … P6 of two images of 256 x 384 pixels."""
    return [
        torch.randn(2, 4, 256 // stride, 384 // stride, dtype=torch.float64)
        for stride in (4, 8, 16, 32, 64)
    ]


def test_several_levels_equal_torchvision():
    levels = pyramid_levels()
    rois = random_rois(300, 2, 400.0)
    # Sides on and around the limits between levels, and beyond the first and the last.
    for row, side in enumerate((1, 111.9999, 112, 112.0001, 224, 223.9, 448, 447.9, 900, 2000)):
        rois[row, 3:] = rois[row, 1:3] + side
    rois = rois[rois[:, 0].argsort(stable=True)]  # torchvision takes a list, image by image
    names = ["p2", "p3", "p4", "p5"]
    peer = ops.MultiScaleRoIAlign(names, 7, 2)

    def pool_peer(levels, rois):
        maps = OrderedDict(zip([*names, "p6"], levels, strict=True))
        boxes = [rois[rois[:, 0] == image, 1:] for image in range(2)]
        return peer(maps, boxes, [(256, 384)] * 2)

    ours, our_gradients = values_and_gradients(RoIAlign(7, (4, 8, 16, 32)), levels, rois)
    theirs, their_gradients = values_and_gradients(pool_peer, levels, rois)
    assert [bool(gradient.any()) for gradient in our_gradients] == [True] * 4 + [False]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-12, atol=1e-10)


def test_a_region_keeps_its_row_whatever_its_level():
    levels = [torch.full((1, 1, 256 // s, 256 // s), float(s)) for s in (4, 8, 16, 32)]
    sides = torch.tensor([240.0, 20.0, 120.0, 20.0])
    rois = torch.nn.functional.pad(sides[:, None].expand(-1, 2), (3, 0))
    pooled = RoIAlign(2, (4, 8, 16, 32))(levels, rois)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == [16.0, 4.0, 8.0, 4.0]


def test_rounding_does_not_move_a_region_to_another_level():
    levels = [torch.full((1, 1, 1280 // s, 1280 // s), float(s)) for s in (4, 8, 16, 32)]
    corners = torch.rand(1000, 2) * 1000
    rois = torch.nn.functional.pad(torch.cat((corners, corners + 224), dim=1), (1, 0))
    assert ((rois[:, 3:] - rois[:, 1:3]) < 224).any()
    pooled = RoIAlign(2, (4, 8, 16, 32))(levels, rois)
    torch.testing.assert_close(pooled, torch.full_like(pooled, 16))


def test_roi_pool_equals_torchvision():
    level = torch.randn(3, 5, HEIGHT, WIDTH, dtype=torch.float64)
    rois = torch.cat((EDGE_CASES, random_rois(100, 3, 130.0)))
    ours = values_and_gradients(RoIPool(7, STRIDE), [level], rois)
    theirs = values_and_gradients(
        lambda levels, rois: ops.roi_pool(levels[0], rois, 7, 1 / STRIDE), [level], rois
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_roi_pool_by_hand():
    # Cells 0 … 15 of a 4 x 4 map with stride 16; a half-open region of 2 x 2 cells ends in the
    # pixel 32, which rounds to cell 2: torchvision pools cells 0 … 2.
    level = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = RoIPool(1, 16)([level], torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]]))
    assert pooled.item() == 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("pool", [RoIPool(7, 4), RoIAlign(7, (4,)), RoIAlign(7, (4, 8, 16, 32))])
def test_no_regions_and_half_precision(pool, dtype):
    count = len(getattr(pool, "strides", (4,)))
    levels = [level.to(dtype) for level in pyramid_levels()[:count]]
    for regions in (0, 2):
        rois = torch.tensor([[0.0, 5.0, 5.0, 60.0, 60.0], [1.0, 3.0, 5.0, 300.0, 300.0]])[:regions]
        pooled, gradients = values_and_gradients(pool, levels, rois)
        assert pooled.shape == (regions, 4, 7, 7)
        assert pooled.dtype == torch.float32
        assert all(gradient.dtype == dtype for gradient in gradients)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients) == (regions > 0)
