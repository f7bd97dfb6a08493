"""COCO evaluation from both JSON files to the figures, beside pycocotools and faster-coco-eval."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

IMAGES, CLASSES, OBJECTS, DETECTIONS = 5_000, 80, 36_000, 500_000  # val2017, 100 per image
SIZE = (640.0, 480.0)  # width, height
CORNERS = np.linspace(0, 2 * np.pi, 25)  # of an object's outline
PACKAGES = ("hotcoco", "pycocotools", "faster-coco-eval", "msgspec", "numpy")

_REPORT = """
import json, sys, time
times = (time.perf_counter() - start, time.process_time())
with open("/proc/self/status") as status:  # ru_maxrss would hold the parent's memory too
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([*times, memory / 1024, [float(value) for value in figures]]), file=sys.stderr)
"""
_PEER = """
import time
start = time.perf_counter()
from {coco} import COCO
from {evaluation} as COCOeval
truth = COCO("instances.json")
evaluation = COCOeval(truth, truth.loadRes("results.json"), "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
figures = evaluation.stats[:12]
"""
_OURS = """
import time
start = time.perf_counter()
from pathlib import Path
from detection.data.coco import read_coco
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.results import read_results
records = read_coco(Path("instances.json"), Path("images"))
predictions = read_results("results.json", records.labels.ids)
coco = evaluate_coco(records.annotations, predictions, records.labels.names)
figures = coco.scalars().values()
"""
SIDES = {
    "ours": _OURS,
    "pycocotools": _PEER.format(
        coco="pycocotools.coco", evaluation="pycocotools.cocoeval import COCOeval"
    ),
    "faster_coco_eval": _PEER.format(
        coco="faster_coco_eval", evaluation="faster_coco_eval import COCOeval_faster"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    parser.add_argument("--scale", type=float, default=1.0, help="share of val2017's size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates the same two files on all sides in turn, in processes of their own.

    The first round opens the gate: the twelve figures must be pycocotools' numbers. Imports count,
    and ours starts without its cache.
    """
    try:
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeError(f"{error.name} is not installed: pip install {error.name}") from error
    runs: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = write_case(folder, options.scale, options.seed)
        for turn in track(range(options.rounds), "rounds"):
            for side in SIDES if turn % 2 == 0 else reversed(SIDES):
                *figures, values = _evaluate(side, folder)
                runs[side].append(figures)
                if turn == 0:
                    counts.setdefault("figures", values)
                    differences[side] = _gate(side, values, counts["figures"])
    return {
        "subject": "COCO evaluation, from both files to the figures",
        **counts,
        "figures_differ_by": differences,
        "rounds": options.rounds,
        **{side: _summary(own) for side, own in runs.items()},
        **{f"beside_{side}": _ratios(own, runs["ours"]) for side, own in list(runs.items())[1:]},
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": versions,
    }


def _evaluate(side: str, folder: Path) -> tuple[float, float, float, list[float]]:
    """Returns wall and CPU seconds, peak memory (MB) and the twelve figures of one side."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", SIDES[side] + _REPORT],
            cwd=folder,
            env=os.environ | {"XDG_CACHE_HOME": cache},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr}")
    wall, cpu, memory, figures = json.loads(done.stderr.splitlines()[-1])
    return wall, cpu, memory, figures


def _gate(side: str, figures: list[float], expected: list[float]) -> float:
    """Returns the greatest difference, and refuses any, but for rounding in faster-coco-eval.

    pycocotools writes -1 where ours are not a number.
    """
    own, ours = (np.where(np.isnan(values), -1.0, values) for values in (figures, expected))
    difference = float(np.abs(own - ours).max())
    if difference > (1e-12 if side == "faster_coco_eval" else 0.0):
        raise RuntimeError(f"{side}: figures differ by {difference}: {figures}, ours {expected}")
    return difference


def _summary(rounds: list[list[float]]) -> dict[str, float]:
    wall, cpu, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "peak_memory_mb": round(memory)}


def _ratios(peer: list[list[float]], ours: list[list[float]]) -> dict[str, float]:
    """Returns medians of the paired ratios, the peer's value divided by ours."""
    ratios = np.median(np.array(peer) / np.array(ours), axis=0)
    names = ("wall", "cpu", "memory")
    return {name: round(float(ratio), 2) for name, ratio in zip(names, ratios, strict=True)}


def write_case(folder: Path, scale: float, seed: int) -> dict[str, Any]:
    """Writes ``instances.json``, its empty image files and ``results.json``.

    Args:
        folder: where to.
        scale: share of val2017's images and objects.
        seed: of the random numbers.

    Returns:
        The numbers of images, classes, objects and detections.
    """
    rng = np.random.default_rng(seed)
    images, objects, detections = (round(scale * n) for n in (IMAGES, OBJECTS, DETECTIONS))
    ids = np.sort(rng.choice(600_000, images, replace=False)) + 1
    image = np.sort(ids[rng.integers(images, size=objects)])
    boxes = _random_boxes(rng, objects).round(2)
    category = np.minimum(rng.zipf(1.3, objects), CLASSES)  # some classes are common
    _write_instances(folder, rng, ids, image, boxes, category)

    # Half of the detections lie near objects, half anywhere.
    near = rng.integers(objects, size=detections // 2)
    rest = detections - len(near)
    sides = boxes[near][:, [2, 3, 2, 3]]
    shifted = boxes[near] + rng.normal(0, 0.1, sides.shape) * sides
    found = np.concatenate([np.maximum(shifted, [-9, -9, 0.1, 0.1]), _random_boxes(rng, rest)])
    label = np.where(rng.random(len(near)) < 0.8, category[near], _labels(rng, len(near)))
    columns = {
        "image_id": np.concatenate([image[near], ids[rng.integers(images, size=rest)]]),
        "category_id": np.concatenate([label, _labels(rng, rest)]),
        "bbox": found.astype(np.float32).astype(np.float64),  # as detectors write them
        "score": np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 5, rest)]),
    }
    columns["score"] = columns["score"].astype(np.float32).astype(np.float64)
    order = np.argsort(columns["image_id"], kind="stable")
    _write(folder / "results.json", _entries({k: v[order] for k, v in columns.items()}))
    return {
        "images": images,
        "classes": CLASSES,
        "objects": objects,
        "detections": detections,
        "megabytes": {
            file: round((folder / file).stat().st_size / 1e6, 1)
            for file in ("instances.json", "results.json")
        },
    }


def _write_instances(
    folder: Path,
    rng: np.random.Generator,
    ids: NDArray[np.int64],
    image: NDArray[np.int64],
    boxes: NDArray[np.float64],
    category: NDArray[np.int64],
) -> None:
    """Writes the ground truth, with an outline and a mask's area for each object as COCO has."""
    (folder / "images").mkdir()
    names = {number: f"{number:012d}.jpg" for number in ids.tolist()}
    for name in names.values():
        (folder / "images" / name).touch()
    circle = np.stack([np.cos(CORNERS), np.sin(CORNERS)], axis=1)
    half = boxes[:, None, 2:] / 2
    outlines = (boxes[:, None, :2] + half + half * circle).round(2).reshape(len(boxes), 1, -1)
    columns = {
        "segmentation": outlines,
        "area": (boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.9, len(boxes))).round(4),
        "iscrowd": (rng.random(len(boxes)) < 0.01).astype(np.int64),
        "image_id": image,
        "bbox": boxes,
        "category_id": category,
        "id": np.arange(1, len(boxes) + 1),
    }
    width, height = SIZE
    sizes = {"height": int(height), "width": int(width)}
    content = {
        "info": {},
        "images": [{"file_name": name, "id": i, **sizes} for i, name in names.items()],
        "annotations": _entries(columns),
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
    }
    _write(folder / "instances.json", content)


def _random_boxes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    sides = np.exp(rng.normal(4, 1, (n, 2))).clip(4, 400)
    return np.concatenate([rng.random((n, 2)) * (np.array(SIZE) - sides), sides], axis=1)


def _labels(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    return rng.integers(1, CLASSES + 1, n)


def _entries(columns: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
