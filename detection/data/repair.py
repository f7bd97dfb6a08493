"""A copy of a data set without the records that are wrong; everything else stays as it was.

Annotations keep their other fields, and what is good of a file is copied as it stands. Image files
are linked where the file system can (hard links: they are the same files), else copied.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ElementTree

import numpy as np
from defusedxml.ElementTree import parse

from detection.data.check import Findings, Progress
from detection.data.coco_fields import record
from detection.data.folder import CocoSource, VocSource
from detection.data.records import DataError


def check_output(output: Path) -> None:
    """Refuses a folder that `write_repaired` could not make, before anything is looked at.

    Args:
        output: the folder.

    Raises:
        DataError: it is a file or holds something, or no folder can be made there.
        OSError: it cannot be looked at.
    """
    if output.exists() and not (output.is_dir() and next(output.iterdir(), None) is None):
        raise DataError(f"{output}: expected a new or an empty folder for the repaired copy")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise DataError(f"{output}: no folder can be made in {above}")


def write_repaired(
    findings: Sequence[Findings], root: Path, output: Path, progress: Progress | None = None
) -> None:
    """Writes splits again, without what is wrong; the new folder appears once it is complete.

    Left out are the records that the readers skip, images whose file is broken or of another size
    than annotated (their boxes may be those of either size), and objects that stand before in the
    same image.

    Args:
        findings: of `check_folder`.
        root: the folder that was checked.
        output: the folder to make, of the same layout; it may exist if it is empty.
        progress: called after each image.

    Raises:
        DataError: ``output`` is refused by `check_output`, an image lies outside of ``root``, or
            not one image of a split is left.
        OSError: a file cannot be read or written.
    """
    check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        for found in findings:
            if len(found.broken) == len(found.records.files):
                raise DataError(f"{root}, split {found.split}: not one image is left")
            if isinstance(found.source, CocoSource):
                _write_coco(found, found.source, root, draft)
            else:
                _write_voc(found, found.source, root, draft)
            _place_images(found, root, draft, progress)
        if output.exists():
            output.rmdir()  # empty; not every system renames onto a folder
        draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _below(root: Path, path: Path) -> Path:
    """Returns a path as seen from the root, by the names that lead there, links or not."""
    below = path.relative_to(root)
    if ".." in below.parts:
        raise DataError(f"{path}: lies outside of {root}")
    return below


def _good_rows(found: Findings) -> list[int]:
    return [row for row in range(len(found.records.files)) if row not in found.broken]


def _place_images(found: Findings, root: Path, draft: Path, progress: Progress | None) -> None:
    rows = _good_rows(found)
    for done, row in enumerate(rows, start=1):
        source = found.records.path(row)
        target = draft / _below(root, source)
        if not target.exists():  # of another split
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without hard links
                shutil.copy2(source, target)
        if progress is not None:
            progress(found.split, done, len(rows))


def _repeated_places(found: Findings, row: int) -> set[int]:
    """Returns which of an image's objects in use stand before, counted from 0."""
    first, last = found.records.annotations.offsets[row : row + 2]
    return set(np.flatnonzero(found.repeated[first:last]).tolist())


def _write_voc(found: Findings, source: VocSource, root: Path, draft: Path) -> None:
    folder = draft / _below(root, source.root)
    skipped: dict[str, set[str]] = {}
    for one in found.records.skipped:
        skipped.setdefault(one.file, set()).add(one.record)
    names = []
    for row in _good_rows(found):
        names.append(found.records.path(row).stem)
        file = source.root / "Annotations" / f"{names[-1]}.xml"
        if file.is_file():  # of a test set there are none
            target = folder / "Annotations" / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            bad = skipped.get(str(file), set())
            _copy_xml(file, target, bad, _repeated_places(found, row))
    listing = folder / "ImageSets" / "Main" / f"{source.split}.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    # A test set without objects is recognised by its folders.
    (folder / "Annotations").mkdir(exist_ok=True)


def _copy_xml(file: Path, target: Path, skipped: set[str], repeated: set[int]) -> None:
    """Copies an annotation file without some of its objects."""
    if not skipped and not repeated:
        shutil.copyfile(file, target)
        return
    annotation = parse(file).getroot()
    place = 0
    for number, element in enumerate(annotation.findall("object"), start=1):
        if f"object {number}" in skipped:
            annotation.remove(element)
        else:
            if place in repeated:
                annotation.remove(element)
            place += 1
    ElementTree(annotation).write(target, encoding="utf-8")


def _write_coco(found: Findings, source: CocoSource, root: Path, draft: Path) -> None:
    target = draft / _below(root, source.annotation_file)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = json.loads(source.annotation_file.read_bytes())
    identities = found.records.annotations.image_ids.tolist()
    rows = {identities[row]: row for row in _good_rows(found)}
    content["images"] = [image for image in content["images"] if image["id"] in rows]
    content["annotations"] = _good_annotations(found, content.get("annotations", []), rows)
    target.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def _good_annotations(
    found: Findings, table: Sequence[Any], rows: dict[int, int]
) -> list[dict[str, Any]]:
    """Filters the annotations of a COCO file.

    The reader names an annotation by its id, and always leaves out one whose id was used before:
    the first of an id is good unless every one of that id was left out.
    """
    names = [record("annotation", fields, place) for place, fields in enumerate(table, start=1)]
    total = Counter(names)
    skipped = Counter(one.record for one in found.records.skipped)
    repeated = {row: _repeated_places(found, row) for row in rows.values()}
    place = Counter[int]()
    seen: set[str] = set()
    good = []
    for name, fields in zip(names, table, strict=True):
        if name in seen or skipped[name] == total[name]:
            continue
        seen.add(name)
        row = rows.get(fields["image_id"])
        if row is not None:
            if place[row] not in repeated[row]:
                good.append(fields)
            place[row] += 1
    return good
