"""Draw the embedded data set: shapes in VOC and COCO layout, for trying everything out.

With --classification, single shapes in a folder per class, for pre-training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser("resdet shapes", description=summary[0], epilog=summary[1])
    parser.add_argument("folder", type=Path, help="where to write it; nothing is overwritten")
    parser.add_argument("--hard", action="store_true", help="finer classes, harder to see")
    parser.add_argument(
        "--classification", action="store_true", help="single shapes, SPLIT/CLASS/NUMBER.jpg"
    )
    parser.add_argument("--train", type=int, help="training images (2500; single shapes: 6000)")
    parser.add_argument("--val", type=int, help="validation images (100; single shapes: 600)")
    parser.add_argument("--test", type=int, help="test images (400; single shapes: none)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same images")
    return parser.parse_args(argv)


def _splits(options: argparse.Namespace) -> dict[str, int]:
    defaults = {"train": 2500, "val": 100, "test": 400}
    if options.classification:
        defaults = {"train": 6000, "val": 600}
    given = {name: getattr(options, name) for name in ("train", "val", "test")}
    return defaults | {name: count for name, count in given.items() if count is not None}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    from rich.progress import Progress

    from detection.data.shape_crops import ensure_crops
    from detection.data.shapes import ensure_shapes

    ensure = ensure_crops if options.classification else ensure_shapes
    splits = _splits(options)
    try:
        with Progress() as bar:
            task = bar.add_task("drawing shapes", total=sum(splits.values()))
            ensure(
                options.folder,
                splits,
                seed=options.seed,
                hard=options.hard,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except (ValueError, OSError) as error:
        print(f"resdet shapes: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {', '.join(f'{count} {name}' for name, count in splits.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
