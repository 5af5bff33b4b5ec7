"""Arrays out of a pickle without running anything of it.

A pickle may name any function to be called. Here the only names that mean anything are those with which NumPy writes
arrays, and they stand for objects of this module that only remember what they were given.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from arm_core.errors import InputError

MOST = 1 << 26
"""The most bytes of a pickle that is read: twice the largest one that is needed."""


class _DType:
    """Remembers the name of a dtype."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: nothing that bytes have."""


class _Array:
    """Remembers the shape, dtype and bytes of an array."""

    def __init__(self, *_: Any) -> None:
        self.shape: Any = None
        self.dtype: Any = None
        self.fortran: Any = False
        self.data: Any = None

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, self.shape, self.dtype, self.fortran, self.data = state


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.data, array.dtype, array.shape, array.fortran = data, dtype, shape, order == "F"
    return array


def _latin_bytes(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin_bytes,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise InputError(
                f"{self.path} is a pickle that asks for {module}.{name}, which no file of images needs; nothing of it "
                "was run; do not use this file"
            )
        return _KNOWN[module, name]


def read_byte_array(data: bytes, key: str, path: Path) -> np.ndarray:
    """The uint8 array under `key` of a pickled dictionary.

    Args:
        data: the pickle.
        key: may be pickled as text or as bytes.
        path: where it comes from, for messages.

    Raises:
        InputError: the pickle names anything but an array, is damaged, or holds no such array.
    """
    if len(data) > MOST:
        raise InputError(f"{path} has {len(data)} bytes, a pickle of images has at most {MOST}; fetch it anew")
    try:
        content = _Unpickler(data, path).load()
    except InputError:
        raise
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError,
            OverflowError) as error:  # fmt: skip
        raise InputError(f"{path} is no whole pickle ({type(error).__name__}: {error}); fetch it anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a dictionary, got {type(content).__name__}; fetch it anew")
    array = content.get(key.encode(), content.get(key))
    if not isinstance(array, _Array) or not isinstance(array.dtype, _DType):
        raise InputError(f"{path} must hold an array under {key!r}, got {type(array).__name__}; fetch it anew")
    if array.dtype.name not in ("u1", b"u1"):
        raise InputError(f"{path}: {key!r} must have the dtype uint8 (u1), got {array.dtype.name!r}; fetch it anew")
    if not isinstance(array.data, bytes | bytearray):
        raise InputError(f"{path}: the bytes of {key!r} are missing; fetch it anew")
    try:
        return np.frombuffer(bytes(array.data), np.uint8).reshape(array.shape, order="F" if array.fortran else "C")
    except (TypeError, ValueError):
        size = f"{len(array.data)} bytes for the shape {array.shape!r}"
        raise InputError(f"{path}: {key!r} has {size}; fetch it anew") from None
