from pathlib import Path

import pytest

from detection.atomic import replacing


def test_the_target_is_replaced_at_the_end(tmp_path: Path):
    target = tmp_path / "new" / "file.txt"
    for content in (b"old", b"new"):
        with replacing(target) as file:
            file.write(content)
            assert target.exists() == (content == b"new")
        assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path):
    target = tmp_path / "file.txt"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(target) as file:
        file.writelines([b"ne", "w"])
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
