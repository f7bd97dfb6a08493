"""Reader for classification folders with boxes: ImageNet's localization task, and your own.

Two layouts; an XML file is VOC's, with the boxes of one image::

    SPLIT/CLASS/NAME.jpg                          SPLIT/CLASS/NAME.xml
    Data/CLS-LOC/SPLIT/CLASS/NAME.JPEG            Annotations/CLS-LOC/SPLIT/CLASS/NAME.xml

Where a split of the second has no folders of classes (ILSVRC's val), an image's class is that of
the objects in its XML file.

ILSVRC's XML files count pixels of the image as its annotators saw it, whose size they state, and
a few files have another text in place of the class (noted in process_bounding_boxes.py of
TensorFlow's models). Boxes are brought to the image's own size here; in ILSVRC's folders of
classes, a name that is no class stands for the folder's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detection.data.images import image_size
from detection.data.labels import LabelMap
from detection.data.records import (
    DataError,
    ImageRow,
    ObjectRow,
    Records,
    Skipped,
    UnusableError,
    pack,
)
from detection.data.voc import image_files
from detection.data.voc_xml import annotated_labels, read_annotated

_TASK = "CLS-LOC"
_STRETCH = 1.05  # how far the proportions of an image and of its XML file may differ


def read_localization(
    root: Path,
    split: str,
    labels: LabelMap | None = None,
    watch: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> Records:
    """Reads one split: images with a class, and the boxes of that class.

    Left out and counted are XML files without an image and the other way round, images of other
    classes, images without a usable box of their class, and objects of other classes.

    Args:
        root: the folder.
        split: such as train or val.
        labels: the classes to expect; those that ``localization_labels`` finds when None.
        watch: what shows the progress over the XML files.

    Returns:
        The images by class and name; all boxes of an image have its class, and there is at least
        one. An image id is the XML file's position, from 1.

    Raises:
        DataError: the split is missing, or not one image can be used.
    """
    images, annotations = _folders(root, split)
    labels = localization_labels(root) if labels is None else labels
    known = labels.label_of_name()
    skipped: list[Skipped] = []
    entries = list(_entries(images, annotations, known, skipped))
    rows: list[ImageRow] = []
    for number, entry in enumerate(watch(entries), start=1):
        label_of = _label_of(known, entry.class_name, lenient=images != annotations)
        try:
            row, left_out = _read(root, entry, number, label_of)
        except UnusableError as error:
            skipped.append(Skipped(str(entry.xml), "image", str(error)))
        else:
            rows.append(row)
            skipped += left_out
    if not rows:
        first = f", first {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise DataError(f"{annotations}: none of {len(entries)} XML files can be used{first}")
    return pack(root, rows, labels, skipped)


def localization_labels(root: Path) -> LabelMap:
    """Reads the classes, sorted: the folders of train, or of val where there is no train.

    Args:
        root: the folder.

    Raises:
        DataError: there is neither, or it names no class.
    """
    split = next((name for name in ("train", "val") if _exists(root, name)), "train")
    images, annotations = _folders(root, split)
    names = _classes(annotations) or _classes(images)
    return LabelMap.from_names(names) if names else annotated_labels(annotations)


def image_labels(records: Records) -> NDArray[np.int64]:
    """Returns the class of each image that ``read_localization`` read: (I,) int64, 1…K."""
    truth = records.annotations
    return truth.labels[truth.offsets[:-1]]


class _Entry(NamedTuple):
    """An XML file and its image; ``class_name`` is empty in a split without folders of classes."""

    image: Path
    xml: Path
    class_name: str


def _exists(root: Path, split: str) -> bool:
    return any((folder / split).is_dir() for folder in (root, root / "Annotations" / _TASK))


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    """Where the images and the XML files of a split are."""
    if (root / "Data" / _TASK).is_dir():
        folders = root / "Data" / _TASK / split, root / "Annotations" / _TASK / split
    else:
        folders = root / split, root / split
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; expected {split}/CLASS/ with images and XML files, or "
                f"Data/{_TASK}/{split}/ and Annotations/{_TASK}/{split}/"
            )
    return folders


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _entries(
    images: Path, annotations: Path, known: Container[str], skipped: list[Skipped]
) -> Iterator[_Entry]:
    """Pairs images and XML files; counts what has no partner."""
    for name in _classes(annotations) or [""]:
        folder, xmls = images / name, annotations / name
        if name and name not in known:
            skipped.append(Skipped(str(xmls), "folder", "its name is no class"))
            continue
        files = image_files(folder)
        for xml in sorted(xmls.glob("*.xml")):
            file = files.pop(xml.stem, None)
            if file is None:
                skipped.append(Skipped(str(xml), "image", f"no image {xml.stem} in {folder}"))
            else:
                yield _Entry(folder / file, xml, name)
        if files:
            skipped.append(Skipped(str(folder), f"{len(files)} image(s)", "no XML file"))


def _read(
    root: Path, entry: _Entry, image_id: int, label_of: Callable[[str], int]
) -> tuple[ImageRow, list[Skipped]]:
    file = str(entry.image.relative_to(root))
    row, skipped = read_annotated(root, file, entry.xml, image_id, label_of)
    if not row.objects:
        reason = skipped[0].reason if skipped else "there are no objects"
        raise UnusableError(f"no box of the image's class: {reason}")
    if len({item.label for item in row.objects}) > 1:
        raise UnusableError("the objects are of several classes, and no folder says which counts")
    return _in_pixels_of(entry.image, row), skipped


def _label_of(known: Mapping[str, int], own: str, *, lenient: bool) -> Callable[[str], int]:
    """Gives an object's name its label; objects that are not of the image's class are left out."""

    def label_of(name: str) -> int:
        if own and (name == own or (lenient and name not in known)):
            return known[own]
        if own or name not in known:
            raise UnusableError(f"its class is {name!r}, expected {own or 'one of the known'}")
        return known[name]

    return label_of


def _in_pixels_of(image: Path, row: ImageRow) -> ImageRow:
    """Brings an image's boxes from the size that its XML file states to its real one."""
    try:
        size = image_size(image)
    except DataError as error:
        raise UnusableError(str(error)) from error
    if size == row.size:
        return row
    y, x = (real / stated for real, stated in zip(size, row.size, strict=True))
    if not 1 / _STRETCH <= x / y <= _STRETCH:
        raise UnusableError(
            f"(height, width) {row.size} in the XML file and {size} in the image differ in "
            "proportions"
        )
    objects = []
    for item in row.objects:
        x1, y1, x2, y2 = item.box
        box = (x1 * x, y1 * y, x2 * x, y2 * y)
        objects.append(ObjectRow(box, item.label, item.area * x * y, difficult=item.difficult))
    return ImageRow(row.file, row.image_id, size, objects)
