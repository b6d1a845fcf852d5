"""Products of few rows, written so that LLVM keeps the sums in registers.

x·W for sampling, with the weights packed in panels; h·W of a time step; and the gradient of a
wide output layer.

A panel is PANEL columns of W, contiguous, so that memory is read as one stream. Each element of the
result is one chain of multiply-adds over k, in order, whatever the number of rows computed beside
it: a row's bits don't depend on its company. Four rows share each load of a weight.
"""

import os
from typing import Any

import numpy as np
from llvmlite import binding
from numba import get_num_threads, types
from numba.extending import overload

from lstm_music.arrays import Array
from lstm_music.ops.cpu.arithmetic import fma
from lstm_music.ops.cpu.blas import gemm
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.tile import tile
from lstm_music.ops.workspace import Workspace

PANEL = 64  # columns of a panel
ROWS = 4  # that share each load of a weight
WIDE = 96  # columns whose sums over four rows fill AVX-512's registers
NARROW = 32  # columns of the rest
LINE = 16  # float32 of a cache line
DEPTH = 512  # rows of a wide panel at once, which stay in the second-level cache
SPLIT = 4096  # columns from which the threads share them
COLUMNS = 2048  # of a matrix at once: so much of a row of out stays in the first-level cache
HAS_AVX512 = bool(binding.get_host_cpu_features().get("avx512f"))
HAS_BF16 = bool(binding.get_host_cpu_features().get("avx512bf16")) and not any(
    os.environ.get(name) for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
)  # which tell Numba to compile for another processor


def pack(W: Array) -> Array:
    """Return W (K, N) as panels (⌈N / PANEL⌉, K, PANEL), zeros past its last column."""
    K, N = W.shape
    panels = -(-N // PANEL)
    padded = np.zeros((K, panels * PANEL), W.dtype)
    padded[:, :N] = W
    return np.ascontiguousarray(padded.reshape(K, panels, PANEL).transpose(1, 0, 2))


def padded(b: Array) -> Array:
    """Return b (..., N) with zeros up to a whole number of panels."""
    return np.pad(b, [(0, 0)] * (b.ndim - 1) + [(0, -b.shape[-1] % PANEL)])


_one_row = tile(1, PANEL)
_four_rows = tile(ROWS, PANEL // 2)  # as many sums as there are vector registers to hold them


@njit(cache=True)
def add_panel(x, W, n, y):  # type: ignore[no-untyped-def]
    """Add x·W of panel n to its columns of y. x (R, K), W (panels, K, PANEL), y (R, columns)."""
    K, first = W.shape[1], n * PANEL
    half = PANEL // 2
    whole = len(x) - len(x) % ROWS
    for r in range(0, whole, ROWS):
        rows = x[r : r + ROWS, :K]
        _four_rows(rows, W[n, :, :half], y[r : r + ROWS, first : first + half])
        _four_rows(rows, W[n, :, half:], y[r : r + ROWS, first + half : first + PANEL])
    for r in range(whole, len(x)):
        _one_row(x[r : r + 1, :K], W[n], y[r : r + 1, first : first + PANEL])


_wide_rows = tile(ROWS, WIDE)
_narrow_rows = tile(ROWS, NARROW)


@njit(cache=True)
def _product(a, b, out, beta):  # type: ignore[no-untyped-def]
    """As `wide_product`, in this thread."""
    (M, K), N = a.shape, b.shape[1]
    rows, wide, narrow = M - M % ROWS, N - N % WIDE, N - N % NARROW
    if beta == 0:
        out[:rows, :narrow] = 0
    for first in range(0, wide, WIDE):
        columns = slice(first, first + WIDE)
        for k in range(0, K, DEPTH):
            some = b[k : k + DEPTH, columns]
            for r in range(0, rows, ROWS):
                _wide_rows(a[r : r + ROWS, k : k + DEPTH], some, out[r : r + ROWS, columns])
    for first in range(wide, narrow, NARROW):
        columns = slice(first, first + NARROW)
        for k in range(0, K, DEPTH):
            some = b[k : k + DEPTH, columns]
            for r in range(0, rows, ROWS):
                _narrow_rows(a[r : r + ROWS, k : k + DEPTH], some, out[r : r + ROWS, columns])
    if narrow < N:
        gemm(a, b[:, narrow:], out[:, narrow:], beta)
    if rows < M:
        gemm(a[rows:], b[:, :narrow], out[rows:, :narrow], beta)


@njit(cache=True)
def _turn(x, out):  # type: ignore[no-untyped-def]
    """Write x (K, M) transposed to out, some rows of x at a time: whole lines of out."""
    K, M = x.shape
    for first in range(0, K, LINE):
        for m in range(M):
            for k in range(first, min(first + LINE, K)):
                out[m, k] = x[k, m]


@njit(cache=True, parallel=True)
def _copy(W, out, parts):  # type: ignore[no-untyped-def]
    """Write W (K, N), row-major or a transposed view, to out, each part some rows."""
    K = len(W)
    for part in prange(parts):
        rows = slice(part * K // parts, (part + 1) * K // parts)
        if W.strides[1] == W.itemsize:
            out[rows] = W[rows]
        else:
            _turn(W.T[:, rows], out[rows])


def of_steps(W: Array, precision: str, work: Workspace, name: str) -> Array:
    """Return W (K, N) as `small_product` reads it, in scratch of that name."""
    if precision != "bf16" or W.dtype != np.float32:
        rows = work.array(name, W.shape)
        _copy(W, rows, get_num_threads())
        return rows
    from lstm_music.ops.cpu.bf16 import pack, packed_shape

    found = work.part("packed", np.uint32).array(name, packed_shape(W))
    pack(W, found, get_num_threads())
    return found


def small_product(a: Any, b: Any, out: Any) -> None:
    """Compute out = a·b in this thread; compiled by `_small_product`. b: see `of_steps`.

    For the few rows of a time step: a BLAS packs the weights anew at each call.
    """
    raise NotImplementedError


@overload(small_product, inline="always")
def _small_product(a, b, out):  # type: ignore[no-untyped-def]
    if b.ndim == 3:
        from lstm_music.ops.cpu.bf16 import step_product

        return lambda a, b, out: step_product(a, b, out)
    if HAS_AVX512 and out.dtype == types.float32:
        return lambda a, b, out: _product(a, b, out, 0)
    return lambda a, b, out: gemm(a, b, out, 0)


@njit(cache=True, parallel=True)
def wide_product(x, b, a, out, beta, parts):  # type: ignore[no-untyped-def]
    """Compute out = xᵀ·b + beta·out, beta 0 or 1. x (K, M), b (K, N), out (M, N), rows contiguous.

    For gradients of weights, M ≪ K: a BLAS first copies b into its own order; here it is read as
    it lies. Needs AVX-512, whose registers hold the sums. The parts share the columns of a
    wide b, so that each of its elements comes from memory once, else the rows of xᵀ. a (M, K):
    scratch.
    """
    M, N = out.shape
    for part in prange(parts):
        some = slice(part * M // parts, (part + 1) * M // parts)
        _turn(x[:, some], a[some])
    for part in prange(parts):
        if N >= SPLIT:
            panels = -(-N // WIDE)
            columns = slice(
                part * panels // parts * WIDE, min((part + 1) * panels // parts * WIDE, N)
            )
            if columns.stop > columns.start:
                _product(a, b[:, columns], out[:, columns], beta)
        else:
            groups = -(-M // ROWS)
            rows = slice(part * groups // parts * ROWS, min((part + 1) * groups // parts * ROWS, M))
            if rows.stop > rows.start:
                _product(a[rows], b, out[rows], beta)


@njit(cache=True, error_model="numpy")
def affine_columns(x, W, b, out, first, stop):  # type: ignore[no-untyped-def]
    """Compute the columns first … stop-1 of x·W + b, four rows of W a pass."""
    K = len(W)
    for n in range(len(x)):
        y, xs = out[n, first:stop], x[n]
        if len(b) > 0:
            y[:] = b[first:stop]
        else:
            y[:] = 0
        for k in range(0, K - 3, 4):
            x0, x1, x2, x3 = xs[k], xs[k + 1], xs[k + 2], xs[k + 3]
            w0, w1 = W[k, first:stop], W[k + 1, first:stop]
            w2, w3 = W[k + 2, first:stop], W[k + 3, first:stop]
            for j in range(len(y)):
                y[j] = fma(x3, w3[j], fma(x2, w2[j], fma(x1, w1[j], fma(x0, w0[j], y[j]))))
        for k in range(K - K % 4, K):
            x0, w0 = xs[k], W[k, first:stop]
            for j in range(len(y)):
                y[j] = fma(x0, w0[j], y[j])


@njit(cache=True)
def affine(x, W, b, out):  # type: ignore[no-untyped-def]
    """Write x·W + b to out (R, N), each row by itself. x (R, K), W (K, N), b (N,) or empty."""
    N = W.shape[1]
    for first in range(0, N, COLUMNS):
        affine_columns(x, W, b, out, first, min(first + COLUMNS, N))
