import pytest
import torch

from detection.boxes import encode
from detection.model.anchors import AnchorGenerator, corner_anchors
from detection.model.rpn import RPN, ProposalSelection, RPNOutput

SIZES = torch.tensor([[100, 200]])
EVERYTHING = ProposalSelection(before_nms=100, after_nms=100, min_side=1e-3)


@pytest.fixture
def rpn() -> RPN:
    return RPN(8, AnchorGenerator([corner_anchors((16,)), corner_anchors((32,))], (4, 8)), 16)


def output_of(*levels: list[tuple[float, list[float]]]) -> RPNOutput:
    """An output for one image whose anchors are refined to the given boxes, with their scores."""
    scores, deltas, anchors = [], [], []
    for level in levels:
        boxes = torch.tensor([box for _, box in level])
        anchors.append(torch.tensor([50.0, 50.0, 60.0, 60.0]).expand(len(level), 4))
        scores.append(torch.tensor([[score for score, _ in level]]))
        deltas.append(encode(boxes, anchors[-1])[None])
    return RPNOutput(scores, deltas, anchors)


def test_shapes_and_the_order_of_anchors(rpn):
    torch.nn.init.zeros_(rpn.objectness.weight)
    torch.nn.init.zeros_(rpn.deltas.weight)
    rpn.objectness.bias.data = torch.arange(3.0)
    rpn.deltas.bias.data = torch.arange(12.0)
    levels = [torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)]
    objectness, deltas, anchors = rpn(levels)
    assert [len(level) for level in anchors] == [72, 18]
    for scores, refinements, count in zip(objectness, deltas, (24, 6), strict=True):
        # The three anchors of a position stand together, each with its four deltas.
        assert torch.equal(scores, torch.arange(3.0).repeat(2, count))
        wanted = torch.arange(12.0).view(3, 4).repeat(2, count, 1)
        assert torch.equal(refinements, wanted)


def test_initial_weights(rpn):
    for layer in (rpn.conv, rpn.objectness, rpn.deltas):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.3)
        assert not layer.bias.any()


def test_proposals_are_ordered_across_levels_and_slots_filled_with_zeros(rpn):
    output = output_of(
        [(-3.0, [0, 0, 20, 20]), (2.0, [40, 40, 60, 60])],
        [(1.0, [80, 10, 100, 30]), (0.5, [41, 41, 61, 61]), (-9.0, [80, 11, 100, 31])],
    )
    boxes, valid = rpn.propose(output, SIZES, EVERYTHING)
    # The second level's last box is suppressed by its first; levels do not suppress each other.
    assert valid.tolist() == [[True] * 4 + [False]]
    wanted = [[40, 40, 60, 60], [80, 10, 100, 30], [41, 41, 61, 61], [0, 0, 20, 20], [0, 0, 0, 0]]
    torch.testing.assert_close(boxes, torch.tensor([wanted]).float(), rtol=0, atol=1e-4)
    proposals, objectness = rpn.propose_scored(output, SIZES, EVERYTHING)
    assert torch.equal(proposals.boxes, boxes)
    assert objectness.tolist() == [[2.0, 1.0, 0.5, -3.0, -torch.inf]]


def test_the_counts_before_and_after_suppression(rpn):
    apart = [(float(-i), [20.0 * i, 0, 20.0 * i + 15, 15]) for i in range(6)]
    best = [10 + score for score, _ in apart]
    output = output_of(apart, [(score, box) for score, (_, box) in zip(best, apart, strict=True)])
    selection = ProposalSelection(before_nms=2, after_nms=3, min_side=0.0)
    boxes, valid = rpn.propose(output, SIZES, selection)
    # Two of each level, then the best three of them.
    assert valid.tolist() == [[True] * 3]
    torch.testing.assert_close(boxes[0, :, 0], torch.tensor([0.0, 20.0, 0.0]), rtol=0, atol=1e-4)


def test_candidates_are_clipped_before_their_sides_are_measured(rpn):
    output = output_of(
        [
            (3.0, [190, 40, 210, 60]),  # 10 x 20 inside
            (2.0, [20, 20, 40, 35]),
            (1.0, [60, 20, 75, 40]),
            (0.0, [100, 20, 120.001, 40.001]),
        ]
    )
    selection = ProposalSelection(before_nms=100, after_nms=100, min_side=20.0)
    boxes, valid = rpn.propose(output, SIZES, selection)
    assert valid.tolist() == [[True, False, False, False]]
    torch.testing.assert_close(
        boxes[0, 0], torch.tensor([100, 20, 120.001, 40.001]), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(("min_side", "kept"), [(10.0, True), (10.001, False)])
def test_the_shortest_side_is_allowed(rpn, min_side, kept):
    # Deltas of 0: the anchor itself, 10 x 10.
    output = output_of([(1.0, [50, 50, 60, 60])])
    assert not output.deltas[0].any()
    selection = ProposalSelection(before_nms=1, after_nms=1, min_side=min_side)
    assert rpn.propose(output, SIZES, selection).valid.item() is kept


def test_each_image_has_its_own_size_and_proposals(rpn):
    one = output_of([(1.0, [40, 40, 90, 90]), (0.0, [0, 0, 20, 20])])
    two = output_of([(1.0, [0, 0, 20, 20]), (0.0, [40, 40, 90, 90])])
    both = RPNOutput(
        [torch.cat((one.objectness[0], two.objectness[0]))],
        [torch.cat((one.deltas[0], two.deltas[0]))],
        one.anchors,
    )
    boxes, valid = rpn.propose(both, torch.tensor([[100, 200], [60, 50]]), EVERYTHING)
    assert valid.all()
    wanted = [[[40, 40, 90, 90], [0, 0, 20, 20]], [[0, 0, 20, 20], [40, 40, 50, 60]]]
    torch.testing.assert_close(boxes, torch.tensor(wanted).float(), rtol=0, atol=1e-4)


def test_broken_numbers_give_no_proposal(rpn):
    output = output_of([(float(i), [20.0 * i, 0, 20.0 * i + 15, 15]) for i in range(4)])
    output.deltas[0][0, 3] = torch.nan
    output.objectness[0][0, 2] = torch.nan
    boxes, valid = rpn.propose(output, SIZES, EVERYTHING)
    assert boxes.isfinite().all()
    torch.testing.assert_close(boxes[valid][:, 0], torch.tensor([20.0, 0.0]), rtol=0, atol=1e-4)


def test_proposals_carry_no_gradient(rpn):
    output = rpn([torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)])
    assert output.deltas[0].requires_grad
    assert not rpn.propose(output, SIZES, EVERYTHING).boxes.requires_grad
