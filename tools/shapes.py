"""Draw the embedded data set: shapes in VOC and COCO layout, for trying everything out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet shapes", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write it; nothing is overwritten")
    parser.add_argument("--train", type=int, default=2500, help="training images")
    parser.add_argument("--val", type=int, default=100, help="validation images")
    parser.add_argument("--test", type=int, default=400, help="test images")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same images")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    from rich.progress import Progress

    from detection.data.shapes import ensure_shapes

    splits = {"train": options.train, "val": options.val, "test": options.test}
    try:
        with Progress() as bar:
            task = bar.add_task("drawing shapes", total=sum(splits.values()))
            ensure_shapes(
                options.folder,
                splits,
                seed=options.seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except (ValueError, OSError) as error:
        print(f"resdet shapes: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {', '.join(f'{count} {name}' for name, count in splits.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
