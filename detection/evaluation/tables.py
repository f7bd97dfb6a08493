"""Plain-text tables of the figures, each under a line that says how they are defined."""

import math
from collections.abc import Sequence

from detection.evaluation.coco import CocoFigures
from detection.evaluation.definitions import Score, coco_heading, voc_heading
from detection.evaluation.figures import class_rows
from detection.evaluation.voc import VocFigures


def coco_table(figures: CocoFigures) -> str:
    """Returns COCO's twelve figures, worded as pycocotools prints them; n/a without objects.

    Args:
        figures: from `evaluate_coco`.

    Returns:
        A heading and twelve lines, without a final line break.
    """
    few, some, most = figures.max_detections
    sizes = ("small", "medium", "large")
    settings = [("0.50:0.95", "all", most), ("0.50", "all", most), ("0.75", "all", most)]
    settings += [("0.50:0.95", size, most) for size in sizes]
    settings += [("0.50:0.95", "all", limit) for limit in (few, some, most)]
    settings += [("0.50:0.95", size, most) for size in sizes]
    lines = [coco_heading(figures)]
    for i, (value, setting) in enumerate(zip(figures.scalars().values(), settings, strict=True)):
        title, short = ("Average Precision", "(AP)") if i < 6 else ("Average Recall", "(AR)")
        iou, area, limit = setting
        where = f"IoU={iou:<9} | area={area:>6} | maxDets={limit:>3}"
        lines.append(f" {title:<18} {short} @[ {where} ] = {_figure(value)}")
    return "\n".join(lines)


def class_table(coco: CocoFigures, voc: VocFigures) -> str:
    """Returns both metrics per class, and their means; n/a without objects.

    Args:
        coco: from `evaluate_coco`.
        voc: from `evaluate_voc`, on the same images, classes and detections.

    Returns:
        Two headings, a line of column names, a line per class and one of means, without a final
        line break.

    Raises:
        ValueError: the two are of different classes or images.
    """
    if (coco.images, [c[:2] for c in coco.per_class]) != (
        voc.images,
        [c[:2] for c in voc.per_class],
    ):
        raise ValueError("the COCO and VOC figures are of different images or classes")
    width = max([len("class"), *(len(c.name) for c in coco.per_class)])
    rows = class_rows(coco, voc)
    columns = "".join(f"{name:>7}" for name in ("AP", "AP50", "VOC07", "VOC10"))
    lines = [coco_heading(coco), voc_heading(voc), f"{'class':<{width}} {'objects':>8}{columns}"]
    for name, count, *values in rows:
        cells = "".join(f"{_figure(value):>7}" for value in values)
        lines.append(f"{name:<{width}} {count:>8}{cells}")
    return "\n".join(lines)


def definition_table(scores: Sequence[Score]) -> str:
    """Returns one set of detections under several definitions; n/a without objects.

    Args:
        scores: from `side_by_side`.

    Returns:
        A line of column names and one per definition, without a final line break.
    """
    rows = [("figure", "value", *Score._fields[2:])]
    rows += [(score.name, _figure(score.value), *score[2:]) for score in scores]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _figure(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"
