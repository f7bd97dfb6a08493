import json
import random
import struct

import msgspec
import numpy as np
import pytest

from detection.json_rows import blocks, column, pieces


def cut(text: bytes, size: int) -> list[bytes]:
    return list(pieces(blocks(memoryview(text), size)))


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


def test_blocks_of_files():
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
    with pytest.raises(msgspec.DecodeError):
        for piece in cut(text.encode(), 6):
            msgspec.json.decode(piece, type=list[dict])


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
