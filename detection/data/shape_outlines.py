"""The outlines of the data set ``shapes``: one of a class, drawn anew for every object.

An outline is one polygon, (V, 2) float64, x and y (y down), in units of its own.
Coverage is an image of mode L: 255 where a pixel is covered whole, 0 where not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.float64]

_SUPERSAMPLING = 3


def polar(radii: NDArray[np.float64], angles: NDArray[np.float64]) -> Outline:
    """Points, (V, 2) float64, from polar coordinates."""
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def corners(radii: Sequence[float]) -> Outline:
    """Corners at equal angles, the first one at the top."""
    angles = np.linspace(-np.pi / 2, 3 * np.pi / 2, len(radii), endpoint=False)
    return polar(np.array(radii, np.float64), angles)


def _circle(_: Generator) -> Outline:
    return corners([1] * 48)


def _square(_: Generator) -> Outline:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)


def _notched_square(rng: Generator) -> Outline:
    half, depth = rng.uniform(0.25, 0.4), rng.uniform(0.5, 0.8)
    notch = [(-half, -1), (0, depth - 1), (half, -1)]
    return np.array([(-1, -1), *notch, (1, -1), (1, 1), (-1, 1)], np.float64)


def _triangle(_: Generator) -> Outline:
    return corners([1] * 3)


def _star(rng: Generator) -> Outline:
    return corners([1, rng.uniform(0.38, 0.5)] * 5)


def _hexagon(_: Generator) -> Outline:
    return corners([1] * 6)


def _cross(rng: Generator) -> Outline:
    half = rng.uniform(0.24, 0.36)
    arm = np.array([(-half, -1), (half, -1), (half, -half)])
    quarter = np.array([(0, 1), (-1, 0)])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, n) for n in range(4)])


def _tee(rng: Generator) -> Outline:
    """A cross without its upper arm."""
    half = rng.uniform(0.24, 0.36)
    right = [(half, 1.0), (half, half), (1.0, half), (1.0, -half)]
    return np.array(right + [(-x, y) for x, y in right[::-1]])


def _ring(rng: Generator) -> Outline:
    # One polygon: around the outside, through a slit of no width, and back around the hole.
    rim = corners([1] * 48)[[*range(48), 0]]
    return np.concatenate([rim, rng.uniform(0.5, 0.68) * rim[::-1]])


def _broken_ring(rng: Generator) -> Outline:
    gap = rng.uniform(0.3, 0.45)
    rim = polar(np.ones(44), np.linspace(gap, 2 * np.pi - gap, 44))
    return np.concatenate([rim, rng.uniform(0.5, 0.68) * rim[::-1]])


def _crescent(rng: Generator) -> Outline:
    # The unit circle without a circle of radius r around (d, 0); they meet at angles a and b.
    d, r = rng.uniform(0.42, 0.55), rng.uniform(0.78, 0.85)
    x = (1 + d * d - r * r) / (2 * d)
    a, b = np.arccos(x), np.arctan2(np.sqrt(1 - x * x), x - d)
    outer = np.linspace(a, 2 * np.pi - a, 36)
    inner = np.linspace(2 * np.pi - b, b, 28)
    return np.concatenate(
        [polar(np.ones(36), outer), polar(np.full(28, r), inner) + np.array((d, 0))]
    )


def _arrow(rng: Generator) -> Outline:
    shaft, neck = rng.uniform(0.2, 0.3), rng.uniform(-0.15, 0.1)
    right = [(0.0, -1.0), (0.75, neck), (shaft, neck), (shaft, 1.0)]
    return np.array(right + [(-x, y) for x, y in right[:0:-1]])


def _heart(_: Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


_OUTLINES: Mapping[str, Callable[[Generator], Outline]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "arrow": _arrow,
    "heart": _heart,
    "notched_square": _notched_square,
    "broken_ring": _broken_ring,
    "tee": _tee,
    "striped_hexagon": _hexagon,
    "checked_hexagon": _hexagon,
}


def outline(
    rng: Generator, name: str, area: float, largest: float, any_turn: float = 0.2
) -> Outline:
    """Draws the proportions and the pose of a shape.

    Args:
        rng: the source of every choice.
        name: the class of a variant.
        area: of the shape, square pixels.
        largest: bound on its width and height, pixels; it wins over ``area``.
        any_turn: odds that the shape is turned by more than 20 degrees.

    Returns:
        (V, 2) float64, x and y, pixels, from (0, 0) on.
    """
    points = _OUTLINES[name](rng) * (rng.uniform(0.8, 1.0), 1.0)
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < any_turn else rng.uniform(-0.35, 0.35)
    cos, sin = math.cos(turn), math.sin(turn)
    turned: Outline = points @ np.array([(cos, sin), (-sin, cos)])
    x, y = turned.T
    shoelace = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    turned -= turned.min(0)
    return turned * min(math.sqrt(area / shoelace), float(largest / turned.max()))


def coverage(polygons: Sequence[Outline], size: tuple[int, int]) -> Image.Image:
    """Draws polygons, antialiased, as coverage of ``size`` (height, width)."""
    factor = _SUPERSAMPLING
    fine = Image.new("L", (size[1] * factor, size[0] * factor))
    draw = ImageDraw.Draw(fine)
    for polygon in polygons:
        # Pillow takes each corner for the pixel that holds it, and fills the border as well.
        draw.polygon((polygon * factor).ravel().tolist(), fill=255)
    return fine.reduce(factor)
