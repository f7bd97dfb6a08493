"""Boxes and labels drawn on an image, for detections and for ground truth.

Shape shorthand:
    H, W: height and width of the image, pixels
    D: boxes     K: classes

A frame lies inside its box and never hides what is around it; a tag lies above its box, or where
there is room beside the tags of better detections, and never leaves the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

_BLACK = (0, 0, 0)

# Of the square root of the image's area.
_TEXT = 0.032
_LINE = 0.005
_MARGIN = 0.35  # of a tag's text, beside it
_SMALLEST_TEXT = 10  # pixels; below this it cannot be read


class _Tag(NamedTuple):
    place: Rectangle
    text: str
    colour: Colour
    font: ImageFont.FreeTypeFont


def draw(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    scores: NDArray[np.floating] | None,
    names: Sequence[str],
    *,
    score_threshold: float = 0.5,
) -> NDArray[np.uint8]:
    """Draws frames, and tags such as "dog 0.97", on a copy of an image.

    Args:
        image: (H, W, 3) uint8, RGB.
        boxes: (D, 4) float, xyxy, pixels of the image. What reaches over its border is cut off; a
            box without a part in the image is not drawn.
        labels: (D,) int, 1…K.
        scores: (D,) float; None for ground truth, which is drawn without.
        names: names of the K classes.
        score_threshold: the score from which a detection is drawn.

    Returns:
        picture: (H, W, 3) uint8, RGB.

    Raises:
        ValueError: if a shape, a type or a label is not as described.
    """
    _check(image, boxes, labels, scores, len(names))
    picture = image.copy()
    size = (image.shape[1], image.shape[0])
    line = max(1, round(_LINE * math.sqrt(math.prod(size))))
    colours = palette(len(names))
    tags: list[_Tag] = []
    for row, frame in _frames(boxes, scores, size, score_threshold):
        name, colour = names[labels[row] - 1], colours[labels[row] - 1]
        text = name if scores is None else f"{name} {scores[row]:.2f}"
        tags.append(_tag(text, colour, frame, size, [other.place for other in tags]))
        _draw_frame(picture, frame, line, colour)
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for tag in reversed(tags):
        _draw_tag(pen, tag)
    return np.array(canvas)


@cache
def palette(count: int) -> tuple[Colour, ...]:
    """Chooses colours that are vivid, stand out from black text, and are far from each other.

    Each is the farthest in CIELAB from grey and from all before it, so that a label keeps its
    colour however many classes there are.

    Args:
        count: how many.

    Returns:
        RGB colours, 0…255.
    """
    axis = np.linspace(0, 255, 16).round()
    rgb = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    lab = cv2.cvtColor((rgb[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    usable = (lab[:, 0] > 52) & (lab[:, 0] < 90) & (np.hypot(lab[:, 1], lab[:, 2]) > 45)
    rgb, lab = rgb[usable], lab[usable]
    colours: list[Colour] = []
    distance = np.hypot(lab[:, 1], lab[:, 2])
    for _ in range(count):
        best = int(distance.argmax())
        red, green, blue = rgb[best].astype(int).tolist()
        colours.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=1))
    return tuple(colours)


def _check(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    scores: NDArray[np.floating] | None,
    classes: int,
) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    count = len(labels)
    if boxes.shape != (count, 4) or labels.shape != (count,):
        raise ValueError(
            f"expected boxes (D, 4) and labels (D,), got {boxes.shape} and {labels.shape}"
        )
    if scores is not None and scores.shape != (count,):
        raise ValueError(f"expected scores ({count},), got {scores.shape}")
    if count and not 1 <= labels.min() <= labels.max() <= classes:
        raise ValueError(f"expected labels 1…{classes}, got {labels.min()}…{labels.max()}")


def _frames(
    boxes: NDArray[np.floating],
    scores: NDArray[np.floating] | None,
    size: tuple[int, int],
    score_threshold: float,
) -> list[tuple[int, Rectangle]]:
    """Returns the rows to draw, best first, and the pixels that each box touches."""
    inside = np.clip(boxes, 0, np.tile(size, 2))
    drawn = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    order = np.arange(len(boxes))
    if scores is not None:
        drawn &= scores >= score_threshold
        order = np.argsort(-scores, kind="stable")
    rows = order[drawn[order]]
    corners = np.concatenate((np.floor(inside[rows, :2]), np.ceil(inside[rows, 2:])), axis=1)
    return [
        (row, tuple(box))
        for row, box in zip(rows.tolist(), corners.astype(int).tolist(), strict=True)
    ]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has no letters beyond ASCII.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _tag(
    text: str,
    colour: Colour,
    frame: Rectangle,
    size: tuple[int, int],
    taken: Sequence[Rectangle],
) -> _Tag:
    """Finds the place at a frame that overlaps other tags least, inside the image.

    Args:
        text: what the tag says.
        colour: what it is filled with.
        frame: of the box.
        size: width and height of the image, pixels.
        taken: the other tags.
    """
    x1, y1, x2, y2 = frame
    full = max(_SMALLEST_TEXT, round(_TEXT * math.sqrt(math.prod(size))))
    # A small object gets a small tag, so that a crowd keeps some of its pixels.
    fitting = int(full * (x2 - x1) / _font(full).getlength(text)) if text else full
    font = _font(max(_SMALLEST_TEXT, full * 2 // 3, min(full, fitting)))
    width = min(size[0], math.ceil(font.getlength(text) + 2 * _MARGIN * font.size))
    height = min(size[1], math.ceil(1.5 * font.size))
    corners = [
        (min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height))
        for y in (y1 - height, y1, y2, y2 - height)
        for x in (x1, x2 - width)
    ]
    places = [(x, y, x + width, y + height) for x, y in corners]
    place = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
    return _Tag(place, text, colour, font)


def _overlap(one: Rectangle, other: Rectangle) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _draw_frame(picture: NDArray[np.uint8], frame: Rectangle, line: int, colour: Colour) -> None:
    """Draws a line between black edges, which keep it visible on its own colour."""
    edge = max(1, line // 3)
    x1, y1, x2, y2 = frame
    area = picture[y1:y2, x1:x2]
    _draw_ring(area, line + 2 * edge, _BLACK)
    _draw_ring(area[edge:-edge, edge:-edge], line, colour)


def _draw_ring(area: NDArray[np.uint8], width: int, colour: Colour) -> None:
    """Fills the outermost pixels of an area, all of them where it is narrow."""
    area[:width] = area[max(0, len(area) - width) :] = colour
    area[:, :width] = area[:, max(0, area.shape[1] - width) :] = colour


def _draw_tag(pen: ImageDraw.ImageDraw, tag: _Tag) -> None:
    x1, y1, x2, y2 = tag.place
    pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=tag.colour, outline=_BLACK)
    start = (x1 + _MARGIN * tag.font.size, (y1 + y2) / 2)
    pen.text(start, tag.text, _BLACK, tag.font, anchor="lm")
