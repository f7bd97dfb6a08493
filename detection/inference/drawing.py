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

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

# Of the square root of the image's area.
_TEXT = 0.032
_LINE = 0.005


def draw(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    scores: NDArray[np.floating] | None,
    names: Sequence[str],
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
    canvas = Image.fromarray(image.copy())
    pen = ImageDraw.Draw(canvas)
    side = math.sqrt(canvas.width * canvas.height)
    line = max(1, round(_LINE * side))
    font = _font(max(10, round(_TEXT * side)))
    colours = palette(len(names))
    tags: list[tuple[Rectangle, str, Colour]] = []
    for row, frame in _frames(boxes, scores, canvas.size, score_threshold):
        name, colour = names[labels[row] - 1], colours[labels[row] - 1]
        text = name if scores is None else f"{name} {scores[row]:.2f}"
        tag = _place(frame, _tag_size(text, font), canvas.size, [other for other, _, _ in tags])
        tags.append((tag, text, colour))
        _draw_frame(pen, frame, line, colour)
    for tag, text, colour in reversed(tags):
        _draw_tag(pen, tag, text, colour, font)
    return np.array(canvas)


@cache
def palette(count: int) -> tuple[Colour, ...]:
    """Chooses colours that are vivid, neither dark nor pale, and far from each other.

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
    usable = (lab[:, 0] > 45) & (lab[:, 0] < 90) & (np.hypot(lab[:, 1], lab[:, 2]) > 45)
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
    return [(row, tuple(box)) for row, box in zip(rows.tolist(), corners.astype(int).tolist())]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
