"""Put our figures beside the ResNet paper's tables: run what is missing, resume, report."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detection.reproduction.step import Step
    from detection.reproduction.study import Study

EPILOG = """
  resdet reproduce table7 --data VOCdevkit --seeds 3 --devices 8
  resdet reproduce table7 --data VOCdevkit --from voc0712-vgg16=results.json
  resdet reproduce mini --quick
  resdet reproduce photos --data VOCdevkit/VOC2012 --weights resnet18.pth --seeds 3
A study trains, evaluates and reports; started again, it goes on where it stopped. --from takes
what is there instead: a folder of `resdet evaluate`, a COCO result file, or VOC's comp4_det_*.txt
(a pattern in quotes); KEY is a row's, which --list prints. The report: STUDY.md, .json and .html in
the output folder.
"""
STUDIES = ("table7", "table8", "table9", "table10", "table11", "table12", "mini", "photos")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "resdet reproduce",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument(
        "--data", type=Path, help="VOCdevkit or coco; folder in which mini draws its own"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce"), help="of the runs")
    parser.add_argument("--seeds", type=int, help="trainings of each network (1; mini: 3)")
    parser.add_argument("--devices", type=int, default=1, help="GPUs of a training")
    parser.add_argument("--jobs", type=int, help="commands at once (1; mini on a CPU: its cores)")
    parser.add_argument(
        "--schedule", choices=("joint", "alternating"), default="joint", help="of the tables"
    )
    parser.add_argument("--start", type=Path, help="table10: checkpoint of a detector of COCO")
    parser.add_argument("--weights", type=Path, help="photos: file of a pre-trained ResNet-18")
    parser.add_argument("--quick", action="store_true", help="mini: a smaller one, of one seed")
    parser.add_argument("--gpu", action="store_true", help="mini: the papers' own networks")
    parser.add_argument(
        "--from", dest="given", nargs="+", default=[], metavar="KEY=PATH", help="use what is there"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (1000)")
    parser.add_argument("--list", action="store_true", help="print rows and commands, run nothing")
    options = parser.parse_args(argv)
    for name, least in (("seeds", 1), ("devices", 1), ("jobs", 1), ("resamples", 0)):
        if (number := getattr(options, name)) is not None and number < least:
            parser.error(f"--{name} must be at least {least}, got {number}")
    if not options.study.startswith("table") and (options.given or options.schedule != "joint"):
        parser.error("--from and --schedule are the tables'")
    if options.start and options.study != "table10":
        parser.error("--start is table10's")
    if options.study == "photos" and not (options.data and options.weights):
        parser.error("photos needs --data and --weights")
    if options.study != "mini" and (options.quick or options.gpu):
        parser.error("--quick and --gpu are mini's")
    options.command = shlex.join(["resdet", "reproduce", *(sys.argv[2:] if argv is None else argv)])
    return options


def _study(options: argparse.Namespace) -> tuple[Study, list[int]]:
    from detection.reproduction.mini import mini, preset_of
    from detection.reproduction.paper import TABLES, table10
    from detection.reproduction.photos import photos

    if options.study == "mini":
        preset = preset_of(options.quick, options.gpu)
        seeds = list(range(options.seeds or preset.seeds))
        data = (options.data or options.output) / f"{preset.name}-data"
        return mini(preset, data, seeds), seeds
    seeds = list(range(options.seeds or 1))
    if options.study == "photos":
        return photos(options.data, options.weights, seeds), seeds
    kind = "VOCdevkit" if options.study in ("table7", "table10", "table11") else "coco"
    data = options.data or Path(kind)
    if options.start:
        return table10(data, options.schedule, options.start), seeds
    return TABLES[options.study](data, options.schedule), seeds


def _check_start(start: Path, command: Sequence[str]) -> None:
    """Refuses a checkpoint that fine-tuning could not begin with, before the rows above it train.

    Args:
        start: the checkpoint.
        command: of the training that is to begin with it.

    Raises:
        ValueError: it is no detector's, or one of other layers.
    """
    from detection.checkpoint import start_from
    from detection.data.labels import LabelMap
    from detection.model.build import DetectorSpec
    from detection.reproduction.recipes import composed
    from detection.reproduction.tables import VOC_CLASSES

    values = DetectorSpec().to_plain() | composed(command)["model"]["detector"]
    start_from(start, LabelMap.from_names(VOC_CLASSES), DetectorSpec.from_plain(values))


def _plan(
    options: argparse.Namespace, study: Study, seeds: list[int]
) -> tuple[list[Step], dict[str, list[Path]]]:
    """The commands, and where the evaluations of each row will lie."""
    from detection.reproduction.given import given_runs
    from detection.reproduction.study import evaluation_folders, missing, study_steps

    if options.given:
        steps, folders = given_runs(options.given, study, options.output)
    elif missing(study) and not options.list:
        return [], {}
    else:
        steps = study_steps(study, options.output, seeds, options.devices)
        rows = [row for row in study.rows if not row.unavailable]
        folders = {row.key: evaluation_folders(row, options.output, seeds) for row in rows}
    if folders:
        steps.append(_explain(options, study, steps, [own[0] for own in folders.values()]))
    return steps, folders


def _explain(
    options: argparse.Namespace, study: Study, steps: Sequence[Step], folders: Sequence[Path]
) -> Step:
    """The step that makes a page of the first seed's runs, whichever they are by now."""
    from detection.reproduction.step import Step

    page = options.output / f"{study.name}-runs.html"
    moved = ("--data", str(study.data)) if options.data else ()
    runs = dict.fromkeys(map(str, folders))
    command = ("report", *runs, *moved, "--output", str(page), "--resamples", "0")
    after = tuple(step.name for step in steps)
    return Step(f"report-{study.name}", command, None, after, page, always=True)


def _run(steps: Sequence[Step], options: argparse.Namespace) -> float | None:
    """Runs the commands with a bar for all and one for each that is running.

    Returns:
        How long all of them took, seconds; None if some were done before.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from detection.reproduction.steps import pending, run_steps

    due = len(pending(steps, options.output))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        whole = bar.add_task(f"{len(steps)} steps", total=len(steps), note="")
        bar.update(whole, completed=len(steps) - due)
        tasks: dict[str, Any] = {}

        def tell(name: str, line: str | None) -> None:
            if line is None:
                if name in tasks:
                    bar.remove_task(tasks.pop(name))
                bar.advance(whole)
                bar.console.print(f"done: {name}")
                return
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=100, note="")
            found = re.findall(r"(\d+)%", line)
            bar.update(tasks[name], completed=int(found[-1]) if found else None, note=line[:60])

        started = time.perf_counter()
        run_steps(steps, options.output, tell, options.jobs, bar.console.out)
    return round(time.perf_counter() - started, 1) if due == len(steps) else None


def _reproduce(options: argparse.Namespace) -> int:
    from detection.reproduction.origin import origin_of
    from detection.reproduction.outcome import read_outcome
    from detection.reproduction.pages import markdown, write_pages
    from detection.reproduction.study import missing

    study, seeds = _study(options)
    steps, folders = _plan(options, study, seeds)
    if options.list:
        print("\n".join(f"{row.key}: {row.method}" for row in study.rows))
        print("\n".join(f"resdet {shlex.join(step.command)}" for step in steps))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    if options.start and steps and not options.given:
        _check_start(options.start, study.rows[-1].trainings[0].command)
    if options.jobs is None:
        small = options.study == "mini" and not options.gpu
        options.jobs = (os.cpu_count() or 1) if small else 1
    wall_seconds = _run(steps, options)
    absent = "not given" if options.given else missing(study)
    data = study.data if options.data else None
    outcome = read_outcome(study, folders, options.resamples, absent, data)
    origin = {
        "command": options.command,
        "seeds": None if options.given else seeds,
        "jobs": options.jobs,
        "wall_seconds": wall_seconds,
        **origin_of(outcome, steps, options.output),
    }
    files = write_pages(options.output, outcome, origin)
    print(markdown(outcome))
    print(f"written: {', '.join(map(str, files))}")
    if absent and not options.given:
        print(f"resdet reproduce: {absent}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code: 0, 1 after an error or without the data, 130 after Ctrl-C.
    """
    options = _parse(argv)
    from detection.reproduction.steps import StepError

    # As Ctrl-C: the commands that are running are ended too.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _reproduce(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, StepError) as error:
        print(f"resdet reproduce: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main())
