import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detection.evaluation.localization import error, right_guesses


def guesses(*rows: list[tuple[int, list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([[label for label, _ in row] for row in rows])
    return labels, np.array([[box for _, box in row] for row in rows])


def test_by_hand():
    labels, boxes = guesses(
        [(1, [0.0, 0, 10, 10]), (2, [0, 0, 10, 10])],
        [(1, [0.0, 0, 10, 5]), (1, [0, 0, 10, 4.9])],
        [(2, [50.0, 0, 60, 10]), (2, [20, 0, 30, 10])],
        [(3, [0.0, 0, 10, 10]), (3, [0, 0, 10, 10])],
    )
    truth = [
        np.array([[0.0, 0, 10, 10]]),
        np.array([[0.0, 0, 10, 10]]),
        np.array([[0.0, 0, 10, 10], [20, 0, 30, 10]]),
        np.zeros((0, 4)),
    ]
    right = right_guesses(labels, boxes, np.array([1, 1, 2, 3]), truth)
    # Another class; an IoU of exactly a half, and of less; the second object; no objects.
    assert right.tolist() == [[True, False], [True, False], [False, True], [False, False]]
    assert error(right, 1) == 50
    assert error(right, 2) == error(right, 5) == 25


def test_an_object_of_another_image_does_not_count():
    labels, boxes = guesses([(1, [0.0, 0, 10, 10])], [(1, [50.0, 0, 60, 10])])
    truth = [np.array([[50.0, 0, 60, 10]]), np.array([[0.0, 0, 10, 10]])]
    assert not right_guesses(labels, boxes, np.array([1, 1]), truth).any()


def test_equals_a_naive_loop_over_torchvisions_iou():
    rng = np.random.default_rng(0)

    def random_boxes(*shape: int) -> np.ndarray:
        corners = rng.uniform(0, 20, (*shape, 2))
        return np.concatenate((corners, corners + rng.uniform(20, 60, (*shape, 2))), axis=-1)

    labels, boxes = rng.integers(1, 4, (200, 5)), random_boxes(200, 5)
    true_labels = rng.integers(1, 4, 200)
    truth = [random_boxes(int(rng.integers(4))) for _ in range(200)]
    right = right_guesses(labels, boxes, true_labels, truth)
    for image in range(200):
        iou = box_iou(torch.from_numpy(boxes[image]), torch.from_numpy(truth[image]))
        wanted = (iou >= 0.5).any(1).numpy() & (labels[image] == true_labels[image])
        assert right[image].tolist() == wanted.tolist()
    assert 0.05 < right.mean() < 0.95


def test_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        error(np.zeros((0, 5), bool), 1)
