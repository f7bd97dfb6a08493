"""Folders that are drawn on the spot: complete or absent, and never on top of something else.

``shapes.json`` in the folder is its stamp: what it was made from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detection.data.records import DataError

_STAMP = "shapes.json"


def check_splits(splits: Mapping[str, int]) -> None:
    """Checks names and numbers of images.

    Raises:
        ValueError: there are none, a number is below 1, or a name is not letters and underscores.
    """
    if not splits:
        raise ValueError("splits: expected at least one")
    for split, count in splits.items():
        if not re.fullmatch("[A-Za-z_]+", split):
            raise ValueError(f"split {split!r}: expected a name of letters and underscores")
        if count < 1:
            raise ValueError(f"split {split!r}: expected at least one image, got {count}")


def draw_folder(root: Path, stamp: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Makes a new folder, which appears only once it is complete.

    Args:
        root: the folder to make; it may exist if it is empty.
        stamp: what it is made from.
        write: fills the folder it is given.

    Raises:
        DataError: ``root`` is a file or a folder with something in it.
    """
    if _occupied(root):
        raise DataError(f"{root}: expected a new or an empty folder to draw the shapes into")
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = root.with_name(f".{root.name}.{os.getpid()}")
    try:
        draft.mkdir(exist_ok=True)
        write(draft)
        (draft / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        _publish(draft, root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_drawn(root: Path, stamp: Mapping[str, Any]) -> bool:
    """Tells whether the folder holds what the stamp says; False if there is nothing yet.

    Raises:
        DataError: it holds something else.
    """
    if not _occupied(root):
        return False
    try:
        found = json.loads((root / _STAMP).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{root}: not a folder of shapes (no readable {_STAMP}); name another folder"
        ) from error
    if found != stamp:
        raise DataError(
            f"{root}: holds shapes made from {found}, expected {stamp}; "
            "name another folder or delete this one"
        )
    return True


def _occupied(root: Path) -> bool:
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _publish(draft: Path, root: Path) -> None:
    try:
        if root.exists():
            root.rmdir()  # empty; not every system renames onto a folder
        draft.rename(root)
    except OSError as error:
        raise DataError(f"{root}: something else was put there meanwhile ({error})") from error
