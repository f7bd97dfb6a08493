"""A study's outcome as Markdown, JSON and one self-contained HTML page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

from detection.evaluation.report_tables import flatten
from detection.reproduction.outcome import TITLES, Figure, Outcome
from detection.reproduction.verdict import TOO_FEW, Measured

_ROWS = (
    "A verdict says where our interval lies: around the paper's figure (within), above or below it."
)
_OTHER_DATA = "The paper's figures are of its own data: only the differences below compare."
_GAPS = (
    "A direction is shown where our interval leaves out 0; the same direction is the paper's sign."
)
_TOO_FEW = (
    " Too few images: the interval does not hold our own figure, because resampled images repeat."
)
_FIGURES = ("Method", "Run as", "Trained on", "Metric", "Paper", "Ours, 95% interval", "Verdict")
_OPTIONAL = ("Run as", "Trained on", "Paper", "Verdict")


class Section(NamedTuple):
    """A table under a heading.

    Attributes:
        heading: its title.
        text: what the reader has to know.
        head: the columns' titles.
        rows: the cells, as text.
    """

    heading: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_pages(folder: Path, outcome: Outcome, origin: Mapping[str, Any]) -> list[Path]:
    """Writes NAME.md, NAME.json and NAME.html, NAME being the study's.

    Args:
        folder: where; it must exist.
        outcome: what to write.
        origin: plain values that say how it was made: command, environment, seeds, hashes.

    Returns:
        The three files.

    Raises:
        OSError: a file cannot be written.
    """
    plain = json.dumps(to_plain(outcome, origin), indent=2, allow_nan=False, ensure_ascii=False)
    texts = {"md": markdown(outcome), "json": f"{plain}\n", "html": html(outcome, origin)}
    files = [folder / f"{outcome.study.name}.{ending}" for ending in texts]
    for file, text in zip(files, texts.values(), strict=True):
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    return files


def to_plain(outcome: Outcome, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outcome as JSON has it; what is nan is null."""
    study = outcome.study
    rows = [
        {
            **{"key": one.row.key, "method": one.row.method, "runs_as": one.row.runs_as},
            "figures": [figure._asdict() | {"ours": _plain(figure.ours)} for figure in one.figures],
        }
        for one in outcome.rows
    ]
    return {
        **origin,
        **{"study": study.name, "title": study.title, "split": study.split},
        "images": outcome.images,
        "rows": rows,
        "gaps": [gap._asdict() | {"ours": _plain(gap.ours)} for gap in outcome.gaps],
        "classes": [one._asdict() for one in outcome.classes],
    }


def sections(outcome: Outcome) -> list[Section]:
    """Returns the tables: rows, and where there are any, differences and classes."""
    text = _ROWS if outcome.study.comparable else _OTHER_DATA
    rows = list(_rows(outcome))
    found = [Section("Figures", _explained(text, rows), *_used_columns(_FIGURES, rows))]
    if outcome.gaps:
        head = ["Difference", "Metric", "Paper", "Ours, 95% interval", "Direction"]
        rows = list(_gaps(outcome))
        found.append(Section("Differences", _explained(_GAPS, rows), head, rows))
    if outcome.classes:
        found.append(Section("Classes", "AP by class, means over our runs.", *_classes(outcome)))
    return found


def markdown(outcome: Outcome) -> str:
    """Returns the outcome as Markdown."""
    parts = [f"# {outcome.study.title}", caption(outcome)]
    for section in sections(outcome):
        parts += [f"## {section.heading}", section.text, markdown_table(section)]
    return "\n\n".join(parts) + "\n"


def markdown_table(section: Section) -> str:
    """Returns a section's table as Markdown."""
    lines = [section.head, ["---"] * len(section.head), *section.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def html(outcome: Outcome, origin: Mapping[str, Any]) -> str:
    """Returns the outcome as a page that fetches nothing."""
    rooms = ("evaluation", "reproduction")
    environment = Environment(
        loader=PrefixLoader({room: PackageLoader(f"detection.{room}", ".") for room in rooms}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("reproduction/outcome.html.jinja").render(
        title=outcome.study.title,
        caption=caption(outcome),
        sections=sections(outcome),
        facts=flatten(dict(origin)),
    )


def caption(outcome: Outcome) -> str:
    """Returns what all figures have in common: unit, images and what intervals are over."""
    figures = [one.ours for row in outcome.rows for one in row.figures]
    differences = [gap.ours for gap in outcome.gaps]
    bases = dict.fromkeys(one.basis for one in (*figures, *differences) if one is not None)
    images = "nothing was evaluated" if outcome.images is None else f"{outcome.images} images"
    intervals = f"; intervals: {'; '.join(bases)}" if bases else ""
    return f"Percent, differences in points; split {outcome.study.split}, {images}{intervals}."


def measured_text(ours: Measured | None, sign: str = "") -> str:
    """Returns a figure with its interval, or a dash."""
    if ours is None:
        return "–"
    if math.isnan(ours.low):
        return f"{ours.value:{sign}.1f}"
    return f"{ours.value:{sign}.1f} [{ours.low:{sign}.1f}, {ours.high:{sign}.1f}]"


def _explained(text: str, rows: Sequence[Sequence[str]]) -> str:
    return text + _TOO_FEW * any(row[-1] == TOO_FEW for row in rows)


def _used_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Leaves out what a study has no use for, so that a phone has room for the figures."""
    used = [
        title not in _OPTIONAL or any(row[i] != "–" for row in rows) for i, title in enumerate(head)
    ]
    return list(compress(head, used)), [list(compress(row, used)) for row in rows]


def _classes(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """The paper's rows as columns, ours beside those that have a run."""
    head, rows = ["Class"], [[one.name] for one in outcome.classes]
    for i, published in enumerate(outcome.study.per_class):
        sides: dict[str, list[float | None]] = {
            f"{published.method}, paper": [one.paper[i] for one in outcome.classes]
        }
        ours = [one.ours[i] for one in outcome.classes]
        if any(value is not None for value in ours):
            sides["ours"] = ours
        for title, values in sides.items():
            head.append(title)
            for row, value in zip(rows, values, strict=True):
                row.append(_number(value))
    return head, rows


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for one in outcome.rows:
        published = one.row.published
        trained = published[0].training if published and outcome.study.comparable else "–"
        for figure in one.figures:
            yield (one.row.method, one.row.runs_as or "–", trained, *_cells(figure))


def _cells(figure: Figure) -> tuple[str, ...]:
    paper, ours = _number(figure.paper), measured_text(figure.ours)
    return TITLES[figure.metric], paper, ours, figure.verdict or "–"


def _gaps(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    for gap in outcome.gaps:
        figures = _number(gap.paper, "+"), measured_text(gap.ours, "+")
        yield f"{gap.b} − {gap.a}", TITLES[gap.metric], *figures, gap.verdict or "–"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1f}"


def _plain(ours: Measured | None) -> dict[str, Any] | None:
    if ours is None:
        return None
    plain = ours._asdict()
    return plain | {end: None for end in ("low", "high") if math.isnan(plain[end])}
