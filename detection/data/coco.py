"""Reader for COCO's JSON annotations (https://cocodataset.org/#format-data).

Boxes ``[x, y, width, height]`` become xyxy; they are half-open already. The categories, in the
order of their ids, are the labels 1…K.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detection.data import coco_cache, coco_file
from detection.data.coco_columns import read_columns
from detection.data.coco_fields import integer, record
from detection.data.coco_images import Images, read_images
from detection.data.coco_objects import Objects, read_objects
from detection.data.image_files import ImageFiles
from detection.data.labels import LabelMap
from detection.data.records import TRAINING, DataError, Records, Skipped, UnusableError, Use
from detection.structures import Annotations


def read_coco(
    annotation_file: Path,
    image_root: Path,
    labels: LabelMap | None = None,
    use: Use = TRAINING,
) -> Records:
    """Reads a COCO annotation file.

    Images without annotations stay. Boxes that reach over the border are clipped. Left out and
    counted are images without a file or a usable size (their annotations go with them), and
    annotations of unknown images or categories, with an id seen before, or whose box is not
    finite, is empty or lies outside. For a metric the boxes stay as they are, empty ones and those
    outside too, with the width and height that the file states.

    Args:
        annotation_file: JSON with the tables ``images``, ``annotations`` and ``categories``; the
            second may be missing, as in ``image_info_test-dev2017.json``.
        image_root: folder that ``file_name`` is relative to.
        labels: the categories to expect; those of the file when None.
        use: what for.

    Returns:
        The images in the order of the file; ``areas`` is the field ``area``, or the area of the
        box, clipped if it is, where that is absent.

    Raises:
        DataError: the file is not such JSON; an image id is no integer or is used twice; a
            ``file_name`` leads out of ``image_root``; the categories are not those of ``labels``;
            or not one image can be used.
    """
    records = coco_cache.load_records(annotation_file, image_root, use)
    if records is None:
        then = coco_cache.stamp(annotation_file)
        files = ImageFiles(image_root, use.with_files)
        records = _read(annotation_file, image_root, files, labels, use.clipped)
        if files.listed:
            coco_cache.store(annotation_file, then, files.folders(), records, use)
    _refuse_difference(labels, records.labels, annotation_file)
    return records


class _Prepared(NamedTuple):
    """What does not depend on the annotations.

    Attributes:
        labels: the categories.
        images: the images.
        skipped: why images are left out.
    """

    labels: LabelMap
    images: Images
    skipped: list[Skipped]


def _read(
    path: Path, image_root: Path, files: ImageFiles, labels: LabelMap | None, clipped: bool
) -> Records:
    tables = coco_file.load(path, partial(_prepare, path, files, labels))
    found, images, skipped = tables.others
    if not len(images.files):
        first = f", first {skipped[0].record}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{path}: none of {len(images.ids)} images can be used{first}")
    arguments = (images, found.label_of_id(), path, clipped)
    if isinstance(tables.annotations, list):
        objects, more = read_objects(tables.annotations, *arguments)
    else:
        objects, more = read_columns(tables.annotations, *arguments)
    return Records(images.files, image_root, _pack(images, objects), found, (*skipped, *more))


def _prepare(
    path: Path,
    files: ImageFiles,
    labels: LabelMap | None,
    images: Sequence[Any],
    categories: list[Any],
) -> _Prepared:
    found = _labels(categories, path)
    _refuse_difference(labels, found, path)
    return _Prepared(found, *read_images(images, path, files))


def _pack(images: Images, objects: Objects) -> Annotations:
    """Groups the objects by image; within an image the file's order stays."""
    used = images.sizes[:, 0] >= 0
    image_ids, sizes = images.ids[used], images.sizes[used]
    by_id = np.argsort(image_ids)
    image = by_id[np.searchsorted(image_ids, objects.image_ids, sorter=by_id)]
    order = np.argsort(image, kind="stable")
    counts = np.bincount(image, minlength=len(sizes))
    return Annotations(
        image_ids=image_ids,
        sizes=sizes,
        offsets=np.append(0, np.cumsum(counts)),
        boxes=objects.boxes.take(order, axis=0),
        labels=objects.labels[order],
        areas=objects.areas[order],
        crowd=objects.crowd[order],
        difficult=np.zeros(len(order), np.bool_),
        extents=None if objects.extents is None else objects.extents.take(order, axis=0),
    )


def coco_labels(annotation_file: Path) -> LabelMap:
    """Reads the categories of a COCO annotation file, in the order of their ids.

    Args:
        annotation_file: JSON with the tables ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: the file is not such JSON, or ids or names of categories are not unique.
    """
    known = coco_cache.load_labels(annotation_file)
    return known or _labels(coco_file.load_categories(annotation_file), annotation_file)


def _labels(table: list[Any], path: Path) -> LabelMap:
    names: dict[int, str] = {}
    for position, fields in enumerate(table, start=1):
        where = f"{path}: {record('category', fields, position)}"
        try:
            identity = integer(fields, "id")
        except UnusableError as error:
            raise DataError(f"{where}: {error}") from error
        name = fields.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: name is {name!r}, expected text")
        if identity in names or name in names.values():
            raise DataError(f"{where}: id {identity} or name {name!r} is used before")
        names[identity] = name
    if not names:
        raise DataError(f"{path}: no categories")
    ids = tuple(sorted(names))
    return LabelMap(tuple(names[identity] for identity in ids), ids)


def _refuse_difference(expected: LabelMap | None, found: LabelMap, path: Path) -> None:
    if expected is not None and expected != found:
        raise DataError(f"{path}: {_difference(expected, found)}")


def _difference(expected: LabelMap, found: LabelMap) -> str:
    """Says how two different category lists differ."""
    wanted = set(zip(expected.ids, expected.names, strict=True))
    present = set(zip(found.ids, found.names, strict=True))
    missing, more = sorted(wanted - present), sorted(present - wanted)
    if not missing and not more:
        return f"categories in another order: expected {expected.names}, got {found.names}"
    return (
        f"categories differ (id, name): missing {missing or 'none'}, not expected {more or 'none'}"
    )
