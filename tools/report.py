"""Make one HTML page of one or more evaluated runs: figures, errors, pictures, comparison."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from detection.data.records import Records
    from detection.evaluation.report import Gallery, Image, Run

EPILOG = """
A RUN is a folder that `resdet evaluate` wrote, with figures.json and predictions.json. The data set
is read again, from where figures.json says or from --data. Two or more runs, of the same split,
are compared: intervals of each AP and of its difference to the first run, by a paired bootstrap.
"""
PICTURE = (480, 480)  # the most pixels of an embedded image
QUALITY = 80
ORIGIN = ("data", "split", "checkpoint", "command", "engine", "predictions_sha256")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "resdet report",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="(report.html)")
    parser.add_argument("--data", type=Path, help="where the data set is now, if it was moved")
    parser.add_argument("--pictures", type=int, default=24, help="the most in all; 0 for none (24)")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of the bootstrap; 0 for no intervals (1000)"
    )
    options = parser.parse_args(argv)
    for name in ("pictures", "resamples"):
        if (number := getattr(options, name)) < 0:
            parser.error(f"--{name} must be at least 0, got {number}")
    return options


def _facts(figures: dict[str, Any]) -> dict[str, Any]:
    """What figures.json says beside the figures, under headings."""
    return {
        "Cost": figures.get("cost"),
        "Evaluation": {name: figures[name] for name in ORIGIN if figures.get(name)},
        "Environment": figures.get("environment"),
        "Configuration": figures.get("configuration"),
    }


def _page(options: argparse.Namespace, progress: Progress) -> str:
    """Reads, computes and renders, with a line of progress each."""
    from detection.evaluation.report import Run, galleries, render_report
    from detection.evaluation.report_analysis import STEPS, analyse, compare
    from detection.reproduction.evaluated import check_same_data, read_run, run_names

    names = run_names(options.runs)
    evaluated = [
        read_run(folder, name, options.data)
        for folder, name in progress.track(
            list(zip(options.runs, names, strict=True)), description="reading"
        )
    ]
    check_same_data(evaluated)
    task = progress.add_task("matching", total=STEPS * len(evaluated))
    runs: list[Run] = []
    for one in evaluated:
        case = one.records.annotations, one.predictions, one.records.labels.names
        analysis = analyse(*case, advance=lambda: progress.advance(task))
        figures = one.figures
        runs.append(Run(one.name, figures["data"], figures["split"], analysis, _facts(figures)))
    bootstraps = []
    if options.resamples:
        task = progress.add_task("bootstrap", total=None)
        bootstraps = compare([run.analysis for run in runs], options.resamples)
        progress.update(task, total=1, completed=1)
    chosen = [galleries(run.analysis, options.pictures // len(runs)) for run in runs]
    images = _images(evaluated[0].records, chosen, progress)
    return render_report(runs, chosen, images, bootstraps)


def _images(
    records: Records, chosen: Sequence[tuple[Gallery, ...]], progress: Progress
) -> dict[int, Image]:
    """Reads and encodes every image of the galleries once."""
    from detection.evaluation.report import Image

    pictures = [picture for run in chosen for gallery in run for picture in gallery.pictures]
    rows = {image: row for row, image in enumerate(records.annotations.image_ids.tolist())}
    needed = dict.fromkeys(picture.image_id for picture in pictures)
    return {
        image: Image(str(records.files[rows[image]]), _encode(records.path(rows[image])))
        for image in progress.track(needed, description="pictures")
    }


def _encode(file: Path) -> str | None:
    """Returns the image as a small data URI, or None if it cannot be read."""
    import base64
    import io

    from PIL import Image

    from detection.data.images import read_image
    from detection.data.records import DataError

    try:
        image = Image.fromarray(read_image(file))
    except DataError:
        return None
    image.thumbnail(PICTURE)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write(path: Path, text: str) -> None:
    """Writes a file; a reader sees the whole old one or the whole new one at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    try:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as progress:
            page = _page(options, progress)
        _write(options.output, page)
    except (ValueError, OSError) as error:
        print(f"resdet report: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {len(page.encode()) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
