"""A side's code, run and measured in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CODE = """
import os, resource, sys, time
def memory():
    with open("/proc/self/status") as status:  # ru_maxrss would hold the benchmark's memory too
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
start = time.perf_counter()
{imports}
imported = time.perf_counter()
{load}
# At most: what processes that helped share with this one is counted in each.
helpers = min(len(os.sched_getaffinity(0)), 8) - 1
loading = memory() + helpers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
{evaluate}
end = time.perf_counter()
import json
measured = [end - start, imported - start, end - imported, sum(os.times()[:4])]
measured.append(max(loading, memory()) / 1024)
print(json.dumps([measured, [float(figure) for figure in figures]]), file=sys.stderr)
"""


class Script(NamedTuple):
    """Python code.

    Attributes:
        imports: what is imported before the work.
        load: reads the files.
        evaluate: the rest of the work; binds ``figures``, numbers.
    """

    imports: str
    load: str
    evaluate: str


class Measurement(NamedTuple):
    """What a script took.

    Attributes:
        wall_s: seconds in all.
        imports_s: seconds until everything was imported.
        work_s: seconds after that.
        cpu_s: seconds of all processors together, with the start of Python.
        peak_memory_mb: the most memory at a time, of all its processes.
    """

    wall_s: float
    imports_s: float
    work_s: float
    cpu_s: float
    peak_memory_mb: float


def measure(
    name: str, script: Script, folder: Path, cache: Path
) -> tuple[Measurement, list[float]]:
    """Runs a script.

    Args:
        name: for the error.
        script: what to run.
        folder: where it runs.
        cache: the user's cache folder for it.

    Returns:
        What it took, and its figures.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CODE.format(**script._asdict())],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr}")
    measured, figures = json.loads(done.stderr.splitlines()[-1])
    return Measurement(*measured), figures


def medians(rounds: Iterable[Measurement]) -> dict[str, float]:
    """Returns the median of each quantity."""
    values = [statistics.median(column) for column in zip(*rounds, strict=True)]
    rounded = [*(round(value, 3) for value in values[:-1]), round(values[-1])]
    return dict(zip(Measurement._fields, rounded, strict=True))


def ratios(
    peer: Sequence[Measurement], ours: Sequence[Measurement]
) -> dict[str, float | list[float]]:
    """Returns medians of the rounds' ratios, the peer's value divided by ours, and ranges."""
    pairs = np.array(peer) / np.array(ours)
    found: dict[str, float | list[float]] = {}
    for field, column in zip(Measurement._fields, pairs.T, strict=True):
        quantity = field.rsplit("_", 1)[0]
        found[quantity] = round(float(np.median(column)), 2)
        if quantity in ("wall", "work"):
            found[f"{quantity}_range"] = [round(float(end(column)), 2) for end in (min, max)]
    return found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the packages' versions.

    Raises:
        RuntimeError: one is not installed.
    """
    try:
        return {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeError(f"{error.name} is not installed: pip install {error.name}") from error


def load_average() -> list[float]:
    """Returns how many processes wanted a core in the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]
