"""Reading COCO annotations of train2017's size: first, from the cache, and by others.

The others are pycocotools, and msgspec alone: typed structs without masks, nothing checked.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from resdet.tools.benchmarks.coco_case import CLASSES, megabytes, write_annotations
from resdet.tools.benchmarks.script import (
    Measurement,
    Script,
    load_average,
    measure,
    medians,
    ratios,
    versions,
)

IMAGES, OBJECTS = 118_287, 860_001  # train2017
SETTLING = 2.5  # seconds; a file that has just changed is not cached

_OURS = Script(
    "from pathlib import Path; from detection.data.coco import read_coco",
    'records = read_coco(Path("instances.json"), Path("images"))',
    "figures = len(records.files), len(records.annotations.boxes)",
)
_STRUCTS = """
sides = [(name, int) for name in ("id", "width", "height")]
Image = msgspec.defstruct("Image", [*sides, ("file_name", str)], gc=False)
keys = [(name, int) for name in ("id", "image_id", "category_id", "iscrowd")]
box = [("bbox", tuple[float, float, float, float]), ("area", float)]
Object = msgspec.defstruct("Object", [*keys, *box], gc=False)
File = msgspec.defstruct("File", [("images", list[Image]), ("annotations", list[Object])])
truth = msgspec.json.decode(Path("instances.json").read_bytes(), type=File)
"""
SIDES = {
    "first": _OURS,
    "cached": _OURS,
    "msgspec": Script(
        "from pathlib import Path; import msgspec",
        _STRUCTS,
        "figures = len(truth.images), len(truth.annotations)",
    ),
    "pycocotools": Script(
        "from pycocotools.coco import COCO",
        'truth = COCO("instances.json")',
        "figures = len(truth.imgs), len(truth.anns)",
    ),
}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Reads one file on all sides in turn, in processes of their own.

    The gate: all find the same images and objects. The file is in the system's cache.
    """
    found = versions(("pycocotools", "msgspec", "numpy"))
    runs: dict[str, list[Measurement]] = {side: [] for side in SIDES}
    before = load_average()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, objects = (round(options.scale * n) for n in (IMAGES, OBJECTS))
        write_annotations(folder, images, objects, np.random.default_rng(options.seed))
        size = megabytes(folder / "instances.json")
        time.sleep(SETTLING)
        for _ in track(range(options.rounds), "rounds"):
            with tempfile.TemporaryDirectory() as cache:
                for side, script in SIDES.items():  # in this order: the first fills the cache
                    measured, counts = measure(side, script, folder, Path(cache))
                    runs[side].append(measured)
                    if counts != [images, objects]:
                        raise RuntimeError(f"{side}: found {counts}, not {images}, {objects}")
    return {
        "subject": "reading of COCO annotations",
        "images": images,
        "classes": CLASSES,
        "objects": objects,
        "megabytes": size,
        "rounds": options.rounds,
        **{side: medians(own) for side, own in runs.items()},
        **{
            f"beside_{peer}": {side: ratios(runs[peer], runs[side]) for side in ("first", "cached")}
            for peer in ("pycocotools", "msgspec")
        },
        "cores": os.cpu_count(),
        "load": {"before": before, "after": load_average()},
        "versions": found,
    }
