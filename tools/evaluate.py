"""Evaluate a checkpoint, or anyone's predictions, by COCO's and VOC's metrics."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdet.tools._checkpoints import add_arguments, run_checkpoints
from resdet.tools._improvements import IMPROVEMENTS
from resdet.tools._run import reason_of

if TYPE_CHECKING:
    from detection.data.labels import LabelMap
    from detection.data.records import Records
    from detection.evaluation.coco import CocoFigures
    from detection.evaluation.voc import VocFigures
    from detection.structures import Annotations, Predictions

EPILOG = """
--predictions takes COCO result files (.json) and VOC's comp4_det_SPLIT_CLASS.txt, of any
detector; it needs no model and no image. On a folder of VOC layout a result file's category ids
are 1 to K of the class names in order of the alphabet, and its image ids the digits of the file
names, or the lines of the split where these repeat. The results: predictions.json, figures.txt,
figures.json, figures.csv; `resdet report FOLDER` makes a page of them.
"""


# What figures.json says of the detector: nothing of that of result files.
ORIGIN = ("checkpoint", "config_sha256", "seed", "improvements", "configuration", "cost")
RESULTS = "predictions.json"


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
    parser.add_argument(
        "--output", type=Path, help="folder of the results; evaluation-… beside the subject"
    )
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


def _output(options: argparse.Namespace) -> Path:
    """Returns the folder of the results; what is wrong with it is said before anything is run.

    Raises:
        OSError: it cannot be made.
        ValueError: what is to be scored would be written over.
    """
    subject = (options.checkpoint or options.predictions)[0]
    name = f"evaluation-{options.split.replace('/', '-')}"
    if options.predictions:
        name += f"-{subject.stem}" if subject.suffix == ".json" else "-comp4"
    folder: Path = options.output or subject.parent / name
    results = folder / RESULTS
    if results.resolve() in [file.resolve() for file in options.predictions or ()]:
        raise ValueError(f"{results}: would be written over: name another folder by --output")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there}: expected a folder for the results")
    return folder


def _score_predictions(options: argparse.Namespace) -> None:
    """Scores files, without a model and without torch."""
    from rich.progress import Progress

    from detection.data.folder import read_folder
    from detection.data.records import SCORING, summary
    from detection.evaluation.coco import evaluate_coco
    from detection.evaluation.voc import evaluate_voc

    with Progress(transient=True) as bar:
        bar.add_task("reading the data", total=None)
        records = read_folder(options.data, options.split, use=SCORING)
    print(summary(options.split, records), file=sys.stderr)
    predictions = _read(options.predictions, records)
    case = records.annotations, predictions, records.labels.names
    figures = evaluate_coco(*case, engine=options.engine), evaluate_voc(*case)
    origin: dict[str, Any] = dict.fromkeys(ORIGIN)
    _finish(options, records.annotations, predictions, records.labels, figures, origin)


def _read(files: Sequence[Path], records: Records) -> Predictions:
    from detection.evaluation.checks import join
    from detection.evaluation.results import read_results
    from detection.evaluation.submission import read_comp4

    if len({file.resolve() for file in files}) < len(files):
        raise ValueError("--predictions: a file is given twice")
    others = [file for file in files if file.suffix not in (".json", ".txt")]
    if others:
        raise ValueError(f"{others[0]}: expected .json (COCO) or comp4_det_*.txt (VOC)")
    results = [file for file in files if file.suffix == ".json"]
    if results and records.renumbered:
        raise ValueError(
            f"{results[0]}: image ids repeat in the splits, so that an id does not say which image "
            "it is of: score each split by itself"
        )
    parts = [_known(file, read_results(file, records.labels.ids), records) for file in results]
    comp4 = [file for file in files if file.suffix == ".txt"]
    if comp4:
        stems = [Path(str(file)).stem for file in records.files]
        ids = dict(zip(stems, records.annotations.image_ids.tolist(), strict=True))
        if len(ids) < len(stems):
            ((twice, _),) = Counter(stems).most_common(1)
            raise ValueError(f"{comp4[0]}: two images of the split are called {twice}")
        parts.append(read_comp4(comp4, records.labels.names, ids))
    return join(parts)


def _known(file: Path, found: Predictions, records: Records) -> Predictions:
    """Refuses detections in images that are not there, by the file that has them."""
    import numpy as np

    odd = np.setdiff1d(found.image_ids, records.annotations.image_ids)
    if len(odd):
        raise ValueError(
            f"{file}: image {odd[0]}: this image id is not among the {len(records.files)} images "
            f"of the split ({len(odd)} such ids)"
        )
    return found


def _finish(
    options: argparse.Namespace,
    annotations: Annotations,
    predictions: Predictions,
    labels: LabelMap,
    figures: tuple[CocoFigures, VocFigures],
    origin: dict[str, Any],
) -> None:
    """Writes the results and prints the tables."""
    from detection.data.records import digest
    from detection.evaluation.definitions import side_by_side
    from detection.evaluation.figures import write_figures
    from detection.evaluation.results import write_results
    from detection.evaluation.tables import class_table, coco_table, definition_table
    from detection.reproduction.artefacts import environment

    coco, voc = figures
    case = annotations, predictions, labels.names
    scores = side_by_side(*case, coco, voc, options.engine)
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / RESULTS
    write_results(results, predictions, labels.ids)
    origin |= {
        "data": str(options.data.resolve()),
        "split": options.split,
        "labels": labels._asdict(),
        "engine": options.engine,
        "annotations_sha256": digest(annotations),
        "predictions_sha256": hashlib.sha256(results.read_bytes()).hexdigest(),
        "command": options.command,
        "environment": environment(),
    }
    write_figures(folder, coco, voc, scores, origin)
    parts = (f"split {options.split}", coco_table(coco), class_table(coco, voc))
    tables = "\n\n".join((*parts, f"{definition_table(scores)}\n"))
    (folder / "figures.txt").write_text(tables, encoding="utf-8")
    print(f"\n{tables}\npredictions: {results}\ntables: {folder}/figures.txt, .json, .csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C or SIGTERM.
    """
    options = _parse(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # Lightning's, about itself: not for the user to mend.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)`")
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # what the reader leaves out
    try:
        options.output = _output(options)
        if options.checkpoint:
            found = run_checkpoints(options)
            if found is not None:
                annotations, labels, (predictions, coco, voc), origin = found
                _finish(options, annotations, predictions, labels, (coco, voc), origin)
        else:
            _score_predictions(options)
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to both signals
        return 130
    except (ValueError, OSError) as error:
        print(f"resdet evaluate: {reason_of(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
