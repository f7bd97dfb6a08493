from types import SimpleNamespace

import numpy as np
import pytest

from detection.reproduction.evaluated import Evaluated
from detection.reproduction.intervals import ImageIntervals
from detection.reproduction.study import Gap
from detection.structures import Annotations, Predictions

IMAGES = 20
BOX = (0.0, 0.0, 10.0, 10.0)


def run(hits: int) -> Evaluated:
    """An object in each image, found in the first few."""
    truth = Annotations(
        image_ids=np.arange(IMAGES),
        sizes=np.full((IMAGES, 2), 100),
        offsets=np.arange(IMAGES + 1),
        boxes=np.array([BOX] * IMAGES),
        labels=np.ones(IMAGES, np.int64),
        areas=np.full(IMAGES, 100.0),
        crowd=np.zeros(IMAGES, np.bool_),
        difficult=np.zeros(IMAGES, np.bool_),
    )
    scores, labels = np.full(hits, 0.5), np.ones(hits, np.int64)
    found = Predictions(np.arange(hits), np.array([BOX] * hits), scores, labels)
    records = SimpleNamespace(annotations=truth, labels=SimpleNamespace(names=("c",)))
    return Evaluated("run", {}, records, found)


@pytest.mark.parametrize(("a", "b", "needed"), [(3, 3, False), (3, 4, True), (2, 2, True)])
def test_only_pairs_of_three_runs_or_more_need_no_images(a: int, b: int, needed: bool) -> None:
    runs = {"a": [run(5)] * a, "b": [run(10)] * b}
    found = ImageIntervals(runs, 20).gap(Gap("a", "b"), "voc10")
    assert (found is not None) == needed
    if found is not None:
        assert found.value == pytest.approx(0.25)
        assert found.low <= found.value <= found.high
    assert ImageIntervals(runs, 0).gap(Gap("a", "b"), "voc10") is None
