"""Compare evaluated runs: intervals of each AP and of the difference, seeds, classes, the paper."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detection.evaluation.significance import Bootstrap, Interval
    from detection.reproduction.evaluated import Evaluated

EPILOG = """
A RUN is a folder that `resdet evaluate` wrote. Runs of one recipe that differ in their seed are
joined by commas: `resdet compare vgg-0,vgg-1,vgg-2 r101-0,r101-1,r101-2`. Figures are each recipe's
mean over its runs, the intervals a paired bootstrap of these means over images; the spread over
seeds says what another training would have given. Where the classes are VOC's twenty, the figures
of Tables 10 and 11 of the ResNet paper stand beside; they are VOC's metric on VOC's test sets.
"""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("resdet compare", description=__doc__, epilog=EPILOG)
    parser.add_argument("a", metavar="RUN[,RUN…]", help="folders of the first recipe's runs")
    parser.add_argument("b", metavar="RUN[,RUN…]", help="folders of the second recipe's runs")
    parser.add_argument("--data", type=Path, help="where the data set is now, if it was moved")
    parser.add_argument("--metric", choices=("coco", "voc10", "voc07"), default="coco")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (1000)")
    parser.add_argument("--points", type=float, default=1.0, help="difference to show (1.0)")
    parser.add_argument("--output", type=Path, help="write the comparison as JSON too")
    options = parser.parse_args(argv)
    if options.points <= 0 or options.resamples < 1:
        parser.error("--points and --resamples must be positive")
    if options.output and not options.output.absolute().parent.is_dir():
        parser.error(f"--output: {options.output.absolute().parent} is no folder")
    return options


def _groups(options: argparse.Namespace) -> list[list[Evaluated]]:
    """Reads the runs of both recipes; all must be of one ground truth."""
    from rich.console import Console
    from rich.progress import track

    from detection.reproduction.evaluated import check_same_data, read_run

    folders = [[Path(name) for name in group.split(",")] for group in (options.a, options.b)]
    flat = [folder for group in folders for folder in group]
    console = Console(stderr=True)
    runs = [
        read_run(folder, str(folder), options.data)
        for folder in track(flat, "reading", console=console, transient=True)
    ]
    check_same_data(runs)
    return [runs[: len(folders[0])], runs[len(folders[0]) :]]


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from detection.evaluation.matches import match_detections, match_voc
    from detection.evaluation.precision import (
        COCO_LEVELS,
        VOC07_LEVELS,
        average_precision,
        mean_precision,
    )
    from detection.evaluation.seeds import seed_spread, seeds_needed
    from detection.evaluation.significance import bootstrap

    levels = {"coco": COCO_LEVELS, "voc07": VOC07_LEVELS, "voc10": None}[options.metric]
    match = match_detections if options.metric == "coco" else match_voc
    groups = _groups(options)
    matches = [
        [match(x.records.annotations, x.predictions, x.records.labels.names) for x in group]
        for group in groups
    ]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("bootstrap", total=options.resamples)
        advance = partial(bar.advance, task)
        result = bootstrap(*matches, options.resamples, levels=levels, advance=advance)
    figures = [
        [100 * mean_precision(average_precision(one, levels=levels)) for one in group]
        for group in matches
    ]
    known = not any(math.isnan(figure) for group in figures for figure in group)
    spreads = [seed_spread(group) for group in figures] if known else []
    sigmas = [spread.std for spread in spreads if spread.runs > 1]
    needed = None
    if sigmas:
        needed = seeds_needed(options.points, float(np.sqrt(np.mean(np.square(sigmas)))))
    return {
        "runs": [[run.name for run in group] for group in groups],
        "metric": options.metric,
        "split": groups[0][0].figures["split"],
        "images": result.images,
        "resamples": result.resamples,
        "confidence": result.confidence,
        "figures": _figures(result, options.metric),
        "classes": _classes(result, groups[0][0].records.labels.names),
        "seeds": [spread._asdict() for spread in spreads],
        "points": options.points,
        "seeds_needed": needed,
    }


def _figures(result: Bootstrap, metric: str) -> dict[str, dict[str, Any]]:
    names = {"coco": ("AP", "AP50"), "voc07": ("VOC07",), "voc10": ("VOC10",)}[metric]
    sides = (result.a, result.b, result.difference)
    return {
        name: {
            side: _percent(getattr(one, field))
            for side, one in zip(("a", "b", "difference"), sides, strict=True)
        }
        for name, field in zip(names, ("ap", "ap50"), strict=False)
    }


def _classes(result: Bootstrap, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each class's figures, the greatest loss first, and the paper's where it has the class."""
    from detection.reproduction.tables import TABLE_10, TABLE_11, VOC_CLASSES

    rows = []
    for i, name in enumerate(names):
        row: dict[str, Any] = {"class": name}
        for side, one in (("a", result.a), ("b", result.b), ("difference", result.difference)):
            row[side] = _percent(one.per_class[i]) if one else None
        if set(names) == set(VOC_CLASSES):
            at = VOC_CLASSES.index(name)
            for number, (vgg, resnet, *_) in ((10, TABLE_10), (11, TABLE_11)):
                row[f"table {number}"] = [vgg.per_class[at], resnet.per_class[at]]
        rows.append(row)
    return sorted(rows, key=lambda row: _order(row["difference"][0]))


def _order(difference: float | None) -> tuple[bool, float]:
    return difference is None, difference or 0.0


def _percent(interval: Interval) -> list[float | None]:
    """Value, low and high; a class without objects has none."""
    return [None if math.isnan(x) else round(100 * x, 4) for x in interval]


def _text(found: dict[str, Any]) -> Iterator[str]:
    level = f"{found['confidence']:.0%}"
    for side, runs in zip("AB", found["runs"], strict=True):
        yield f"{side}: {', '.join(runs)}"
    means = "each side's mean over its runs; " if max(map(len, found["runs"])) > 1 else ""
    yield (
        f"{found['metric']}, {found['images']} images of {found['split']}, in points; "
        f"{means}{level} intervals, paired bootstrap over images, {found['resamples']} resamples\n"
    )
    rows = [("", "A", "B", "B - A", *_paper_columns(found["classes"]))]
    figures = [{"class": name, **one} for name, one in found["figures"].items()]
    for row in [*figures, *found["classes"]]:
        cells = [_cell(row["a"]), _cell(row["b"]), _cell(row["difference"], sign="+")]
        rows.append((row["class"], *cells, *map(_paper, _tables(row))))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for cells in rows:
        yield "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=False)).rstrip()
    yield ""
    yield from _note([*figures, *found["classes"]])
    for side, spread in zip("AB", found["seeds"], strict=False):  # none without objects
        if spread["runs"] > 1:
            yield (
                f"{side} over {spread['runs']} seeds: {spread['mean']:.2f} ± {spread['std']:.2f}, "
                f"mean within [{spread['low']:.2f}, {spread['high']:.2f}]"
            )
    if found["seeds_needed"]:
        yield (
            f"to show a difference of {found['points']:g}: {found['seeds_needed']} seeds of "
            "each (two-sided t test at 5%, power 80%)"
        )


def _note(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Says of how many intervals the images are too few to hold the figure itself."""
    intervals = [row[side] for row in rows for side in ("a", "b", "difference")]
    known = [one for one in intervals if None not in one]
    if beside := sum(not low <= value <= high for value, low, high in known):
        yield (
            f"too few images: {beside} of {len(known)} intervals do not hold their own figure: "
            "resampled images repeat, which raises AP where a class has few images"
        )


def _tables(row: dict[str, Any]) -> list[list[float]]:
    return [row[name] for name in ("table 10", "table 11") if name in row]


def _paper_columns(classes: list[dict[str, Any]]) -> list[str]:
    titles = (f"paper, VOC {year} test, VOC's AP: VGG-16, ResNet-101" for year in ("2007", "2012"))
    return list(titles) if classes and "table 10" in classes[0] else []


def _paper(pair: list[float]) -> str:
    vgg, resnet = pair
    return f"{vgg:.1f} {resnet:.1f} ({resnet - vgg:+.1f})"


def _cell(interval: list[float | None], sign: str = "") -> str:
    if None in interval:
        return "n/a"
    value, low, high = (f"{x:{sign}.1f}" for x in interval)
    return f"{value} [{low}, {high}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    from detection.evaluation.figures import plain

    try:
        found = _compare(options)
        print("\n".join(_text(found)))
        if options.output:
            text = json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False)
            partial = options.output.with_name(f".{options.output.name}.{os.getpid()}.partial")
            partial.write_text(f"{text}\n", encoding="utf-8")
            partial.replace(options.output)
    except (ValueError, OSError) as error:
        print(f"resdet compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
