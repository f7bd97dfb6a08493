import json
import multiprocessing
import os
import random
import signal
import struct
import time
from functools import partial
from pathlib import Path

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
    monkeypatch.setattr(json_rows, "_processes", lambda: 3)


def read_all(path: Path) -> Columns:
    return read_columns(path, Rows(0, path.stat().st_size), ids_and_process)


def test_short_lists_are_read_here(table):
    ids, processes = read_all(table)
    assert ids.tolist() == list(range(3000))
    assert set(processes.tolist()) == {os.getpid()}


def test_long_lists_are_read_by_several_processes(table, three):
    ids, processes = read_all(table)
    assert ids.tolist() == list(range(3000))
    assert set(processes.tolist()) - {os.getpid()}


def mark_elsewhere(process: int, mark: Path, piece: bytes) -> Columns:
    if os.getpid() != process:
        mark.touch()
    return ids_and_process(piece)


def test_other_processes_read_beside_a_task(table, three, tmp_path):
    mark = tmp_path / "mark"

    def task() -> bool:
        deadline = time.monotonic() + 60
        while not mark.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return mark.exists()

    rows = Rows(0, table.stat().st_size)
    pack = partial(mark_elsewhere, os.getpid(), mark)
    (ids, _), seen = read_columns_beside(table, rows, pack, task)
    assert ids.tolist() == list(range(3000))
    assert seen


def test_this_process_reads_what_no_other_has_begun(table, three):
    size = table.stat().st_size
    ids, processes = read_columns(table, Rows(0, size), partial(wait_elsewhere, os.getpid()))
    assert ids.tolist() == list(range(3000))
    assert processes[-1] == os.getpid()


def wait_elsewhere(process: int, piece: bytes) -> Columns:
    if os.getpid() != process:
        time.sleep(0.1)
    return ids_and_process(piece)


def test_the_error_of_a_task_is_raised(table, three):
    def task() -> None:
        raise RuntimeError("of the task")

    size = table.stat().st_size
    with pytest.raises(RuntimeError, match="of the task"):
        read_columns_beside(table, Rows(0, size), ids_and_process, task)


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


def die_elsewhere(process: int, piece: bytes) -> Columns:
    if os.getpid() != process:
        os.kill(os.getpid(), signal.SIGKILL)
    return ids_and_process(piece)


def test_the_rows_of_killed_processes_are_read_here(table, three):
    size = table.stat().st_size
    ids, _ = read_columns(table, Rows(0, size), partial(die_elsewhere, os.getpid()))
    assert ids.tolist() == list(range(3000))


def test_processes_that_may_have_no_children_read_alone(monkeypatch):
    assert json_rows._processes() >= 1
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert json_rows._processes() == 1


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
