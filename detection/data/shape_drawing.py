"""Draws one image of the data set ``shapes``: textured shapes over a cluttered ground.

An object's mask is the set of pixels it covers by at least half; objects drawn later hide those
under them. What is recorded is what is visible, as VOC and COCO annotate: the tight box and the
pixel count of the visible mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from detection.data.shape_outlines import Outline, coverage, outline
from detection.data.shape_textures import clutter, has_texture, near, smooth_noise, texture
from detection.data.shape_variants import PLAIN, Variant

# Visible fraction of the whole shape below which an object is difficult, or not drawn at all.
DIFFICULT_VISIBLE = 0.35
MIN_VISIBLE = 0.1
# An object of fewer visible pixels is difficult.
DIFFICULT_AREA = 64

# How much of earlier objects has to stay visible, drawn for each new object.
KEEP = (0.85, 0.4, MIN_VISIBLE)


class DrawnObject(NamedTuple):
    """One object, or one crowd, as far as it can be seen.

    Attributes:
        name: its class, one of the variant's.
        box: x1, y1, x2, y2, half-open pixels, tight around the visible mask.
        area: of the visible mask, pixels.
        visible: visible fraction of the whole shape, at least ``MIN_VISIBLE``.
        truncated: the shape reaches over the image's border.
        crowd: a heap of many small shapes of the class.
    """

    name: str
    box: tuple[int, int, int, int]
    area: int
    visible: float
    truncated: bool
    crowd: bool

    @property
    def difficult(self) -> bool:
        """VOC's flag: mostly hidden, tiny, or a crowd (for which VOC has no flag of its own)."""
        return self.crowd or self.visible < DIFFICULT_VISIBLE or self.area < DIFFICULT_AREA


class DrawnImage(NamedTuple):
    """An RGB image and its objects, the lowest one first."""

    image: Image.Image
    objects: tuple[DrawnObject, ...]


def draw_image(rng: Generator, size: tuple[int, int], variant: Variant = PLAIN) -> DrawnImage:
    """Draws an image with one to eight objects and, now and then, a crowd.

    Args:
        rng: the source of every choice.
        size: height and width, pixels.
        variant: what there is to draw.

    Returns:
        The image and what can be seen in it.
    """
    scene = _Scene(rng, size, variant)
    if rng.random() < variant.crowd:
        name = _any_class(rng, variant)
        scene.place(name, _heap(rng, name, min(size)), crowd=True)
    for _ in range(int(rng.integers(1, 9))):
        name = _any_class(rng, variant)
        scene.place(name, [_single(rng, name, min(size), variant)], crowd=False)
    return DrawnImage(scene.finished(), scene.objects())


def _any_class(rng: Generator, variant: Variant) -> str:
    return variant.classes[rng.integers(len(variant.classes))]


def _single(rng: Generator, name: str, short_side: int, variant: Variant) -> Outline:
    low, high = variant.sides[rng.choice(len(variant.sides), p=variant.side_odds)]
    side = low * (high / low) ** rng.random()
    drawn = outline(rng, name, side**2, 0.9 * short_side, variant.any_turn)
    return drawn + rng.random(2)


def _heap(rng: Generator, name: str, short_side: int) -> list[Outline]:
    """Many small shapes in a rectangle, densely."""
    extent = rng.uniform(0.25, 0.5, 2) * short_side
    size = rng.uniform(9, 13)
    count = round(float(extent.prod()) / (1.6 * size**2))
    return [
        outline(rng, name, size**2, 0.2 * short_side) + rng.random(2) * extent for _ in range(count)
    ]


class _Placed(NamedTuple):
    name: str
    pixels: int  # of the whole shape
    truncated: bool
    crowd: bool


class _Scene:
    """A canvas, and which object is seen in each of its pixels (0: none)."""

    def __init__(self, rng: Generator, size: tuple[int, int], variant: Variant = PLAIN) -> None:
        self.rng = rng
        self.size = size
        self.variant = variant
        self.owner = np.zeros(size, np.uint8)
        self.placed: list[_Placed] = []
        base = near(rng, np.full(3, rng.integers(50, 206)), 50)
        unit = float(rng.uniform(0.2, 1)) * min(size)
        self.canvas = texture(rng, size, unit, base, near(rng, base, 40))
        least, most = variant.clutter
        for _ in range(int(rng.integers(least, most + 1))):
            self.canvas.paste(tuple(near(rng, base, 50).tolist()), (0, 0), clutter(rng, size))

    def place(self, name: str, polygons: Sequence[Outline], *, crowd: bool) -> None:
        """Draws an object where it leaves enough of the earlier ones; nowhere if that fails."""
        width, height = np.ceil(np.concatenate(polygons).max(0)).astype(int).tolist()
        solid = np.asarray(coverage(polygons, (height, width))) >= 128
        keep = self.rng.choice(KEEP, p=self.variant.keep_odds)
        for _ in range(16):
            top, left = (
                self._offset(room, side, whole=crowd)
                for room, side in zip(self.size, (height, width), strict=True)
            )
            inside = solid[max(-top, 0) : self.size[0] - top, max(-left, 0) : self.size[1] - left]
            seen = self.owner[max(top, 0) : top + height, max(left, 0) : left + width]
            if inside.any() and self._leaves(seen[inside], keep):
                break
        else:
            return
        pixels, truncated = int(solid.sum()), inside.sum() < solid.sum()
        self.placed.append(_Placed(name, pixels, bool(truncated), crowd))
        seen[inside] = len(self.placed)
        for polygon in polygons:
            self._paint(name, polygon, left, top)

    def _offset(self, room: int, side: int, *, whole: bool) -> int:
        """Draws where an object begins; now and then up to a quarter of it may lie outside."""
        outside = side // 4 if self.rng.random() < 0.15 and not whole else 0
        return int(self.rng.integers(-outside, room - side + outside + 1))

    def _leaves(self, hidden: NDArray[np.uint8], keep: float) -> bool:
        """Tells whether hiding these pixels leaves ``keep`` of every object they belong to."""
        count = len(self.placed) + 1
        lost = np.bincount(hidden, minlength=count)
        left = np.bincount(self.owner.ravel(), minlength=count) - lost
        return all(
            not lost[i] or left[i] >= keep * placed.pixels
            for i, placed in enumerate(self.placed, start=1)
        )

    def _paint(self, name: str, polygon: Outline, left: int, top: int) -> None:
        rng, variant = self.rng, self.variant
        start = np.floor(polygon.min(0))
        width, height = np.ceil(polygon.max(0) - start).astype(int).tolist()
        x, y = left + int(start[0]), top + int(start[1])
        window = (max(x, 0), max(y, 0), *np.minimum((x + width, y + height), self.size[::-1]))
        behind = self.canvas.crop(window).resize((3, 3), Image.Resampling.BOX)
        candidates = rng.integers(0, 256, (12, 3))
        apart = candidates[:, None] - np.asarray(behind, np.int64).reshape(9, 3)
        distance = np.sqrt((apart**2).sum(2)).min(1)
        # The first two that stand out, or else those that come nearest to it.
        first, second = np.argsort(-np.minimum(distance, variant.contrast), kind="stable")[:2]
        base = candidates[first]
        if has_texture(name):
            other = (base + 128) % 256  # a texture that tells the class can be seen
        else:
            other = (
                candidates[second] if rng.random() < variant.two_colours else near(rng, base, 40)
            )
        fill = texture(rng, (height, width), min(height, width), base, other, name)
        self.canvas.paste(fill, (x, y), coverage([polygon - start], (height, width)))

    def finished(self) -> Image.Image:
        """Returns the canvas in uneven light, with a camera's grain."""
        light = 0.65 + 0.5 * smooth_noise(self.rng, 3, self.size)[..., None]
        strength = int(self.rng.integers(1, 9))
        grain = self.rng.integers(-strength, strength + 1, (*self.size, 3), np.int8)
        pixels = np.asarray(self.canvas) * light + grain
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def objects(self) -> tuple[DrawnObject, ...]:
        """Measures what can be seen of each object."""
        return tuple(
            _measure(placed, self.owner == i) for i, placed in enumerate(self.placed, start=1)
        )


def _measure(placed: _Placed, visible: NDArray[np.bool_]) -> DrawnObject:
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    area = int(visible.sum())
    fraction = area / placed.pixels
    return DrawnObject(placed.name, box, area, fraction, placed.truncated, placed.crowd)
