"""Check every record of a data set before a run meets it, and write a repaired copy."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detection.data.check import Findings, Progress
    from detection.data.records import Skipped

EPILOG = """
Wrong, with exit code 1: records that the readers leave out, image files that cannot be decoded or
have another size than annotated, objects that stand twice, official splits of VOC and COCO that
are not complete. Noted: tiny boxes, images with the same content, images without objects.
"""
EXAMPLES = 3  # of a kind, in the text; the JSON has all


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet check", description=__doc__, epilog=EPILOG)
    parser.add_argument("folder", type=Path, help="of VOC or COCO layout")
    parser.add_argument(
        "--split", nargs="+", default=["train", "val"], help="each as --data.train has it"
    )
    parser.add_argument("--no-images", action="store_true", help="do not decode the image files")
    parser.add_argument("--workers", type=int, help="threads that decode; one a core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all of it")
    parser.add_argument(
        "--repair", type=Path, metavar="OUTPUT", help="new folder for a copy without what is wrong"
    )
    options = parser.parse_args(argv)
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    if options.json is not None and not _writable(options.json, options.repair):
        parser.error(f"--json {options.json}: no file can be written there")
    return options


def _writable(file: Path, coming: Path | None) -> bool:
    """Says whether a file can be written, or made in a folder that is there or coming."""
    folder = file.absolute().parent
    if coming is not None and coming.absolute() in (folder, *folder.parents):
        return True
    there = os.access(file if file.exists() else folder, os.W_OK)
    return there and folder.is_dir() and not file.is_dir()


def _listing(group: str, kinds: dict[str, list[Skipped]]) -> list[str]:
    lines = []
    for kind, found in kinds.items():
        if found:
            lines.append(f"  {group}: {kind}: {len(found)}")
            lines += [f"    {it.file}, {it.record}: {it.reason}" for it in found[:EXAMPLES]]
    return lines


def _text(findings: Findings) -> str:
    """Says what was found in a split, a table of its classes last."""
    rows = findings.classes()
    width = max(len(row.name) for row in rows)
    counts = f"{sum(row.objects for row in rows)} objects, {sum(row.ignored for row in rows)}"
    lines = [
        f"{findings.split}: {len(findings.records.files)} images, {counts} crowds or difficult",
        *_listing("wrong", findings.wrong()),
        *_listing("noted", findings.noted()),
        f"  {'class':<{width}} {'objects':>9} {'ignored':>9} {'images':>9}",
    ]
    lines += [f"  {it.name:<{width}} {it.objects:>9} {it.ignored:>9} {it.images:>9}" for it in rows]
    return "\n".join(lines)


@contextmanager
def _bars() -> Iterator[Callable[[str], Progress]]:
    """Shows a bar for each split; told a verb, it gives what is to be called after each image."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, TaskID
    from rich.progress import Progress as Bars

    with Bars(
        *Bars.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(verb: str) -> Progress:
            def update(split: str, done: int, total: int) -> None:
                what = f"{verb} {split}"
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done)

            return update

        yield show


def _check(options: argparse.Namespace) -> tuple[Findings, ...]:
    """Checks, once it is known that a copy could be written where it is asked for."""
    from detection.data.check import check_folder
    from detection.data.repair import check_output

    if options.repair is not None:
        check_output(options.repair)
    with _bars() as show:
        return check_folder(
            options.folder,
            options.split,
            images=not options.no_images,
            workers=options.workers,
            progress=show("decoding"),
        )


def _write(options: argparse.Namespace, findings: Sequence[Findings]) -> None:
    """Writes the copy and then the JSON, which may lie in the copy."""
    from detection.data.repair import write_repaired

    if options.repair is not None:
        with _bars() as show:
            write_repaired(findings, options.folder, options.repair, show("writing"))
        print(f"{options.repair}: the copy without what is wrong")
    if options.json is not None:
        content = [found.to_plain() for found in findings]
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code: 0 if nothing is wrong, 1 if something is or data cannot be read or written,
        130 after Ctrl-C.
    """
    options = _parse(argv)
    try:
        findings = _check(options)
        for found in findings:
            print(_text(found))
        _write(options, findings)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"resdet check: {error}", file=sys.stderr)
        return 1
    return int(any(any(found.wrong().values()) for found in findings))


if __name__ == "__main__":
    sys.exit(main())
