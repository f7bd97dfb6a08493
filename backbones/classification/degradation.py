"""The degradation study: plain and residual networks of two depths on generated images.

"With the network depth increasing, accuracy gets saturated and then degrades rapidly. Such
degradation is not caused by overfitting, and adding more layers leads to higher training error"
(ResNet section 1, Fig. 1). All networks are trained by one recipe.

Differs from the paper: generated images in place of CIFAR-10 and without augmentation; a batch of
32, not 128; a learning rate of 0.01, not 0.1 (at 0.05 the residual network of 56 layers had not
begun to learn after 400 updates); 1200 updates, not 64000; bfloat16 arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import count, islice
from statistics import fmean, stdev
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.base import Backbone
from backbones.catalogue import build
from backbones.classification.curves import Curve
from backbones.classification.order import TrainBatches
from backbones.classification.schedule import LearningRate, Schedule
from backbones.classification.shapes import SHAPES, generate
from backbones.classification.testing import count_errors, errors, normalise

PLAIN = ("cifar_plain20", "cifar_plain56")
RESIDUAL = ("cifar_resnet20", "cifar_resnet56")
NETWORKS = PLAIN + RESIDUAL

_TESTS = 8  # of a run, evenly spaced; the last is its result
_TEST_SEED = 1_000_000  # no images of the training's


@dataclass(frozen=True)
class Recipe:
    """How every network of a study is trained.

    Attributes:
        steps: updates; the learning rate is divided by 10 after four fifths.
        batch_size: images per update.
        lr: learning rate.
        images: training images.
        test_images: others.

    Raises:
        ValueError: a number is below its smallest sensible value.
    """

    steps: int = 1200
    batch_size: int = 32
    lr: float = 0.01
    images: int = 10000
    test_images: int = 1000

    def __post_init__(self) -> None:
        if self.steps < _TESTS or not 1 <= self.batch_size <= self.images or self.lr <= 0:
            raise ValueError(
                f"expected at least {_TESTS} steps, a batch of 1 … images and lr > 0, got {self}"
            )


class Run(NamedTuple):
    """What came of training a network.

    Attributes:
        train_error: %, the mean over the batches of the last tenth of the updates.
        test_error: %, of the test images at the end.
        train: update and training error of each batch, %.
        test: update and test error, %.
        predictions_sha256: of the classes of the test images at the end, a byte each.
        seconds: that training and tests took.
    """

    train_error: float
    test_error: float
    train: list[tuple[int, float]]
    test: list[tuple[int, float]]
    predictions_sha256: str
    seconds: float

    def curve(self, label: str) -> Curve:
        """As a curve to draw."""
        return Curve(label, np.array(self.train), np.array(self.test))


def train(name: str, seed: int, recipe: Recipe, progress: Callable[[], object]) -> Run:
    """Train a network.

    Args:
        name: of the network, in ``backbones.catalogue``.
        seed: decides initialisation and order; the images are always the same.
        recipe: how.
        progress: called after each update.

    Returns:
        Its errors.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    images, labels = _data(recipe.images, 0)
    started = perf_counter()
    torch.manual_seed(seed)
    network = build(name, num_classes=len(SHAPES)).to(memory_format=torch.channels_last)
    schedule = Schedule(recipe.lr, milestones=(recipe.steps * 4 // 5,), patience=None)
    rate, optimizer = LearningRate(schedule), schedule.optimizer(network)
    train_errors, test_errors = [], []
    batches = islice(_batches(recipe, seed), recipe.steps)
    for step, batch in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate.at(step - 1)
        scores = _scores(network, images[batch])
        loss = F.cross_entropy(scores, labels[batch])
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}, seed {seed}: loss {loss.item()} at update {step}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        train_errors.append((step, errors(count_errors(scores, labels[batch])).top1))
        if step * _TESTS // recipe.steps > (step - 1) * _TESTS // recipe.steps:
            error, predicted = _test(network, recipe)
            test_errors.append((step, error))
        progress()
    mean = fmean(error for _, error in train_errors[-max(1, recipe.steps // 10) :])
    seconds = round(perf_counter() - started, 1)
    return Run(mean, error, train_errors, test_errors, sha256(predicted).hexdigest(), seconds)


def summary(runs: Mapping[str, list[Run]]) -> dict[str, dict[str, Any]]:
    """Mean and sample standard deviation over seeds.

    Args:
        runs: of each network, one a seed.

    Returns:
        Of each network "seeds", and "train_error" and "test_error" with "mean" and "std", %.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, found in runs.items():
        columns = {
            "train_error": [run.train_error for run in found],
            "test_error": [run.test_error for run in found],
        }
        result[name] = {"seeds": len(found)} | {
            key: {"mean": fmean(one), "std": stdev(one) if len(one) > 1 else 0.0}
            for key, one in columns.items()
        }
    return result


@lru_cache
def _data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    images, labels = generate(count, seed)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _batches(recipe: Recipe, seed: int) -> Iterator[Tensor]:
    """(batch_size,) int64 indices, epoch after epoch."""
    batches = TrainBatches(np.arange(recipe.images), recipe.batch_size, seed=seed)
    for epoch in count():
        batches.seek(epoch * len(batches))
        yield from (torch.tensor([index for index, *_ in draws]) for draws in batches)


def _scores(network: Backbone, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network.logits(normalise(network, images)).float()


@torch.no_grad()
def _test(network: Backbone, recipe: Recipe) -> tuple[float, bytes]:
    """Top-1 error, %, and the class of each test image."""
    images, labels = _data(recipe.test_images, _TEST_SEED)
    network.eval()
    scores = torch.cat([_scores(network, batch) for batch in torch.split(images, 100)])
    network.train()
    predicted: Tensor = scores.argmax(dim=1).to(torch.uint8)
    return errors(count_errors(scores, labels)).top1, predicted.numpy().tobytes()
