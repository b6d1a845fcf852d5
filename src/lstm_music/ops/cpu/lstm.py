"""LSTM layers compiled by Numba: a step of a row, and all steps of a part of the batch."""

import numpy as np
from numba import get_num_threads

from lstm_music.arrays import Array
from lstm_music.ops.cpu.arithmetic import fast_sigmoid, fast_tanh, fma
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.panels import of_steps, small_product
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.workspace import Workspace

LARGE = 1 << 20  # elements of a matrix from which memory is the bound, and the BLAS's threads help


@njit(cache=True, error_model="numpy")
def cell_forward(x, before, k, after, out):  # type: ignore[no-untyped-def]
    """Take one LSTM step of one row: x (4H,) pre-activations -> activations, c and h (H,).

    Rows are one-dimensional and loops are short: the form that LLVM vectorises.
    """
    H = len(before)
    i, f, g, o = x[:H], x[H : 2 * H], x[2 * H : 3 * H], x[3 * H :]
    for j in range(2 * H):
        x[j] = fast_sigmoid(x[j])
    for j in range(H):
        g[j] = fast_tanh(g[j])
    for j in range(H):
        o[j] = fast_sigmoid(o[j])
    for j in range(H):
        after[j] = fma(i[j], g[j], f[j] * k * before[j])
    for j in range(H):
        out[j] = o[j] * fast_tanh(after[j])


@njit(cache=True, error_model="numpy")
def cell_backward(x, before, k, after, dout, dcell, scratch):  # type: ignore[no-untyped-def]
    """Go back over one LSTM step of one row; scratch (2, H)."""
    H = len(before)
    one = x.dtype.type(1)
    i, f, g, o = x[:H], x[H : 2 * H], x[2 * H : 3 * H], x[3 * H :]
    tanh_c, d = scratch[0], scratch[1]
    for j in range(H):
        tanh_c[j] = fast_tanh(after[j])
    for j in range(H):
        d[j] = fma(dout[j] * o[j], fma(-tanh_c[j], tanh_c[j], one), dcell[j])
    for j in range(H):
        o[j] = dout[j] * tanh_c[j] * o[j] * (one - o[j])
    for j in range(H):
        dcell[j] = d[j] * f[j] * k
    for j in range(H):
        f[j] = d[j] * k * before[j] * f[j] * (one - f[j])
    for j in range(H):
        tanh_c[j] = d[j] * i[j] * fma(-g[j], g[j], one)
    for j in range(H):
        i[j] = d[j] * g[j] * i[j] * (one - i[j])
    for j in range(H):
        g[j] = tanh_c[j]


@njit(cache=True)
def _lstm_cell_forward(gates, recurrent, keep, c_prev, c, h):  # type: ignore[no-untyped-def]
    for n in range(len(c)):
        k = keep[n] if len(keep) > 0 else gates.dtype.type(1)
        x, r = gates[n], recurrent[n]
        for j in range(len(x)):
            x[j] = fma(k, r[j], x[j])
        cell_forward(x, c_prev[n], k, c[n], h[n])


@njit(cache=True)
def _lstm_cell_backward(gates, keep, c_prev, c, dh, dc):  # type: ignore[no-untyped-def]
    scratch = np.empty((2, c.shape[1]), c.dtype)
    for n in range(len(c)):
        k = keep[n] if len(keep) > 0 else gates.dtype.type(1)
        cell_backward(gates[n], c_prev[n], k, c[n], dh[n], dc[n], scratch)


@njit(cache=True, parallel=True)
def _lstm_sequence_forward(gates, Wh, b, keep, c, h, parts):  # type: ignore[no-untyped-def]
    """Take T steps; each part of the batch goes through all of them without meeting the others."""
    T, B, H4 = gates.shape
    for part in prange(parts):
        rows = slice(part * B // parts, (part + 1) * B // parts)
        R = rows.stop - rows.start
        recurrent = np.empty((R, H4), gates.dtype)
        for t in range(T if R > 0 else 0):
            small_product(h[t, rows], Wh, recurrent)
            for r in range(R):
                n = rows.start + r
                k = keep[t, n] if len(keep) > 0 else gates.dtype.type(1)
                x, from_h = gates[t, n], recurrent[r]
                for j in range(H4):
                    x[j] = fma(k, from_h[j], x[j] + b[j])
                cell_forward(x, c[t, n], k, c[t + 1, n], h[t + 1, n])


@njit(cache=True, parallel=True)
def _lstm_sequence_backward(gates, Wh_T, keep, c, h, dy, dh, dc, db, parts):  # type: ignore[no-untyped-def]
    """Go back over T steps; then each part sums some columns of db, over all rows in order."""
    T, B, H4 = gates.shape
    for part in prange(parts):
        rows = slice(part * B // parts, (part + 1) * B // parts)
        scratch = np.empty((2, H4 // 4), gates.dtype)
        for back in range(T if rows.stop > rows.start else 0):
            t = T - 1 - back
            for n in range(rows.start, rows.stop):
                k = keep[t, n] if len(keep) > 0 else gates.dtype.type(1)
                dout, dlater = dh[n], dy[t, n]
                for j in range(len(dout)):
                    dout[j] += dlater[j]
                cell_backward(gates[t, n], c[t, n], k, c[t + 1, n], dout, dc[n], scratch)
            small_product(gates[t, rows], Wh_T, dh[rows])
            if len(keep) > 0:
                for n in range(rows.start, rows.stop):
                    k, dout, read = keep[t, n], dh[n], h[t, n]
                    for j in range(len(dout)):
                        dout[j] *= k
                        read[j] *= k
    for part in prange(parts):
        columns = slice(part * H4 // parts, (part + 1) * H4 // parts)
        sums = db[columns]
        sums[:] = 0
        for t in range(T):
            for n in range(B):
                d = gates[t, n, columns]
                for j in range(len(d)):
                    sums[j] += d[j]


def lstm_cell_forward(
    ops: NumpyOps,
    gates: Array,
    recurrent: Array,
    keep: Array | None,
    c_prev: Array,
    c: Array,
    h: Array,
) -> None:
    """As NumpyOps.lstm_cell_forward, in one pass."""
    kept = np.zeros(0, ops.dtype) if keep is None else keep
    _lstm_cell_forward(gates, recurrent, kept, c_prev, c, h)


def lstm_cell_backward(
    ops: NumpyOps, gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
) -> None:
    """As NumpyOps.lstm_cell_backward, in one pass."""
    kept = np.zeros(0, ops.dtype) if keep is None else keep
    _lstm_cell_backward(gates, kept, c_prev, c, dh, dc)


def lstm_sequence_forward(
    ops: NumpyOps,
    gates: Array,
    Wh: Array,
    b: Array,
    keep: Array | None,
    h0: Array,
    c0: Array,
    c: Array,
    h: Array,
    hT: Array,
    cT: Array,
    work: Workspace,
) -> None:
    """As NumpyOps.lstm_sequence_forward, each thread with its own part of the batch."""
    kept = np.zeros((0, 0), ops.dtype) if keep is None else keep
    h[0], c[0] = h0, c0
    Wh = of_steps(Wh, ops.precision, work, "Wh")
    _lstm_sequence_forward(gates, Wh, b, kept, c, h, get_num_threads())
    hT[...], cT[...] = h[-1], c[-1]


def lstm_sequence_backward(
    ops: NumpyOps,
    gates: Array,
    Wh: Array,
    keep: Array | None,
    c: Array,
    h: Array,
    dy: Array,
    dhT: Array | None,
    dcT: Array | None,
    dh: Array,
    dc: Array,
    db: Array,
    work: Workspace,
) -> None:
    """As NumpyOps.lstm_sequence_backward, each thread with its own part of the batch."""
    kept = np.zeros((0, 0), ops.dtype) if keep is None else keep
    dh[...] = 0 if dhT is None else dhT
    dc[...] = 0 if dcT is None else dcT
    Wh_T = of_steps(Wh.T, ops.precision, work, "Wh_T")
    _lstm_sequence_backward(gates, Wh_T, kept, c, h, dy, dh, dc, db, get_num_threads())
