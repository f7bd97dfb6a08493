"""The variants of the data set ``shapes``: their classes, and how hard they are to see.

``HARD`` is for comparing networks: eight classes in four pairs that one detail of shape or texture
tells apart, in smaller images with less contrast, more clutter and more parts hidden.
As in ``PLAIN``, colour, size and place say nothing about the class.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """What there is to draw; odds are probabilities.

    Attributes:
        name: of the variant.
        classes: names with an outline in ``shape_outlines``, in the order of their labels.
        image_size: largest height and width of an image, pixels, unless told.
        sides: ranges of the square root of an object's area, pixels.
        side_odds: of each range.
        any_turn: odds that an object is turned by more than 20 degrees.
        contrast: Euclidean RGB distance between a shape and what is around it.
        two_colours: odds of a second colour that stands out as much as the first.
        clutter: heaps of clutter behind the objects, at least and at most.
        keep_odds: of each of ``KEEP``.
        crowd: odds that an image has a crowd.
    """

    name: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    sides: tuple[tuple[float, float], ...]
    side_odds: tuple[float, ...]
    any_turn: float
    contrast: float
    two_colours: float
    clutter: tuple[int, int]
    keep_odds: tuple[float, float, float]
    crowd: float


PLAIN = Variant(
    name="plain",
    classes=(
        "circle",
        "square",
        "triangle",
        "star",
        "cross",
        "ring",
        "crescent",
        "arrow",
        "heart",
    ),
    image_size=(256, 256),
    sides=((14.0, 32.0), (32.0, 96.0), (96.0, 170.0)),  # COCO's ranges of area
    side_odds=(0.18, 0.5, 0.32),
    any_turn=0.2,
    contrast=110.0,
    two_colours=0.2,
    clutter=(0, 4),
    keep_odds=(0.8, 0.1, 0.1),
    crowd=0.03,
)

HARD = Variant(
    name="hard",
    classes=(
        "square",
        "notched_square",
        "ring",
        "broken_ring",
        "cross",
        "tee",
        "striped_hexagon",
        "checked_hexagon",
    ),
    image_size=(160, 160),
    sides=((18.0, 36.0), (36.0, 100.0)),
    side_odds=(0.35, 0.65),
    any_turn=0.1,
    contrast=100.0,
    two_colours=0.1,
    clutter=(1, 4),
    keep_odds=(0.7, 0.2, 0.1),
    crowd=0.0,
)
