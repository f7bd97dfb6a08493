"""An evaluation as files: figures.json, for the report and for others, and figures.csv."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detection.evaluation.coco import CocoFigures
from detection.evaluation.definitions import Score, coco_heading, voc_heading
from detection.evaluation.voc import VocFigures

COLUMNS = ("class", "objects", "AP", "AP50", "VOC07", "VOC10")
STAMP = ("split", "COCO", "VOC")
"""What each row of figures.csv says beside: of which images it is, and how it is defined."""


def write_figures(
    folder: str | os.PathLike[str],
    coco: CocoFigures,
    voc: VocFigures,
    definitions: Sequence[Score],
    origin: Mapping[str, Any],
) -> None:
    """Writes figures.json and figures.csv; what is nan is null, or an empty cell.

    Args:
        folder: where; it must exist.
        coco: COCO's figures.
        voc: VOC's figures, of the same images and classes.
        definitions: from `side_by_side`.
        origin: plain values that say what was scored and how: data, split, checkpoint, …

    Raises:
        OSError: a file cannot be written.
    """
    rows = class_rows(coco, voc)
    content = {
        **origin,
        "images": coco.images,
        "definitions": [score._asdict() for score in definitions],
        "coco": {**coco.scalars(), "max_detections": coco.max_detections},
        "voc": {"voc07": voc.voc07, "voc10": voc.voc10, "iou_threshold": voc.iou_threshold},
        "classes": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
    }
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    Path(folder, "figures.json").write_text(f"{text}\n", encoding="utf-8")
    with Path(folder, "figures.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS + STAMP)
        stamp = (origin.get("split", ""), coco_heading(coco), voc_heading(voc))
        for row in rows:
            writer.writerow(["" if x is None else x for x in plain([*row, *stamp])])


def class_rows(
    coco: CocoFigures, voc: VocFigures
) -> list[tuple[str, int, float, float, float, float]]:
    """The figures of each class, then their means: a row of `COLUMNS` each."""
    rows = [
        (c.name, c.objects, c.ap, c.ap50, v.voc07, v.voc10)
        for c, v in zip(coco.per_class, voc.per_class, strict=True)
    ]
    objects = sum(figures.objects for figures in coco.per_class)
    return [*rows, ("mean", objects, coco.ap, coco.ap50, voc.voc07, voc.voc10)]


def plain(value: Any) -> Any:
    """Puts None where JSON has no nan and no infinity."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
