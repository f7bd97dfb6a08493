"""Archives of images and annotations: their members listed, refused or extracted.

Only regular files and folders are extracted, each below the target. A member's name is judged as
it stands: archives bring no links, so the only links below the target are the user's own.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from detection.data.records import DataError

Progress = Callable[[int, int], None]
"""Told how many bytes are extracted, and of how many."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path below the target.
        size: bytes, extracted.
        open: starts reading it.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextmanager
def open_archive(path: Path) -> Iterator[Sequence[Member]]:
    """Opens a zip or an uncompressed tar archive and lists its files.

    Args:
        path: the archive; its suffix says whether it is a zip.

    Yields:
        Its files, in the archive's order, without folders.

    Raises:
        DataError: it is no such archive, is broken, or has a member that is neither file nor
            folder, or whose name leads out of the target.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                yield list(_zip_members(path, archive))
        else:
            with tarfile.open(path, "r:") as archive:
                yield list(_tar_members(path, archive))
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a sound archive: {error}") from error


def extract(members: Sequence[Member], target: Path, progress: Progress | None = None) -> None:
    """Writes files below a folder; those that are there in full are left as they are.

    A file gets its name once it is complete, so that an interrupted extraction goes on where it
    stopped.

    Args:
        members: of `open_archive`, while it is open.
        target: the folder.
        progress: called after each file.

    Raises:
        OSError: a file cannot be written.
    """
    done, total = 0, sum(member.size for member in members)
    for member in members:
        file = target / member.name
        if not (file.is_file() and file.stat().st_size == member.size):
            _write(member, file)
        done += member.size
        if progress is not None:
            progress(done, total)


def _write(member: Member, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with member.open() as source, draft.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for entry in archive.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        _refuse(path, entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        if not entry.is_dir():
            yield Member(entry.filename, entry.file_size, partial(archive.open, entry))


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[Member]:
    for entry in archive.getmembers():
        _refuse(path, entry.name, entry.isreg() or entry.isdir())
        if entry.isreg():
            yield Member(entry.name, entry.size, partial(_reader, archive, entry))


def _reader(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(entry)
    if file is None:  # only of what `_tar_members` leaves out
        raise tarfile.TarError(f"{entry.name} cannot be read")
    return file


def _refuse(path: Path, name: str, plain: bool) -> None:
    """Raises for a member that is no plain file or folder below the target."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        raise DataError(f"{path}: member {name!r} leads out of the folder it is extracted to")
    if not plain:
        raise DataError(f"{path}: member {name!r} is neither a file nor a folder")
