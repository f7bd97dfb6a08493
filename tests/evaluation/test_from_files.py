"""COCO's figures from annotation and result files: difference 0 to pycocotools on the same files.

The numbers have two decimals, as COCO's own, and many IoUs and areas lie exactly on a threshold.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.coco import read_coco
from detection.data.records import SCORING
from detection.evaluation.coco import coco_arrays, evaluate_coco
from detection.evaluation.matches import match_detections
from detection.evaluation.precision import average_precision
from detection.evaluation.results import read_results, write_results

NAMES = ("cat", "dog", "eel")
IDS = (3, 17, 90)
SHARES = (1.0, 0.9, 0.8, 0.75, 0.5, 0.25)
AREAS = (32.0**2, 96.0**2)


def write_case(folder: Path, seed: int) -> tuple[Path, Path]:
    """Draws a data set and detections of it, and writes both files."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": int(i), "file_name": f"{i}.jpg", "height": 300, "width": 400}
        for i in rng.permutation(50)[:6]
    ]
    objects, found = [], []
    for number in range(60):
        # Some reach over the border or lie outside, some have no width or height.
        x, y = rng.uniform(-60, 420, 2).round(2).tolist()
        width, height = (rng.choice([0, 5, 20, 32, 40, 96, 160], 2) * 1.0).tolist()
        if rng.random() < 0.5:
            width, height = rng.uniform(0, 200, 2).round(2).tolist()
        where = {"image_id": int(rng.choice(6)), "category_id": int(rng.choice(IDS))}
        where["image_id"] = images[where["image_id"]]["id"]
        area = float(rng.choice([*AREAS, width * height])) if rng.random() < 0.5 else width * height
        crowd = int(rng.random() < 0.1)
        box = [x, y, width, height]
        objects.append({"id": number + 1, **where, "bbox": box, "area": area, "iscrowd": crowd})
        for _ in range(rng.integers(0, 4)):
            across, down = rng.choice(SHARES, 2)
            near = [x, y, float(width * across), float(height * down)]
            found.append({**where, "bbox": near, "score": float(rng.random())})
        aside = [*rng.uniform(0, 300, 2).round(2).tolist(), *rng.choice([32.0, 96.0], 2).tolist()]
        found.append({**where, "bbox": aside, "score": float(rng.random())})
    categories = [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    files = folder / f"truth-{seed}.json", folder / f"found-{seed}.json"
    for file, content in zip(files, (truth, found), strict=True):
        file.write_text(json.dumps(content))
    return files


def official(truth: Path, found: Path) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(truth))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(40))
def test_difference_is_zero(tmp_path: Path, seed: int):
    truth, found = write_case(tmp_path, seed)
    expected = official(truth, found)
    records = read_coco(truth, tmp_path, use=SCORING)
    predictions = read_results(found, IDS)
    for engine in ("hotcoco", "pycocotools"):
        case = (records.annotations, predictions, NAMES)
        arrays = coco_arrays(*case, engine=engine)
        for name in ("precision", "recall", "scores"):
            np.testing.assert_array_equal(getattr(arrays, name), expected.eval[name])
        figures = evaluate_coco(*case, engine=engine).scalars()
        np.testing.assert_array_equal(
            [-1 if np.isnan(value) else value for value in figures.values()], expected.stats
        )


@pytest.mark.parametrize("seed", range(10))
def test_matches_agree(tmp_path: Path, seed: int):
    truth, found = write_case(tmp_path, seed)
    precision = official(truth, found).eval["precision"][:, :, :, 0, 2].mean(axis=1).T
    records = read_coco(truth, tmp_path, use=SCORING)
    matches = match_detections(records.annotations, read_results(found, IDS), NAMES)
    np.testing.assert_allclose(average_precision(matches), precision, rtol=0, atol=1e-12)


def test_a_file_that_is_written_again_scores_the_same(tmp_path: Path):
    _, found = write_case(tmp_path, 0)
    again = tmp_path / "again.json"
    write_results(again, read_results(found, IDS), IDS)
    assert json.loads(again.read_bytes()) == [
        {name: entry[name] for name in ("image_id", "category_id", "bbox", "score")}
        for entry in json.loads(found.read_bytes())
    ]
