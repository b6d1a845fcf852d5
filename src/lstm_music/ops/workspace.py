"""Scratch memory: arrays that are made once, and how far apart the rows of a matrix lie."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.arrays import Array

LINE = 64  # bytes of a cache line, and of the widest vector register
LOGITS_BYTES = 128 << 20  # of a chunk of logits at most: each chunk reads and writes dW again


class Workspace:
    """Scratch arrays by name, made once and used again at every step of the same shape."""

    def __init__(self, xp: Any, dtype: DTypeLike) -> None:
        self.xp, self.dtype = xp, np.dtype(dtype)
        self._arrays: dict[str, Array] = {}
        self._parts: dict[str, Workspace] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return the uninitialised array of that name; a new shape replaces the old one."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape:
            found = self._arrays[name] = empty(self.xp, shape, self.dtype)
        return found

    def like(self, name: str, a: Array) -> Array:
        """Return the array of that name as `zeros_as` makes one like a; it holds what was last."""
        found = self._arrays.get(name)
        if found is None or found.shape != a.shape:
            found = self._arrays[name] = zeros_as(self.xp, a)
        return found

    def part(self, name: str, dtype: DTypeLike | None = None) -> "Workspace":
        """Return a store of its own, for the same names in other shapes or another dtype."""
        return self._parts.setdefault(name, Workspace(self.xp, dtype or self.dtype))


def empty(xp: Any, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """As xp.empty; NumPy's begin at a cache line, or each load of a vector would touch two."""
    if xp is not np:
        made: Array = xp.empty(shape, dtype)
        return made
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def zeros_as(xp: Any, a: Array) -> Array:
    """Return zeros of a's shape and type, rows of a matrix as far apart as a's.

    A parameter's gradient, moments and mean are such: an op may take all of their memory at once.
    """
    return rows_as(xp.zeros, a, len(a)) if a.ndim == 2 else xp.zeros(a.shape, a.dtype)


def rows_as(make: Any, a: Array, n: int) -> Array:
    """Return n rows, as long and as far apart as a matrix's; make is xp.zeros or xp.empty."""
    columns = a.shape[1]
    rows: Array = make((n, max(columns, a.strides[0] // a.itemsize)), a.dtype)
    return rows[:, :columns]


def logit_chunks(
    N: int, V: int, work: Workspace, limit: int = sys.maxsize
) -> Iterator[tuple[slice, Array]]:
    """Yield slices of the N rows, each with scratch for its logits of LOGITS_BYTES at most.

    limit: bytes at most, where a backend has less room.
    """
    most = max(1, min(N, min(LOGITS_BYTES, limit) // (V * work.dtype.itemsize)))
    chunk = -(-N // -(-N // most))  # as few as can be, and then of one size
    logits = work.array("logits", (chunk, V))
    for start in range(0, N, chunk):
        stop = min(start + chunk, N)
        yield slice(start, stop), logits[: stop - start]
