"""Sharing out itself; tests/test_json_rows.py has the ways in which other processes fail."""

import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from detection import processes
from detection.processes import Columns, share_out


def make(marks: Path, here: int, k: int) -> Columns:
    """Columns of k rows of several kinds, of which the last is the process."""
    if os.getpid() != here:
        (marks / str(k)).touch()
    process = np.full(k, os.getpid())
    return np.arange(k) - 2**62, np.full(k, k / 3, np.float32), np.arange(k) % 2 == 0, process


@pytest.mark.parametrize("others", [1, 3])
def test_shares_are_those_of_one_process(others, tmp_path):
    def task() -> str:
        deadline = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return "done"

    here = os.getpid()
    found = share_out(40, partial(make, tmp_path, here), others, task)
    assert found
    shares, result = found
    assert result == "done"
    elsewhere = {int(mark.name) for mark in tmp_path.iterdir()}
    assert elsewhere
    for k, share in enumerate(shares):
        expected = make(tmp_path, here, k)[:-1]
        for one, other in zip(share, expected, strict=False):
            np.testing.assert_array_equal(one, other, strict=True)
        assert np.all((share[-1] != here) == (k in elsewhere))


def test_nothing_is_left_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    assert share_out(9, partial(make, tmp_path, 0), 2, lambda: None)
    assert os.listdir("/proc/self/fd") == before


def test_nobody_waits_while_a_stranger_holds_the_tickets_open(monkeypatch):
    pipe = os.pipe
    held = []

    def duplicated() -> tuple[int, int]:
        source, sink = pipe()
        held.append(os.dup(sink))
        return source, sink

    monkeypatch.setattr(os, "pipe", duplicated)
    with processes._tickets(3) as tickets:
        assert [processes._take(tickets, 2) for _ in range(4)] == [b"\0\0", b"\1\0", b"\2\0", b""]
    os.close(held[0])


def test_processes_that_may_have_no_children_read_alone(monkeypatch):
    assert processes.processes() >= 1
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert processes.processes() == 1
