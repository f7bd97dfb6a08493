"""COCO evaluation from both JSON files to the figures, beside pycocotools and faster-coco-eval."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from resdet.tools.benchmarks import reading
from resdet.tools.benchmarks.coco_case import CLASSES, megabytes, write_annotations, write_results
from resdet.tools.benchmarks.script import (
    Measurement,
    Script,
    load_average,
    measure,
    medians,
    ratios,
    versions,
)

IMAGES, OBJECTS, DETECTIONS = 5_000, 36_000, 500_000  # val2017, 100 per image
PACKAGES = ("hotcoco", "pycocotools", "faster-coco-eval", "msgspec", "numpy")

_LOAD = """
truth = COCO("instances.json")
found = truth.loadRes("results.json")
"""
_EVALUATE = """
evaluation = COCOeval(truth, found, "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
figures = evaluation.stats[:12]
"""
SIDES = {
    "ours": Script(
        """
from pathlib import Path
from detection.data.coco import read_coco
from detection.data.records import SCORING
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.results import read_results
""",
        """
records = read_coco(Path("instances.json"), Path("images"), use=SCORING)
predictions = read_results("results.json", records.labels.ids)
""",
        """
coco = evaluate_coco(records.annotations, predictions, records.labels.names)
figures = coco.scalars().values()
""",
    ),
    "pycocotools": Script(
        "from pycocotools.coco import COCO; from pycocotools.cocoeval import COCOeval",
        _LOAD,
        _EVALUATE,
    ),
    "faster_coco_eval": Script(
        "from faster_coco_eval import COCO, COCOeval_faster as COCOeval", _LOAD, _EVALUATE
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data set's size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reading",
        action="store_true",
        help="instead, read annotations of train2017's size, first and from the cache",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates the same two files on all sides in turn, in processes of their own.

    The first round opens the gate: the twelve figures must be pycocotools' numbers. Ours starts
    without its cache.
    """
    if options.reading:
        return reading.run(options)
    found = versions(PACKAGES)
    runs: dict[str, list[Measurement]] = {side: [] for side in SIDES}
    differences: dict[str, float] = {}
    before = load_average()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = write_case(folder, options.scale, options.seed)
        for turn in track(range(options.rounds), "rounds"):
            for side in SIDES if turn % 2 == 0 else reversed(SIDES):
                with tempfile.TemporaryDirectory() as cache:
                    measured, values = measure(side, SIDES[side], folder, Path(cache))
                runs[side].append(measured)
                if turn == 0:
                    counts.setdefault("figures", values)
                    differences[side] = _gate(side, values, counts["figures"])
    peers = [side for side in SIDES if side != "ours"]
    return {
        "subject": "COCO evaluation, from both files to the figures",
        **counts,
        "figures_differ_by": differences,
        "rounds": options.rounds,
        **{side: medians(own) for side, own in runs.items()},
        **{f"beside_{side}": ratios(runs[side], runs["ours"]) for side in peers},
        "cores": os.cpu_count(),
        "load": {"before": before, "after": load_average()},
        "versions": found,
    }


def _gate(side: str, figures: list[float], expected: list[float]) -> float:
    """Returns the greatest difference, and refuses any, but for rounding in faster-coco-eval.

    pycocotools writes -1 where ours are not a number.
    """
    own, ours = (np.where(np.isnan(values), -1.0, values) for values in (figures, expected))
    difference = float(np.abs(own - ours).max())
    if difference > (1e-12 if side == "faster_coco_eval" else 0.0):
        raise RuntimeError(f"{side}: figures differ by {difference}: {figures}, ours {expected}")
    return difference


def write_case(folder: Path, scale: float, seed: int) -> dict[str, Any]:
    """Writes ``instances.json``, its empty image files and ``results.json``.

    Args:
        folder: where to.
        scale: share of val2017's images and objects.
        seed: of the random numbers.

    Returns:
        The numbers of images, classes, objects and detections, and the files' sizes.
    """
    rng = np.random.default_rng(seed)
    images, objects, detections = (round(scale * n) for n in (IMAGES, OBJECTS, DETECTIONS))
    write_results(folder, detections, *write_annotations(folder, images, objects, rng), rng)
    return {
        "images": images,
        "classes": CLASSES,
        "objects": objects,
        "detections": detections,
        "megabytes": {
            file: megabytes(folder / file) for file in ("instances.json", "results.json")
        },
    }
