"""Long JSON lists of objects, decoded some thousands of rows at a time.

Decoding a list at once holds an object per number; in pieces, a few hundred kilobytes serve.
"""

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

PIECE = 2**16  # bytes; entries that fit a core's cache
_BETWEEN_ROWS = re.compile(rb"}\s*,\s*{")

Row = TypeVar("Row")


def pieces(table: bytes | memoryview, size: int = PIECE) -> Iterator[bytes]:
    """Cuts a JSON list of objects into shorter ones, which hold the same rows in the same order.

    The cut is a guess: it may fall into a nested value. Then a piece is no JSON; if every piece
    is a list, so is the table, and of the same rows.

    Args:
        table: the text of the list.
        size: the least length of a piece but the last, bytes.
    """
    start, opening = 0, b""
    while cut := _BETWEEN_ROWS.search(table, start + size):
        yield opening + bytes(table[start : cut.start() + 1]) + b"]"
        start, opening = cut.end() - 1, b"["
    yield opening + bytes(table[start:])


def decode_rows(
    table: bytes | memoryview, row: type[Row], size: int = PIECE
) -> Iterator[list[Row]]:
    """Decodes the rows of a JSON list, piece by piece.

    Args:
        table: the text of the list.
        row: what each row must be.
        size: as for `pieces`.

    Raises:
        msgspec.DecodeError: the table is not a list of such rows, or may be one that `pieces`
            cut in the wrong place.
    """
    decoder = msgspec.json.Decoder(list[row])  # type: ignore[valid-type]
    for piece in pieces(table, size):
        yield decoder.decode(piece)
