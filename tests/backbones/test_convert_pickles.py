"""Pickles as data: arrays come out, nothing runs."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from backbones.convert import pickles
from backbones.convert.pickles import read_pickle

BY_PYTHON_2 = (
    b"\x80\x02}q\x00U\x07conv1_wq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
    b"q\x03K\x00\x85q\x04U\x01b\x87q\x05Rq\x06(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x07U\x02f4K\x00"
    b"K\x01\x87Rq\x08(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
    + np.array([1.5, -2.0], "<f4").tobytes()
    + b"tbs."
)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def written(tmp_path, content, protocol=2):
    path = tmp_path / "weights.pkl"
    path.write_bytes(
        content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    )
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_out_as_numpy_would_read_them(protocol, tmp_path):
    rng = np.random.default_rng(0)
    content = {
        "float": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "fortran": np.asfortranarray(rng.normal(size=(3, 2))),
        "big": np.arange(5, dtype=">f4"),
        "half": np.ones((), np.float16),
        "integers": np.arange(3),
        "empty": np.zeros((0, 3), np.float32),
        "inner": OrderedDict(a=np.ones(2)),
        "plain": [1, 2.5, "x", None, True, (b"\xff",)],
    }
    got = read_pickle(written(tmp_path, content, protocol))
    assert got.keys() == content.keys()
    assert got["plain"] == content["plain"]
    assert list(got["inner"]) == ["a"]
    np.testing.assert_array_equal(got["inner"]["a"], np.ones(2))
    for name in ("float", "fortran", "big", "half", "integers", "empty"):
        assert got[name].dtype == content[name].dtype
        assert got[name].shape == content[name].shape
        np.testing.assert_array_equal(got[name], content[name])


def test_python_2s_strings(tmp_path):
    expected = pickle.loads(BY_PYTHON_2.replace(b"numpy.core", b"numpy._core"), encoding="latin1")
    got = read_pickle(written(tmp_path, BY_PYTHON_2))
    assert got["conv1_w"].shape == (1, 2)
    np.testing.assert_array_equal(got["conv1_w"], expected["conv1_w"])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("inner", [False, True])
def test_a_command_is_refused_by_name_and_does_not_run(inner, protocol, tmp_path):
    target = tmp_path / "harm"
    command = Call(os.system, f"touch {target}")
    path = written(tmp_path, {"blobs": {"a": command}} if inner else command, protocol)
    with pytest.raises(ValueError, match=r"expected arrays and plain containers.*posix\.system"):
        read_pickle(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # it would have run
    assert target.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Call(eval, "1"), r"(__builtin__|builtins)\.eval"),
        (Call(getattr, {}, "pop"), r"getattr"),
        ({"scalar": np.float32(1)}, r"multiarray\.scalar"),
        ({"object": np.array([{}], dtype=object)}, "dtype 'O8'"),
        ({"record": np.zeros(1, "f4,f4")}, "dtype 'V8'"),
        ({"set": {1}}, r"set"),
        (b"\x80\x02cbackbones.convert.pickles\nio\n.", r"pickles\.io"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", r"numpy\.ndarray\.dumps"),
        (b"\x80\x02ccollections\nOrderedDict\nN}U\x01xK\x01s\x86b.", "not readable"),
        (b"\x80\x02U\x01xQ.", "persistent"),
        (b"\x80\x02\x82\x01.", "extension"),
        (b"\x80\x02}", "not readable"),
        (b"not a pickle", "not readable"),
        (b"", "not readable"),
        ([np.ones(2)], "expected a dict of arrays, got list"),
    ],
)
def test_everything_else_is_refused(content, name, tmp_path):
    with pytest.raises(ValueError, match=rf"weights\.pkl: .*{name}"):
        read_pickle(written(tmp_path, content))


def test_a_shape_that_its_bytes_do_not_fill(tmp_path):
    claimed = BY_PYTHON_2.replace(b"K\x01K\x02\x86", b"K\xffK\xff\x86")
    with pytest.raises(ValueError, match=r"bytes of \(255, 255\), got 8"):
        read_pickle(written(tmp_path, claimed))


def test_a_claimed_memo_takes_no_memory(tmp_path):
    # The C unpickler would make 2**32 slots here.
    assert read_pickle(written(tmp_path, b"\x80\x02}r\xff\xff\xff\xff.")) == {}


def test_a_file_beyond_the_limit(tmp_path, monkeypatch):
    path = written(tmp_path, {"a": np.ones(100)})
    monkeypatch.setattr(pickles, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100 bytes, got"):
        read_pickle(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        read_pickle(tmp_path / "none.pkl")
