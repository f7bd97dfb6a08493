"""Download PASCAL VOC and COCO from their official addresses, checked and ready for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("voc07", "voc12", "coco2014", "coco2017")
EPILOG = """
voc07: trainval and test, 0.9 GB; voc12: trainval, 2.0 GB; coco2014 and coco2017: train and val,
20.4 GB each. They become OUTPUT/VOCdevkit and OUTPUT/coco, for `resdet train --data.root`. What is
there is not fetched again; what was interrupted goes on. The images of VOC 2012's test set are
given to those who register at its server, http://host.robots.ox.ac.uk:8080: put them into
VOCdevkit/VOC2012 by hand.
"""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet download", description=__doc__, epilog=EPILOG)
    parser.add_argument("sets", metavar="SET", nargs="+", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--output", type=Path, default=Path(), help="folder of all sets (.)")
    parser.add_argument(
        "--keep-archives", action="store_true", help="do not remove an archive once extracted"
    )
    return parser.parse_args(argv)


def _download(options: argparse.Namespace) -> None:
    """Downloads with a bar for each archive's transfer and extraction."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from detection.data.download import SETS, download

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    archives = [archive for name in dict.fromkeys(options.sets) for archive in SETS[name]]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        download(archives, options.output, keep_archives=options.keep_archives, progress=show)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    options = _parse(argv)
    try:
        _download(options)
    except KeyboardInterrupt:
        print("resdet download: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"resdet download: {error}", file=sys.stderr)
        return 1
    folders = {"VOCdevkit" if name.startswith("voc") else "coco" for name in options.sets}
    for folder in sorted(folders):
        print(options.output / folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
