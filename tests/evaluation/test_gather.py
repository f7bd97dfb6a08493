import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import detection
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.gather import PredictionBuffer, broadcast_figures, gather_predictions
from detection.evaluation.voc import evaluate_voc
from detection.structures import Detections, Predictions

WORKER = Path(__file__).with_name("gather_worker.py")


def as_predictions(columns: list[list]) -> Predictions:
    ids, boxes, scores, labels = columns
    return Predictions(
        np.array(ids, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
    )


@pytest.fixture(scope="module")
def case(random_case):
    return random_case(5, images=21, crowds=0.05, difficult=0.05)


@pytest.fixture(scope="module")
def ranks(case, tmp_path_factory) -> list[dict]:
    """What each of two gloo processes reports of gather_worker.py."""
    annotations, predictions, _ = case
    folder = tmp_path_factory.mktemp("ranks")
    columns = dict(zip(Predictions._fields, predictions[:4], strict=False))
    np.savez(folder / "case.npz", images=annotations.image_ids, **columns)
    root = str(Path(detection.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    command = [sys.executable, str(WORKER), str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_without_detections(ranks):
    assert ranks[0]["both empty"] == [[], [], [], []]
    assert ranks[1]["both empty"] is None


def test_a_rank_without_detections(ranks, case):
    got = as_predictions(ranks[0]["one empty"])
    for array, expected in zip(got[:4], case[1][:4], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_two_ranks_evaluate_as_one(ranks, case):
    annotations, predictions, names = case
    assert ranks[1]["sharded"] is None
    gathered = as_predictions(ranks[0]["sharded"])
    assert len(gathered.scores) == len(predictions.scores) > 0
    for evaluate in (evaluate_coco, evaluate_voc):
        one = evaluate(annotations, predictions, names)
        assert repr(evaluate(annotations, gathered, names)) == repr(one)


def test_an_image_on_two_ranks_fails_on_both(ranks, case):
    shared = int(case[0].image_ids[2])
    assert np.count_nonzero(case[1].image_ids == shared)
    for rank in ranks:
        message = rank["shared"]
        assert message.startswith(
            f"ValueError: image {shared} has detections on more than one rank"
        )


def test_figures_reach_every_rank(ranks):
    for rank in ranks:
        assert rank["figures"] == {"ap": 0.25, "ap_small": float("inf")}
        assert rank["no figures"] == "RuntimeError: rank 0 has no figures: its evaluation failed"


def test_one_process_needs_no_group(found):
    predictions = found([(1, (0, 0, 1, 1), 0.5, 1)])
    assert gather_predictions(predictions) is predictions
    assert broadcast_figures({"ap": 0.5}) == {"ap": 0.5}
    with pytest.raises(RuntimeError, match="rank 0 has no figures"):
        broadcast_figures(None)


def detections(labels: list[list[int]]) -> Detections:
    shape = torch.tensor(labels).shape
    boxes = torch.arange(4 * shape.numel(), dtype=torch.float32).reshape(*shape, 4)
    scores = torch.arange(shape.numel(), dtype=torch.float32).reshape(shape) / 10
    return Detections(boxes.requires_grad_(), scores.bfloat16(), torch.tensor(labels))


def test_empty_buffer():
    image_ids, boxes, scores, labels, _ = PredictionBuffer().predictions()
    assert (image_ids.shape, boxes.shape, scores.shape, labels.shape) == ((0,), (0, 4), (0,), (0,))
    assert [a.dtype for a in (image_ids, boxes, scores, labels)] == ["i8", "f4", "f4", "i8"]


def test_buffer_drops_empty_slots():
    buffer = PredictionBuffer()
    buffer.add(detections([[3, 1, 0], [0, 0, 0]]), torch.tensor([40, 7]))
    buffer.add(detections([[2, 0]]), torch.tensor([9]))
    image_ids, boxes, scores, labels, _ = buffer.predictions()
    assert image_ids.tolist() == [40, 40, 9]
    assert boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]
    assert scores == pytest.approx([0.0, 0.1, 0.0], abs=1e-3)
    assert labels.tolist() == [3, 1, 2]
    assert [a.dtype for a in (image_ids, boxes, scores, labels)] == ["i8", "f4", "f4", "i8"]


def test_buffer_counts_an_image_once():
    buffer = PredictionBuffer()
    buffer.add(detections([[0]]), torch.tensor([40]))
    with pytest.raises(ValueError, match="image 40 was added twice"):
        buffer.add(detections([[1], [1]]), torch.tensor([41, 40]))
    with pytest.raises(ValueError, match="expected 1 image ids"):
        buffer.add(detections([[1]]), torch.tensor([1, 2]))
