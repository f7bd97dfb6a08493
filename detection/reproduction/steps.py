"""Commands in their order: what is done is skipped, what was interrupted is resumed.

A step is a command of ``resdet`` in a process of its own. Steps that do not wait for each other run
side by side.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from detection.reproduction.step import Step, begin, check_owner, end, forget, is_done

_log = logging.getLogger(__name__)

_POLL = 0.2  # seconds between looks at a process
_GRACE = 60.0  # seconds for a process to end in after it was told to
_TAIL = 4000  # bytes of a log that an error or a progress bar looks at


class StepError(RuntimeError):
    """A step that failed; the message names it, its last words and its log."""


Tell = Callable[[str, str | None], None]
"""Told from threads: a running step's name and its log's last line, or None when it has ended."""

Say = Callable[[str], None]
"""Told from threads, in a line, what a step has removed."""


def pending(steps: Sequence[Step], output: Path) -> list[Step]:
    """Returns the steps that have to run: those not done, and those after them.

    Args:
        steps: all, each after those it waits for.
        output: folder of the markers.

    Raises:
        OSError: a file that a step reads cannot be read.
        ValueError: a step was done or begun by another command, or waits for one that does not come
            before it.
    """
    due: dict[str, bool] = {}
    for step in steps:
        unknown = [name for name in step.after if name not in due]
        if unknown:
            raise ValueError(f"step {step.name} waits for {unknown}, which do not come before it")
        due[step.name] = not is_done(step, output) or any(due[name] for name in step.after)
        if due[step.name]:
            check_owner(step, output)
    return [step for step in steps if due[step.name]]


def in_order(steps: Sequence[Step], jobs: int) -> list[Step]:
    """Returns steps in the order in which they begin as soon as they can.

    Args:
        steps: each after those it waits for.
        jobs: how many run at once. With several, what holds up most others begins first, so that
            no job waits for a long chain at the end.
    """
    found: dict[str, set[str]] = {step.name: set() for step in steps}
    for step in reversed(steps):
        for name in found.keys() & step.after:
            found[name] |= {step.name, *found[step.name]}
    return sorted(steps, key=lambda step: -len(found[step.name]) if jobs > 1 else 0)


def run_steps(
    steps: Sequence[Step], output: Path, tell: Tell, jobs: int = 1, say: Say = _log.info
) -> None:
    """Runs what is pending.

    Args:
        steps: all, each after those it waits for.
        output: folder of markers and logs.
        tell: how far the running steps are.
        jobs: how many commands run at once; each has its share of the cores.
        say: what is removed of earlier tries.

    Raises:
        StepError: a command failed; those beside it are ended, and what is done stays.
        ValueError: see `pending`; or another process works in this folder.
    """
    (output / "steps").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / "steps" / ".lock", timeout=0):
            _run(pending(steps, output), output, tell, jobs, say)
    except Timeout as error:
        raise ValueError(f"{output}: another process works in this folder") from error


def _run(due: list[Step], output: Path, tell: Tell, jobs: int, say: Say) -> None:
    waiting = {step.name: step for step in in_order(due, jobs)}
    for step in due:  # what depended on a step that is done anew is no longer true
        forget(step, output)
    running: dict[Future[None], str] = {}
    stop = Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for step in _ready(waiting, running.values(), jobs - len(running)):
                    work = pool.submit(_execute, step, output, tell, jobs, say, stop)
                    running[work] = step.name
                    del waiting[step.name]
                # Not for ever: a signal may have reached another thread than this one.
                finished, _ = wait(running, _POLL, FIRST_COMPLETED)
                for work in finished:
                    del running[work]
                    work.result()
        except BaseException:
            stop.set()
            raise


def _ready(waiting: Mapping[str, Step], running: Iterable[str], room: int) -> list[Step]:
    busy = {*waiting, *running}
    free = [step for step in waiting.values() if not busy.intersection(step.after)]
    return free[:room]


def _execute(step: Step, output: Path, tell: Tell, jobs: int, say: Say, stop: Event) -> None:
    log = output / "steps" / f"{step.name}.log"
    options, removed = begin(step, output)
    if removed:
        say(removed)
    started = time.perf_counter()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "resdet.tools", *step.command, *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))},
        )
        while process.poll() is None:
            if stop.wait(_POLL):
                _stop(process)
                return
            tell(step.name, last_line(log))
    reason = f"exit code {process.returncode}: {last_line(log)}" if process.returncode else ""
    if not reason and step.makes is not None and not step.makes.is_file():
        reason = f"exit code 0, but {step.makes} is not there"
    if reason:
        raise StepError(f"{step.name}: {reason} (log: {log})")
    end(step, output, time.perf_counter() - started)
    tell(step.name, None)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log: Path) -> str:
    """Returns the last line of a log, or what a progress bar has last written over it."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return next((line for line in reversed(lines) if line), "")
