import math

import pytest
import torch
from torch import Tensor, nn

from backbones.preprocessing import IMAGENET_RGB
from detection.model.anchors import AnchorGenerator, paper_anchors
from detection.model.criterion import RPNCriterion
from detection.model.localization import LocalizationOutput, LocalizationRPN, Localizer
from detection.model.localization_criterion import LocalizationCriterion
from detection.model.matching import Sampler
from detection.model.rpn import RPN
from detection.structures import Target

CLASSES = 5


def target_of(*boxes: list[float]) -> Target:
    count = len(boxes)
    return Target(
        torch.tensor(boxes).reshape(-1, 4), torch.full((count,), 3), torch.zeros(count).bool()
    )


def softplus(logit: float) -> float:
    """The cross-entropy of a negative; a positive's is that of the negated logit."""
    return math.log1p(math.exp(logit))


class Fixed(nn.Module):
    """A localizer of two anchors; a class's logits are 10 times itself, and that plus one."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.rpn = nn.Module()
        self.rpn.classes = classes
        self.asked: list[Tensor] = []
        self.deltas = torch.zeros(4, requires_grad=True)

    def score_anchors(self, images: Tensor, labels: Tensor) -> LocalizationOutput:
        self.asked.append(labels)
        logits = torch.stack((labels / 10, labels / 10 - 1), dim=2)
        anchors = torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80]])
        return LocalizationOutput(logits, self.deltas.expand(*logits.shape, 4), anchors)


IMAGES = torch.zeros(1, 3, 100, 100, dtype=torch.uint8)


def test_the_loss_of_the_own_class_by_hand():
    # The object is the first anchor, moved by 2 pixels = 0.1 widths; IoU 18 / 22.
    losses = LocalizationCriterion()(
        Fixed(), IMAGES, torch.tensor([3]), [target_of([2.0, 0, 22, 20])]
    )
    class_loss, box_loss = (loss.item() for loss in losses)
    assert class_loss == pytest.approx((softplus(-0.3) + softplus(-0.7)) / 2)
    assert box_loss == pytest.approx(0.5 * (3 * 0.1) ** 2 / 2, rel=1e-5)


def test_the_loss_with_another_class_by_hand():
    localizer, target = Fixed(classes=2), target_of([0.0, 0, 20, 20])
    criterion = LocalizationCriterion(other_classes=1)
    class_loss, box_loss = criterion(localizer, IMAGES, torch.tensor([1]), [target])
    # For class 2 both anchors are negatives.
    wanted = (softplus(-0.1) + softplus(-0.9) + softplus(0.2) + softplus(-0.8)) / 4
    assert class_loss.item() == pytest.approx(wanted)
    assert box_loss.item() == 0
    assert localizer.asked[0].tolist() == [[1, 2]]


def test_no_box_trains_the_class_as_background():
    localizer = Fixed()
    class_loss, box_loss = LocalizationCriterion()(
        localizer, IMAGES, torch.tensor([3]), [target_of()]
    )
    assert class_loss.item() == pytest.approx((softplus(0.3) + softplus(-0.7)) / 2)
    assert box_loss.item() == 0
    (gradient,) = torch.autograd.grad(box_loss, localizer.deltas)
    assert not gradient.any()


def test_other_classes_are_others_and_drawn_evenly():
    localizer = Fixed()
    labels = torch.arange(3000) % CLASSES + 1
    criterion = LocalizationCriterion(rpn=lambda *_: None, other_classes=2)
    criterion(localizer, IMAGES.expand(3000, -1, -1, -1), labels, [target_of()] * 3000)
    (asked,) = localizer.asked
    assert torch.equal(asked[:, 0], labels)
    assert all(len(set(row)) == 3 for row in asked.tolist())
    counts = torch.bincount(asked[:, 1:].flatten(), minlength=CLASSES + 1)
    # Expected 1200 of each; 6 standard deviations are 186.
    assert counts[0] == 0
    assert (counts[1:] - 1200).abs().max() < 186


@pytest.mark.parametrize("others", [-1, CLASSES])
def test_a_number_of_classes_that_there_is_not(others: int):
    with pytest.raises(ValueError, match="other_classes"):
        LocalizationCriterion(other_classes=others)(
            Fixed(), IMAGES, torch.tensor([3]), [target_of()]
        )


def test_the_papers_samples():
    criterion = LocalizationCriterion()
    assert criterion.rpn.sampler == Sampler(8, 0.5)
    assert criterion.other_classes == 0


class Trunk(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images, 16)]


def test_it_equals_an_rpn_of_the_class():
    anchors = AnchorGenerator([paper_anchors((32, 64))], [16])
    localizer = Localizer(Trunk(), LocalizationRPN(3, anchors, CLASSES, 8), IMAGENET_RGB)
    with torch.no_grad():
        for parameter in localizer.parameters():
            parameter.normal_()
    localizer.double()
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    targets = [
        Target(
            torch.tensor([[10.0, 20, 50, 60], [50, 50, 90, 90]]).double(), *[torch.zeros(2)] * 2
        ),
        Target(torch.tensor([[0.0, 0, 96, 70]]).double(), *[torch.zeros(1)] * 2),
    ]
    targets = [Target(boxes, labels.long() + 4, ignore.bool()) for boxes, labels, ignore in targets]
    # Samples all anchors, so that nothing is left to chance.
    rule = RPNCriterion(sampler=Sampler(10_000, 0.5), cross_boundary=True)
    losses = LocalizationCriterion(rpn=rule)(localizer, images, torch.tensor([4, 4]), targets)
    plain = RPN(3, anchors, 8).double()
    a = anchors.per_position
    plain.conv = localizer.rpn.conv
    for ours, theirs, values in (
        (localizer.rpn.class_logits, plain.objectness, a),
        (localizer.rpn.deltas, plain.deltas, 4 * a),
    ):
        theirs.weight.data = ours.weight.data[3 * values : 4 * values]
        theirs.bias.data = ours.bias.data[3 * values : 4 * values]
    scale, shift = IMAGENET_RGB.affine()
    normalized = images * scale.view(3, 1, 1) + shift.view(3, 1, 1)
    output = plain(Trunk()(normalized.double()))
    wanted = rule(output, torch.tensor([[96, 96]] * 2), targets)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-7)
