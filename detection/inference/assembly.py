"""Trained detectors to the one that is used: alone, as an ensemble, or improved."""

from __future__ import annotations

from collections.abc import Sequence

from detection.checkpoint import Description
from detection.model.faster_rcnn import FasterRCNN
from detection.model.improved import Detector, ImprovedDetector, Improvements


def assemble(
    trained: Sequence[tuple[FasterRCNN, Description]], improvements: Improvements = Improvements()
) -> tuple[Detector, Description]:
    """Makes one detector of those that `load_detector` returned.

    Args:
        trained: detectors with their descriptions, at least one; several are an ensemble.
        improvements: what is done in inference.

    Returns:
        The detector in evaluation mode, the very one where there is nothing to add; and the first
        one's description, with the sides that the images should have: the short one as large as
        the largest scale, the long one in proportion.

    Raises:
        ValueError: if the classes are not the same.
    """
    descriptions = [description for _, description in trained]
    first = descriptions[0]
    for number, other in enumerate(descriptions[1:], start=2):
        if other.labels.names != first.labels.names:
            raise ValueError(
                f"an ensemble's detectors must know the same classes: the first knows "
                f"{', '.join(first.labels.names)}; number {number} {', '.join(other.labels.names)}"
            )
    if len(trained) == 1 and improvements == Improvements():
        return trained[0][0].eval(), first
    members = [detector for detector, _ in trained]
    short_sides = [description.short_side for description in descriptions]
    improved = ImprovedDetector(members, short_sides, improvements).eval()
    long_side = round(first.long_side * improved.short_side / first.short_side)
    return improved, first._replace(short_side=improved.short_side, long_side=long_side)
