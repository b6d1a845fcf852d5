"""How arrays lie in device memory: where they begin, and how far apart their rows do."""

from typing import Any

from lstm_music.arrays import Array

ALIGNED = 8  # a row's length in memory is a multiple: 16 bytes of bf16, as tensor cores want them
LINE, LONG = 64, 1024  # and of so many, a line of the cache, where rows are at least so long


def padded(V: int) -> int:
    """Return how far apart rows of V elements begin so that each is aligned."""
    size = LINE if V >= LONG else ALIGNED
    return -(-V // size) * size


def aligned(xp: Any, a: Array) -> Array:
    """Return a matrix whose rows are aligned: a itself, or columns of a wider copy."""
    if apart(a) % ALIGNED == 0:
        return a
    rows, columns = a.shape
    out: Array = xp.zeros((rows, padded(columns)), a.dtype)[:, :columns]
    out[...] = a
    return out


def apart(a: Array) -> int:
    """Return how many elements the rows of a matrix begin after each other."""
    return int(a.strides[0]) // a.itemsize


def extent(*arrays: Array) -> int:
    """Return the elements of memory of arrays that lie alike, what is between rows included."""
    a, *others = arrays
    assert all(b.shape == a.shape and b.strides == a.strides for b in others)
    return a.size if a.flags.c_contiguous else len(a) * apart(a)


def pointer(a: Any) -> int:
    """Return where a device array lies."""
    return int(a.data.ptr)
