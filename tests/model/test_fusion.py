"""Weighted box fusion, by hand and against the published algorithm in plain Python."""

import pytest
import torch

from detection.model.fusion import fuse
from detection.structures import Detections


def view_of(*rows: tuple[float, int, list[float]], slots: int = 4) -> Detections:
    """Detections of one image, then empty slots."""
    found = Detections(
        torch.zeros(1, slots, 4), torch.zeros(1, slots), torch.zeros(1, slots, dtype=torch.int64)
    )
    for slot, (score, label, box) in enumerate(rows):
        found.boxes[0, slot] = torch.tensor(box)
        found.scores[0, slot] = score
        found.labels[0, slot] = label
    return found


def test_two_views_by_hand():
    one = view_of((0.9, 1, [0, 0, 20, 10]), (0.5, 2, [0, 0, 20, 10]))
    two = view_of((0.6, 1, [2, 0, 22, 10]), (0.4, 1, [100, 0, 120, 10]))
    boxes, scores, labels = fuse([one, two], per_image=5)
    assert labels.tolist() == [[1, 2, 1, 0, 0]]
    # Both found the first; the others count half.
    torch.testing.assert_close(scores, torch.tensor([[0.75, 0.25, 0.2, 0, 0]]))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.8, 0, 20.8, 10]))
    torch.testing.assert_close(boxes[0, 1:3], torch.tensor([[0.0, 0, 20, 10], [100, 0, 120, 10]]))
    assert not boxes[0, 3:].any()


def test_more_members_than_views_count_no_more():
    one = view_of((0.9, 1, [0, 0, 20, 10]), (0.6, 1, [0, 0, 20, 10]), (0.3, 1, [0, 0, 20, 10]))
    _, scores, _ = fuse([one], per_image=2)
    torch.testing.assert_close(scores, torch.tensor([[0.6, 0.0]]))


def test_a_box_is_compared_with_the_fused_box():
    # The last has IoU 0.5 with the first, but 10 / 17.5 with what the first two became.
    one = view_of((0.5, 1, [0, 0, 20, 10]), (0.4, 1, [0, 0, 10, 10]))
    two = view_of((0.5, 1, [0, 0, 15, 10]))
    boxes, scores, _ = fuse([one, two], per_image=3)
    assert (scores > 0).sum() == 1
    wanted = (0.5 * 20 + 0.5 * 15 + 0.4 * 10) / 1.4
    assert boxes[0, 0, 2].item() == pytest.approx(wanted)
    assert scores[0, 0].item() == pytest.approx(1.4 / 3)


@pytest.mark.parametrize(("threshold", "count"), [(0.5, 2), (0.499, 1)])
def test_the_threshold_itself_does_not_join(threshold, count):
    one = view_of((0.9, 1, [0, 0, 20, 1]), (0.6, 1, [0, 0, 10, 1]))
    assert (fuse([one], per_image=4, threshold=threshold).scores > 0).sum() == count


def test_one_view_of_separate_boxes_is_itself():
    one = view_of((0.9, 1, [0.1, 0.7, 20.3, 10]), (0.6, 2, [0, 0, 10.9, 1]))
    assert all(torch.equal(*pair) for pair in zip(fuse([one], per_image=4), one, strict=True))


def test_detections_with_gradients_are_fused():
    one = view_of((0.9, 1, [0, 0, 20, 10]))
    one.boxes.requires_grad_()
    assert torch.equal(fuse([one, one], per_image=4).boxes, one.boxes)


def test_nothing_found():
    fused = fuse([view_of(), view_of()], per_image=3)
    assert [part.shape for part in fused] == [(1, 3, 4), (1, 3), (1, 3)]
    assert not any(part.any() for part in fused)


def naive(views: list[Detections], threshold: float) -> list[tuple[float, int, list[float]]]:
    """One image: clusters as lists of their members, fused anew for every comparison."""
    rows = []
    for boxes, scores, labels in views:
        for box, score, label in zip(
            boxes[0].tolist(), scores[0].tolist(), labels[0].tolist(), strict=True
        ):
            if score > 0:
                rows.append((score, label, box))
    clusters: list[list[tuple[float, int, list[float]]]] = []
    for row in sorted(rows, key=lambda row: -row[0]):
        overlaps = [
            iou(mean(cluster), row[2]) if cluster[0][1] == row[1] else 0.0 for cluster in clusters
        ]
        best = max(range(len(clusters)), key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] > threshold:
            clusters[best].append(row)
        else:
            clusters.append([row])
    fused = []
    for cluster in clusters:
        score = sum(row[0] for row in cluster) / len(cluster)
        score *= min(len(cluster), len(views)) / len(views)
        fused.append((score, cluster[0][1], mean(cluster)))
    return sorted(fused, key=lambda row: -row[0])


def mean(cluster: list[tuple[float, int, list[float]]]) -> list[float]:
    total = sum(row[0] for row in cluster)
    return [sum(row[0] * row[2][side] for row in cluster) / total for side in range(4)]


def iou(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("threshold", [0.3, 0.55, 0.8])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_equals_the_published_algorithm(count, threshold):
    objects = torch.rand(2, 12, 2) * 60
    views = []
    for _ in range(count):
        corners = objects + torch.randn(2, 12, 2) * 3
        boxes = torch.cat((corners, corners + 12 + torch.rand(2, 12, 2) * 12), dim=2)
        scores = torch.rand(2, 12).sort(descending=True).values * (torch.arange(12) < 10)
        labels = torch.randint(1, 4, (2, 12)) * (scores > 0)
        views.append(Detections(boxes * (scores > 0)[..., None], scores, labels))
    fused = fuse(views, 10 * count, threshold)
    for image in range(2):
        alone = [Detections(*(part[image : image + 1] for part in view)) for view in views]
        wanted = naive(alone, threshold)
        count_found = int((fused.scores[image] > 0).sum())
        assert count_found == len(wanted)
        for row, (score, label, box) in enumerate(wanted):
            assert fused.scores[image, row].item() == pytest.approx(score, rel=1e-5)
            assert fused.labels[image, row].item() == label
            assert fused.boxes[image, row].tolist() == pytest.approx(box, rel=1e-4, abs=1e-4)
    fewer = fuse(views, 3, threshold)
    for part, all_of_it in zip(fewer, fused, strict=True):
        assert torch.equal(part, all_of_it[:, :3])
