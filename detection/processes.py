"""Columns that several processes make, a share at a time, with no lock between them."""

from __future__ import annotations

import mmap
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

PROCESSES = 8  # at most
TICKETS = 2**12  # bytes that any pipe holds
MAX_SHARES = TICKETS // 2  # shares
TURN = 0.005  # seconds in which a pool's threads hand out its work: decoding keeps them waiting

Columns = tuple[NDArray[Any], ...]
_Laid = tuple[int, list[tuple[str, int]]]  # a share's number, and its columns' kinds and lengths
_Result = TypeVar("_Result")


def processes() -> int:
    """Returns how many processes may work: one where forking is unsafe or forbidden."""
    import multiprocessing  # noqa: PLC0415

    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), PROCESSES)


def share_out(
    n: int, make: Callable[[int], Columns], others: int, task: Callable[[], _Result]
) -> tuple[list[Columns], _Result] | None:
    """Makes shares in this and other processes, while this one first does something else.

    Args:
        n: shares, at most ``MAX_SHARES``.
        make: makes the columns of one by its number.
        others: other processes, forked from this one.
        task: what else there is to do.

    Returns:
        The shares, and what ``task`` returns; None if the others were lost or may not be.

    Raises:
        Exception: what ``make`` or ``task`` raises.
    """
    import multiprocessing  # noqa: PLC0415
    from concurrent.futures import ProcessPoolExecutor, wait  # noqa: PLC0415
    from concurrent.futures.process import BrokenProcessPool  # noqa: PLC0415

    fork = multiprocessing.get_context("fork")
    with (
        suppress(BrokenProcessPool, OSError),  # one was killed, or there may be no more
        # Python warns of locks that other threads hold at the fork; none is needed here.
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        _tickets(n) as tickets,
        _spaces(others) as spaces,
        ProcessPoolExecutor(others, mp_context=fork) as pool,
    ):
        futures = [pool.submit(_lay_down, space, tickets, make) for space in spaces]
        wait(futures, TURN)
        try:
            result = task()
        except BaseException:
            _take(tickets, TICKETS)
            raise
        parts = dict(_make_taken(tickets, make))
        for space, future in zip(spaces, futures, strict=True):
            parts |= _pick_up(space, future.result())
        return [parts[k] for k in range(n)], result
    return None


@contextmanager
def _tickets(n: int) -> Iterator[int]:
    """A pipe that gives the numbers below n, each to whoever reads it first, then nothing.

    A read is atomic, and no process that is killed leaves a lock behind.
    """
    source, sink = os.pipe()
    # A process that another thread forks just now holds the sink open: nobody may wait for its end.
    os.set_blocking(source, False)
    try:
        os.write(sink, np.arange(n, dtype=np.uint16).tobytes())
        os.close(sink)
        yield source
    finally:
        os.close(source)


@contextmanager
def _spaces(n: int) -> Iterator[list[int]]:
    """Files in memory, which processes share."""
    spaces = [os.memfd_create("columns") for _ in range(n)]
    try:
        yield spaces
    finally:
        for space in spaces:
            os.close(space)


def _make_taken(tickets: int, make: Callable[[int], Columns]) -> Iterator[tuple[int, Columns]]:
    """Makes the shares that this process is the first to take; after an error nobody takes any."""
    try:
        while ticket := _take(tickets, 2):
            k = int.from_bytes(ticket, sys.byteorder)
            yield k, make(k)
    finally:
        _take(tickets, TICKETS)


def _lay_down(space: int, tickets: int, make: Callable[[int], Columns]) -> list[_Laid]:
    """Makes shares into a space. A pipe, and a pickle, would be slower by a tenth of a second."""
    found = []
    with open(space, "wb", closefd=False) as file:
        for k, columns in _make_taken(tickets, make):
            for one in columns:
                file.write(one.data)
            found.append((k, [(one.dtype.str, len(one)) for one in columns]))
    return found


def _pick_up(space: int, found: list[_Laid]) -> dict[int, Columns]:
    """Finds in a space what another process laid down there."""
    empty = not os.fstat(space).st_size
    memory = b"" if empty else mmap.mmap(space, 0, access=mmap.ACCESS_READ)
    parts, offset = {}, 0
    for k, kinds in found:
        columns = []
        for kind, length in kinds:
            columns.append(np.frombuffer(memory, kind, length, offset))
            offset += columns[-1].nbytes
        parts[k] = tuple(columns)
    return parts


def _take(tickets: int, size: int) -> bytes:
    """Takes up to this many bytes of tickets; none if there are no more."""
    try:
        return os.read(tickets, size)
    except BlockingIOError:
        return b""
