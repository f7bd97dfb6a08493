"""The textures and the clutter of the pictures of the data set ``shapes``."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from detection.data.shape_outlines import Outline, corners, coverage, polar

Field = NDArray[np.floating]


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
_OWN = {"striped_hexagon": _stripes, "checked_hexagon": _checks}  # classes known by their texture


def has_texture(name: str) -> bool:
    """Tells whether a class is known by its texture."""
    return name in _OWN


def texture(
    rng: Generator,
    size: tuple[int, int],
    unit: float,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    name: str = "",
) -> Image.Image:
    """Mixes two colours, (3,) int64 RGB, in a pattern with a few periods per ``unit`` pixels.

    The pattern is that of the class ``name`` where it has one of its own, or else any.
    """
    height, width = size
    x = np.arange(width, dtype=np.float32)[None] / unit
    y = np.arange(height, dtype=np.float32)[:, None] / unit
    pattern = _OWN.get(name) or _TEXTURES[rng.integers(len(_TEXTURES))]
    mix = pattern(rng, x, y).clip(0, 1) * 255
    picture = Image.new("RGB", (width, height), tuple(first.tolist()))
    picture.paste(tuple(second.tolist()), (0, 0), Image.fromarray(mix.astype(np.uint8)))
    return picture


def _lines(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    return [_stroke(rng.uniform(0, 1, (2, 2)) * extent, rng.uniform(1, 2.5)) for _ in range(4)]


def _bars(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    start = rng.uniform(0, 1, (3, 2)) * extent
    step = polar(rng.uniform(15, 60, 3), rng.uniform(0, 2 * np.pi, 3))
    return [
        _stroke(np.stack([a, a + b]), float(np.hypot(*b)) / rng.uniform(5, 8))
        for a, b in zip(start, step, strict=True)
    ]


def _scribbles(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    turns = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.45, 40).cumsum()
    points = rng.uniform(0, 1, 2) * extent + polar(np.full(40, 4.0), turns).cumsum(0)
    return [_stroke(points, rng.uniform(1, 2.5))]


def _dots(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    middles = rng.uniform(0, 1, (int(rng.integers(8, 40)), 2)) * extent
    return [corners([rng.uniform(0.8, 2.2)] * 8) + middle for middle in middles]


def _patches(rng: Generator, extent: NDArray[np.float64]) -> list[Outline]:
    """Lobed blots, of no class."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    blots = []
    for _ in range(3):
        lobes = rng.uniform(0.15, 0.35, 3) @ np.cos(
            np.outer((2, 3, 5), angles) + rng.uniform(0, 2 * np.pi, (3, 1))
        )
        blot = polar(rng.uniform(6, 28) * (1 + lobes), angles)
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
