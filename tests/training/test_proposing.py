"""Proposals of all training images: the RPN's own, in original pixels, and their recall."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from detection.data.proposals import StoredProposals, pack_proposals, read_proposals
from detection.evaluation.recall import proposal_recall
from detection.structures import Annotations, Predictions
from detection.training import proposing
from detection.training.proposing import LIMITS, Proposer, RecallCount, recall_of, store

Make = Callable[..., pl.Trainer]


def test_proposals_are_the_rpns_in_original_pixels(
    small: ModuleType, shapes: Path, make_trainer: Make
):
    # About half the stored size, rounded, so that the ratios of the axes may differ.
    data = small.small_data(shapes, short_side=31, long_side=33)
    detector = small.small_module(data).detector
    selection = small.CRITERION.proposals
    truth = data.train_records.annotations
    proposer = Proposer(detector, selection, truth)
    for _ in range(2):  # a second pass forgets the first
        make_trainer().predict(proposer, datamodule=data, return_predictions=False)
    stored = pack_proposals(truth.image_ids, proposer.found)
    assert len(stored.offsets) == 9
    assert (np.diff(stored.offsets) > 0).all()
    for index, (images, _) in enumerate(data.predict_dataloader()):
        assert images.image_ids.tolist() == [truth.image_ids[index]]
        with torch.inference_mode():
            output = detector.rpn(detector.trunk(detector.normalize(images)))
            boxes, valid = detector.rpn.propose(output, images.sizes, selection)
        height, width = (images.original_sizes / images.sizes)[0].tolist()
        wanted = boxes[valid].numpy() * [width, height, width, height]
        np.testing.assert_allclose(stored.of(index), wanted, rtol=0, atol=1e-3)
        scores = stored.scores[stored.offsets[index] : stored.offsets[index + 1]]
        assert (np.diff(scores) <= 0).all()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    corner1, corner2 = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    overlap = np.prod((corner2 - corner1).clip(0))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return overlap / (sum(areas) - overlap)


def random_case(seed: int, images: int) -> tuple[StoredProposals, Annotations]:
    """Objects apart from each other, so that each proposal is near one of them at most."""
    rng = np.random.default_rng(seed)
    counts, found, rows = rng.integers(0, 4, images), [], []
    for count in counts:
        own = np.array([[100 * i, 0, 100 * i + 40, 50] for i in range(count)], float).reshape(-1, 4)
        rows.append(own)
        shifts = rng.normal(0, 9, (12, 4)) if count else np.zeros((0, 4))
        near = own[rng.integers(0, max(count, 1), len(shifts))] + shifts
        found.append(near[(near[:, 2:] > near[:, :2] + 1).all(axis=1)])
    objects, boxes = np.concatenate(rows), np.concatenate(found)
    ids = rng.permutation(images)
    truth = Annotations(
        ids,
        np.full((images, 2), 400),
        np.concatenate([[0], np.cumsum(counts)]),
        objects,
        np.ones(len(objects), np.int64),
        np.full(len(objects), 2000.0),
        np.zeros(len(objects), bool),
        rng.random(len(objects)) < 0.2,
    )
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in found])])
    scores = np.concatenate([-np.sort(rng.random(len(own))) for own in found])
    return StoredProposals(ids, offsets, boxes.astype(np.float32), scores.astype(np.float32)), truth


def naive(stored: StoredProposals, truth: Annotations, least: float, limit: int) -> float:
    hits = objects = 0
    for index in range(len(truth.image_ids)):
        boxes = stored.of(index)[:limit].astype(float)
        for row in range(truth.offsets[index], truth.offsets[index + 1]):
            if not truth.difficult[row]:
                objects += 1
                hits += any(iou(box, truth.boxes[row]) >= least for box in boxes)
    return hits / objects


def counted(stored: StoredProposals, truth: Annotations, batch: int) -> np.ndarray:
    """Counts the images in batches, of which each has its proposals in a shuffled order."""
    count = RecallCount(truth)
    images = np.arange(len(truth.image_ids))
    owners = np.repeat(images, np.diff(stored.offsets))
    for first in range(0, len(images), batch):
        rows = np.flatnonzero((owners >= first) & (owners < first + batch))
        np.random.default_rng(first).shuffle(rows)
        ids = truth.image_ids[owners[rows]]
        found = Predictions(ids, stored.boxes[rows], stored.scores[rows], np.ones_like(ids))
        count.add(truth.image_ids[first : first + batch].tolist(), found)
    return count.counts


@pytest.mark.parametrize("batch", [1, 4])
def test_recall_against_a_naive_count(monkeypatch: pytest.MonkeyPatch, batch: int):
    monkeypatch.setattr(proposing, "LIMITS", (1, 2, 5, 100))
    stored, truth = random_case(0, 11)
    recall = recall_of(counted(stored, truth, batch))
    assert list(recall) == ["0.5", "0.7"]
    for least, by_limit in recall.items():
        assert list(by_limit) == ["1", "2", "5", "100"]
        for limit, value in by_limit.items():
            assert value == pytest.approx(naive(stored, truth, float(least), int(limit)))
    values = [value for by_limit in recall.values() for value in by_limit.values()]
    assert len(set(values)) > 4
    assert 0 < min(values) < 0.5 < max(values)


def test_objects_without_proposals_are_missed():
    stored, truth = random_case(0, 11)
    nothing = stored._replace(
        offsets=np.zeros(12, np.int64), boxes=stored.boxes[:0], scores=stored.scores[:0]
    )
    assert set(recall_of(counted(nothing, truth, 3))["0.5"].values()) == {0.0}


def test_no_objects_have_no_recall():
    stored, truth = random_case(0, 5)
    none = truth._replace(difficult=np.ones_like(truth.difficult))
    assert set(recall_of(counted(stored, none, 2))["0.7"].values()) == {None}


def test_a_pass_scores_what_it_collects(small: ModuleType, shapes: Path, make_trainer: Make):
    data = small.small_data(shapes)
    truth = data.train_records.annotations
    proposer = Proposer(small.small_module(data).detector, small.CRITERION.proposals, truth)
    make_trainer().predict(proposer, datamodule=data, return_predictions=False)
    stored = pack_proposals(truth.image_ids, proposer.found)
    for least, by_limit in proposer.recall.items():
        for limit, value in by_limit.items():
            assert (
                value
                == proposal_recall(truth, proposer.found, (float(least),), (int(limit),)).item()
            )
    assert len(stored.scores) <= 8 * 50 <= 8 * min(LIMITS)


def test_store_writes_proposals_and_recall(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    stored, truth = random_case(1, 6)
    file, recall = tmp_path / "proposals1.npz", recall_of(counted(stored, truth, 1))
    with caplog.at_level(logging.INFO, "detection"):
        store(file, stored, recall, "ab12")
    facts = json.loads((tmp_path / "proposals1.json").read_text())
    assert facts == {
        "origin": "ab12",
        "images": 6,
        "proposals": len(stored.scores),
        "recall": recall,
    }
    assert list(recall["0.5"]) == ["100", "300", "1000", "2000"]
    assert f"recall at IoU 0.5 by number of proposals: 100: {recall['0.5']['100']:.3f}" in (
        caplog.text
    )
    assert np.array_equal(read_proposals(file, truth.image_ids, "ab12").boxes, stored.boxes)
