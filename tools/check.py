"""Check every record of a data set before a run meets it, and write a repaired copy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detection.data.check import Findings
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
    return options


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


def _check(options: argparse.Namespace) -> tuple[Findings, ...]:
    """Checks, and repairs where asked to, with a bar for each split."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID

    from detection.data.check import check_folder
    from detection.data.repair import write_repaired

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(verb: str) -> Callable[[str, int, int], None]:
            def update(split: str, done: int, total: int) -> None:
                what = f"{verb} {split}"
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            return update

        findings = check_folder(
            options.folder,
            options.split,
            images=not options.no_images,
            workers=options.workers,
            progress=show("decoding"),
        )
        if options.repair is not None:
            write_repaired(findings, options.folder, options.repair, show("writing"))
    return findings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code: 0 if nothing is wrong, 1 if something is or the data cannot be read, 130
        after Ctrl-C.
    """
    options = _parse(argv)
    try:
        findings = _check(options)
        if options.json is not None:
            content = [found.to_plain() for found in findings]
            options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"resdet check: {error}", file=sys.stderr)
        return 1
    for found in findings:
        print(_text(found))
    if options.repair is not None:
        print(f"{options.repair}: the copy without what is wrong")
    return int(any(any(found.wrong().values()) for found in findings))


if __name__ == "__main__":
    sys.exit(main())
