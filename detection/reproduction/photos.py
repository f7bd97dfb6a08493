"""What each improvement that needs no further training brings on real photos.

A C4 detector is trained on a folder of photos from a pre-trained and frozen ResNet-18 trunk; the
rungs are then tested one by one and together, for every seed. The set is small, so that the figures
show what helps here, not what the paper's networks are capable of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detection.reproduction.paper import REFINE
from detection.reproduction.study import Gap, Metric, Row, Study, Training

_METRICS: tuple[Metric, ...] = ("ap50", "ap", "voc10")
_SCALES = ("--scales", "128", "192", "256", "320", "384")
_FUSED = ("--scales", "192", "256", "320")
_RUNGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "refine": ("box refinement and voting", REFINE),
    "scales": ("multi-scale testing, maxout", _SCALES),
    "flip": ("mirror image, fused", ("--flip",)),
    "fuse": ("mirror image and three scales, fused", (*_FUSED, "--flip", "--fuse")),
    "all": ("refinement, voting, multi-scale testing", (*REFINE, *_SCALES)),
}


def photos(data: Path, weights: Path, seeds: Sequence[int]) -> Study:
    """Makes the study.

    Args:
        data: folder of VOC layout with the splits ``train`` and ``val``.
        weights: of a ResNet-18 without its last stage.
        seeds: of the trainings; several make an ensemble too.
    """
    command = ("train", "--config", "voc_sample.yaml", "--model.weights", str(weights.resolve()))
    training = (Training("photos", command, reads=(weights.resolve(),)),)
    rows = [Row("photos", "ResNet-18, C4", (), _METRICS, training)]
    for name, (method, options) in _RUNGS.items():
        rows.append(Row(f"photos-{name}", f"+ {method}", (), _METRICS, training, options))
    if len(seeds) > 1:
        method = f"ensemble of {len(seeds)} seeds"
        rows.append(Row("photos-ensemble", method, (), _METRICS, training, all_seeds=True))
    gaps = tuple(Gap("photos", row.key) for row in rows[1:])
    title = "Improvements without further training, on photos"
    return Study("photos", title, tuple(rows), gaps, data.resolve(), "val", comparable=False)
