"""Figures in documents: the blocks that are generated, and figures elsewhere that look measured.

A block stands between two lines, ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

CONSTANTS = {
    r"(Python|torch|torchvision) \d\.\d+": "oldest version that will do",
    r"Apache-2\.0": "name of the licence",
    r"[Ss]ections? \d(\.\d)?": "number of a section",
    r"at IoU 0\.50": "threshold of a metric",
    r"\(1e-5\)|1e-12 in float64|outputs, 1e-5": "tolerance that a test holds",
    r"95% (t )?intervals?": "level of confidence",
    r"--[a-z][\w.-]*[ =][\d.]+": "option of a command",
}
"""What looks measured and is not: pattern, and reason."""

_MARKER = re.compile(r"^<!-- (generated|end): ([\w-]+) -->\n", re.MULTILINE)
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_CONSTANT = re.compile("|".join(f"(?:{pattern})" for pattern in CONSTANTS))
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_UNITS = "s|ms|min|minutes?|hours?|h|[KMGT]i?B|%|times|images/s"
_MEASURED = re.compile(
    rf"""\bm?AP(?:50|75)?\s+{_NUMBER}      # AP 0.594
    | (?<![\w.]){_NUMBER}\s?(?:{_UNITS})(?!\w)
    | (?<![\w.]){_NUMBER}\s?×(?!\s?\d)     # a factor, and no size
    | (?<!\d)(?<!\d\s)×\s?{_NUMBER}
    | ±\s?{_NUMBER}
    | (?<![\w.])\d+(?:\.\d+)+              # any decimal
    | (?<![\w.])\d+e-?\d+""",
    re.VERBOSE,
)


class DocumentError(ValueError):
    """The markers of a block are not in order; the message names it."""


class Block(NamedTuple):
    """A block of a document.

    Attributes:
        name: in its markers.
        text: between them.
        start: of the text, characters from the document's start.
    """

    name: str
    text: str
    start: int


class Figure(NamedTuple):
    """A figure that looks measured.

    Attributes:
        line: where it stands, from 1.
        text: as it stands there.
    """

    line: int
    text: str


def find_blocks(document: str) -> list[Block]:
    """Finds the blocks of a document.

    Raises:
        DocumentError: markers do not pair up, or two blocks have one name.
    """
    blocks: list[Block] = []
    opening: re.Match[str] | None = None
    for marker in _MARKER.finditer(document):
        if marker[1] == "generated":
            if opening:
                raise DocumentError(f"block {opening[2]} has no end before block {marker[2]}")
            opening = marker
            continue
        if opening is None or opening[2] != marker[2]:
            raise DocumentError(f"block {marker[2]} ends where it did not begin")
        text = document[opening.end() : marker.start()]
        blocks.append(Block(marker[2], text, opening.end()))
        opening = None
    if opening:
        raise DocumentError(f"block {opening[2]} has no end")
    names = [block.name for block in blocks]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DocumentError(f"block {min(repeated)} stands twice")
    return blocks


def find_figures(text: str) -> list[Figure]:
    """Finds the figures that look measured, outside of blocks and code fences.

    Args:
        text: a document, or a template.

    Raises:
        DocumentError: as for `find_blocks`.
    """
    for block in find_blocks(text):
        text = _blank(text, block.start, block.start + len(block.text))
    for pattern in (_FENCE, _CONSTANT):
        for match in pattern.finditer(text):
            text = _blank(text, *match.span())
    return [
        Figure(text.count("\n", 0, match.start()) + 1, match[0])
        for match in _MEASURED.finditer(text)
    ]


def _blank(text: str, start: int, end: int) -> str:
    """Replaces a part by as many blanks, and leaves its lines."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def replace_blocks(document: str, texts: Mapping[str, str]) -> str:
    """Puts new texts into the blocks of a document, those of other names apart.

    Raises:
        DocumentError: as for `find_blocks`.
    """
    for block in reversed(find_blocks(document)):
        end = block.start + len(block.text)
        document = document[: block.start] + texts.get(block.name, block.text) + document[end:]
    return document
