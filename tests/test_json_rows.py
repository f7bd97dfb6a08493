import json
import random
from typing import Any

import msgspec
import pytest

from detection.json_rows import decode_rows, pieces


@pytest.mark.parametrize("size", [0, 1, 7, 100, 10**6])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n ", ": ")])
def test_pieces_hold_the_rows_in_order(size, separators):
    rows = [{"id": i, "text": "x" * (i % 5), "list": [[i], []]} for i in range(50)]
    for table in (rows, rows[:1], []):
        text = json.dumps(table, separators=separators).encode()
        parts = [json.loads(piece) for piece in pieces(memoryview(text), size)]
        assert [row for part in parts for row in part] == table
        assert len(parts) > 10 or size > 10 or len(table) < 2


def test_pieces_are_lists_only_if_the_table_is_one():
    generator = random.Random(0)
    wholes = 0
    for _ in range(5000):
        parts = ("{}", "}, {", ",", "[", "]", '"a"', ":", "{", "}", '"}, {"')
        text = "[{}, {" + "".join(generator.choices(parts, k=generator.randrange(6))) + "}]"
        try:
            rows = [row for part in decode_rows(text.encode(), dict, 0) for row in part]
        except msgspec.DecodeError:
            continue
        assert rows == json.loads(text)
        wholes += 1
    assert wholes > 100


@pytest.mark.parametrize("text", ["", "{}", "5", "[5]", "[{}", "[{}, 5]", "[{}] x", "[{}, {}, ]"])
def test_what_is_no_list_of_rows(text):
    with pytest.raises(msgspec.DecodeError):
        list(decode_rows(text.encode(), dict[str, Any], 0))
