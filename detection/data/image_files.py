"""Image files below a root folder: each there, and named inside it, with one listing per folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Set
from pathlib import Path
from typing import Any, NamedTuple

from detection.data.records import DataError, UnusableError


class _Listing(NamedTuple):
    prefix: str  # of its files, relative to the root
    modified: int  # nanoseconds
    files: frozenset[str]  # regular files; no links
    others: Set[str]


class ImageFiles:
    """Finds the files of names that an annotation file gives.

    Attributes:
        root: the folder, resolved.
        needed: whether there must be such a file.
        listed: whether the listings alone say which names are found. They do not where a name
            leads over a symbolic link or into a folder that cannot be listed.
    """

    def __init__(self, root: Path, needed: bool = True) -> None:
        self.root = root.resolve()
        self.needed = needed
        self.listed = True
        self._listings: dict[str, _Listing | None] = {}

    def folders(self) -> dict[str, int]:
        """Maps each folder that was listed to its time of modification before, nanoseconds."""
        found = (listing for listing in self._listings.values() if listing)
        return {listing.prefix: listing.modified for listing in found}

    def find(self, name: Any, where: str) -> str:
        """Resolves a file name and returns it relative to the root.

        Args:
            name: what stands in the annotation file.
            where: file and record, for the message.

        Raises:
            DataError: it is no path, or by its text leads out of the root.
            UnusableError: there is no such file, and it is needed.
        """
        folder, base = os.path.split(name) if isinstance(name, str) else ("", "")
        listing = self._listing(folder)
        if listing and base in listing.files:
            return listing.prefix + base
        special = base in ("", ".", "..")
        if not listing or base in listing.others or special:
            self.listed = False
        elif not self.needed and not special:
            return listing.prefix + base
        return self._beyond_listings(name, where)

    def hold(self, names: Collection[str]) -> bool:
        """Whether each name is found in the root itself, and over no link."""
        listing = self._listing("")
        if listing is None or self.needed:
            return listing is not None and listing.files.issuperset(names)
        plain = not any(os.sep in name or name in ("", ".", "..") for name in names)
        return plain and listing.others.isdisjoint(names)

    def _listing(self, folder: str) -> _Listing | None:
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        return self._listings[folder]

    def _list(self, folder: str) -> _Listing | None:
        """Lists a folder inside the root that no link leads to."""
        inside = os.path.join(self.root, "")
        path = os.path.join(self.root, folder)
        try:
            if os.path.realpath(path) != os.path.normpath(path):
                return None
            path = os.path.normpath(path)
            if not os.path.join(path, "").startswith(inside):
                return None
            modified = os.stat(path).st_mtime_ns
            with os.scandir(path) as entries:
                regular = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
        except (OSError, ValueError):  # ValueError: text that cannot be a path
            return None
        prefix = os.path.join(path, "")[len(inside) :]
        files = frozenset(name for name, is_file in regular.items() if is_file)
        return _Listing(prefix, modified, files, regular.keys() - files)

    def _beyond_listings(self, name: Any, where: str) -> str:
        """Resolves by the text alone: links are the user's own, and may lead anywhere."""
        inside = os.path.join(self.root, "")
        try:
            path = os.path.normpath(os.path.join(self.root, name))
            found = _is_file(path)
        except (TypeError, ValueError) as error:  # no text; text that cannot be a path
            raise DataError(f"{where}: file_name is {name!r}, expected a relative path") from error
        if not path.startswith(inside):
            raise DataError(f"{where}: file_name {name!r} leads out of {self.root}")
        if self.needed and not found:
            raise UnusableError(f"{path}: no such file")
        return path[len(inside) :]


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
