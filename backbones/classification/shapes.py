"""Ten classes of generated 32×32 images: a shape on a ground, for studies where no set is at hand.

A class is a shape of any position, size, rotation and proportions. Colours and stripes of shape
and ground, two spots over both, and noise are drawn regardless of the class, so that neither the
mean colour nor a texture tells it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = Callable[[Array, Array], Array]

SIDE = 32
"""Side of an image, pixels."""

_CHUNK = 512  # images at once: their maps stay in the cache
_NOISE = 0.03
_LEAST_CONTRAST = 0.5


SHAPES: Mapping[str, Shape] = {
    "disc": lambda x, y: 1 - np.hypot(x, y),
    "ring": lambda x, y: 0.25 - np.abs(np.hypot(x, y) - 0.75),
    "triangle": lambda x, y: 0.55 - np.maximum(np.abs(x) * np.sqrt(3) / 2 - y / 2, y),
    "square": lambda x, y: 0.8 - np.maximum(np.abs(x), np.abs(y)),
    "star": lambda x, y: 0.72 + 0.28 * np.cos(5 * np.arctan2(y, x)) - np.hypot(x, y),
    "bar": lambda x, y: np.minimum(1 - np.abs(x), 0.3 - np.abs(y)),
    "cross": lambda x, y: np.maximum(SHAPES["bar"](x, y), SHAPES["bar"](y, x)),
    "crescent": lambda x, y: np.minimum(SHAPES["disc"](x, y), np.hypot(x - 0.5, y) - 0.75),
    "corner": lambda x, y: np.minimum(SHAPES["square"](x, y), -0.2 - np.minimum(x, y)),
    "half disc": lambda x, y: np.minimum(SHAPES["disc"](x, y + 0.4), y + 0.4),
}
"""The classes: about how far a point is inside of the shape, whose radius is about 1."""


def generate(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images; those of a seed start alike, however many are drawn.

    Args:
        count: how many.
        seed: non-negative; each gives other images.

    Returns:
        images: (count, 3, 32, 32) uint8, RGB.
        labels: (count,) int64, positions in ``SHAPES``.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"expected at least one image, got {count}")
    starts = range(0, count, _CHUNK)
    parts = [_draw(np.random.default_rng([seed, start])) for start in starts]
    images, labels = (np.concatenate(one)[:count] for one in zip(*parts, strict=True))
    return images, labels


def _draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One chunk of images and labels."""
    labels = rng.integers(len(SHAPES), size=_CHUNK)
    ground, figure = _colours(rng)
    alpha = _figures(rng, labels)[:, None]
    images = (1 - alpha) * _stripes(rng, ground) + alpha * _stripes(rng, figure)
    spot = _placed(rng, SHAPES["disc"], _CHUNK, radius=(1.5, 3.5), away=12)[:, None]
    images = (1 - spot) * images + spot * _uniform(rng, 0, 1, _CHUNK, 3)
    images += _NOISE * rng.standard_normal(images.shape, dtype=np.float32)
    return np.rint(255 * images.clip(0, 1)).astype(np.uint8), labels


def _figures(rng: np.random.Generator, labels: NDArray[np.int64]) -> Array:
    """(n, 32, 32), how much of each pixel the shape covers."""
    alpha = np.empty((len(labels), SIDE, SIDE), np.float32)
    for label, shape in enumerate(SHAPES.values()):
        rows = np.flatnonzero(labels == label)
        alpha[rows] = _placed(rng, shape, len(rows), radius=(8, 12), away=4)
    return alpha


def _placed(
    rng: np.random.Generator,
    shape: Shape,
    n: int,
    radius: tuple[float, float],
    away: float,
) -> Array:
    """(n, 32, 32), a shape n times, its place, size, rotation and proportions at random."""
    y, x = np.indices((SIDE, SIDE), dtype=np.float32) - np.float32((SIDE - 1) / 2)
    left, top = _uniform(rng, -away, away, n), _uniform(rng, -away, away, n)
    angle, size = _uniform(rng, -0.5, 0.5, n), _uniform(rng, *radius, n)
    stretch = np.exp(_uniform(rng, -0.2, 0.2, n))
    u = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
    v = (y - top) * np.cos(angle) - (x - left) * np.sin(angle)
    inside = shape(u / (size * stretch), v * stretch / size)
    return (0.5 + inside * size).clip(0, 1)


def _colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """(n, 3, 1, 1) each, of ground and figure; some channel differs enough to be seen."""
    ground, figure = _uniform(rng, 0, 1, _CHUNK, 3), _uniform(rng, 0, 1, _CHUNK, 3)
    difference = np.abs(figure - ground).max(1, keepdims=True)
    inverse = (ground + 0.5) % 1
    return ground, np.where(difference < _LEAST_CONTRAST, inverse, figure)


def _stripes(rng: np.random.Generator, colour: Array) -> Array:
    """(n, 3, 32, 32), a colour with waves of another over it."""
    n = len(colour)
    y, x = np.indices((SIDE, SIDE), dtype=np.float32)
    angle, wave = _uniform(rng, 0, np.pi, n), _uniform(rng, 4, 16, n)
    phase = _uniform(rng, 0, 2 * np.pi, n)
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / wave) + phase)
    return colour + 0.3 * (_uniform(rng, 0, 1, _CHUNK, 3) - 0.5) * waves[:, None]


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    """(*shape, 1, 1), constant over an image."""
    return np.float32(low) + np.float32(high - low) * rng.random((*shape, 1, 1), dtype=np.float32)
