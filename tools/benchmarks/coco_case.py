"""Random COCO files of any size: annotations with outlines, image files, and results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

CLASSES = 80
SIZE = (640.0, 480.0)  # width, height
CORNERS = np.linspace(0, 2 * np.pi, 23)  # of an object's outline
CHUNK = 10_000  # rows that are written at once

Columns = dict[str, NDArray[Any]]


def write_annotations(
    folder: Path, images: int, objects: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Columns]:
    """Writes ``instances.json`` and the folder ``images`` of its image files, which are empty.

    Each object has an outline and a mask's area, and each image its addresses, as COCO's have.

    Args:
        folder: where to.
        images: their number.
        objects: their number.
        rng: draws them.

    Returns:
        The images' ids, and the objects in columns.
    """
    ids = np.sort(rng.choice(600_000, images, replace=False)) + 1
    columns = {"image_id": np.sort(ids[rng.integers(images, size=objects)])}
    boxes = columns["bbox"] = _random_boxes(rng, objects).round(2)
    columns["category_id"] = np.minimum(rng.zipf(1.3, objects), CLASSES)  # some are common
    fill = rng.uniform(0.4, 0.9, objects)
    columns["area"] = (boxes[:, 2] * boxes[:, 3] * fill).round(4)
    columns["iscrowd"] = (rng.random(objects) < 0.01).astype(np.int64)
    columns["id"] = np.arange(1, objects + 1)
    (folder / "images").mkdir()
    with (folder / "instances.json").open("w", encoding="utf-8") as file:
        file.write('{"info": {"year": 2017}, "images": ')
        _write_list(file, [_image(folder / "images", number) for number in ids.tolist()])
        file.write(', "annotations": ')
        _write_list(file, _annotations(columns))
        file.write(', "categories": ')
        _write_list(file, [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)])
        file.write("}")
    return ids, columns


def write_results(
    folder: Path,
    detections: int,
    ids: NDArray[np.int64],
    objects: Columns,
    rng: np.random.Generator,
) -> None:
    """Writes ``results.json``: half of the detections lie near objects, half anywhere.

    Args:
        folder: where to.
        detections: their number.
        ids: the images' ids.
        objects: what `write_annotations` returned.
        rng: draws them.
    """
    near = rng.integers(len(objects["id"]), size=detections // 2)
    rest = detections - len(near)
    boxes = objects["bbox"][near]
    sides = boxes[:, [2, 3, 2, 3]]
    shifted = boxes + rng.normal(0, 0.1, sides.shape) * sides
    found = np.concatenate([np.maximum(shifted, [-9, -9, 0.1, 0.1]), _random_boxes(rng, rest)])
    same = rng.random(len(near)) < 0.8
    label = np.where(same, objects["category_id"][near], _labels(rng, len(near)))
    scores = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 5, rest)])
    columns = {
        "image_id": np.concatenate(
            [objects["image_id"][near], ids[rng.integers(len(ids), size=rest)]]
        ),
        "category_id": np.concatenate([label, _labels(rng, rest)]),
        "bbox": found.astype(np.float32).astype(np.float64),  # as detectors write them
        "score": scores.astype(np.float32).astype(np.float64),
    }
    order = np.argsort(columns["image_id"], kind="stable")
    with (folder / "results.json").open("w", encoding="utf-8") as file:
        _write_list(file, _rows({name: column[order] for name, column in columns.items()}))


def megabytes(path: Path) -> float:
    """Returns a file's size, MB."""
    return round(path.stat().st_size / 1e6, 1)


def _image(folder: Path, number: int) -> dict[str, Any]:
    """Makes an image's file, and returns its record."""
    name = f"{number:012d}.jpg"
    (folder / name).touch()
    width, height = SIZE
    return {
        "license": 3,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": int(height),
        "width": int(width),
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://farm9.staticflickr.com/8186/81{number:08d}_4e622c8349_z.jpg",
        "id": number,
    }


def _annotations(columns: Columns) -> Iterator[dict[str, Any]]:
    circle = np.stack([np.cos(CORNERS), np.sin(CORNERS)], axis=1)
    for start in track(range(0, len(columns["id"]), CHUNK), "writing objects"):
        part = {name: column[start : start + CHUNK] for name, column in columns.items()}
        half = part["bbox"][:, None, 2:] / 2
        outlines = part["bbox"][:, None, :2] + half + half * circle
        yield from _rows({"segmentation": outlines.round(2).reshape(len(half), 1, -1), **part})


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    for row in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, row, strict=True))


def _write_list(file: IO[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes some rows at a time: millions are not held at once."""
    separator = "["
    for row in rows:
        file.write(separator + json.dumps(row))
        separator = ", "
    file.write("[]" if separator == "[" else "]")


def _random_boxes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    sides = np.exp(rng.normal(4, 1, (n, 2))).clip(4, 400)
    return np.concatenate([rng.random((n, 2)) * (np.array(SIZE) - sides), sides], axis=1)


def _labels(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    return rng.integers(1, CLASSES + 1, n)
