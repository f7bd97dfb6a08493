"""hotcoco against pycocotools on random data sets: difference exactly 0.

Classes do not touch one another in COCO's metric, so each class of a case is a data set by
itself, drawn with traits of its own.
"""

import numpy as np
import pytest

from detection.evaluation.coco import coco_arrays, coco_figures
from detection.structures import Annotations, Predictions

IMAGES, CLASSES = 5, 20
# Sides whose products meet and straddle the edges of the area ranges, 32² and 96².
SIDES = (8.0, 16.0, 32.0, 48.0, 64.0, 96.0, 192.0)
EDGES = [0.0, 32.0**2, 96.0**2, 1e10]
AREAS = [edge for at in EDGES for edge in (at, np.nextafter(at, np.inf), max(at - 1e-9, 0.0))]
LIMITS = [(1, 10, 100), (1, 2, 3), (2, 5, 300)]


def draw_boxes(rng: np.random.Generator, n: int, exact: bool) -> np.ndarray:
    """Boxes on a coarse grid, so that IoUs tie and meet thresholds; some without a size."""
    corners = rng.integers(-2, 8, (n, 2)) * 8.0
    sides = rng.choice(SIDES, (n, 2)) * (rng.random((n, 2)) > 0.03)
    if not exact:
        corners, sides = corners + rng.random((n, 2)), sides * rng.uniform(0.7, 1.4, (n, 2))
    return np.concatenate([corners, corners + sides], axis=1)


def draw_class(rng: np.random.Generator) -> tuple[dict, dict]:
    """Objects and detections of one class on IMAGES images, some of them empty."""
    exact = rng.random() < 0.6
    objects = int(rng.choice([0, 1, 5, 30]))
    detections = int(rng.choice([0, 1, 10, 60, 150 * IMAGES], p=[0.1, 0.1, 0.4, 0.35, 0.05]))
    image = rng.integers(0, rng.integers(1, IMAGES + 1), objects + detections)
    boxes = draw_boxes(rng, objects + detections, exact)
    if objects:  # most detections lie on or near an object
        near = np.flatnonzero(rng.random(detections) < 0.7)
        source = rng.integers(0, objects, len(near))
        image[objects + near] = image[source]
        boxes[objects + near] = boxes[source] + rng.integers(-2, 3, (len(near), 1)) * 4.0
    areas = np.prod(boxes[:objects, 2:] - boxes[:objects, :2], axis=1)
    on_edge = rng.random(objects) < 0.4
    areas[on_edge] = rng.choice(AREAS, on_edge.sum())
    few = rng.random() < 0.6
    scores = rng.integers(0, 5, detections) / 4 if few else rng.random(detections)
    truth = {
        "image": image[:objects],
        "boxes": boxes[:objects],
        "areas": areas,
        "crowd": rng.random(objects) < rng.choice([0, 0.3, 1], p=[0.5, 0.45, 0.05]),
        "difficult": rng.random(objects) < rng.choice([0, 0.3, 1], p=[0.5, 0.45, 0.05]),
    }
    return truth, {"image": image[objects:], "boxes": boxes[objects:], "scores": scores}


def draw_case(seed: int) -> tuple[Annotations, Predictions, list[str]]:
    rng = np.random.default_rng(seed)
    ids = rng.choice([-(2**62), -3, 0, 7, 2**40, 2**53 + 1, 2**62 + 1], IMAGES, replace=False)
    classes = [draw_class(rng) for _ in range(CLASSES)]
    labels = np.arange(1, CLASSES + 1)
    truth, found = (
        {name: np.concatenate([drawn[part][name] for drawn in classes]) for name in first}
        | {"labels": np.repeat(labels, [len(drawn[part]["image"]) for drawn in classes])}
        for part, first in enumerate(classes[0])
    )
    order = rng.permutation(len(truth["labels"]))
    order = order[np.argsort(truth["image"][order], kind="stable")]
    annotations = Annotations(
        image_ids=ids,
        sizes=np.full((IMAGES, 2), 400),
        offsets=np.cumsum([0, *np.bincount(truth["image"], minlength=IMAGES)]),
        **{name: truth[name][order] for name in Annotations._fields[3:8]},
    )
    order = rng.permutation(len(found["labels"]))
    kind = rng.choice([np.float32, np.float64])
    predictions = Predictions(
        ids[found["image"]][order],
        found["boxes"][order].astype(kind),
        found["scores"][order].astype(kind),
        found["labels"][order],
    )
    return annotations, predictions, [f"class{label}" for label in labels]


def check(seed: int) -> None:
    annotations, predictions, names = draw_case(seed)
    limits = LIMITS[seed % len(LIMITS)]
    ours = coco_arrays(annotations, predictions, names, limits)
    peer = coco_arrays(annotations, predictions, names, limits, "pycocotools")
    for name, own, other in zip(ours._fields, ours, peer, strict=True):
        assert own.dtype == other.dtype == np.float64
        np.testing.assert_array_equal(own, other, f"{name}, seed {seed}", strict=True)
    figures = [coco_figures(annotations, arrays, names, limits) for arrays in (ours, peer)]
    assert repr(figures[0]) == repr(figures[1])


@pytest.mark.parametrize("seed", range(15))
def test_the_engines_are_equal_on_300_data_sets(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1250, 50))
def test_the_engines_are_equal_on_5000_data_sets(first):
    for seed in range(first, first + 50):
        check(seed)


def test_the_cases_are_what_they_promise():
    cases = [draw_case(seed) for seed in range(15)]
    areas = np.concatenate([annotations.areas for annotations, _, _ in cases])
    assert set(AREAS) <= set(areas)
    assert any((a.crowd & a.difficult).any() for a, _, _ in cases)
    assert any((a.boxes[:, 2] == a.boxes[:, 0]).any() for a, _, _ in cases)
    most, classes = 0, set()
    for annotations, predictions, _ in cases:
        pairs = np.stack([predictions.image_ids, predictions.labels], axis=1)
        most = max(most, np.unique(pairs, axis=0, return_counts=True)[1].max())
        classes.add(len(np.unique(annotations.labels)))
    assert most > 100
    assert min(classes) < CLASSES


def test_a_third_engine():
    annotations, predictions, names = draw_case(0)
    with pytest.raises(ValueError, match="engine: expected one of hotcoco, pycocotools, got 'x'"):
        coco_arrays(annotations, predictions, names, engine="x")
