"""How much the official splits of PASCAL VOC and COCO hold.

Sources: Zou et al., Object Detection in 20 Years: A Survey, arXiv 1905.05055, Table I; for VOC
2007 test, whose entry there counts difficult objects too, the challenge's 24,640 objects of
trainval and test together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from detection.data.folder import CocoSource, VocSource
from detection.data.records import Records


class Count(NamedTuple):
    """What a split holds.

    Attributes:
        images: with and without objects.
        objects: without VOC's difficult ones, with COCO's crowds; None where they are secret.
    """

    images: int
    objects: int | None


COUNTS: Mapping[str, Count] = MappingProxyType(
    {
        "VOC2007/train": Count(2501, 6301),
        "VOC2007/val": Count(2510, 6307),
        "VOC2007/trainval": Count(5011, 12608),
        "VOC2007/test": Count(4952, 24640 - 12608),
        "VOC2012/train": Count(5717, 13609),
        "VOC2012/val": Count(5823, 13841),
        "VOC2012/trainval": Count(11540, 27450),
        "VOC2012/test": Count(10991, None),
        "instances_train2014": Count(82783, 604907),
        "instances_val2014": Count(40504, 291875),
        "instances_train2017": Count(118287, 860001),
        "instances_val2017": Count(5000, 36781),
    }
)


COCO_IDS = tuple(id_ for id_ in range(1, 91) if id_ not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
"""The ids of COCO's 80 categories."""


def shortfall(source: VocSource | CocoSource, records: Records) -> str:
    """Says what an official split lacks.

    Args:
        source: where the split lies; its names tell which one it claims to be.
        records: what was read of it. What its reader left out is there too.

    Returns:
        How many images or objects there are, of how many; empty for a complete split, and for
        one that is not official.
    """
    if isinstance(source, VocSource):
        name = f"{source.root.name}/{source.split}"
    else:
        name = source.annotation_file.stem
        if records.labels.ids != COCO_IDS:  # others use COCO's file names too
            return ""
    if name not in COUNTS:
        return ""
    expected, truth = COUNTS[name], records.annotations
    left_out = sum(skipped.record.startswith("image") for skipped in records.skipped)
    images = len(records.files) + left_out
    if images != expected.images:
        return f"{images:,} of {expected.images:,} images of the official {name}"
    objects = int((~truth.difficult).sum()) + len(records.skipped) - left_out
    if not left_out and expected.objects is not None and objects != expected.objects:
        return f"{objects:,} of {expected.objects:,} objects of the official {name}"
    return ""
