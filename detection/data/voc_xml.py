"""One image's XML file as PASCAL VOC writes it (VOC2007 development kit, section 4).

The files count pixels from 1 and include the last one; here boxes become half-open and count from
0: ``[xmin - 1, ymin - 1, xmax, ymax]``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from detection.data.images import MAX_PIXELS, image_size
from detection.data.labels import LabelMap
from detection.data.records import DataError, ImageRow, ObjectRow, Skipped, UnusableError, clip_box

_MAX_XML_BYTES = 16 * 2**20  # thousands of times an ordinary annotation
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def annotated_labels(folder: Path) -> LabelMap:
    """Collects the class names in a folder of XML files, sorted.

    Args:
        folder: files in it that cannot be parsed are passed over.

    Raises:
        DataError: there is no object with a name.
    """
    names: set[str] = set()
    for path in sorted(folder.glob("*.xml")):
        try:
            annotation = _parse(path)
        except UnusableError:
            continue
        names.update(_text(element, "name") for element in annotation.findall("object"))
    names.discard("")
    if not names:
        raise DataError(f"{folder}: no XML file with a named object")
    return LabelMap.from_names(sorted(names))


def read_annotated(
    root: Path,
    file: str,
    xml: Path,
    image_id: int,
    label_of: Callable[[str], int],
    clipped: bool = True,
) -> tuple[ImageRow, list[Skipped]]:
    """Reads the XML file of one image.

    Args:
        root: folder that holds the images.
        file: the image, relative to ``root``; opened only where the XML states no size.
        xml: the XML file.
        image_id: the image's id.
        label_of: from a class name to its label, 1…K; it may raise UnusableError to leave the
            object out, or DataError to refuse the file.
        clipped: whether boxes are cut at the border, and left out where nothing remains.

    Returns:
        The image in the size that the XML states, and the objects that were left out.

    Raises:
        UnusableError: the XML file is not readable, or there is no size.
        DataError: see ``label_of``.
    """
    annotation = _parse(xml)
    row = ImageRow(file, image_id, _size(annotation, root / file), [])
    skipped = []
    for number, element in enumerate(annotation.findall("object"), start=1):
        try:
            row.objects.append(_object(element, label_of(_name(element)), row.size, clipped))
        except UnusableError as error:
            skipped.append(Skipped(str(xml), f"object {number}", str(error)))
        except DataError as error:
            raise DataError(f"{xml}: object {number}: {error}") from error
    return row, skipped


def _parse(path: Path) -> Element:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_XML_BYTES + 1)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    if len(text) > _MAX_XML_BYTES:
        raise UnusableError(f"more than {_MAX_XML_BYTES} bytes")
    try:
        annotation: Element = fromstring(text)
    # LookupError and ValueError: unknown encodings, and what defusedxml forbids
    except (ParseError, LookupError, ValueError) as error:
        raise UnusableError(f"not well-formed or not safe XML: {error}") from error
    if annotation.tag != "annotation":
        raise UnusableError(f"the outermost element is {annotation.tag}, expected annotation")
    return annotation


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _size(annotation: Element, image: Path) -> tuple[int, int]:
    """Returns height and width as the XML states them; from the image where it does not."""
    texts = [_text(annotation, "size/height"), _text(annotation, "size/width")]
    if all(re.fullmatch(r"[0-9]{1,9}", text) for text in texts):
        height, width = map(int, texts)
        if 0 < height * width <= MAX_PIXELS:
            return height, width
    try:
        return image_size(image)
    except DataError as error:
        raise UnusableError(f"no size, nor in the image: {error}") from error


def _name(element: Element) -> str:
    name = _text(element, "name")
    if not name:
        raise UnusableError("no name")
    return name


def _object(element: Element, label: int, size: tuple[int, int], clipped: bool) -> ObjectRow:
    xmin, ymin, xmax, ymax = (_number(element, corner) for corner in _CORNERS)
    narrow = min(xmax - xmin, ymax - ymin)
    if narrow < 0 or (narrow == 0 and clipped):
        raise UnusableError(
            f"box (xmin {xmin:.10g}, ymin {ymin:.10g}, xmax {xmax:.10g}, ymax {ymax:.10g}) "
            "is empty or reversed"
        )
    # The +1 rule: the first pixel is number 1, the last one belongs to the box.
    box = xmin - 1, ymin - 1, xmax, ymax
    x1, y1, x2, y2 = box = clip_box(box, size) if clipped else box
    difficult = _text(element, "difficult") or "0"
    if difficult not in ("0", "1"):
        raise UnusableError(f"difficult is {difficult!r}, expected 0 or 1")
    return ObjectRow(box, label, (x2 - x1) * (y2 - y1), difficult=difficult == "1")


def _number(element: Element, corner: str) -> float:
    text = _text(element, f"bndbox/{corner}")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise UnusableError(f"{corner} is {text[:40]!r}, expected a finite number")
    return float(text)
