"""One reader for folders in VOC's or COCO's layout, and for unions of their splits.

A split is ``NAME``, ``FOLDER/NAME`` for a folder below the root, or several of these joined by
``+``: ``VOC2007/trainval+VOC2012/trainval`` is the papers' 07+12 under ``VOCdevkit``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detection.data.coco import coco_labels, read_coco
from detection.data.labels import LabelMap
from detection.data.records import TRAINING, DataError, Records, Use
from detection.data.voc import read_voc, voc_labels
from detection.structures import Annotations


class VocSource(NamedTuple):
    """A split in VOC's layout.

    Attributes:
        root: folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        split: name of a list in ``ImageSets/Main``.
    """

    root: Path
    split: str


class CocoSource(NamedTuple):
    """A split in COCO's layout.

    Attributes:
        annotation_file: the JSON file.
        image_root: folder of its images.
    """

    annotation_file: Path
    image_root: Path


def read_folder(
    root: Path, split: str, labels: LabelMap | None = None, use: Use = TRAINING
) -> Records:
    """Reads a split of a folder in VOC's or COCO's layout, or a union of splits.

    - VOC: ``Annotations/``, ``ImageSets/Main/NAME.txt``, ``JPEGImages/``.
    - COCO: ``annotations/instances_NAME.json``, ``annotations/NAME.json`` or
      ``annotations/image_info_NAME.json``, with the images in the first of ``NAME/``,
      ``images/NAME/``, ``images/`` that exists, else in the folder.

    Args:
        root: the folder.
        split: ``[FOLDER/]NAME[+…]``.
        labels: the classes to expect; those that ``folder_labels`` finds when None.
        use: what for.

    Returns:
        The images of the splits, one after another; see ``concatenate``.

    Raises:
        DataError: neither layout is there, layouts are mixed, or a reader refuses the data.
    """
    sources = find_sources(root, split)
    records: list[Records] = []
    for source in sources:
        if labels is None and isinstance(source, VocSource):
            labels = _voc_union(sources)
        records.append(read_source(source, labels, use))
        labels = records[0].labels
    return concatenate(records)


def read_source(
    source: VocSource | CocoSource, labels: LabelMap | None = None, use: Use = TRAINING
) -> Records:
    """Reads a single split.

    Args:
        source: of `find_sources`.
        labels: the classes to expect; those of the folder or file when None.
        use: what for.

    Raises:
        DataError: the reader refuses the data.
    """
    if isinstance(source, CocoSource):
        return read_coco(source.annotation_file, source.image_root, labels, use)
    return read_voc(source.root, source.split, labels, use)


def folder_labels(root: Path, split: str) -> LabelMap:
    """Reads the classes of a folder without its images.

    Args:
        root: the folder.
        split: as for ``read_folder``.

    Returns:
        For VOC the sorted names of all folders that the split mentions; for COCO the categories,
        in which all its files must agree.

    Raises:
        DataError: neither layout is there, layouts are mixed, or categories differ.
    """
    sources = find_sources(root, split)
    files = [source.annotation_file for source in sources if isinstance(source, CocoSource)]
    if not files:
        return _voc_union(sources)
    labels = coco_labels(files[0])
    for file in files[1:]:
        if coco_labels(file) != labels:
            raise DataError(f"{file}: its categories are not those of {files[0]}")
    return labels


def concatenate(records: Sequence[Records]) -> Records:
    """Puts the images of several records one after another.

    Args:
        records: at least one, all with the same labels.

    Returns:
        Records below the roots' common folder. The image ids stay where they are unique over all
        records; otherwise all images are renumbered by position, from 1.

    Raises:
        DataError: there are no records, their labels differ, or an image occurs twice.
    """
    if not records:
        raise DataError("no records to concatenate")
    if len(records) == 1:
        return records[0]
    first = records[0]
    for other in records[1:]:
        if other.labels != first.labels:
            raise DataError(f"{other.root}: labels are not those of {first.root}")
    root = Path(os.path.commonpath([item.root.absolute() for item in records]))
    files = np.concatenate([_below(root, item) for item in records])
    unique, counts = np.unique(files, return_counts=True)
    if len(unique) < len(files):
        raise DataError(f"{root / str(unique[counts > 1][0])}: the image is in several splits")
    annotations, renumbered = _joined([item.annotations for item in records])
    skipped = tuple(entry for item in records for entry in item.skipped)
    return Records(files, root, annotations, first.labels, skipped, renumbered)


def _below(root: Path, records: Records) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    folder = records.root.absolute().relative_to(root)
    return np.array([str(folder / str(file)) for file in records.files], np.str_)


def _joined(parts: Sequence[Annotations]) -> tuple[Annotations, bool]:
    """Joins annotations; also whether the images had to be numbered anew."""
    *columns, extents = zip(*parts, strict=True)
    joined = Annotations(*map(np.concatenate, columns))
    if extents[0] is not None:  # so have the others: they are of one layout
        joined = joined._replace(extents=np.concatenate(extents))
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    image_ids = joined.image_ids
    repeat = len(np.unique(image_ids)) < len(image_ids)
    if repeat:
        image_ids = np.arange(1, len(image_ids) + 1, dtype=np.int64)
    return joined._replace(offsets=offsets, image_ids=image_ids), repeat


def _voc_union(sources: Sequence[VocSource | CocoSource]) -> LabelMap:
    folders = dict.fromkeys(source.root for source in sources if isinstance(source, VocSource))
    names = {name for folder in folders for name in voc_labels(folder).names}
    return LabelMap.from_names(sorted(names))


def find_sources(root: Path, split: str) -> list[VocSource | CocoSource]:
    """Finds the files of a split, or of a union of splits.

    Args:
        root: the folder.
        split: as for ``read_folder``.

    Raises:
        DataError: neither layout is there, or layouts are mixed.
    """
    sources = [_source(root, part.strip()) for part in split.split("+")]
    if len({type(source) for source in sources}) > 1:
        raise DataError(f"{root}: split {split} mixes VOC and COCO layouts")
    return sources


def _source(root: Path, part: str) -> VocSource | CocoSource:
    below, _, name = part.rpartition("/")
    folder = root / below
    if not name:
        raise DataError(f"{root}: split {part!r} has no name, expected NAME or FOLDER/NAME")
    if (folder / "Annotations").is_dir() and (folder / "ImageSets").is_dir():
        return VocSource(folder, name)
    stems = (f"instances_{name}", name, f"image_info_{name}")
    candidates = [folder / "annotations" / f"{stem}.json" for stem in stems]
    for file in candidates:
        if file.is_file():
            images = (folder / name, folder / "images" / name, folder / "images")
            return CocoSource(file, next((path for path in images if path.is_dir()), folder))
    raise DataError(
        f"{folder}: neither VOC's layout (looked for Annotations/ and ImageSets/) nor COCO's "
        f"(looked for {', '.join(str(file.relative_to(folder)) for file in candidates)}); "
        "a folder below it is named as FOLDER/NAME"
    )
