"""Reader for folders in PASCAL VOC's layout (VOC2007 development kit, section 4).

A folder holds ``Annotations/NAME.xml``, ``ImageSets/Main/SPLIT.txt`` and ``JPEGImages/NAME.jpg``
(or another image extension). What an XML file says is read by `detection.data.voc_xml`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from detection.data.images import image_size
from detection.data.labels import LabelMap
from detection.data.records import (
    TRAINING,
    DataError,
    ImageRow,
    Records,
    Skipped,
    UnusableError,
    Use,
    pack,
)
from detection.data.voc_xml import annotated_labels, read_annotated

# In order of preference, where a name has several files.
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
_MAX_ID = 2**53  # a larger id would not survive JSON readers that use doubles
_LIST_FLAG = re.compile(r"\s+(-1|0|1)$")


def read_voc(
    root: Path, split: str, labels: LabelMap | None = None, use: Use = TRAINING
) -> Records:
    """Reads one split of a folder in VOC's layout.

    Boxes that reach over the border are clipped. Left out and counted are images without a
    readable XML file or without an image file, and objects whose box is not finite, has no
    extent (``xmax <= xmin`` or ``ymax <= ymin`` in the file's own numbers) or lies outside. For
    a metric the boxes stay as they are, as the VOC devkit counts them; those that are a pixel wide
    or lie outside too. A
    split of which no image has an XML file is a test set whose ground truth is kept elsewhere:
    its images are read without objects.

    An image id is the digits of the file name (``2007_000027`` gives 2007000027) when these are
    there, below 2^53 and unique in the split's list; otherwise all are positions in it, from 1.

    Args:
        root: folder with ``Annotations``, ``ImageSets/Main`` and ``JPEGImages``.
        split: name of a list in ``ImageSets/Main``. A last column of -1, 0 or 1, as in VOC's
            lists of single classes, is ignored, unless an image is called so.
        labels: names of the classes; all names in the folder (``voc_labels``) when None.
        use: what for.

    Returns:
        The images in the order of the list; areas are those of the boxes, clipped if they are.

    Raises:
        DataError: the split is missing, empty or repeats a name; an object's class is not in
            ``labels``; or not one image can be used.
    """
    images = image_files(root / "JPEGImages")
    names = _split_names(root, split, images)
    labels = voc_labels(root) if labels is None else labels
    label_of = _refusing(labels)
    rows: list[ImageRow] = []
    skipped: list[Skipped] = []
    files = [_annotation(root, name) for name in names]
    hidden = not any(file.is_file() for file in files)
    for name, xml, image_id in zip(names, files, _image_ids(names), strict=True):
        try:
            if name not in images and use.with_files:
                raise UnusableError(f"no image {name} in {root / 'JPEGImages'}")
            file = f"JPEGImages/{images.get(name, f'{name}.jpg')}"
            if hidden:
                row, left_out = _read_hidden(root, file, image_id)
            else:
                row, left_out = read_annotated(root, file, xml, image_id, label_of, use.clipped)
        except UnusableError as error:
            skipped.append(Skipped(str(xml), "image", str(error)))
        else:
            rows.append(row)
            skipped += left_out
    if not rows:
        raise DataError(
            f"{_split_file(root, split)}: none of {len(names)} images can be used, "
            f"first {skipped[0].file}: {skipped[0].reason}"
        )
    return pack(root, rows, labels, skipped)


def voc_labels(root: Path) -> LabelMap:
    """Collects the class names of a folder, sorted, so that all its splits agree.

    Args:
        root: folder with ``Annotations``. Files in it that cannot be parsed are passed over.

    Raises:
        DataError: there is no object with a name.
    """
    return annotated_labels(root / "Annotations")


def _read_hidden(root: Path, file: str, image_id: int) -> tuple[ImageRow, list[Skipped]]:
    try:
        return ImageRow(file, image_id, image_size(root / file), []), []
    except DataError as error:
        raise UnusableError(str(error)) from error


def _refusing(labels: LabelMap) -> Callable[[str], int]:
    known = labels.label_of_name()

    def label_of(name: str) -> int:
        if name not in known:
            raise DataError(f"unknown class {name!r}, expected one of {', '.join(known)}")
        return known[name]

    return label_of


def _split_file(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _split_names(root: Path, split: str, images: Container[str]) -> list[str]:
    path = _split_file(root, split)
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt")))
        raise DataError(f"{path}: no such split; there are: {there or 'none'}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    names = [_name(line.strip(), root, images) for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: the split is empty")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path}: {name} is listed twice")
        seen.add(name)
    return names


def _name(line: str, root: Path, images: Container[str]) -> str:
    """Returns a line of a list without its flag; "photo 1" may also be a name as it stands."""
    name = _LIST_FLAG.sub("", line)
    whole = name == line or line in images or _annotation(root, line).is_file()
    return line if whole else name


def _annotation(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


def image_files(folder: Path) -> dict[str, str]:
    """Maps each stem in a folder to its image file, by one listing of the folder."""
    if not folder.is_dir():
        return {}
    found: dict[str, tuple[int, str]] = {}
    for file in os.listdir(folder):
        stem, extension = os.path.splitext(file)
        if extension.lower() in _EXTENSIONS:
            candidate = (_EXTENSIONS.index(extension.lower()), file)
            found[stem] = min(candidate, found.get(stem, candidate))
    return {stem: file for stem, (_, file) in found.items()}


def _image_ids(names: Sequence[str]) -> Sequence[int]:
    digits = [re.sub(r"[^0-9]", "", name) for name in names]
    if all(text and len(text.lstrip("0")) <= 16 and int(text) < _MAX_ID for text in digits):
        ids = [int(text) for text in digits]
        if len(set(ids)) == len(ids):
            return ids
    return range(1, len(names) + 1)
