"""Philox4x32-10, the counter-based random numbers behind dropout and sampling.

A number depends only on (seed, stream, step, index), never on what was drawn before: runs resume
exactly, a piece sounds the same whatever batch it is drawn in, and every backend can compute the
same bits in any order. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import math

import numpy as np
from numpy.typing import NDArray

from lstm_music.arrays import Array

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK32 = 0xFFFFFFFF


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the 128 random bits of each counter.

    counter: (n, 4) uint32; key: two 32-bit integers. Returns (n, 4) uint32.
    """
    c0, c1, c2, c3 = (counter[:, j].astype(np.uint64) for j in range(4))
    k0, k1 = key
    shift, low = np.uint64(32), np.uint64(MASK32)
    for _ in range(ROUNDS):
        p0 = c0 * np.uint64(MULTIPLIERS[0])
        p1 = c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> shift) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0 = (k0 + WEYL[0]) & MASK32
        k1 = (k1 + WEYL[1]) & MASK32
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def random_bits(seed: int, stream: int, step: int, n: int) -> NDArray[np.uint32]:
    """Return n random 32-bit integers: the first n of (seed, stream, step).

    seed: 64 bits; stream: 32 bits, one for each place that draws; step: 32 bits.
    """
    blocks = -(-n // 4)
    counter = np.zeros((blocks, 4), np.uint32)
    counter[:, 0] = np.arange(blocks, dtype=np.uint32)
    counter[:, 1] = stream & MASK32
    counter[:, 2] = step & MASK32
    return philox(counter, split_seed(seed)).reshape(-1)[:n]


def uniform(seed: int, stream: int, step: int, n: int) -> Array:
    """Return n float64 in [0, 1), from the first n integers of (seed, stream, step)."""
    return random_bits(seed, stream, step, n) * 2.0**-32


def split_seed(seed: int) -> tuple[int, int]:
    """Return the low and high 32 bits of a seed."""
    return seed & MASK32, (seed >> 32) & MASK32


# Dropout's part in them ------------------------------------------------------------------------


def dropout_threshold(p: float) -> np.uint32:
    """Return the bound below which a random 32-bit integer drops its element."""
    return np.uint32(min(round(p * 2**32), 2**32 - 1))


def rows_and_place(x: Array, first: int, whole: int | None) -> tuple[Array, int, int]:
    """Return x as rows (T, n) of the larger array that `NumpyOps.dropout` takes it for a part of.

    Also how many elements of its row are before each row's first, and how long that row is. An
    array that is no part of another is one row.
    """
    if whole is None:
        return x.reshape(1, -1), 0, x.size
    width = math.prod(x.shape[2:])
    return x.reshape(len(x), -1), first * width, whole * width
