import pytest
import torch
from torchvision.ops import box_iou

from detection.boxes import encode
from detection.model.refinement import join, refine, vote
from detection.model.roi_head import DELTA_STD, Candidates, RoIOutput
from detection.model.rpn import Proposals
from detection.structures import Detections

SIZES = torch.tensor([[100, 200]])


def proposals_of(*boxes: list[float]) -> Proposals:
    return Proposals(torch.tensor([boxes]), torch.ones(1, len(boxes), dtype=torch.bool))


def deltas_to(boxes: torch.Tensor, proposals: Proposals) -> torch.Tensor:
    """Deltas (R, K, 4) from regions to boxes of every class."""
    return encode(boxes, proposals.boxes[0][:, None], DELTA_STD)


def test_the_box_of_the_best_foreground_class_is_the_next_region():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    boxes = torch.tensor(
        [
            [[12.0, 10, 52, 50], [20, 20, 60, 60]],
            [[90.0, 10, 140, 50], [150, 10, 230, 50]],
        ]
    )
    # Background is likelier than either class of the first region: it does not count.
    logits = torch.tensor([[5.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    refined = refine(RoIOutput(logits, deltas_to(boxes, proposals)), proposals, SIZES)
    wanted = torch.tensor([[[12.0, 10, 52, 50], [150, 10, 200, 50]]])  # clipped
    torch.testing.assert_close(refined.boxes, wanted, rtol=0, atol=1e-4)
    assert refined.valid.all()


def test_deltas_of_zero_repeat_the_regions():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    proposals.valid[0, 1] = False
    refined = refine(RoIOutput(torch.randn(2, 4), torch.zeros(2, 3, 4)), proposals, SIZES)
    assert torch.equal(refined.valid, proposals.valid)
    assert torch.equal(refined.boxes[0, 0], proposals.boxes[0, 0])
    assert not refined.boxes[0, 1].any()


@pytest.mark.parametrize("broken", ["outside", "nan", "inf"])
def test_what_is_no_box_is_an_empty_slot(broken):
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    deltas = torch.zeros(2, 1, 4)
    deltas[0] = {"outside": -1000.0, "nan": torch.nan, "inf": torch.inf}[broken]
    refined = refine(RoIOutput(torch.zeros(2, 2), deltas), proposals, SIZES)
    assert refined.boxes.isfinite().all()
    assert refined.valid.tolist() == [[False, True]]
    assert not refined.boxes[0, 0].any()


def test_rounds_are_joined_image_by_image():
    first = RoIOutput(torch.arange(4.0)[:, None].repeat(1, 3), torch.zeros(4, 2, 4))
    second = RoIOutput(10 + torch.arange(2.0)[:, None].repeat(1, 3), torch.ones(2, 2, 4))
    regions = [
        Proposals(torch.zeros(2, 2, 4), torch.ones(2, 2).bool()),
        Proposals(torch.ones(2, 1, 4), torch.zeros(2, 1).bool()),
    ]
    output, proposals = join((first, second), regions)
    # Two images: regions 0 and 1 of the first round, then 0 of the second; and so on.
    assert output.class_logits[:, 0].tolist() == [0, 1, 10, 2, 3, 11]
    assert output.deltas[:, 0, 0].tolist() == [0, 0, 1, 0, 0, 1]
    assert proposals.valid.tolist() == [[True, True, False]] * 2
    assert proposals.boxes[:, :, 0].tolist() == [[0, 0, 1]] * 2


def found_of(*rows: tuple[float, int, list[float]]) -> Candidates:
    scores, labels, boxes = zip(*rows, strict=True)
    return Candidates(
        torch.tensor([boxes]).float(),
        torch.tensor([scores]),
        torch.tensor([labels]),
        torch.ones(1, len(rows), dtype=torch.bool),
    )


def kept_of(found: Candidates, *rows: int, slots: int = 4) -> Detections:
    """Detections: some of the candidates, then empty slots."""
    kept = Detections(
        torch.zeros(1, slots, 4), torch.zeros(1, slots), torch.zeros(1, slots, dtype=torch.int64)
    )
    for slot, row in enumerate(rows):
        for part, column in zip(kept, found, strict=False):
            part[0, slot] = column[0, row]
    return kept


def test_votes_by_hand():
    found = found_of(
        (0.9, 1, [0, 0, 20, 10]),
        (0.8, 2, [0, 0, 20, 10]),  # of another class
        (0.6, 1, [0, 0, 10, 10]),  # IoU 0.5: votes
        (0.5, 1, [0, 0, 9, 10]),  # 0.45: does not
        (0.3, 1, [2, 0, 22, 10]),  # 180 / 220: votes
    )
    voted = vote(kept_of(found, 0, 1), found)
    x1 = 0.3 * 2 / 1.8
    x2 = (0.9 * 20 + 0.6 * 10 + 0.3 * 22) / 1.8
    torch.testing.assert_close(voted.boxes[0, 0], torch.tensor([x1, 0, x2, 10]))
    torch.testing.assert_close(voted.boxes[0, 1], torch.tensor([0.0, 0, 20, 10]))
    assert not voted.boxes[0, 2:].any()
    assert torch.equal(voted.scores, kept_of(found, 0, 1).scores)
    assert torch.equal(voted.labels, kept_of(found, 0, 1).labels)


@pytest.mark.parametrize(("threshold", "votes"), [(0.5, True), (0.501, False)])
def test_the_threshold_itself_votes(threshold, votes):
    found = found_of((0.9, 1, [0, 0, 20, 10]), (0.6, 1, [0, 0, 10, 10]))
    voted = vote(kept_of(found, 0), found, threshold)
    assert voted.boxes[0, 0, 2].item() == pytest.approx(16 if votes else 20)


def test_isolated_boxes_and_what_is_no_candidate_change_nothing():
    found = found_of(
        (0.9, 1, [0, 0, 20, 10]),
        (0.6, 1, [100, 0, 120, 10]),
        (torch.nan, 1, [0, 0, 20, 10]),
        (0.01, 1, [1, 0, 20, 10]),
        (0.5, 1, [torch.nan] * 4),
    )
    found.valid[0, 2:] = False
    kept = kept_of(found, 0, 1)
    torch.testing.assert_close(vote(kept, found), kept)


def test_no_candidates():
    nothing = Candidates(
        torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0).long(), torch.zeros(2, 0).bool()
    )
    kept = Detections(torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(2, 3).long())
    assert not vote(kept, nothing).boxes.any()


def test_equals_the_definition_box_by_box():
    corners = torch.rand(60, 2) * 40
    boxes = torch.cat((corners, corners + 20 + torch.rand(60, 2) * 10), dim=1)
    scores = torch.rand(60).sort(descending=True).values
    labels = torch.randint(1, 4, (60,))
    found = Candidates(boxes[None], scores[None], labels[None], torch.ones(1, 60).bool())
    voted = vote(kept_of(found, *range(10), slots=10), found)
    for row in range(10):
        iou = box_iou(boxes[row : row + 1], boxes)[0]
        voters = [i for i in range(60) if labels[i] == labels[row] and iou[i] >= 0.5]
        weights = scores[voters][:, None]
        wanted = (weights * boxes[voters]).sum(dim=0) / weights.sum()
        torch.testing.assert_close(voted.boxes[0, row], wanted)
