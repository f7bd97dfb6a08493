import math

import pytest
import torch

from detection.model.criterion import RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.roi_head import DELTA_STD, RoIOutput
from detection.model.rpn import Proposals, RPNOutput
from detection.structures import Target

SIZES = torch.tensor([[100, 100]])


def target_of(*boxes: list[float], ignore: tuple[bool, ...] = ()) -> Target:
    count = len(boxes)
    flags = torch.tensor(ignore or [False] * count, dtype=torch.bool)
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.arange(count) + 1, flags)


def softplus(logit: float) -> float:
    """The cross-entropy of a negative; a positive's is that of the negated logit."""
    return math.log1p(math.exp(logit))


def test_rpn_losses_by_hand():
    anchors = torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80], [0, 0, 20, 10]])
    deltas = torch.tensor([[[0.05, 1.0, 0.0, 0.0], [9, 9, 9, 9], [9, 9, 9, 9]]])
    # The object is the first anchor, moved by 2 pixels = 0.1 widths; IoU 18 / 22. The third
    # anchor's IoU is 180 / 400 + 200 - 180 = 0.43: between. Over two levels.
    output = RPNOutput(
        [torch.tensor([[1.5, -0.5]]), torch.tensor([[7.0]])],
        [deltas[:, :2], deltas[:, 2:]],
        [anchors[:2], anchors[2:]],
    )
    objectness, box = RPNCriterion()(output, SIZES, [target_of([2.0, 0, 22, 20])])
    assert objectness.item() == pytest.approx((softplus(-1.5) + softplus(-0.5)) / 2, rel=1e-6)
    # |0.05 - 0.1| < 1/9 is quadratic, 0.5 (3 x)^2; 1.0 is linear, x - 0.5 / 9.
    wanted = (0.5 * (3 * 0.05) ** 2 + 1.0 - 0.5 / 9) / 2
    assert box.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("cross_boundary", "trained"), [(False, 2), (True, 6)])
def test_anchors_that_leave_the_image_do_not_train(cross_boundary, trained):
    anchors = torch.tensor(
        [
            [0.0, 0, 100, 100],  # touches every side: inside
            [10, 10, 30, 30],
            [-1, 10, 20, 20],
            [10, -1, 20, 20],
            [10, 10, 101, 20],
            [10, 10, 20, 101],
        ]
    )
    logits = torch.zeros(1, 6, requires_grad=True)
    output = RPNOutput([logits], [torch.zeros(1, 6, 4)], [anchors])
    loss, _ = RPNCriterion(cross_boundary=cross_boundary)(output, SIZES, [target_of()])
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.count_nonzero() == trained
    assert gradient[0, :2].all()


def test_the_image_that_bounds_anchors_is_not_the_padded_batch():
    anchors = torch.tensor([[0.0, 0, 50, 50]])
    output = RPNOutput([torch.zeros(2, 1)], [torch.zeros(2, 1, 4)], [anchors])
    sizes = torch.tensor([[100, 100], [49, 100]])
    loss, _ = RPNCriterion()(output, sizes, [target_of(), target_of()])
    assert loss.item() == pytest.approx(math.log(2))  # a mean over one anchor


def test_the_rpn_mean_is_over_all_images_samples():
    anchors = torch.tensor([[0.0, 0, 20, 20], [60, 60, 80, 80]])
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    output = RPNOutput([logits], [torch.zeros(2, 2, 4)], [anchors])
    targets = [target_of([0.0, 0, 20, 20]), target_of()]
    loss, box = RPNCriterion()(output, SIZES.repeat(2, 1), targets)
    wanted = (softplus(-1) + softplus(2) + softplus(3) + softplus(4)) / 4
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    assert box.item() == 0


PROPOSALS = Proposals(
    torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 4], [0, 0, 10, 0.8], [50, 50, 60, 60], [0] * 4]]),
    torch.tensor([[True, True, True, True, False]]),
)


@pytest.mark.parametrize(
    ("background", "found"),
    [
        ((0.1, 0.5), [[0, 0, 10, 4]]),
        ((0.0, 0.5), [[0, 0, 10, 4], [0, 0, 10, 0.8], [50, 50, 60, 60]]),
    ],
)
def test_sampled_regions(background, found):
    target = target_of([0.0, 0, 10, 9], [20.0, 20, 30, 30])
    rois, labels, boxes = RoICriterion(background=background).sample(PROPOSALS, [target])
    # The proposal of IoU 0.9, and the two objects themselves; then the background.
    positives = [[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]
    assert torch.equal(rois[:, 1:], torch.tensor(positives + found))
    assert not rois[:, 0].any()
    assert labels.tolist() == [1, 1, 2] + [0] * len(found)
    own = [[0.0, 0, 10, 9], [0, 0, 10, 9], [20, 20, 30, 30]]
    assert torch.equal(boxes, torch.tensor(own + found))


def test_ignored_regions_are_no_proposals():
    target = target_of([50.0, 50, 90, 90], [0.0, 0, 10, 10], ignore=(True, False))
    rois, labels, _ = RoICriterion(background=(0.0, 0.5)).sample(PROPOSALS, [target])
    # Nor is what lies in them background: the proposal at (50, 50) is missing.
    wanted = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 4], [0, 0, 10, 0.8]]
    assert torch.equal(rois[:, 1:], torch.tensor(wanted))
    assert labels.tolist() == [2, 2, 0, 0]


def test_an_ignored_region_near_an_object_is_no_proposal_either():
    target = target_of([0.0, 0, 10, 9], [0.0, 0, 10, 10], ignore=(True, False))
    empty = Proposals(torch.zeros(1, 2, 4), torch.zeros(1, 2).bool())
    rois, labels, _ = RoICriterion().sample(empty, [target])
    assert rois.tolist() == [[0, 0, 0, 10, 10]]
    assert labels.tolist() == [2]


def test_regions_carry_their_image_and_counts_are_per_image():
    proposals = Proposals(torch.rand(3, 100, 2).repeat(1, 1, 2), torch.ones(3, 100).bool())
    proposals.boxes[..., 2:] += 5 + torch.rand(3, 100, 2)
    targets = [target_of([0.0, 0, 6, 6]), target_of(), target_of([90.0, 90, 99, 99])]
    criterion = RoICriterion(background=(0.0, 0.5), sampler=Sampler(40, 0.25))
    rois, labels, _ = criterion.sample(proposals, targets)
    assert rois[:, 0].tolist() == [0.0] * 10 + [1.0] * 40 + [2.0] * 40
    assert labels.tolist() == [1] * 10 + [0] * 40 + [1] + [0] * 39


def test_roi_losses_by_hand():
    rois = torch.tensor([[0.0, 0, 0, 20, 20], [0, 50, 50, 70, 70]])
    boxes = torch.tensor([[2.0, 0, 22, 20], [50, 50, 70, 70]])
    deltas = torch.full((2, 2, 4), 9.0)  # of other classes and of background: without effect
    deltas[0, 1] = torch.tensor([0.5, 3.0, 0.0, 0.0])
    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    loss, box = RoICriterion()(RoIOutput(logits, deltas), rois, torch.tensor([2, 0]), boxes)
    first = math.log(1 + math.e + math.e**2) - 2
    second = math.log(2 + math.e) - 1
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)
    # The wanted dx is 0.1 widths, in units of its deviation 0.1: 1. Quadratic below 1.
    assert DELTA_STD[0] == 0.1
    assert box.item() == pytest.approx((0.5 * 0.5**2 + 3.0 - 0.5) / 2, rel=1e-5)


def test_no_regions_are_a_loss_of_zero_with_a_gradient():
    logits, deltas = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 2, 4, requires_grad=True)
    nothing = RoICriterion().sample(
        Proposals(torch.zeros(1, 3, 4), torch.zeros(1, 3).bool()), [target_of()]
    )
    losses = RoICriterion()(RoIOutput(logits, deltas), *nothing)
    assert [loss.item() for loss in losses] == [0, 0]
    gradients = torch.autograd.grad(sum(losses), (logits, deltas))
    assert [gradient.shape for gradient in gradients] == [(0, 3), (0, 2, 4)]
