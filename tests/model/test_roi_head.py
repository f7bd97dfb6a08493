import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detection.boxes import encode
from detection.model.roi_head import (
    DELTA_STD,
    Candidates,
    DetectionSelection,
    RoIHead,
    RoIOutput,
    candidates,
    suppress,
    with_image_index,
)
from detection.model.rpn import Proposals
from detection.structures import Detections

SIZES = torch.tensor([[100, 200]])
CLASSES = 2


class Mean(nn.Module):
    """A pool without regions: the mean of each roi's image."""

    def forward(self, levels, rois):
        return levels[0].mean(dim=(2, 3))[rois[:, 0].long()]


@pytest.fixture
def head() -> RoIHead:
    return RoIHead(Mean(), nn.Identity(), 64, CLASSES)


def proposals_of(*boxes: list[float]) -> Proposals:
    return Proposals(torch.tensor([boxes]), torch.ones(1, len(boxes), dtype=torch.bool))


def output_of(proposals: Proposals, *regions: dict[int, tuple[float, list[float]]]) -> RoIOutput:
    """An output for one image: per region a score and a box by label, the rest background."""
    probabilities = torch.zeros(len(regions), CLASSES + 1)
    boxes = proposals.boxes[0][:, None].repeat(1, CLASSES, 1)
    for row, classes in enumerate(regions):
        for label, (score, box) in classes.items():
            probabilities[row, label] = score
            boxes[row, label - 1] = torch.tensor(box)
    probabilities[:, 0] = 1 - probabilities.sum(dim=1)
    deltas = encode(boxes, proposals.boxes[0][:, None], DELTA_STD)
    return RoIOutput(probabilities.log(), deltas)


def detect(
    output: RoIOutput, proposals: Proposals, sizes: Tensor, selection: DetectionSelection
) -> Detections:
    return suppress(candidates(output, proposals, sizes, selection), sizes, selection)


def test_shapes_and_the_order_of_deltas(head):
    nn.init.zeros_(head.deltas.weight)
    head.deltas.bias.data = torch.arange(4.0 * CLASSES)
    rois = torch.zeros(3, 5)
    output = head([torch.randn(1, 64, 2, 2)], rois, SIZES)
    assert output.class_logits.shape == (3, CLASSES + 1)
    assert torch.equal(output.deltas[0], torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]))
    assert head.classes == CLASSES


def test_initial_weights():
    torch.manual_seed(0)
    head = RoIHead(nn.Identity(), nn.Identity(), 500, 20)
    assert head.class_logits.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert head.deltas.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert not head.class_logits.bias.any()
    assert not head.deltas.bias.any()


def test_small_boxes_of_many_classes_far_from_the_origin():
    side, count, threshold = 1333, 1200, 0.3
    torch.manual_seed(0)
    corners = side - 60 + 40 * torch.rand(2000, 2)
    boxes = torch.cat((corners, corners + 4 + 12 * torch.rand(2000, 2)), dim=1)
    scores = torch.rand(2000).sort(descending=True).values
    labels = torch.randint(1, count + 1, (2000,)) // 40 * 40 + 1  # 31 classes, in two columns
    found = Candidates(boxes[None], scores[None], labels[None], torch.ones(1, 2000).bool())
    kept = suppress(found, torch.tensor([[side, side]]), DetectionSelection(0.0, threshold, 2000))
    of_classes = [
        rows[nms(boxes[rows].double(), scores[rows].double(), threshold)]
        for rows in ((labels == label).nonzero()[:, 0] for label in labels.unique())
    ]
    expected = scores[torch.cat(of_classes)].sort(descending=True).values
    assert torch.equal(kept.scores[0, : len(expected)], expected)
    assert kept.scores[0, len(expected) :].sum() == 0


def test_each_class_has_its_own_box_and_classes_do_not_suppress_each_other():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    output = output_of(
        proposals,
        {1: (0.6, [10, 10, 50, 50]), 2: (0.3, [11, 10, 51, 50])},
        {1: (0.2, [12, 10, 52, 50]), 2: (0.7, [100, 10, 250, 50])},
    )
    boxes, scores, labels = detect(output, proposals, SIZES, DetectionSelection())
    # Of class 1, the second region's box falls to the first's; boxes are clipped at 200.
    assert labels.tolist() == [[2, 1, 2, 0]]
    torch.testing.assert_close(scores, torch.tensor([[0.7, 0.6, 0.3, 0.0]]))
    wanted = [[100, 10, 200, 50], [10, 10, 50, 50], [11, 10, 51, 50], [0, 0, 0, 0]]
    torch.testing.assert_close(boxes, torch.tensor([wanted]).float(), rtol=0, atol=1e-4)


def test_a_score_must_be_above_the_threshold_and_a_box_have_an_area():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    output = output_of(
        proposals,
        {1: (0.06, [10, 10, 50, 50])},
        {1: (0.04, [60, 10, 90, 50]), 2: (0.9, [210, 10, 230, 50])},
    )
    detections = detect(output, proposals, SIZES, DetectionSelection())
    assert detections.labels.tolist() == [[1, 0, 0, 0]]
    assert not detections.boxes[0, 1:].any()


def test_empty_slots_detect_nothing_whatever_their_scores():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50])
    proposals.valid[0, 1] = False
    output = output_of(proposals, {1: (0.2, [10, 10, 50, 50])}, {1: (0.99, [10, 10, 50, 50])})
    detections = detect(output, proposals, SIZES, DetectionSelection())
    torch.testing.assert_close(detections.scores, torch.tensor([[0.2, 0, 0, 0]]))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({}, 5), ({"per_image": 3}, 3), ({"candidates": 2}, 2), ({"score_threshold": 0.45}, 4)],
)
def test_the_limits(changes, kept):
    boxes = [[30.0 * i, 10, 30.0 * i + 20, 50] for i in range(5)]
    proposals = proposals_of(*boxes)
    output = output_of(proposals, *({1: (0.8 - 0.1 * i, box)} for i, box in enumerate(boxes)))
    detections = detect(output, proposals, SIZES, DetectionSelection(**changes))
    assert (detections.scores > 0).sum() == kept
    assert torch.equal(detections.scores, detections.scores.sort(descending=True).values)
    torch.testing.assert_close(
        detections.boxes[0, :kept], torch.tensor(boxes)[:kept], rtol=0, atol=1e-4
    )


def test_broken_numbers_give_no_detection():
    proposals = proposals_of([10.0, 10, 50, 50], [100.0, 10, 150, 50], [60.0, 10, 80, 50])
    region = {1: (0.6, [10, 10, 50, 50])}
    output = output_of(proposals, region, {1: (0.7, [100, 10, 150, 50])}, region)
    output.class_logits[1] = torch.nan
    output.deltas[2] = torch.nan
    detections = detect(output, proposals, SIZES, DetectionSelection())
    assert all(part.isfinite().all() for part in detections)
    assert detections.labels.tolist() == [[1, 0, 0, 0, 0, 0]]


def test_rois_carry_their_image():
    boxes = torch.arange(16.0).view(2, 2, 4)
    wanted = [[0, 0, 1, 2, 3], [0, 4, 5, 6, 7], [1, 8, 9, 10, 11], [1, 12, 13, 14, 15]]
    assert torch.equal(with_image_index(boxes), torch.tensor(wanted).float())
