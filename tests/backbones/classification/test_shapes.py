import numpy as np
import pytest
import torch

from backbones.classification.shapes import SHAPES, generate


def test_a_seed_decides_the_images():
    images, labels = generate(600)
    again, _ = generate(600)
    fewer, some = generate(7)
    others, _ = generate(7, seed=1)
    assert images.shape == (600, 3, 32, 32)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.array_equal(images, again)
    assert np.array_equal(images[:7], fewer)
    assert labels[:7].tolist() == some.tolist()
    assert not np.array_equal(fewer, others)
    assert len({image.tobytes() for image in images}) == 600


def test_there_are_about_as_many_of_each_class():
    _, labels = generate(2000)
    assert len(SHAPES) == 10
    assert np.bincount(labels, minlength=10).min() > 150


def test_shapes_are_where_they_should_be():
    def inside(name: str, x: float, y: float) -> bool:
        return bool(SHAPES[name](np.float32(x), np.float32(y)) > 0)

    assert all(inside(name, 0, 0) for name in ("disc", "square", "star", "bar", "cross"))
    assert not any(inside(name, 0, 0) for name in ("ring", "corner"))
    assert not any(inside(name, 1.2, 1.2) for name in SHAPES)
    assert [inside("bar", *at) for at in ((0.9, 0), (0, 0.9))] == [True, False]
    assert [inside("cross", *at) for at in ((0.9, 0), (0, 0.9), (0.9, 0.9))] == [True, True, False]
    assert [inside("crescent", *at) for at in ((-0.5, 0), (0.5, 0))] == [True, False]
    assert [inside("half disc", *at) for at in ((0, 0), (0, -0.5))] == [True, False]
    assert [inside("corner", *at) for at in ((-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))] == [1, 1, 0]
    # The triangle's corners are 1.1 from its middle.
    assert [inside("triangle", *at) for at in ((0, -1.05), (0, 0.5), (0, 0.6))] == [1, 1, 0]


def test_classes_are_not_told_by_a_linear_classifier():
    images, labels = generate(2000)
    x = torch.from_numpy(images).flatten(1).float() / 255 - 0.5
    known, unknown = x[:1000], x[1000:]
    targets = torch.eye(10)[torch.from_numpy(labels)]
    kernel = known @ known.T + 100 * torch.eye(1000)  # ridge regression
    guesses = (unknown @ known.T @ torch.linalg.solve(kernel, targets[:1000])).argmax(1)
    assert (guesses == torch.from_numpy(labels[1000:])).float().mean() < 0.25


def test_no_images():
    with pytest.raises(ValueError, match="at least one image, got 0"):
        generate(0)
