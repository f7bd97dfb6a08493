"""Train ours and torchvision's detector alike on a folder, seed by seed, and compare their AP.

Both sides have the same pre-trained and frozen trunk, initial weights, anchors and constants, see
the same images in the same order with the same augmentation, have one optimizer and schedule, and
are scored by the same code.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from detection.data.datamodule import DetectionData
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.gather import PredictionBuffer
from detection.evaluation.results import write_results
from detection.evaluation.voc import evaluate_voc
from detection.model.build import DetectorSpec, faster_rcnn
from detection.model.criterion import Criterion, RoICriterion, RPNCriterion
from detection.model.matching import Sampler
from detection.model.roi_head import DetectionSelection
from detection.model.rpn import ProposalSelection
from detection.reproduction.artefacts import config_sha256
from detection.structures import Batch, Detections, Target
from detection.training.schedule import Schedule
from resdet.tools.benchmarks.detectors import freeze_alike
from resdet.tools.benchmarks.peer import twin

SPEC = DetectorSpec(
    "resnet18",
    frozen_stages=4,
    roi_pooling="align",
    roi_size=4,
    anchor_sizes=(32, 64, 128, 256),
    proposals=ProposalSelection(before_nms=1000, after_nms=100, min_side=1e-3),
    detections=DetectionSelection(nms_threshold=0.5),
)
CRITERION = Criterion(
    RPNCriterion(sampler=Sampler(128, 0.5), cross_boundary=True),
    RoICriterion(background=(0.0, 0.5), sampler=Sampler(32, 0.25), sigma=3.0),
    ProposalSelection(before_nms=1000, after_nms=300, min_side=1e-3),
)
SCHEDULE = Schedule(
    weight_decay=0.0001,
    bias_lr_factor=1.0,
    milestones=(0.75,),
    warmup_steps=100,
)
MAX_GRADIENT_NORM = 10.0

Step = Callable[[Batch, list[Target]], Tensor]
Detect = Callable[[Batch], Detections]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's options."""
    parser.add_argument("--data", required=True, help="folder of VOC or COCO layout")
    parser.add_argument("--train", default="train", help="split to train on")
    parser.add_argument("--val", default="val", help="split to score")
    parser.add_argument("--weights", type=Path, required=True, help="of a ResNet-18")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--long-side", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.04, help="learning rate per 16 images")
    parser.add_argument(
        "--batch-norm", choices=("frozen", "trained"), default="frozen", help="of conv5_x"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores both sides for each seed."""
    torch.set_num_threads(options.threads)
    runs: list[dict[str, Any]] = []
    with Progress() as bar:
        for seed in options.seeds:
            runs.extend(_both(options, seed, bar))
    configuration = _configuration(options)
    report = {
        "subject": f"accuracy on {Path(options.data).name}, {options.train} to {options.val}",
        "config_sha256": config_sha256(configuration),
        "seeds": options.seeds,
        "predictions_sha256": {
            f"{entry['side']}/{entry['seed']}": entry.pop("predictions_sha256") for entry in runs
        },
        "configuration": configuration,
        "runs": runs,
    }
    for figure in ("voc07", "voc10", "ap", "ap50"):
        values = {
            side: [entry[figure] for entry in runs if entry["side"] == side]
            for side in ("ours", "torchvision")
        }
        report[figure] = {side: _spread(own) for side, own in values.items()}
    return report


def _configuration(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what both sides are trained by, as plain values, but for the seeds."""
    return {
        "weights_sha256": hashlib.sha256(options.weights.read_bytes()).hexdigest(),
        "epochs": options.epochs,
        "sides": [options.short_side, options.long_side],
        "detector": _spec(options).to_plain(),
        "criterion": asdict(CRITERION),
        "schedule": asdict(_schedule(options)),
        "max_gradient_norm": MAX_GRADIENT_NORM,
    }


def _spec(options: argparse.Namespace) -> DetectorSpec:
    return replace(SPEC, batch_norm=options.batch_norm)


def _schedule(options: argparse.Namespace) -> Schedule:
    return replace(SCHEDULE, lr_per_16_images=options.lr)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(statistics.mean(values), 4),
        "std": round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
    }


def _both(options: argparse.Namespace, seed: int, bar: Progress) -> Iterable[dict[str, Any]]:
    data = DetectionData(
        options.data,
        train=options.train,
        val=options.val,
        batch_size=2,
        workers=1,
        short_side=options.short_side,
        long_side=options.long_side,
        seed=seed,
    )
    torch.manual_seed(seed)
    fresh = ("layer4", "fc")
    spec, schedule = _spec(options), _schedule(options)
    ours = faster_rcnn(len(data.labels.names), spec, weights=str(options.weights), fresh=fresh)
    peer = twin(ours, spec, CRITERION)
    freeze_alike(ours, peer)
    sides: dict[str, tuple[nn.Module, Step, Detect]] = {
        "ours": (ours, lambda *pair: torch.stack(CRITERION(ours, *pair)).sum(), ours),
        "torchvision": (
            peer,
            lambda *pair: torch.stack(list(peer(*_arguments(*pair)).values())).sum(),
            lambda batch: _detections(peer(_images(batch)), batch),
        ),
    }
    for name, (model, step, detect) in sides.items():
        torch.manual_seed(seed)
        _train(model.train(), step, data, schedule, options.epochs, bar, f"{name}, seed {seed}")
        model.eval()
        yield {"side": name, "seed": seed, **_score(detect, data)}


def _train(
    model: nn.Module,
    step: Step,
    data: DetectionData,
    schedule: Schedule,
    epochs: int,
    bar: Progress,
    title: str,
) -> None:
    loader = data.train_dataloader()
    optimizer = schedule.optimizer(model, data.batch_size)
    steps = epochs * len(loader)
    scheduler = schedule.scheduler(optimizer, steps)
    task = bar.add_task(title, total=steps)
    for epoch in range(epochs):
        loader.batch_sampler.seek(epoch * len(loader))
        for batch, targets in loader:
            loss = step(batch, targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            scheduler.step()
            bar.update(task, advance=1, description=f"{title}, loss {loss.item():.2f}")


@torch.inference_mode()
def _score(detect: Detect, data: DetectionData) -> dict[str, Any]:
    buffer = PredictionBuffer()
    for batch, _ in data.val_dataloader():
        buffer.add(detect(batch), batch.image_ids)
    truth, found = data.val_annotations, buffer.predictions()
    voc = evaluate_voc(truth, found, data.labels.names)
    coco = evaluate_coco(truth, found, data.labels.names)
    figures = {"voc07": voc.voc07, "voc10": voc.voc10, "ap": coco.ap, "ap50": coco.ap50}
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "predictions.json")
        write_results(results, found, data.labels.ids)
        digest = hashlib.sha256(results.read_bytes()).hexdigest()
    rounded = {name: round(value, 4) for name, value in figures.items()}
    return {**rounded, "predictions_sha256": digest}


def _images(batch: Batch) -> list[Tensor]:
    return [
        image[:, :height, :width] / 255
        for image, (height, width) in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]


def _arguments(batch: Batch, targets: list[Target]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Gives torchvision the objects proper: it has no regions to ignore."""
    objects = [
        {"boxes": target.boxes[~target.ignore], "labels": target.labels[~target.ignore]}
        for target in targets
    ]
    return _images(batch), objects


def _detections(outputs: list[dict[str, Tensor]], batch: Batch) -> Detections:
    (output,) = outputs
    scale = (batch.original_sizes / batch.sizes).flip(1).repeat(1, 2)
    return Detections(
        (output["boxes"] * scale)[None], output["scores"][None], output["labels"][None]
    )
