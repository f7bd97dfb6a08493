"""Print what the papers leave open, the recipes with their claims, and the drift ladder."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

EPILOG = """
Without an option, open choices with defaults, alternatives and sources, from the documentation of
the constructors' arguments, and where the code differs from the papers, from docstrings. --recipes:
what each configuration for VOC and COCO claims. --drift: the rungs of configs/drift, from the 2015
recipe to today's.
"""

Row = tuple[str, ...]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet choices", description=__doc__, epilog=EPILOG)
    table = parser.add_mutually_exclusive_group()
    table.add_argument("--recipes", action="store_true", help="recipes for VOC and COCO")
    table.add_argument("--drift", action="store_true", help="the ladder of configurations")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser.parse_args(argv)


def _choices() -> Iterator[tuple[Row, list[Row]]]:
    """The table of open choices, and that of differences."""
    import backbones
    import detection
    from detection.data.datamodule import DetectionData
    from detection.model.build import DetectorSpec
    from detection.model.criterion import Criterion
    from detection.model.improved import Improvements
    from detection.reproduction.choices import find_choices, find_differences
    from detection.training.schedule import Schedule

    roots = {
        "model.detector": DetectorSpec(),
        "model.criterion": Criterion(),
        "model.schedule": Schedule(),
        "data": DetectionData,
        "improvements": Improvements(),
    }
    yield (
        ("Argument", "Default", "What it is", "Alternatives", "Sources"),
        [
            (f"`{it.argument}`", f"`{it.default}`", it.meaning, it.alternatives, it.sources)
            for it in find_choices(roots)
        ],
    )
    packages = [Path(package.__path__[0]) for package in (backbones, detection)]
    yield (
        ("Where", "Differs from the paper"),
        [(f"`{it.place}`", it.text) for it in find_differences(packages)],
    )


def _configs(folder: str) -> list[Path]:
    from importlib.resources import files

    return sorted((Path(str(files("resdet.configs"))) / folder).glob("*.yaml"))


def _comment(path: Path) -> dict[str, str]:
    """Reads the fields of the comment that a configuration opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line[1:] for line in lines if line.startswith("#")]
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        found = re.match(r" (\w[\w ]*): +(.*)", line)
        if not line.startswith("  "):  # it goes on with what the line above is about
            name = found[1] if found else ""
        text = found[2] if found else line.strip()
        fields[name] = f"{fields.get(name, '')} {text}".strip()
    return fields


def _recipes() -> Iterator[tuple[Row, list[Row]]]:
    """The table of claims."""
    rows = []
    for path in _configs("."):
        fields = _comment(path)
        claim, expected = fields.get("Claim", ""), fields.get("Expected", "")
        if expected and re.search("VOC|COCO", claim):
            expected, _, measured = expected.partition(" Measured: ")
            rows.append((f"`{path.name}`", claim, expected, measured))
    yield ("Recipe", "Claim", "Expected", "Measured"), [_without_stops(row) for row in rows]


def _drift() -> Iterator[tuple[Row, list[Row]]]:
    """The table of rungs."""
    rows = []
    for path in _configs("drift"):
        change, source, _, measured = _comment(path).values()
        lines = path.read_text(encoding="utf-8").splitlines()
        options = ", ".join(f"`{name}: {value}`" for name, value in _options(lines))
        rows.append((f"`{path.stem}`", change, options, source, measured))
    heads = ("Rung", "Change", "Options", "Sources", "Measured")
    yield heads, [_without_stops(row) for row in rows]


def _options(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flattens a configuration's options: full name and value, as they stand there."""
    above: list[str] = []
    for line in lines:
        if line and not line.startswith("#"):
            name, _, value = line.strip().partition(":")
            above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
            if value:
                yield ".".join(above), value.strip()


def _without_stops(row: Row) -> Row:
    return tuple(cell.removesuffix(".") for cell in row)


def _print(heads: Row, rows: Sequence[Row], *, markdown: bool) -> None:
    if markdown:
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for row in rows:
            print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
        return
    for first, *others in rows:
        print(first.replace("`", ""))
        for head, cell in zip(heads[1:], others, strict=True):
            print(f"  {head.lower()}: {cell.replace('`', '')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    tables = _drift() if options.drift else _recipes() if options.recipes else _choices()
    for place, (heads, rows) in enumerate(tables):
        if place:
            print()
        _print(heads, rows, markdown=options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
