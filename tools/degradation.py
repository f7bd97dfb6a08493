"""Train plain and residual networks of 20 and 56 layers on generated images, and compare them.

Deeper plain networks train worse, deeper residual ones do not (ResNet section 4.2). Finished runs
are kept in the folder's study.json: a study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.classification.degradation import Recipe, Run

RESULTS = "study.json"
FIGURE = "curves.svg"

_updates: list[SimpleQueue[int]] = []  # in a worker: where each update is told


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        "resdet degradation", description=summary[0], epilog=summary[1]
    )
    parser.add_argument("--output", type=Path, default=Path("runs/degradation"), help="folder")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network")
    parser.add_argument("--steps", type=int, default=1200, help="updates of each run")
    parser.add_argument("--batch-size", type=int, default=32, help="images of each update")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
    parser.add_argument("--images", type=int, default=10000, help="training images")
    parser.add_argument("--test-images", type=int, default=1000, help="test images")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each run")
    parser.add_argument("--report", type=Path, help="JSON file for the figures and their origin")
    options = parser.parse_args(argv)
    options.command = shlex.join(
        ["resdet", "degradation", *(sys.argv[1:] if argv is None else argv)]
    )
    if min(options.seeds, options.jobs, options.threads, options.test_images) < 1:
        parser.error("--seeds, --jobs, --threads and --test-images must be at least 1")
    return options


def _read(path: Path, recipe: Recipe) -> dict[str, Run]:
    """Reads the finished runs, "NETWORK/SEED" to run."""
    from backbones.classification.degradation import Run

    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, runs = content["recipe"], {key: Run(**one) for key, one in content["runs"].items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a study's results: {error!r}") from error
    if found != asdict(recipe):
        raise ValueError(
            f"{path}: made with {found}, now {asdict(recipe)}: choose another --output"
        )
    return runs


def _write(path: Path, recipe: Recipe, runs: dict[str, Run]) -> None:
    from backbones.classification.degradation import summary

    content = {
        "recipe": asdict(recipe),
        "summary": summary(_by_network(runs)),
        "runs": {key: run._asdict() for key, run in sorted(runs.items())},
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


def _by_network(runs: dict[str, Run]) -> dict[str, list[Run]]:
    from backbones.classification.degradation import NETWORKS

    names = {name: f"{name}/" for name in NETWORKS}
    found = {
        name: [run for key, run in sorted(runs.items()) if key.startswith(prefix)]
        for name, prefix in names.items()
    }
    return {name: some for name, some in found.items() if some}


def _start(threads: int, queue: SimpleQueue[int]) -> None:
    """Prepares a worker."""
    import torch

    torch.set_num_threads(threads)
    _updates.append(queue)


def _train(name: str, seed: int, recipe: Recipe) -> Run:
    """What a worker does."""
    from backbones.classification.degradation import train

    return train(name, seed, recipe, lambda: _updates[0].put(1))


def _study(options: argparse.Namespace, recipe: Recipe, todo: list[str]) -> Iterator[Any]:
    """Yields 1 for each update, and (key, run) for each run that ends."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    pool = ProcessPoolExecutor(options.jobs, context, _start, (options.threads, queue))
    try:
        futures: dict[Future[Run], str] = {}
        for key in todo:
            name, seed = key.split("/")
            futures[pool.submit(_train, name, int(seed), recipe)] = key
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            while not queue.empty():
                yield queue.get()
            yield from ((futures[future], future.result()) for future in done)
    finally:
        for process in (pool._processes or {}).values():  # a run takes minutes: Ctrl-C ends it
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _recipe(options: argparse.Namespace) -> Recipe:
    from backbones.classification.degradation import Recipe

    return Recipe(
        options.steps, options.batch_size, options.lr, options.images, options.test_images
    )


def _run(options: argparse.Namespace) -> dict[str, Run]:
    """Trains what is not there yet; the runs of the seeds asked for."""
    from rich.progress import Progress, TimeElapsedColumn

    from backbones.classification.degradation import NETWORKS

    recipe = _recipe(options)
    path = options.output / RESULTS
    runs = _read(path, recipe)
    # Seed by seed, so that a study that is stopped compares what there is.
    wanted = [f"{name}/{seed}" for seed in range(options.seeds) for name in NETWORKS]
    todo = [key for key in wanted if key not in runs]
    options.output.mkdir(parents=True, exist_ok=True)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("training", total=recipe.steps * len(todo))
        for event in _study(options, recipe, todo) if todo else ():
            if isinstance(event, int):
                progress.advance(bar)
                continue
            key, run = event
            runs[key] = run
            _write(path, recipe, runs)
            errors = f"train {run.train_error:.2f} %, test {run.test_error:.2f} %"
            progress.console.print(f"{key}: {errors}", highlight=False)
    return {key: runs[key] for key in wanted}


def _draw(runs: dict[str, Run], path: Path) -> None:
    from backbones.classification.curves import draw_curves
    from backbones.classification.degradation import PLAIN, RESIDUAL

    found = _by_network(runs)
    panels = {
        title: [run.curve(name) for name in names for run in found[name]]
        for title, names in (("plain", PLAIN), ("residual", RESIDUAL))
    }
    draw_curves(panels, path)


def _table(runs: dict[str, Run]) -> str:
    """Errors as Markdown, mean ± standard deviation over the seeds."""
    from backbones.classification.degradation import summary

    lines = ["| network | seeds | training error (%) | test error (%) |", "|---|---:|---:|---:|"]
    for name, row in summary(_by_network(runs)).items():
        cells = [f"{row[key]['mean']:.2f} ± {row[key]['std']:.2f}" for key in _COLUMNS]
        lines.append(f"| {name} | {row['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write_report(options: argparse.Namespace, runs: dict[str, Run]) -> None:
    """The runs without their curves, and what they come of."""
    from backbones.classification.degradation import summary
    from detection.reproduction.artefacts import config_sha256, environment

    recipe = asdict(_recipe(options))
    content = {
        "command": options.command,
        "subject": "degradation",
        "config_sha256": config_sha256(recipe),
        "seeds": list(range(options.seeds)),
        "predictions_sha256": {key: run.predictions_sha256 for key, run in runs.items()},
        "minutes": round(sum(run.seconds for run in runs.values()) / 60, 1),
        "recipe": recipe,
        "summary": summary(_by_network(runs)),
        "runs": {key: {name: getattr(run, name) for name in _COLUMNS} for key, run in runs.items()},
        "environment": environment(),
    }
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_COLUMNS = ("train_error", "test_error")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; the process's own if None.

    Returns:
        The exit code.
    """
    options = _parse(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # of the processes to come
    try:
        runs = _run(options)
        _draw(runs, options.output / FIGURE)
        if options.report:
            _write_report(options, runs)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, FloatingPointError, BrokenExecutor) as error:
        print(f"resdet degradation: {error}", file=sys.stderr)
        return 1
    print(f"{_table(runs)}\n\nresults: {options.output / RESULTS}; {options.output / FIGURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
