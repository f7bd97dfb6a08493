"""Small data sets, by hand and at random, and pycocotools run the official way."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.structures import Annotations, Predictions

Box = tuple[float, float, float, float]
Truth = Callable[..., Annotations]
Found = Callable[..., Predictions]


def make_truth(
    images: Mapping[int, Sequence[tuple[Box, int]]],
    crowd: Sequence[int] = (),
    difficult: Sequence[int] = (),
) -> Annotations:
    """Image id -> its (box, label) pairs; rows of crowds and of difficult objects."""
    objects = [pair for pairs in images.values() for pair in pairs]
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
    rows = np.arange(len(objects))
    return Annotations(
        image_ids=np.array(list(images), np.int64),
        sizes=np.full((len(images), 2), 400, np.int64),
        offsets=np.cumsum([0, *(len(pairs) for pairs in images.values())]).astype(np.int64),
        boxes=boxes,
        labels=np.array([label for _, label in objects], np.int64),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        crowd=np.isin(rows, crowd),
        difficult=np.isin(rows, difficult),
    )


def make_found(rows: Sequence[tuple[int, Box, float, int]] = ()) -> Predictions:
    """(image id, box, score, label) rows."""
    return Predictions(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[3] for row in rows], np.int64),
    )


def make_random(
    seed: int, images: int = 7, classes: int = 3, crowds: float = 0.0, difficult: float = 0.0
) -> tuple[Annotations, Predictions, list[str]]:
    """Whole-numbered boxes; near hits, double hits, wrong labels, noise and tied scores."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(3 * images)[:images].tolist()
    truth: dict[int, list[tuple[Box, int]]] = {}
    found: list[tuple[int, Box, float, int]] = []
    for image_id in ids:
        truth[image_id] = []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = (*rng.integers(0, 150, 2), *rng.choice([8, 20, 50, 140], 2))
            box, label = (
                (float(x), float(y), float(x + w), float(y + h)),
                int(rng.integers(classes)),
            )
            truth[image_id].append((box, label + 1))
            for _ in range(rng.integers(0, 4)):
                x1, y1, x2, y2 = np.array(box) + rng.integers(-3, 4, 4)
                near = (float(x1), float(y1), float(max(x1, x2)), float(max(y1, y2)))
                wrong = int(rng.random() < 0.2)
                found.append((image_id, near, _score(rng), (label + wrong) % classes + 1))
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = (float(v) for v in rng.integers(0, 150, 4))
            found.append(
                (image_id, (x, y, x + w, y + h), _score(rng), int(rng.integers(classes)) + 1)
            )
    n = sum(len(pairs) for pairs in truth.values())
    annotations = make_truth(
        truth,
        crowd=np.flatnonzero(rng.random(n) < crowds).tolist(),
        difficult=np.flatnonzero(rng.random(n) < difficult).tolist(),
    )
    rng.shuffle(found)
    return annotations, make_found(found), [f"class{k}" for k in range(1, classes + 1)]


def _score(rng: np.random.Generator) -> float:
    return float(rng.integers(1, 10)) / 10


def run_pycocotools(
    annotations: Annotations,
    predictions: Predictions,
    classes: int,
    max_detections: Sequence[int] = (1, 10, 100),
    *,
    dataset: dict | None = None,
    ids: Sequence[int] | None = None,
) -> tuple[list[float], list[str]]:
    """The twelve figures and the printed lines of pycocotools' demo; ``dataset`` as published."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset or official_truth(annotations, classes)
        coco.createIndex()
        results = official_results(predictions, ids or range(1, classes + 1))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.redirect_stdout(printed):
            evaluation.summarize()
    return evaluation.stats.tolist(), printed.getvalue().splitlines()


def official_truth(annotations: Annotations, classes: int) -> dict:
    entries = []
    for i, image_id in enumerate(annotations.image_ids.tolist()):
        for row in range(annotations.offsets[i], annotations.offsets[i + 1]):
            x1, y1, x2, y2 = annotations.boxes[row].tolist()
            entry = {"id": row + 1, "image_id": image_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            entry |= {"category_id": int(annotations.labels[row])}
            entry |= {"area": float(annotations.areas[row]), "iscrowd": int(annotations.crowd[row])}
            entries.append(entry)
    return {
        "images": [{"id": image_id} for image_id in annotations.image_ids.tolist()],
        "categories": [{"id": label, "name": str(label)} for label in range(1, classes + 1)],
        "annotations": entries,
    }


def official_results(predictions: Predictions, ids: Sequence[int]) -> list[dict]:
    rows = sorted(
        zip(
            predictions.image_ids.tolist(),
            predictions.labels.tolist(),
            (-predictions.scores).tolist(),
            predictions.boxes.tolist(),
            strict=True,
        )
    )
    return [
        {"image_id": i, "category_id": ids[c - 1], "score": -s, "bbox": [x, y, x2 - x, y2 - y]}
        for i, c, s, (x, y, x2, y2) in rows
    ]


@pytest.fixture(scope="session")
def truth() -> Truth:
    return make_truth


@pytest.fixture(scope="session")
def found() -> Found:
    return make_found


@pytest.fixture(scope="session")
def random_case() -> Callable[..., tuple[Annotations, Predictions, list[str]]]:
    return make_random


@pytest.fixture(scope="session")
def pycocotools() -> Callable[..., tuple[list[float], list[str]]]:
    return run_pycocotools
