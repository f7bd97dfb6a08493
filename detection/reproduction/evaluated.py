"""Evaluated runs: the folders that `resdet evaluate` wrote, read again with their data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detection.data.folder import read_folder
from detection.data.labels import LabelMap
from detection.data.records import DETECTION, SCORING, Records, digest
from detection.evaluation.results import read_results
from detection.structures import Predictions


class Evaluated(NamedTuple):
    """A run's files.

    Attributes:
        name: the run's, different from the others'.
        figures: of figures.json.
        records: the data set.
        predictions: the detections.
    """

    name: str
    figures: dict[str, Any]
    records: Records
    predictions: Predictions


def read_figures(folder: Path) -> dict[str, Any]:
    """Reads figures.json and checks what others need of it.

    Args:
        folder: what `resdet evaluate` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is none, or it is not one; the message names file and field.
    """
    file = folder / "figures.json"
    if not file.is_file():
        raise ValueError(f"{folder}: no figures.json, expected a folder of `resdet evaluate`")
    try:
        figures = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from error
    if not isinstance(figures, dict):
        raise ValueError(f"{file}: expected an object, got {type(figures).__name__}")
    for name, kind in (("data", str), ("split", str), ("labels", dict)):
        if not isinstance(figures.get(name), kind):
            raise ValueError(f"{file}: {name}: expected {kind.__name__}, got {figures.get(name)!r}")
    names, ids = (figures["labels"].get(field) for field in ("names", "ids"))
    texts = isinstance(names, list) and all(type(name) is str for name in names)
    numbers = isinstance(ids, list) and all(type(number) is int for number in ids)
    if not (texts and numbers and len(names) == len(ids)):
        raise ValueError(f"{file}: labels: expected as many names as ids, got {names!r}, {ids!r}")
    return figures


def read_run(folder: Path, name: str, data: Path | None) -> Evaluated:
    """Reads a run and its data set.

    Args:
        folder: what `resdet evaluate` wrote.
        name: what to call it.
        data: where the data set is now, if it was moved; else where it was.

    Raises:
        OSError: the run or its data cannot be read.
        ValueError: they are not what was evaluated.
    """
    figures = read_figures(folder)
    file = folder / "predictions.json"
    expected = figures.get("predictions_sha256")
    if expected and hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{file}: not the file that figures.json was made of; evaluate again")
    labels = LabelMap(tuple(figures["labels"]["names"]), tuple(figures["labels"]["ids"]))
    # A detector saw only those images whose files were there.
    use = DETECTION if figures.get("checkpoint") else SCORING
    records = read_folder(data or Path(figures["data"]), figures["split"], labels, use)
    images = len(records.annotations.image_ids)
    if figures.get("images", images) != images:
        raise ValueError(
            f"{folder}: evaluated on {figures['images']} images, "
            f"but {records.root}, split {figures['split']}, has {images}"
        )
    if figures.get("annotations_sha256") not in (None, digest(records.annotations)):
        raise ValueError(
            f"{folder}: the ground truth of {records.root}, split {figures['split']}, is no longer "
            "what figures.json was made of; evaluate again"
        )
    return Evaluated(name, figures, records, read_results(file, labels.ids))


def run_names(folders: Sequence[Path]) -> list[str]:
    """Returns the folders' own names, or their paths where these repeat."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def check_same_data(runs: Sequence[Evaluated]) -> None:
    """Refuses runs that do not compare.

    Args:
        runs: at least one.

    Raises:
        ValueError: they are of different ground truth or classes.
    """
    first = runs[0].records
    expected = digest(first.annotations)
    for run in runs[1:]:
        if run.records.labels != first.labels or digest(run.records.annotations) != expected:
            raise ValueError(f"{run.name} and {runs[0].name} are of different data or classes")
