"""The part of `resdet evaluate` that runs detectors: one checkpoint or several, improved or not."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from resdet.tools._improvements import add_improvements, read_improvements
from resdet.tools._provenance import one_or_all, provenance
from resdet.tools._run import trainer_options

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from detection.data.labels import LabelMap
    from detection.model.improved import Detector
    from detection.structures import Annotations
    from detection.training.validation import Evaluation


class Evaluated(NamedTuple):
    """What was found, and of what.

    Attributes:
        annotations: of the split.
        labels: the detector's classes.
        evaluation: what it found, and the figures.
        origin: what figures.json says of the detector.
    """

    annotations: Annotations
    labels: LabelMap
    evaluation: Evaluation
    origin: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what concerns checkpoints alone."""
    model = parser.add_argument_group("with --checkpoint")
    model.add_argument("--batch-size", type=int, default=1, help="images per process")
    model.add_argument("--workers", type=int, default=2, help="data processes per process")
    model.add_argument("--devices", default="auto", help="number of GPUs or processes")
    model.add_argument("--accelerator", default="auto", help="auto, gpu or cpu")
    model.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, 16-mixed")
    add_improvements(parser)


def run_checkpoints(options: argparse.Namespace) -> Evaluated | None:
    """Runs the checkpoints' detector on the split, on one process or many.

    Args:
        options: what was parsed.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        OSError: a file cannot be read.
        ValueError: the checkpoints, the data or the options do not fit.
    """
    from detection.checkpoint import load_detector
    from detection.data.datamodule import DetectionData
    from detection.inference.assembly import assemble
    from detection.training.validation import ValidationModule

    improvements = read_improvements(options)
    origin = {**provenance(options.checkpoint), "improvements": improvements.to_plain()}
    trained = [load_detector(path) for path in options.checkpoint]
    detector, description = assemble(trained, improvements)
    data = DetectionData(
        str(options.data),
        val=options.split,
        val_batch_size=options.batch_size,
        workers=options.workers,
        short_side=description.short_side,
        long_side=description.long_side,
    )
    data.labels = description.labels
    module = ValidationModule(detector, description.labels, options.engine)
    with trainer_options("--accelerator, --devices, --precision"):
        trainer = _trainer(options)
    started = time.perf_counter()
    trainer.validate(module, data, verbose=False)
    seconds = time.perf_counter() - started
    if not trainer.is_global_zero or module.evaluation is None:
        return None
    origin["configuration"] = {
        "detector": one_or_all([each.spec.to_plain() for _, each in trained]),
        "short_side": description.short_side,
        "long_side": description.long_side,
    }
    speed = len(data.val_annotations.image_ids) / seconds
    cost = _cost(detector, description.short_side, description.long_side)
    origin["cost"] = cost | {"images_per_second": speed}
    return Evaluated(data.val_annotations, description.labels, module.evaluation, origin)


def _trainer(options: argparse.Namespace) -> Trainer:
    import pytorch_lightning as pl

    from detection.training.callbacks import progress_bar

    return pl.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[progress_bar()],
    )


def _cost(detector: Detector, short_side: int, long_side: int) -> dict[str, Any]:
    from detection.model.complexity import detector_cost, improved_cost
    from detection.model.improved import ImprovedDetector

    size = (short_side, long_side)
    if isinstance(detector, ImprovedDetector):
        cost = improved_cost(detector, size)
    else:
        cost = detector_cost(detector, size).total(detector.proposals.after_nms)
    return {**cost._asdict(), "image": list(size)}
