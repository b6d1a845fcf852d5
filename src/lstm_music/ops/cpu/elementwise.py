"""Embeddings and dropout compiled by Numba, and the random numbers that it takes."""

import numpy as np
from numba import get_num_threads

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops import philox
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.philox import dropout_threshold, rows_and_place

DROPOUT_BLOCKS = 64  # made at once: 256 elements, a fit for the first-level cache


@njit(cache=True, error_model="numpy")
def _embedding_backward(ids, order, dx, rows, values):  # type: ignore[no-untyped-def]
    """Sum dx by id, in the order of sorted ids; return the number of different ids."""
    E = dx.shape[1]
    n = -1
    for k in range(len(order)):
        row = ids[order[k]]
        if n < 0 or rows[n] != row:
            n += 1
            rows[n] = row
            values[n] = 0
        for j in range(E):
            values[n, j] += dx[order[k], j]
    return n + 1


@njit(cache=True, error_model="numpy")
def _add_rows(W, x, y):  # type: ignore[no-untyped-def]
    """Write the sum of the rows of W (D, E) that sound in x (D,) to y (E,)."""
    y[:] = 0
    for d in range(len(x)):
        if x[d]:
            w = W[d]
            for j in range(len(y)):
                y[j] += w[j]


@njit(cache=True, parallel=True)
def _note_embedding_forward(W, x, out, parts):  # type: ignore[no-untyped-def]
    N = len(x)
    for part in prange(parts):
        for n in range(part * N // parts, (part + 1) * N // parts):
            _add_rows(W, x[n], out[n])


@njit(cache=True, parallel=True, error_model="numpy")
def _note_embedding_backward(x, dx, dWs):  # type: ignore[no-untyped-def]
    """Add each part's rows of dx to its own copy of the gradient: dWs (parts, D, E)."""
    N, D = x.shape
    parts = len(dWs)
    for part in prange(parts):
        for n in range(part * N // parts, (part + 1) * N // parts):
            dy = dx[n]
            for d in range(D):
                if x[n, d]:
                    dw = dWs[part, d]
                    for j in range(len(dy)):
                        dw[j] += dy[j]


@njit(cache=True, error_model="numpy")
def philox_blocks(first, stream, step, k0, k1, words):  # type: ignore[no-untyped-def]
    """Write the blocks first, first + 1, … of Philox4x32-10 to words (4, n) uint32.

    As philox.philox; round by round over all blocks, so that LLVM vectorises each round.
    """
    a, b, c, d = words[0], words[1], words[2], words[3]
    n = len(a)
    for j in range(n):
        a[j], b[j], c[j], d[j] = first + j, stream, step, 0
    shift = np.uint64(32)
    for _ in range(philox.ROUNDS):
        x, y = np.uint32(k0), np.uint32(k1)
        for j in range(n):
            p0 = np.uint64(a[j]) * np.uint64(philox.MULTIPLIERS[0])
            p1 = np.uint64(c[j]) * np.uint64(philox.MULTIPLIERS[1])
            a[j] = np.uint32(p1 >> shift) ^ b[j] ^ x
            b[j] = np.uint32(p1)
            c[j] = np.uint32(p0 >> shift) ^ d[j] ^ y
            d[j] = np.uint32(p0)
        k0 = (k0 + philox.WEYL[0]) & philox.MASK32
        k1 = (k1 + philox.WEYL[1]) & philox.MASK32


@njit(cache=True, parallel=True, error_model="numpy")
def _dropout(x, out, first, whole, threshold, scale, stream, step, k0, k1, parts):  # type: ignore[no-untyped-def]
    """x (T, n) is the columns first … first+n-1 of a (T, whole), whose mask out takes."""
    zero = x.dtype.type(0)
    T, n = x.shape
    size = 4 * DROPOUT_BLOCKS
    inside = 3 if first % 4 or whole % 4 else 0  # where a row may begin inside a block of 4
    groups = (n + inside + size - 1) // size
    for part in prange(parts):
        words = np.empty((4, DROPOUT_BLOCKS), np.uint32)
        factors = np.empty((DROPOUT_BLOCKS, 4), x.dtype)
        flat = factors.reshape(-1)
        for work in range(part * T * groups // parts, (part + 1) * T * groups // parts):
            t, group = work // groups, work % groups
            block = (t * whole + first) // 4 + group * DROPOUT_BLOCKS
            philox_blocks(block, stream, step, k0, k1, words)
            for lane in range(4):
                for j in range(DROPOUT_BLOCKS):
                    factors[j, lane] = scale if words[lane, j] >= threshold else zero
            start = 4 * block - t * whole - first  # the column of flat[0]
            low, high = max(start, 0), min(start + size, n)
            if low >= high:
                continue
            some, kept = x[t, low:high], out[t, low:high]
            for j in range(len(some)):
                kept[j] = some[j] * flat[low - start + j]


def embedding_backward(ops: NumpyOps, ids: Array, dx: Array) -> RowGradient:
    """As NumpyOps.embedding_backward, without a sorted copy of dx."""
    order = np.argsort(ids, kind="stable")
    rows, values = np.empty_like(ids), np.empty_like(dx)
    n = _embedding_backward(ids, order, dx, rows, values)
    return RowGradient(rows[:n], values[:n])


def note_embedding_forward(ops: NumpyOps, W: Array, x: Array, out: Array) -> None:
    """As NumpyOps.note_embedding_forward: only the rows that sound are read."""
    _note_embedding_forward(W, x, out, get_num_threads())


def note_embedding_backward(ops: NumpyOps, x: Array, dx: Array, dW: Array) -> None:
    """As NumpyOps.note_embedding_backward: only the rows that sound are added to."""
    dWs = np.zeros((get_num_threads(), *dW.shape), ops.dtype)
    _note_embedding_backward(x, dx, dWs)
    np.sum(dWs, axis=0, out=dW)


def dropout(
    ops: NumpyOps,
    x: Array,
    p: float,
    seed: int,
    stream: int,
    step: int,
    first: int = 0,
    whole: int | None = None,
    out: Array | None = None,
) -> None:
    """As NumpyOps.dropout, with the same bits."""
    k0, k1 = philox.split_seed(seed)
    scale = ops.real(1 / (1 - p))
    threshold = dropout_threshold(p)
    x, *place = rows_and_place(x, first, whole)
    out = x if out is None else out.reshape(x.shape)
    _dropout(x, out, *place, threshold, scale, stream, step, k0, k1, get_num_threads())
