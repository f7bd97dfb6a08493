"""Evaluate a checkpoint on a split of a data set, by COCO's and VOC's metrics."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of `resdet train`")
    parser.add_argument("--data", type=Path, required=True, help="folder of VOC or COCO layout")
    parser.add_argument("--split", default="val", help="such as val, test or VOC2007/test")
    parser.add_argument("--output", type=Path, help="folder of the results; beside the checkpoint")
    parser.add_argument("--batch-size", type=int, default=1, help="images per process")
    parser.add_argument("--workers", type=int, default=2, help="data processes per process")
    parser.add_argument("--devices", default="auto", help="number of GPUs or processes")
    parser.add_argument("--accelerator", default="auto", help="auto, gpu or cpu")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, 16-mixed")
    return parser.parse_args(argv)


def _evaluate(options: argparse.Namespace) -> None:
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from detection.checkpoint import load_detector
    from detection.data.datamodule import DetectionData
    from detection.evaluation.results import write_results
    from detection.evaluation.tables import class_table, coco_table
    from detection.training.validation import ValidationModule

    detector, description = load_detector(options.checkpoint)
    data = DetectionData(
        str(options.data),
        val=options.split,
        val_batch_size=options.batch_size,
        workers=options.workers,
        short_side=description.short_side,
        long_side=description.long_side,
    )
    data.labels = description.labels
    module = ValidationModule(detector, description.labels)
    try:
        trainer = _trainer(options)
    except MisconfigurationException as error:
        raise ValueError(f"--accelerator, --devices: {error}") from error
    trainer.validate(module, data, verbose=False)
    if not trainer.is_global_zero or module.evaluation is None:
        return
    evaluation = module.evaluation
    name = f"evaluation-{options.split.replace('/', '-')}"
    folder = options.output or options.checkpoint.parent / name
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "predictions.json"
    write_results(results, evaluation.predictions, description.labels.ids)
    tables = f"{coco_table(evaluation.coco)}\n\n{class_table(evaluation.coco, evaluation.voc)}\n"
    (folder / "figures.txt").write_text(tables, encoding="utf-8")
    print(f"\n{tables}\npredictions: {results}\ntables: {folder / 'figures.txt'}")


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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # Lightning's, about itself: not for the user to mend.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`")
    try:
        _evaluate(options)
    except (ValueError, OSError) as error:
        print(f"resdet evaluate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
