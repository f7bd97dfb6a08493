"""Detect objects in image files: drawn pictures, and every detection as JSON."""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resdet.tools._improvements import add_improvements, read_improvements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detection.inference.predictor import ImageDetections

EPILOG = """
Folders are searched recursively, folders and patterns for images by suffix, hidden files left out.
A picture keeps its name and its path below the folder that all INPUTs share; what is not JPEG or
PNG becomes PNG. predictions.json has every detection above the model's own threshold, after Ctrl-C
of what was done. The INPUTs stand before --scales, which takes all that follows it for numbers.

exit code: 0; 1 if images were skipped or none was found; 2 if it could not run; 130 after Ctrl-C
"""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
WRITTEN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


class Job(NamedTuple):
    """An image to look at.

    Attributes:
        file: as the user would name it.
        picture: where the drawn picture goes.
    """

    file: Path
    picture: Path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet predict", description=__doc__, epilog=EPILOG)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    several = "of `resdet train`; given several times, an ensemble"
    parser.add_argument("--checkpoint", type=Path, action="append", required=True, help=several)
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="file, folder or quoted pattern")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, help="score from which a box is drawn (0.5)"
    )
    parser.add_argument("--batch-size", type=int, default=4, help="images at a time (4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the best available if not given")
    add_improvements(parser)
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {options.batch_size}")
    return options


def find_images(inputs: Sequence[str], output: Path) -> list[Job]:
    """Finds the images of files, folders and glob patterns, each path once.

    Args:
        inputs: files are taken whatever their suffix; folders and patterns are searched.
        output: folder of the pictures; a search of a folder around it leaves it out.

    Returns:
        The images, input by input; there may be none.

    Raises:
        FileNotFoundError: if an input is no file, no folder, and matches nothing.
        ValueError: if a picture would overwrite an image.
    """
    roots: list[str] = []
    files: dict[str, Path] = {}
    for text in inputs:
        root, matches = _search(text, output.resolve())
        roots.append(os.path.abspath(root))
        for file in matches:
            files.setdefault(os.path.abspath(file), file)
    shared = os.path.commonpath(roots)
    names = _picture_names([Path(file).relative_to(shared) for file in files])
    images = {file.resolve() for file in files.values()}
    jobs = [Job(file, output / name) for file, name in zip(files.values(), names, strict=True)]
    for job in jobs:
        if job.picture.resolve() in images:
            raise ValueError(f"--output {output}: the picture of {job.file} would replace an image")
    return jobs


def _search(text: str, output: Path) -> tuple[Path, list[Path]]:
    """Returns the folder below which an input's files keep their paths, and the files."""
    path = Path(text)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, pattern = path, os.path.join(glob.escape(text), "**", "*")
    else:
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        pattern = text
    matches = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    if not matches and not path.is_dir():
        raise FileNotFoundError(f"{text}: no such file or folder, and nothing matches it")
    files = [file for file in matches if file.suffix.lower() in SUFFIXES and file.is_file()]
    if output not in (root.resolve(), *root.resolve().parents):
        files = [file for file in files if output not in file.resolve().parents]
    return root, files


def _picture_names(files: Sequence[Path]) -> list[Path]:
    """Gives each picture its image's name; where only the suffix would differ, both suffixes."""
    taken = set(files)
    names = []
    for file in files:
        name = file
        if file.suffix.lower() not in WRITTEN:
            name = file.with_suffix(".png")
            while name in taken:
                name = name.with_name(f"{name.stem}{file.suffix}.png")
        taken.add(name)
        names.append(name)
    return names


def _read(jobs: Sequence[Job]) -> Iterator[tuple[Job, NDArray[np.uint8]]]:
    """Reads the images that can be read, and names the others on stderr."""
    from detection.data.images import read_image
    from detection.data.records import DataError

    for job in jobs:
        try:
            yield job, read_image(job.file)
        except DataError as error:
            print(f"skipped {error}", file=sys.stderr)


def _record(
    job: Job, image: NDArray[np.uint8], found: ImageDetections, names: Sequence[str]
) -> dict[str, Any]:
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    return {
        "file": job.file.as_posix(),
        "size": {"height": image.shape[0], "width": image.shape[1]},
        "detections": [
            {"box": box, "score": score, "label": names[label - 1]} for box, score, label in rows
        ],
    }


def _encode(picture: NDArray[np.uint8], suffix: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # Without subsampling, thin coloured lines keep their colour in a JPEG.
    Image.fromarray(picture).save(buffer, WRITTEN[suffix.lower()], quality=95, subsampling=0)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Writes so that ``path`` is the old file or the whole new one at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _detect(options: argparse.Namespace, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    """Detects, draws and writes; yields a record of each image whose picture is written."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from detection.inference.drawing import draw
    from detection.inference.predictor import Predictor

    first, *others = options.checkpoint
    how = read_improvements(options)
    predictor = Predictor.from_checkpoint(first, options.device, others=others, improvements=how)
    names, least = predictor.labels.names, options.score_threshold
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("detecting", total=len(jobs))
        for start in range(0, len(jobs), options.batch_size):
            chunk = jobs[start : start + options.batch_size]
            read = list(_read(chunk))
            for (job, image), found in zip(read, predictor([it for _, it in read]), strict=True):
                boxes, labels, scores = found.boxes, found.labels, found.scores
                picture = draw(image, boxes, labels, scores, names, score_threshold=least)
                _write(job.picture, _encode(picture, job.picture.suffix))
                yield _record(job, image, found, names)
            bar.advance(task, len(chunk))


def _predict(options: argparse.Namespace, jobs: Sequence[Job]) -> int:
    """Writes pictures and predictions.json, after Ctrl-C too; returns the exit code."""
    records: list[dict[str, Any]] = []
    stopped = False
    try:
        for record in _detect(options, jobs):
            records.append(record)
    except KeyboardInterrupt:
        stopped = True
    if records or not stopped:
        _write(options.output / "predictions.json", json.dumps(records, indent=1).encode())
        print(f"{options.output}: {len(records)} pictures and predictions.json")
    if stopped:
        done = f"{len(records)} of {len(jobs)} images"
        kept = ", which predictions.json has" if records else ""
        print(f"resdet predict: stopped after {done}{kept}", file=sys.stderr)
        return 130
    if skipped := len(jobs) - len(records):
        print(f"resdet predict: skipped {skipped} of {len(jobs)} images", file=sys.stderr)
    return int(skipped > 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code, as the epilog has it.
    """
    options = _parse(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        if jobs := find_images(options.inputs, options.output):
            return _predict(options, jobs)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"resdet predict: {error}", file=sys.stderr)
        return 2
    print(f"resdet predict: no images in {', '.join(options.inputs)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
