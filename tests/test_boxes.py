import math

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from detection.boxes import MAX_LOG_SCALE, at_least_float32, clip, decode, encode

STDS = [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2), (0.5, 2.0, 0.25, 4.0)]


def random_boxes(*shape: int) -> torch.Tensor:
    corners = torch.rand(*shape, 2, dtype=torch.float64) * 500
    sides = torch.rand(*shape, 2, dtype=torch.float64) * 200 + 1
    return torch.cat((corners, corners + sides), dim=-1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("shape", [(0,), (300,), (2, 7)])
def test_decode_inverts_encode(shape, std):
    references = random_boxes(*shape)
    # Within the bound on scales, at most 62.5 times the reference.
    boxes = references + random_boxes(*shape) * 0.01
    decoded = decode(encode(boxes, references, std), references, std)
    torch.testing.assert_close(decoded, boxes, rtol=1e-12, atol=1e-12 * 500)


def test_a_hand_computed_encoding():
    reference = torch.tensor([10.0, 20.0, 30.0, 60.0])  # centre (20, 40), 20 x 40
    box = torch.tensor([20.0, 20.0, 60.0, 40.0])  # centre (40, 30), 40 x 20
    deltas = torch.tensor([20 / 20, -10 / 40, math.log(2), -math.log(2)])
    torch.testing.assert_close(encode(box, reference), deltas)
    torch.testing.assert_close(
        encode(box, reference, (0.1, 0.1, 0.2, 0.2)), deltas / torch.tensor([0.1, 0.1, 0.2, 0.2])
    )
    torch.testing.assert_close(decode(deltas, reference), box)


@pytest.mark.parametrize("std", STDS)
def test_equals_torchvision(std):
    references, boxes = random_boxes(200), random_boxes(200)
    coder = BoxCoder(tuple(1 / value for value in std))
    deltas = encode(boxes, references, std)
    torch.testing.assert_close(deltas, coder.encode_single(boxes, references), rtol=0, atol=1e-12)
    deltas = torch.randn(200, 4, dtype=torch.float64) * 3
    wanted = coder.decode_single(deltas, references)
    torch.testing.assert_close(decode(deltas, references, std), wanted, rtol=1e-12, atol=1e-9)


def test_scales_are_bounded_above_only():
    reference = torch.tensor([0.0, 0.0, 16.0, 16.0], dtype=torch.float64)
    deltas = torch.tensor([0.0, 0.0, 1e6, -2.0], dtype=torch.float64)
    x1, y1, x2, y2 = decode(deltas, reference)
    assert (x2 - x1).item() == pytest.approx(1000, rel=1e-12)
    assert (y2 - y1).item() == pytest.approx(16 * math.exp(-2), rel=1e-12)
    assert pytest.approx(math.log(62.5)) == MAX_LOG_SCALE


def test_the_scale_is_bounded_after_the_standard_deviation():
    reference = torch.tensor([0.0, 0.0, 16.0, 16.0])
    # 10 is above the bound, 10 * 0.2 = 2 is not.
    x1, _, x2, _ = decode(torch.tensor([0.0, 0.0, 10.0, 0.0]), reference, (0.1, 0.1, 0.2, 0.2))
    assert (x2 - x1).item() == pytest.approx(16 * math.exp(2), rel=1e-6)


def test_clip_by_hand():
    sizes = torch.tensor([[100, 200], [50, 60]])
    boxes = torch.tensor([[-5.0, -6.0, 250.0, 150.0], [10.0, 20.0, 30.0, 40.0]]).expand(2, 2, 4)
    wanted = torch.tensor(
        [
            [[0.0, 0.0, 200.0, 100.0], [10.0, 20.0, 30.0, 40.0]],
            [[0.0, 0.0, 60.0, 50.0], [10.0, 20.0, 30.0, 40.0]],
        ]
    )
    assert torch.equal(clip(boxes, sizes), wanted)
    # Any leading dimensions: a box per class, and a single box per image.
    assert torch.equal(clip(boxes[:, :, None], sizes), wanted[:, :, None])
    assert torch.equal(clip(boxes[:, 0], sizes), wanted[:, 0])
    outside = torch.tensor([[[300.0, -20.0, 400.0, -10.0]]])
    assert torch.equal(clip(outside, sizes[:1]), torch.tensor([[[200.0, 0.0, 200.0, 0.0]]]))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_boxes_are_at_least_float32(given, wanted):
    assert at_least_float32(torch.zeros(1, dtype=given)).dtype == wanted
