"""Arrays out of a pickle, which is read as data and never run.

A pickle names functions to call. Here a few names that spell an array stand for classes of our
own, and every other name is refused; not even NumPy's own unpickling runs.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2 << 30
"""The largest file that is read; a detector with its optimiser's state has about 0.5 GB."""


class _DType:
    """Stands for ``numpy.dtype``: numbers and truth values only."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch("[fiu][1248]|b1", code):
            raise pickle.UnpicklingError(f"expected an array of numbers, got dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"expected a byte order, got {order!r}")
        self.dtype = self.dtype.newbyteorder(str(order))  # type: ignore[arg-type]


class _Array:
    """Stands for ``_reconstruct``, which makes an empty array and fills it by its state."""

    array: np.ndarray[Any, Any] | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("expected an array's dtype and bytes")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"expected an array's shape, got {shape!r}")
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"expected the bytes of {shape}, got {len(data)}")
        flat = np.frombuffer(data, dtype.dtype) if data else np.empty(0, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Buffer(_Array):
    """Stands for ``_frombuffer``, protocol 5's array."""

    def __init__(self, data: object, dtype: object, shape: object, order: object) -> None:
        self.__setstate__((1, shape, dtype, order == "F", data))


class _Encode:
    """Stands for ``_codecs.encode``, or ``bytes`` for none, as protocol 2 spells bytes."""

    __slots__ = ()

    def __call__(self, text: str = "", _encoding: str = "") -> bytes:
        return text.encode("latin1")


_KNOWN: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Encode(),
    ("__builtin__", "bytes"): _Encode(),
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,  # only ever _reconstruct's first argument
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}


# The Python implementation, because the other allocates as many memo slots as a file claims.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"expected arrays and plain containers only, got {module}.{name}"
            )
        return _KNOWN[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dict of arrays, or of dicts of arrays.

    Args:
        path: a file by Python 2 or 3, of any protocol.

    Returns:
        The dict; arrays are ``np.ndarray``, read-only.

    Raises:
        ValueError: the file is larger than ``MAX_BYTES``, no pickle, no dict or names anything but
            arrays, plain values and containers.
        OSError: it cannot be opened.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_BYTES} bytes, got {path.stat().st_size}")
    data = path.read_bytes()
    try:
        content = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a broken pickle raises whatever it stumbles over
        raise ValueError(f"{path}: not readable as a pickle of arrays: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict of arrays, got {type(content).__name__}")
    return {
        str(key): _arrays(value) if isinstance(value, dict) else _array(value)
        for key, value in content.items()
    }


def _arrays(content: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): _array(value) for key, value in content.items()}


def _array(value: object) -> object:
    return value.array if isinstance(value, _Array) else value
