import hashlib
import json
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec
import numpy as np
import pytest

from detection import json_rows
from detection.json_rows import Columns, Rows, column, pieces, read_columns, read_columns_beside


def cut(text: bytes, size: int) -> list[bytes]:
    return list(pieces(text[start : start + size] for start in range(0, len(text), size)))


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n ", ": ")])
def test_pieces_hold_the_rows_in_order(size, separators):
    rows = [{"id": i, "text": "x" * (i % 5), "list": [[i], []]} for i in range(50)]
    for table in (rows, rows[:1], []):
        text = json.dumps(table, separators=separators).encode()
        parts = [json.loads(piece) for piece in cut(text, size)]
        assert [row for part in parts for row in part] == table
        # A place between rows has to lie in one block.
        assert len(parts) > 5 or size in (1, 10**6) or len(table) < 2


def test_blocks_of_any_length():
    text = b'[{"a": 1}, {"a": 2}]'
    assert list(pieces([])) == [b""]
    assert list(pieces([text])) == [b'[{"a": 1}]', b'[{"a": 2}]']
    assert list(pieces([text[:10], text[10:]])) == [text]


def test_pieces_are_lists_only_if_the_text_is_one():
    generator = random.Random(0)
    wholes = 0
    for _ in range(5000):
        parts = ("{}", "}, {", ",", "[", "]", '"a"', ":", "{", "}", '"}, {"')
        text = "[{}, {" + "".join(generator.choices(parts, k=generator.randrange(6))) + "}]"
        decoder = msgspec.json.Decoder(list[dict])
        try:
            rows = [row for piece in cut(text.encode(), 8) for row in decoder.decode(piece)]
        except msgspec.DecodeError:
            continue
        assert rows == json.loads(text)
        wholes += 1
    assert wholes > 100


@pytest.mark.parametrize("text", ["", "{}", "5", "[5]", "[{}", "[{}, 5]", "[{}] x", "[{}, {}, ]"])
def test_what_is_no_list_of_rows(text):
    parts = cut(text.encode(), 6)
    with pytest.raises(msgspec.DecodeError):
        [msgspec.json.decode(piece, type=list[dict]) for piece in parts]


def ids_and_process(piece: bytes) -> Columns:
    ids = [row["id"] for row in msgspec.json.decode(piece, type=list[dict])]
    return column("q", ids), np.full(len(ids), os.getpid())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps([{"id": i, "text": "x" * (i % 50)} for i in range(3000)]))
    return path


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes for more than a few kilobytes."""
    monkeypatch.setattr(json_rows, "SHARE", 10_000)
    monkeypatch.setattr(json_rows, "PIECE", 1000)
    monkeypatch.setattr(json_rows, "processes", lambda: 3)


def read_all(path: Path) -> Columns:
    return read_columns(path, Rows(0, path.stat().st_size), ids_and_process)


def test_short_lists_are_read_here(table):
    ids, processes = read_all(table)
    assert ids.tolist() == list(range(3000))
    assert set(processes.tolist()) == {os.getpid()}


class Elsewhere(NamedTuple):
    """What other processes do with a piece: they leave a mark for it, and then this.

    Attributes:
        marks: the folder of the marks.
        then: called with the piece.
        here: the process of the test.
    """

    marks: Path
    then: Callable[[bytes], Columns]
    here: int

    def __call__(self, piece: bytes) -> Columns:
        if os.getpid() == self.here:
            return ids_and_process(piece)
        (self.marks / hashlib.sha256(piece).hexdigest()).touch()
        return self.then(piece)

    def wait(self) -> int:
        """Waits until another process has begun a piece, and returns how many were begun."""
        deadline = time.monotonic() + 60
        while not any(self.marks.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(self.marks.iterdir()))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[[Callable[[bytes], Columns]], Elsewhere]:
    marks = tmp_path / "marks"
    marks.mkdir()
    return lambda then: Elsewhere(marks, then, os.getpid())


def slowly(piece: bytes) -> Columns:
    time.sleep(0.1)
    return ids_and_process(piece)


def die(_: bytes) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail(_: bytes) -> NoReturn:
    raise RuntimeError("elsewhere")


def test_other_processes_read_beside_a_task(table, three, elsewhere):
    pack = elsewhere(ids_and_process)
    rows = Rows(0, table.stat().st_size)
    (ids, processes), seen = read_columns_beside(table, rows, pack, pack.wait)
    assert ids.tolist() == list(range(3000))
    assert seen
    assert set(processes.tolist()) - {os.getpid()}


def test_this_process_reads_what_no_other_has_begun(table, three, elsewhere):
    ids, processes = read_columns(table, Rows(0, table.stat().st_size), elsewhere(slowly))
    assert ids.tolist() == list(range(3000))
    assert (processes == os.getpid()).sum() > 1500


def test_an_error_elsewhere_is_raised_here(table, three, elsewhere):
    pack = elsewhere(fail)
    with pytest.raises(RuntimeError, match="elsewhere"):
        read_columns_beside(table, Rows(0, table.stat().st_size), pack, pack.wait)


def test_after_an_error_of_the_task_nobody_begins_a_share(table, three, elsewhere):
    pack = elsewhere(slowly)

    def task() -> None:
        pack.wait()
        raise RuntimeError("of the task")

    with pytest.raises(RuntimeError, match="of the task"):
        read_columns_beside(table, Rows(0, table.stat().st_size), pack, task)
    shares = table.stat().st_size // json_rows.SHARE
    assert shares >= json_rows.WORTHWHILE
    assert pack.wait() < shares * json_rows.SHARE / json_rows.PIECE / 2


def test_the_rows_of_killed_processes_are_read_here(table, three, elsewhere):
    pack = elsewhere(die)
    rows = Rows(0, table.stat().st_size)
    (ids, processes), seen = read_columns_beside(table, rows, pack, pack.wait)
    assert ids.tolist() == list(range(3000))
    assert set(processes.tolist()) == {os.getpid()}
    assert seen


def test_rows_within_a_file(table, three):
    text = table.read_bytes()
    start, stop = text.index(b'{"id": 10,'), text.index(b', {"id": 2990,')
    ids, _ = read_columns(table, Rows(start, stop, b"[", b"]"), ids_and_process)
    assert ids.tolist() == list(range(10, 2990))


@pytest.mark.parametrize("place", [b'"id": 20,', b'"id": 2900,'])
def test_a_fault_in_any_share_is_raised(table, three, place):
    table.write_bytes(table.read_bytes().replace(place, place[:-1]))
    with pytest.raises(msgspec.DecodeError):
        read_all(table)


def test_a_missing_file(tmp_path, three):
    with pytest.raises(FileNotFoundError):
        read_columns(tmp_path / "none.json", Rows(0, 100_000), ids_and_process)


def test_column():
    for kind, dtype, values in [
        ("q", np.int64, [2**63 - 1, -(2**63), 0, True]),
        ("d", np.float64, [0.1, 1e308, 5]),
        ("q", np.int64, []),
    ]:
        array = column(kind, values)
        assert array.dtype == dtype
        assert array.tolist() == values
    with pytest.raises(struct.error):
        column("q", [2**63])
