"""Long JSON lists of objects in files, read in pieces and by several processes.

Decoding a list at once holds an object per number; in pieces, a few hundred kilobytes serve.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from detection.processes import MAX_SHARES, Columns, processes, share_out

PIECE = 2**16  # bytes; entries that fit a core's cache
SHARE = 2**22  # bytes that a process takes at a time
WORTHWHILE = 8  # shares; fewer are not worth a process
BETWEEN_ROWS = re.compile(rb"}\s*,\s*{")

_Result = TypeVar("_Result")


class Rows(NamedTuple):
    """Where rows of a list stand in a file, and what makes them a list.

    Attributes:
        start: offset of the text, bytes.
        stop: offset of its end.
        opening: what is missing before it.
        closing: what is missing after it.
    """

    start: int
    stop: int
    opening: bytes = b""
    closing: bytes = b""


def read_columns(path: Path, rows: Rows, pack: Callable[[bytes], Columns]) -> Columns:
    """Reads a JSON list of objects; a long one by a process for each core.

    Args:
        path: the file.
        rows: where the list stands in it.
        pack: makes columns of a piece, the text of a list of some of the rows. A module's own
            function. If it takes every piece for a list of objects, so is the text, and of the
            same rows.

    Returns:
        The columns of all rows, in the file's order.

    Raises:
        OSError: the file cannot be read.
        Exception: what ``pack`` raises.
    """
    return read_columns_beside(path, rows, pack, lambda: None)[0]


def read_columns_beside(
    path: Path, rows: Rows, pack: Callable[[bytes], Columns], task: Callable[[], _Result]
) -> tuple[Columns, _Result]:
    """Does something else in this process while others begin to read.

    Args:
        path: as for `read_columns`.
        rows: as for `read_columns`.
        pack: as for `read_columns`.
        task: what else there is to do. Called again if the other processes are lost.

    Returns:
        What `read_columns` and ``task`` return.

    Raises:
        OSError: the file cannot be read.
        Exception: what ``pack`` or ``task`` raises.
    """
    shares = _cut(path, rows)
    if len(shares) >= WORTHWHILE and (others := min(processes(), len(shares)) - 1):
        make = partial(_read_share, path, pack, shares)
        if found := share_out(len(shares), make, others, task):
            return _join(found[0]), found[1]
    return _read(path, pack, rows), task()


def _cut(path: Path, rows: Rows) -> list[Rows]:
    """Cuts rows into shares of about equal length, at places that `pieces` would guess."""
    shares = [rows]
    n = min((rows.stop - rows.start) // SHARE, MAX_SHARES)
    with path.open("rb") as file:
        for k in range(1, n):
            offset = rows.start + k * (rows.stop - rows.start) // n
            file.seek(offset)
            if cut := BETWEEN_ROWS.search(file.read(PIECE)):
                last = shares.pop()
                before = last._replace(stop=offset + cut.start() + 1, closing=b"]")
                after = last._replace(start=offset + cut.end() - 1, opening=b"[")
                shares += [before, after]
    return shares


def _read_share(
    path: Path, pack: Callable[[bytes], Columns], shares: Sequence[Rows], k: int
) -> Columns:
    return _read(path, pack, shares[k])


def _read(path: Path, pack: Callable[[bytes], Columns], rows: Rows) -> Columns:
    return _join([pack(piece) for piece in pieces(_blocks(path, rows))])


def _join(parts: list[Columns]) -> Columns:
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _blocks(path: Path, rows: Rows) -> Iterator[bytes]:
    yield rows.opening
    with path.open("rb") as file:
        file.seek(rows.start)
        left = rows.stop - rows.start
        while block := file.read(min(PIECE, left)):
            left -= len(block)
            yield block
    yield rows.closing


def pieces(text: Iterable[bytes]) -> Iterator[bytes]:
    """Turns the text of a JSON list of objects into shorter lists of the same rows, in order.

    Each block ends a piece at its first place between two rows. That place is a guess: it may lie
    in a nested value. Then a piece is no JSON; if every piece is a list of objects, so is the
    text, and of the same rows.

    Args:
        text: the text of the list, in blocks of any length.
    """
    parts: list[bytes] = []
    for block in text:
        if cut := BETWEEN_ROWS.search(block):
            yield b"".join([*parts, block[: cut.start() + 1], b"]"])
            parts = [b"[", block[cut.end() - 1 :]]
        else:
            parts.append(block)
    yield b"".join(parts)


def column(kind: Literal["q", "d"], values: Sequence[float]) -> NDArray[Any]:
    """Packs numbers of decoded rows, in half the time of `numpy.fromiter`.

    Args:
        kind: q for int64, d for float64.
        values: N numbers; integers for int64.

    Returns:
        (N,) int64 or float64, read-only.

    Raises:
        struct.error: an integer has more than 64 bits, or is none.
    """
    return np.frombuffer(struct.pack(f"{len(values)}{kind}", *values), kind)
