"""Check that every figure of the documents is rendered from a stored artefact, or record one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detection.reproduction.ledger import Ledger

DOCUMENTS = ("*.md", "backbones/**/*.md", "detection/**/*.md")
RECORDS = "detection/reproduction/artefacts"
ARTEFACTS = ("tools/benchmarks/reports", RECORDS)
TEMPLATES = "detection/reproduction/claims"
COMMANDS = {
    "networks": ["backbones", "--markdown"],
    "choices": ["choices", "--markdown"],
    "drift": ["choices", "--drift", "--markdown"],
    "recipes": ["choices", "--recipes", "--markdown"],
}
"""Blocks that hold what a tool prints, with the arguments of ``resdet``."""

EPILOG = """
A block of a document stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`, and is
rendered from detection/reproduction/claims/NAME.md.jinja or printed by a tool. The exit code is 1
if a block is stale or has no artefact, or a figure stands outside.
"""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet claims", description=__doc__, epilog=EPILOG)
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--write", action="store_true", help="render the blocks anew")
    work.add_argument(
        "--record",
        nargs=2,
        metavar=("NAME", "FOLDER"),
        help="run the README's commands NAME, such as quick-start, in a new folder, with a clock",
    )
    parser.add_argument("--root", type=Path, help="the checkout; where this file's is")
    options = parser.parse_args(argv)
    options.root = options.root or Path(__file__).resolve().parent.parent
    return options


def open_ledger(root: Path) -> Ledger:
    """Reads the artefacts and templates of a checkout.

    Raises:
        ValueError: an artefact is not one.
    """
    from detection.reproduction.artefacts import read_artefacts
    from detection.reproduction.ledger import Ledger, read_templates

    artefacts = read_artefacts(root / folder for folder in ARTEFACTS)
    commands = {block: partial(_output, command) for block, command in COMMANDS.items()}
    return Ledger(artefacts, read_templates(root / TEMPLATES), commands)


def find_documents(root: Path) -> list[Path]:
    """The documents of a checkout, its README first.

    Raises:
        ValueError: it has no README.
    """
    found = [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]
    if root / "README.md" not in found:
        raise ValueError(f"{root}: no README.md; --root names the checkout")
    return found


def _output(command: Sequence[str]) -> str:
    """What a tool prints."""
    output = StringIO()
    main_of: Callable[[Sequence[str]], int] = import_module(f"resdet.tools.{command[0]}").main
    with redirect_stdout(output):
        code = main_of(command[1:])
    if code:
        raise ValueError(f"resdet {' '.join(command)}: exit code {code}")
    return output.getvalue()


def audit(root: Path, *, write: bool) -> Iterator[str]:
    """Checks every document, and prints what its blocks draw on.

    Args:
        root: the checkout.
        write: whether to render the blocks anew.

    Yields:
        What is wrong; a line each.

    Raises:
        ValueError: an artefact is not one, or the markers of a document are not in order.
    """
    from detection.reproduction.documents import DocumentError

    ledger = open_ledger(root)
    blocks: set[str] = set()
    used: set[str] = set()
    for path in find_documents(root):
        name = str(path.relative_to(root))
        text = path.read_text(encoding="utf-8")
        try:
            result = ledger.audit(text)
        except DocumentError as error:
            raise DocumentError(f"{path}: {error}") from error
        print(name)
        for claim in result.claims:
            blocks.add(claim.block)
            used.update(claim.artefacts)
            _print_sources(claim.block, claim.artefacts, ledger)
            if claim.stale and not write:
                yield f"{name}: block {claim.block} is stale: `resdet claims --write`"
        if write and result.text != text:
            path.write_text(result.text, encoding="utf-8")
        yield from (f"{name}: {problem}" for problem in result.problems)
    for block in sorted(ledger.templates.keys() - blocks):
        yield f"{TEMPLATES}/{block}.md.jinja: no document has this block"
    for artefact in sorted(ledger.artefacts.keys() - used):
        print(f"in no block: {ledger.artefacts[artefact].path.relative_to(root)}")


def _print_sources(block: str, artefacts: Sequence[str], ledger: Ledger) -> None:
    if not artefacts:
        print(f"  {block}: resdet {' '.join(COMMANDS[block])}")
        return
    print(f"  {block}")
    for name in artefacts:
        artefact = ledger.artefacts[name]
        print(f"    {artefact.path.name}: {artefact.command}")


def _record(root: Path, name: str, folder: Path) -> None:
    from detection.reproduction.recording import read_commands, record

    readme = root / "README.md"
    commands = read_commands(readme.read_text(encoding="utf-8"), name)
    facts = record(commands, folder, f"{readme.name}, {name}")
    path = root / RECORDS / f"{name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"{path}\n`resdet claims --write` puts its figures into the documents")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    try:
        if options.record:
            name, folder = options.record
            _record(options.root, name, Path(folder).resolve())
            return 0
        problems = list(audit(options.root, write=options.write))
    except (ValueError, OSError) as error:
        problems = [str(error)]
    for problem in problems:
        print(f"resdet claims: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
