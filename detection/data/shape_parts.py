"""What the pictures of the data set ``shapes`` are made of: outlines, textures and clutter.

An outline is one polygon, (V, 2) float64, x and y (y down), in units of its own.
Coverage is an image of mode L: 255 where a pixel is covered whole, 0 where not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.float64]
Field = NDArray[np.floating]

_SUPERSAMPLING = 3


def _polar(radii: NDArray[np.float64], angles: NDArray[np.float64]) -> Outline:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _corners(radii: Sequence[float]) -> Outline:
    """Corners at equal angles, the first one at the top."""
    angles = np.linspace(-np.pi / 2, 3 * np.pi / 2, len(radii), endpoint=False)
    return _polar(np.array(radii, np.float64), angles)


def _circle(_: Generator) -> Outline:
    return _corners([1] * 48)


def _square(_: Generator) -> Outline:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)


def _triangle(_: Generator) -> Outline:
    return _corners([1] * 3)


def _star(rng: Generator) -> Outline:
    return _corners([1, rng.uniform(0.38, 0.5)] * 5)


def _cross(rng: Generator) -> Outline:
    half = rng.uniform(0.24, 0.36)
    arm = np.array([(-half, -1), (half, -1), (half, -half)])
    quarter = np.array([(0, 1), (-1, 0)])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, n) for n in range(4)])


def _ring(rng: Generator) -> Outline:
    # One polygon: around the outside, through a slit of no width, and back around the hole.
    rim = _corners([1] * 48)[[*range(48), 0]]
    return np.concatenate([rim, rng.uniform(0.5, 0.68) * rim[::-1]])


def _crescent(rng: Generator) -> Outline:
    # The unit circle without a circle of radius r around (d, 0); they meet at angles a and b.
    d, r = rng.uniform(0.42, 0.55), rng.uniform(0.78, 0.85)
    x = (1 + d * d - r * r) / (2 * d)
    a, b = np.arccos(x), np.arctan2(np.sqrt(1 - x * x), x - d)
    outer = np.linspace(a, 2 * np.pi - a, 36)
    inner = np.linspace(2 * np.pi - b, b, 28)
    return np.concatenate(
        [_polar(np.ones(36), outer), _polar(np.full(28, r), inner) + np.array((d, 0))]
    )


def _arrow(rng: Generator) -> Outline:
    shaft, neck = rng.uniform(0.2, 0.3), rng.uniform(-0.15, 0.1)
    right = [(0.0, -1.0), (0.75, neck), (shaft, neck), (shaft, 1.0)]
    return np.array(right + [(-x, y) for x, y in right[:0:-1]])


def _heart(_: Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


_OUTLINES: dict[str, Callable[[Generator], Outline]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "arrow": _arrow,
    "heart": _heart,
}

CLASS_NAMES = tuple(_OUTLINES)

_ANY_TURN = 0.2  # odds that a shape is turned by more than 20 degrees


def outline(rng: Generator, name: str, area: float, largest: float) -> Outline:
    """Draws the proportions and the pose of a shape.

    Args:
        rng: the source of every choice.
        name: one of ``CLASS_NAMES``.
        area: of the shape, square pixels.
        largest: bound on its width and height, pixels; it wins over ``area``.

    Returns:
        (V, 2) float64, x and y, pixels, from (0, 0) on.
    """
    points = _OUTLINES[name](rng) * (rng.uniform(0.8, 1.0), 1.0)
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < _ANY_TURN else rng.uniform(-0.35, 0.35)
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


def near(rng: Generator, colour: NDArray[np.int64], spread: int) -> NDArray[np.int64]:
    """Draws a colour, (3,) int64 RGB, up to ``spread`` away from another in each channel."""
    return (colour + rng.integers(-spread, spread + 1, 3)).clip(0, 255)


def _plain(_: Generator, x: Field, y: Field) -> Field:
    return np.zeros_like(x + y)


def _stripes(rng: Generator, x: Field, y: Field) -> Field:
    turn, waves = rng.uniform(0, np.pi), rng.uniform(2, 5)
    phase = 2 * np.pi * (waves * (math.cos(turn) * x + math.sin(turn) * y) + rng.random())
    return np.asarray(0.5 + 1.5 * np.sin(phase))


def _checks(rng: Generator, x: Field, y: Field) -> Field:
    turn, waves = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(1, 3)
    u, v = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    return np.asarray(0.5 + 4 * np.sin(waves * u) * np.sin(waves * v))


def _gradient(rng: Generator, x: Field, y: Field) -> Field:
    turn = rng.uniform(0, 2 * np.pi)
    return 0.5 + 0.7 * (math.cos(turn) * (x - 0.5) + math.sin(turn) * (y - 0.5))


def smooth_noise(rng: Generator, cells: int, size: tuple[int, int]) -> Field:
    """Enlarges a grid of random values to ``size``: (height, width) float32 in [0, 1]."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32) / 255


def _noise(rng: Generator, x: Field, y: Field) -> Field:
    fine = rng.integers(0, 256, (y.size, x.size), np.uint8).astype(np.float32) / 255
    return 0.6 * fine + 0.4 * smooth_noise(rng, 6, fine.shape)


def _blobs(rng: Generator, x: Field, y: Field) -> Field:
    cells = math.ceil(rng.uniform(3, 6) * max(x[0, -1], y[-1, 0])) + 1
    return 4 * smooth_noise(rng, cells, (y.size, x.size)) - 1.5


_TEXTURES = (_plain, _stripes, _checks, _gradient, _noise, _blobs)


def texture(
    rng: Generator,
    size: tuple[int, int],
    unit: float,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> Image.Image:
    """Mixes two colours, (3,) int64 RGB, in a pattern with a few periods per ``unit`` pixels."""
    height, width = size
    x = np.arange(width, dtype=np.float32)[None] / unit
    y = np.arange(height, dtype=np.float32)[:, None] / unit
    mix = _TEXTURES[rng.integers(len(_TEXTURES))](rng, x, y).clip(0, 1) * 255
    picture = Image.new("RGB", (width, height), tuple(first.tolist()))
    picture.paste(tuple(second.tolist()), (0, 0), Image.fromarray(mix.astype(np.uint8)))
    return picture


def _lines(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    return [_stroke(rng.uniform(0, 1, (2, 2)) * extent, rng.uniform(1, 2.5)) for _ in range(4)]


def _bars(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    start = rng.uniform(0, 1, (3, 2)) * extent
    step = _polar(rng.uniform(15, 60, 3), rng.uniform(0, 2 * np.pi, 3))
    return [
        _stroke(np.stack([a, a + b]), float(np.hypot(*b)) / rng.uniform(5, 8))
        for a, b in zip(start, step, strict=True)
    ]


def _scribbles(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    turns = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.45, 40).cumsum()
    points = rng.uniform(0, 1, 2) * extent + _polar(np.full(40, 4.0), turns).cumsum(0)
    return [_stroke(points, rng.uniform(1, 2.5))]


def _dots(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    middles = rng.uniform(0, 1, (int(rng.integers(8, 40)), 2)) * extent
    return [_corners([rng.uniform(0.8, 2.2)] * 8) + middle for middle in middles]


def _patches(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    """Lobed blots, of no class."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    blots = []
    for _ in range(3):
        lobes = rng.uniform(0.15, 0.35, 3) @ np.cos(
            np.outer((2, 3, 5), angles) + rng.uniform(0, 2 * np.pi, (3, 1))
        )
        blot = _polar(rng.uniform(6, 28) * (1 + lobes), angles)
        blots.append(blot * (1, rng.uniform(0.4, 0.8)) + rng.uniform(0, 1, 2) * extent)
    return blots


def _stroke(points: Outline, width: float) -> Outline:
    """The border of a line of ``width`` pixels through the points."""
    along = np.gradient(points, axis=0)
    across = along[:, ::-1] * (1, -1) / np.hypot(*along.T)[:, None] * (width / 2)
    return np.concatenate([points + across, (points - across)[::-1]])


_CLUTTER = (_lines, _bars, _scribbles, _dots, _patches)


def clutter(rng: Generator, size: tuple[int, int]) -> Image.Image:
    """Draws lines, bars, a scribble, dots or blots, as coverage of ``size`` (height, width)."""
    polygons = _CLUTTER[rng.integers(len(_CLUTTER))](rng, np.array(size[::-1], np.float64))
    return coverage(polygons, size)
