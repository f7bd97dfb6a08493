"""Evaluate a checkpoint, or anyone's predictions, by COCO's and VOC's metrics."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdet.tools._checkpoints import add_arguments, run_checkpoints
from resdet.tools._improvements import IMPROVEMENTS

if TYPE_CHECKING:
    from detection.data.labels import LabelMap
    from detection.data.records import Records
    from detection.evaluation.coco import CocoFigures
    from detection.evaluation.voc import VocFigures
    from detection.structures import Annotations, Predictions

EPILOG = """
--predictions takes COCO result files (.json) and VOC's comp4_det_SPLIT_CLASS.txt, of any
detector; it needs no model. The results: predictions.json, figures.txt, figures.json,
figures.csv; `resdet report FOLDER` makes a page of them.
"""


# What figures.json says of the detector: nothing of that of result files.
ORIGIN = ("checkpoint", "config_sha256", "seed", "improvements", "configuration", "cost")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet evaluate", description=__doc__, epilog=EPILOG)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="CKPT",
        help="of `resdet train`; several are an ensemble",
    )
    subject.add_argument("--predictions", type=Path, nargs="+", metavar="FILE", help="to score")
    parser.add_argument("--data", type=Path, required=True, help="folder of VOC or COCO layout")
    parser.add_argument("--split", default="val", help="such as val, test or VOC2007/test")
    parser.add_argument("--output", type=Path, help="folder of the results; beside the subject")
    parser.add_argument(
        "--engine",
        choices=("hotcoco", "pycocotools"),
        default="hotcoco",
        help="library that counts COCO's figures; they are the same (hotcoco)",
    )
    add_arguments(parser)
    options = parser.parse_args(argv)
    if options.predictions and any(getattr(options, name) for name in IMPROVEMENTS):
        parser.error(f"--{', --'.join(IMPROVEMENTS)}: not with --predictions")
    options.command = shlex.join(["resdet", "evaluate", *(sys.argv[1:] if argv is None else argv)])
    return options


def _score_predictions(options: argparse.Namespace) -> None:
    """Scores files, without a model and without torch."""
    from rich.progress import Progress

    from detection.data.folder import read_folder
    from detection.data.records import summary
    from detection.evaluation.coco import evaluate_coco
    from detection.evaluation.voc import evaluate_voc

    with Progress(transient=True) as bar:
        bar.add_task("reading the data", total=None)
        records = read_folder(options.data, options.split)
    print(summary(options.split, records), file=sys.stderr)
    predictions = _read(options.predictions, records)
    case = records.annotations, predictions, records.labels.names
    figures = evaluate_coco(*case, engine=options.engine), evaluate_voc(*case)
    origin: dict[str, Any] = dict.fromkeys(ORIGIN)
    _finish(options, records.annotations, predictions, records.labels, figures, origin)


def _read(files: Sequence[Path], records: Records) -> Predictions:
    import numpy as np

    from detection.evaluation.results import read_results
    from detection.evaluation.submission import read_comp4
    from detection.structures import Predictions

    others = [file for file in files if file.suffix not in (".json", ".txt")]
    if others:
        raise ValueError(f"{others[0]}: expected .json (COCO) or comp4_det_*.txt (VOC)")
    parts = [read_results(file, records.labels.ids) for file in files if file.suffix == ".json"]
    comp4 = [file for file in files if file.suffix == ".txt"]
    if comp4:
        stems = [Path(str(file)).stem for file in records.files]
        ids = dict(zip(stems, records.annotations.image_ids.tolist(), strict=True))
        parts.append(read_comp4(comp4, records.labels.names, ids))
    return Predictions(*map(np.concatenate, zip(*parts, strict=True)))


def _finish(
    options: argparse.Namespace,
    annotations: Annotations,
    predictions: Predictions,
    labels: LabelMap,
    figures: tuple[CocoFigures, VocFigures],
    origin: dict[str, Any],
) -> None:
    """Writes the results and prints the tables."""
    from detection.evaluation.definitions import side_by_side
    from detection.evaluation.figures import write_figures
    from detection.evaluation.results import write_results
    from detection.evaluation.tables import class_table, coco_table, definition_table
    from detection.reproduction.artefacts import environment

    coco, voc = figures
    case = annotations, predictions, labels.names
    scores = side_by_side(*case, coco, voc, options.engine)
    subject = (options.checkpoint or options.predictions)[0]
    name = f"evaluation-{options.split.replace('/', '-')}"
    folder = options.output or subject.parent / name
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "predictions.json"
    write_results(results, predictions, labels.ids)
    origin |= {
        "data": str(options.data.resolve()),
        "split": options.split,
        "labels": labels._asdict(),
        "engine": options.engine,
        "predictions_sha256": hashlib.sha256(results.read_bytes()).hexdigest(),
        "command": options.command,
        "environment": environment(),
    }
    write_figures(folder, coco, voc, scores, origin)
    tables = "\n\n".join(
        (coco_table(coco), class_table(coco, voc), f"{definition_table(scores)}\n")
    )
    (folder / "figures.txt").write_text(tables, encoding="utf-8")
    print(f"\n{tables}\npredictions: {results}\ntables: {folder}/figures.txt, .json, .csv")


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
        if options.checkpoint:
            found = run_checkpoints(options)
            if found is not None:
                annotations, labels, (predictions, coco, voc), origin = found
                _finish(options, annotations, predictions, labels, (coco, voc), origin)
        else:
            _score_predictions(options)
    except (ValueError, OSError) as error:
        print(f"resdet evaluate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
