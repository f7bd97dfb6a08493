"""What improves a detector without further training, as options of a command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detection.model.improved import Improvements

IMPROVEMENTS = ("refine", "vote", "scales", "flip", "fuse")


def add_improvements(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    ladder = parser.add_argument_group(
        "improvements of --checkpoint, alone or together (--fuse: with --scales)",
        "Of the ResNet paper's appendix B, where global context is trained and needs no switch, "
        "and of today's test-time augmentation.",
    )
    ladder.add_argument("--refine", action="store_true", help="pool each found box once more")
    ladder.add_argument(
        "--vote", action="store_true", help="move kept boxes to the mean of those around them"
    )
    ladder.add_argument(
        "--scales",
        type=int,
        nargs="+",
        default=[],
        metavar="SIDE",
        help="short sides, pixels: see each region at the two that suit it (the paper's: 200 400 "
        "600 800 1000)",
    )
    ladder.add_argument(
        "--natural-side",
        type=float,
        default=224.0,
        metavar="SIDE",
        help="the scales that suit a region bring it closest to this square, pixels (224)",
    )
    ladder.add_argument("--flip", action="store_true", help="detect in the mirrored image too")
    ladder.add_argument(
        "--fuse",
        action="store_true",
        help="detect at each of --scales by itself, and fuse the boxes (weighted box fusion)",
    )


def read_improvements(options: argparse.Namespace) -> Improvements:
    """Returns what the options ask for.

    Raises:
        ValueError: they do not go together.
    """
    from detection.model.improved import Improvements

    return Improvements(
        refinement=options.refine,
        voting=options.vote,
        scales=tuple(options.scales),
        flip=options.flip,
        fuse=options.fuse,
        natural_side=options.natural_side,
    )
