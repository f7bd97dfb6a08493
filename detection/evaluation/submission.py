"""Archives as the evaluation servers of COCO and VOC want them, and VOC's result files of others.

COCO: a zip of the one file ``detections_{split}_{algorithm}_results.json``. VOC: a tar of
``results/{year}/Main/comp4_det_{split}_{class}.txt``, a file per class, each line ``image stem,
confidence, xmin, ymin, xmax, ymax`` in 1-based inclusive pixels. A half-open box [x1, y1, x2, y2]
is [x1 + 1, y1 + 1, x2, y2] there. All numbers have full precision, and what was written is read
back and compared before it takes its place.
"""

import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.evaluation.checks import check_predictions, select
from detection.evaluation.results import read_results, write_results
from detection.structures import Predictions

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_FIELDS = 6
_LARGEST = float(np.finfo(np.float32).max)


def write_coco_submission(
    folder: str | os.PathLike[str],
    predictions: Predictions,
    category_ids: Sequence[int],
    algorithm: str,
    split: str = "test-dev2017",
) -> Path:
    """Writes a COCO result file in an archive for the server.

    Args:
        folder: an existing folder; an archive of the same name is replaced.
        predictions: detections, in any order.
        category_ids: the data set's ids of classes 1…K.
        algorithm: a short name of the detector, letters, digits, ``.``, ``-`` and ``_``.
        split: the server's name of the images.

    Returns:
        The archive, ``detections_{split}_{algorithm}_results.zip``.

    Raises:
        ValueError: a name with other characters, bad detections as in `results.write_results`, or
            the archive does not read back as it was written.
    """
    _check_names(algorithm=algorithm, split=split)
    name = f"detections_{split}_{algorithm}_results"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        file = Path(scratch, f"{name}.json")
        write_results(file, predictions, category_ids)
        partial = Path(scratch, f"{name}.zip")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(file, file.name)
        file.unlink()
        with zipfile.ZipFile(partial) as archive:
            archive.extract(file.name, scratch)
        _check_equal(partial, predictions, read_results(file, category_ids))
        return partial.replace(Path(folder, partial.name))


def write_voc_submission(
    folder: str | os.PathLike[str],
    predictions: Predictions,
    class_names: Sequence[str],
    stems: Mapping[int, str],
    split: str = "test",
    year: str = "VOC2012",
) -> Path:
    """Writes VOC's result files of competition 4 and their archive for the server.

    Args:
        folder: an existing folder; files of the same names are replaced.
        predictions: detections, in any order.
        class_names: the K names of labels 1…K; a class without detections has an empty file.
        stems: image id -> name of the image file without its extension.
        split: the server's name of the images.
        year: the server's name of the challenge.

    Returns:
        The archive, ``comp4_det_{split}.tar.gz``, of the folder ``results`` beside it.

    Raises:
        ValueError: a name with other characters than letters, digits, ``.``, ``-`` and ``_``, an
            image without a stem, two images with the same, bad detections as in
            `checks.check_predictions`, or the archive does not read back as it was written.
    """
    _check_names(split=split, year=year)
    for name in class_names:
        _check_names(class_name=name)
    for stem in stems.values():
        _check_names(stem=stem)
    image_ids = {stem: image_id for image_id, stem in stems.items()}
    if len(image_ids) < len(stems):
        raise ValueError("stems: two images have the same stem")
    lines = _comp4_lines(predictions, class_names, stems)
    where = Path("results", year, "Main")
    names = [f"comp4_det_{split}_{name}.txt" for name in class_names]
    archive_name = f"comp4_det_{split}.tar.gz"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        partial = Path(scratch, archive_name)
        Path(scratch, where).mkdir(parents=True)
        for name, text in zip(names, lines, strict=True):
            Path(scratch, where, name).write_text(text, encoding="ascii")
        with tarfile.open(partial, "w:gz") as archive:
            archive.add(Path(scratch, "results"), "results", filter=_anonymous)
        check = Path(scratch, "check")
        with tarfile.open(partial) as archive:
            archive.extractall(check, filter="data")
        files = [check / where / name for name in names]
        _check_equal(partial, predictions, read_comp4(files, class_names, image_ids))
        Path(folder, where).mkdir(parents=True, exist_ok=True)
        for file in files:
            file.replace(Path(folder, where, file.name))
        return partial.replace(Path(folder, archive_name))


def read_comp4(
    files: Sequence[str | os.PathLike[str]],
    class_names: Sequence[str],
    image_ids_by_stem: Mapping[str, int],
) -> Predictions:
    """Reads VOC's result files of competitions 3 or 4, of any detector.

    Args:
        files: ``comp4_det_{split}_{class}.txt``, at most one per class.
        class_names: the K names of labels 1…K.
        image_ids_by_stem: name of the image file without its extension -> image id.

    Returns:
        The detections, in the files' order. Boxes and scores are float64: rounded to float32,
        scores could tie and overlaps move across a threshold.

    Raises:
        ValueError: a file of another name or of an unknown class, two files of a class, or a line
            that is not a known image and five finite numbers of a box that is not reversed. The
            message names file and line.
        OSError: a file cannot be read.
    """
    rows: list[list[float]] = []
    image_ids: list[int] = []
    labels: list[int] = []
    seen: set[int] = set()
    for path in map(Path, files):
        label = 1 + _class_index(path, class_names)
        if label in seen:
            raise ValueError(f"{path}: a second file of class {class_names[label - 1]}")
        seen.add(label)
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            try:
                stem, *row = _parse(line)
                image_ids.append(image_ids_by_stem[stem])
            except KeyError as error:
                raise ValueError(f"{path}: line {number}: unknown image {error}") from error
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from error
            rows.append(row)
            labels.append(label)
    numbers: NDArray[Any] = np.array(rows, np.float64).reshape(-1, 5)
    boxes = numbers[:, 1:] - np.array([1.0, 1.0, 0.0, 0.0])
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:])  # what adding 1 has rounded
    return Predictions(
        np.array(image_ids, np.int64), boxes, numbers[:, 0], np.array(labels, np.int64)
    )


def _comp4_lines(
    predictions: Predictions, class_names: Sequence[str], stems: Mapping[int, str]
) -> list[str]:
    """Returns the text of each class's file."""
    check_predictions(predictions, len(class_names))
    boxes = predictions.boxes.astype(np.float64) + np.array([1.0, 1.0, 0.0, 0.0])
    texts: list[list[str]] = [[] for _ in class_names]
    ids, scores, labels = predictions.image_ids, predictions.scores, predictions.labels
    columns = (column.tolist() for column in (ids, boxes, scores, labels))
    for image_id, box, score, label in zip(*columns, strict=True):
        if image_id not in stems:
            raise ValueError(f"predictions: image {image_id}: no stem is given for this image id")
        numbers = " ".join(repr(number) for number in (score, *box))
        texts[label - 1].append(f"{stems[image_id]} {numbers}\n")
    return ["".join(lines) for lines in texts]


def _class_index(path: Path, class_names: Sequence[str]) -> int:
    named = re.fullmatch(r"comp[34]_det_(.+)", path.stem)
    if path.suffix != ".txt" or not named:
        raise ValueError(f"{path}: expected a name like comp4_det_test_{{class}}.txt")
    ends = [name for name in class_names if named[1].endswith(f"_{name}")]
    if not ends:
        raise ValueError(f"{path}: unknown class, expected one of {', '.join(class_names)}")
    return class_names.index(max(ends, key=len))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file: {error}") from error


def _parse(line: str) -> tuple[str, float, float, float, float, float]:
    """Returns stem, confidence and the box as it stands."""
    fields = line.split()
    if len(fields) != _FIELDS:
        raise ValueError(f"expected {_FIELDS} fields, got {len(fields)}: {line[:80]!r}")
    score, xmin, ymin, xmax, ymax = (float(field) for field in fields[1:])
    for number in (score, xmin, ymin, xmax, ymax):
        if not abs(number) <= _LARGEST:
            raise ValueError(f"expected finite numbers, got {number!r}")
    if min(xmax - xmin, ymax - ymin) < -1 - 1e-6:
        raise ValueError(f"the box has a negative size: {line[:80]!r}")
    return fields[0], score, xmin, ymin, xmax, ymax


def _check_names(**names: str) -> None:
    for what, name in names.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what}: expected letters, digits, '.', '-' and '_', got {name!r}")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _check_equal(path: Path, written: Predictions, read: Predictions) -> None:
    """Compares detections, class by class; adding 1 may round a coordinate's last bits."""
    ordered = [select(rows, np.argsort(rows.labels, kind="stable")) for rows in (written, read)]
    for field in ("image_ids", "boxes", "scores", "labels"):
        a, b = (getattr(rows, field) for rows in ordered)
        if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=1e-6 * (field == "boxes")):
            raise ValueError(f"{path.name}: {field} differ when read back")
