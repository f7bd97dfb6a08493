import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.preprocessing import IMAGENET_RGB
from detection.boxes import encode
from detection.model.anchors import AnchorGenerator, corner_anchors
from detection.model.localization import (
    Candidates,
    LocalizationOutput,
    LocalizationRPN,
    Localizer,
    candidates,
    choose,
)
from detection.structures import Views

CLASSES, ANCHORS = 4, 3


@pytest.fixture
def rpn() -> LocalizationRPN:
    anchors = AnchorGenerator([corner_anchors((16,))], (8,))
    found = LocalizationRPN(6, anchors, CLASSES, width=10).double()
    for layer in (found.class_logits, found.deltas):
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return found


def every_class(images: int) -> Tensor:
    return torch.arange(1, CLASSES + 1).expand(images, CLASSES)


def test_all_classes_are_two_ordinary_convolutions(rpn: LocalizationRPN):
    level = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    logits, deltas, anchors = rpn(level, every_class(2))
    assert logits.shape == (2, CLASSES, 5 * 7 * ANCHORS)
    assert deltas.shape == (2, CLASSES, 5 * 7 * ANCHORS, 4)
    assert anchors.shape == (5 * 7 * ANCHORS, 4)
    hidden = rpn.conv(level).relu()
    # The channels count classes, then anchors, then deltas; anchors count positions first.
    maps = rpn.class_logits(hidden).view(2, CLASSES, ANCHORS, 5, 7)
    for position, (y, x) in {0: (0, 0), 10: (1, 3), 34: (4, 6)}.items():
        rows = slice(position * ANCHORS, (position + 1) * ANCHORS)
        torch.testing.assert_close(logits[:, :, rows], maps[..., y, x])
        wanted = rpn.deltas(hidden).view(2, CLASSES, ANCHORS, 4, 5, 7)[..., y, x]
        torch.testing.assert_close(deltas[:, :, rows], wanted)
        middle = anchors[rows].view(-1, 2, 2).mean(1)
        assert torch.equal(middle, torch.tensor([[x * 8.0, y * 8.0]] * ANCHORS))


def test_each_image_is_asked_for_its_own_classes(rpn: LocalizationRPN):
    level = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    everything = rpn(level, every_class(3))
    labels = torch.tensor([[2, 4], [1, 1], [4, 2]])
    some = rpn(level, labels)
    for image, asked in enumerate(labels - 1):
        torch.testing.assert_close(some.class_logits[image], everything.class_logits[image][asked])
        torch.testing.assert_close(some.deltas[image], everything.deltas[image][asked])


def test_it_runs_in_half_precision_and_answers_in_float32(rpn: LocalizationRPN):
    with torch.autocast("cpu", torch.bfloat16):
        logits, deltas, _ = rpn.float()(torch.randn(1, 6, 4, 4), torch.tensor([[3]]))
    assert logits.dtype == deltas.dtype == torch.float32


def test_gradients(rpn: LocalizationRPN):
    level = torch.randn(2, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[2], [4]])

    def outputs(level: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return rpn(level, labels)[:2]

    assert torch.autograd.gradcheck(outputs, (level, *rpn.parameters()), fast_mode=True)
    loss = sum(output.square().sum() for output in outputs(level))
    loss.backward()
    for layer in (rpn.class_logits, rpn.deltas):
        moved = layer.weight.grad.view(CLASSES, -1).abs().sum(1) > 0
        assert moved.tolist() == [False, True, False, True]


def test_initial_weights():
    rpn = LocalizationRPN(8, AnchorGenerator([corner_anchors((16,))], (8,)), 5)
    assert (rpn.classes, rpn.conv.out_channels, rpn.class_logits.out_channels) == (5, 512, 15)
    for layer in (rpn.conv, rpn.class_logits, rpn.deltas):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not layer.bias.any()


def output_of(boxes: list[list[float]], logits: list[float]) -> LocalizationOutput:
    """An output for one image and class whose anchors are refined to the given boxes."""
    anchors = torch.tensor([[40.0, 40.0, 60.0, 60.0]]).expand(len(boxes), 4)
    deltas = encode(torch.tensor(boxes), anchors)
    return LocalizationOutput(torch.tensor([[logits]]), deltas[None, None], anchors)


def test_candidates_by_hand():
    # A view of 100 pixels that shows 50 pixels of the image, from (30, 10) on: half the scale.
    view = Views(torch.zeros(1, 3, 80, 100, dtype=torch.uint8), torch.tensor([[30.0, 10, 80, 50]]))
    output = output_of([[20, 30, 40, 70], [-10, 10, 50, 96]], [0.0, 100.0])
    boxes, scores = candidates(output, view)
    # The second is cut at the left and at the bottom of the view.
    wanted = torch.tensor([[[[40.0, 25, 50, 45], [30, 15, 55, 50]]]])
    torch.testing.assert_close(boxes, wanted)
    assert scores.tolist() == [[[0.5, 1.0]]]


def test_each_image_has_its_own_frame():
    frames = torch.tensor([[0.0, 0, 100, 100], [10, 20, 210, 220]])
    one = output_of([[20, 30, 40, 70]], [0.0])
    output = LocalizationOutput(
        one.class_logits.expand(2, 3, 1), one.deltas.expand(2, 3, 1, 4), one.anchors
    )
    boxes, _ = candidates(output, Views(torch.zeros(2, 3, 100, 100), frames))
    assert boxes.shape == (2, 3, 1, 4)
    torch.testing.assert_close(boxes[0, 2, 0], torch.tensor([20.0, 30, 40, 70]))
    torch.testing.assert_close(boxes[1, 2, 0], torch.tensor([50.0, 80, 90, 160]))


# Against (0, 0, 10, 10) the second has IoU 80 / 100 and the third 50 / 100; the fourth is far away.
BOXES = [[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 5, 10], [50, 50, 60, 60]]


def found(*scores: float) -> Candidates:
    return Candidates(torch.tensor([[BOXES[: len(scores)]]]), torch.tensor([[scores]]))


def test_the_best_box_is_chosen():
    boxes, scores = choose(found(0.5, 0.75, 0.25, 0.7))
    assert boxes.tolist() == [[BOXES[1]]]
    assert scores.tolist() == [[0.75]]


@pytest.mark.parametrize(
    ("merge", "wanted"),
    [
        (0.9, [0.0, 0, 10, 10]),
        # (0.8 · 10 + 0.4 · 8) / 1.2, and with the third, (0.8 · 10 + 0.4 · 8 + 0.2 · 10) / 1.4
        (0.75, [0.0, 0, 10, 11.2 / 1.2]),
        (0.5, [0.0, 0, 13 / 1.4, 13.2 / 1.4]),
    ],
)
def test_boxes_near_the_best_one_vote(merge: float, wanted: list[float]):
    boxes, scores = choose(found(0.8, 0.4, 0.2, 0.7), merge)
    torch.testing.assert_close(boxes[0, 0], torch.tensor(wanted))
    assert scores.item() == pytest.approx(0.8)


def test_an_empty_box_is_its_own_only_voter():
    empty = Candidates(
        torch.tensor([[[[5.0, 5, 5, 9], [5, 5, 5, 9]]]]), torch.tensor([[[0.9, 0.8]]])
    )
    assert choose(empty, 0.5).boxes.tolist() == [[[5, 5, 5, 9]]]


class Trunk(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, 8).repeat(1, 2, 1, 1)]


@pytest.fixture
def localizer(rpn: LocalizationRPN) -> Localizer:
    return Localizer(Trunk(), rpn, IMAGENET_RGB).double()


def views_of(images: int, *sizes: tuple[int, int]) -> list[Views]:
    """Views of noise that all show the same 60 x 90 pixels."""
    frames = torch.tensor([[0.0, 0, 90, 60]]).expand(images, 4)
    return [
        Views(torch.randint(256, (images, 3, *size), dtype=torch.uint8), frames) for size in sizes
    ]


def test_a_batch_is_its_images(localizer: Localizer):
    views, labels = views_of(3, (64, 96), (128, 192)), torch.tensor([[1, 4], [2, 2], [3, 1]])
    boxes, scores = localizer(views, labels)
    assert boxes.shape == (3, 2, 4)
    assert (boxes[..., 2:] <= torch.tensor([90, 60])).all()
    assert (boxes >= 0).all()
    for image in range(3):
        alone = [Views(*(field[[image]] for field in view)) for view in views]
        one = localizer(alone, labels[[image]])
        torch.testing.assert_close(one.boxes[0], boxes[image])
        torch.testing.assert_close(one.scores[0], scores[image])


def test_the_best_view_wins(localizer: Localizer):
    views, labels = views_of(8, (64, 96), (128, 192)), every_class(8)
    both = localizer(views, labels)
    alone = [localizer([view], labels) for view in views]
    second = alone[1].scores > alone[0].scores
    assert second.any()
    assert not second.all()
    wanted = torch.where(second[..., None], alone[1].boxes, alone[0].boxes)
    torch.testing.assert_close(both.boxes, wanted)


def test_images_are_normalised_as_the_weights_expect(localizer: Localizer):
    seen = []
    localizer.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    localizer.score_anchors(pixels, torch.tensor([[1]]))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = (torch.tensor([0, 128, 255]) / 255 - mean) / std
    torch.testing.assert_close(seen[0][0, :, 5, 5].float(), wanted, rtol=1e-5, atol=1e-5)
    reverse = Localizer(localizer.trunk, localizer.rpn, IMAGENET_RGB._replace(order="bgr")).double()
    reverse.score_anchors(pixels.flip(1), torch.tensor([[1]]))
    assert torch.equal(seen[0], seen[1])
