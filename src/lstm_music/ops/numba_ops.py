"""Numba on the CPU: NumPy's ops with the element-wise work fused, vectorised and threaded.

GEMMs stay with the BLAS. Only what measures faster than NumPy is overridden
(`pytest --benchmark`). In float32, exp is a polynomial that LLVM can vectorise (relative error
at most 3e-7 where it does not under- or overflow); in float64 everything is the maths library's.
Compiled code is cached on disk, so that only the first start of a version compiles.
"""

import math
from typing import Any

import numpy as np
from numba import config, get_num_threads, njit, prange, types
from numba.extending import overload
from numpy.typing import DTypeLike
from scipy.linalg import blas

from lstm_music.ops import philox
from lstm_music.ops.numpy_ops import (
    Array,
    NumpyOps,
    RowGradient,
    Workspace,
    dropout_threshold,
    logit_chunks,
)

# Numba's own pool of threads sleeps between calls; OpenMP's spins beside the BLAS's threads.
config.THREADING_LAYER = "workqueue"

# Sums may be reordered and multiply-adds contracted; NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

LOG2E = np.float32(1.44269504088896341)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
EXP_MIN = np.float32(-87.0)
EXP_MAX = np.float32(88.0)
# exp(r) = 1 + r + r²·P(r) for |r| <= ln(2)/2; coefficients of the Cephes library's expf.
P0, P1, P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
P3, P4, P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, HALF, TWO = np.float32(1), np.float32(0.5), np.float32(2)
BIAS, MANTISSA = np.int32(127), np.int32(23)


def fast_exp(x: Any) -> Any:
    """Return exp(x) in x's own type; compiled by `_fast_exp`."""
    raise NotImplementedError


@njit(inline="always", error_model="numpy", fastmath=FASTMATH)
def _exp_float32(x):  # type: ignore[no-untyped-def]
    x = min(max(x, EXP_MIN), EXP_MAX)
    n = np.float32(math.floor(x * LOG2E + HALF))
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    y = P0
    y = y * r + P1
    y = y * r + P2
    y = y * r + P3
    y = y * r + P4
    y = y * r + P5
    y = y * (r * r) + r + ONE
    power = np.int32((np.int32(n) + BIAS) << MANTISSA)
    return y * power.view(np.float32)


@overload(fast_exp, inline="always")
def _fast_exp(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_float32(x)
    return lambda x: math.exp(x)


def fast_tanh(x: Any) -> Any:
    """Return tanh(x) in x's own type; compiled by `_fast_tanh`."""
    raise NotImplementedError


@njit(inline="always", error_model="numpy", fastmath=FASTMATH)
def _tanh_float32(x):  # type: ignore[no-untyped-def]
    return ONE - TWO / (ONE + _exp_float32(TWO * x))


@overload(fast_tanh, inline="always")
def _fast_tanh(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _tanh_float32(x)
    return lambda x: math.tanh(x)


@njit(cache=True, error_model="numpy", fastmath=FASTMATH)
def _lstm_cell_forward(gates, recurrent, keep, c_prev, c, h):  # type: ignore[no-untyped-def]
    B, H = c.shape
    one, half = gates.dtype.type(1), gates.dtype.type(0.5)
    for n in range(B):
        k = keep[n] if len(keep) > 0 else one
        # Rows as one-dimensional arrays indexed from 0: the form that LLVM vectorises.
        x, r = gates[n], recurrent[n]
        for j in range(4 * H):
            x[j] += k * r[j]
        i, f, g, o = x[:H], x[H : 2 * H], x[2 * H : 3 * H], x[3 * H :]
        for j in range(H):
            i[j] = half + half * fast_tanh(half * i[j])
        for j in range(H):
            f[j] = half + half * fast_tanh(half * f[j])
        for j in range(H):
            g[j] = fast_tanh(g[j])
        for j in range(H):
            o[j] = half + half * fast_tanh(half * o[j])
        before, after, out = c_prev[n], c[n], h[n]
        for j in range(H):
            after[j] = f[j] * k * before[j] + i[j] * g[j]
        for j in range(H):
            out[j] = o[j] * fast_tanh(after[j])


@njit(cache=True, error_model="numpy", fastmath=FASTMATH)
def _lstm_cell_backward(gates, keep, c_prev, c, dh, dc):  # type: ignore[no-untyped-def]
    B, H = c.shape
    one = gates.dtype.type(1)
    tanh_c, d = np.empty_like(c[0]), np.empty_like(c[0])
    for n in range(B):
        k = keep[n] if len(keep) > 0 else one
        x, before, after, dout, dcell = gates[n], c_prev[n], c[n], dh[n], dc[n]
        i, f, g, o = x[:H], x[H : 2 * H], x[2 * H : 3 * H], x[3 * H :]
        for j in range(H):
            tanh_c[j] = fast_tanh(after[j])
        for j in range(H):
            d[j] = dcell[j] + dout[j] * o[j] * (one - tanh_c[j] * tanh_c[j])
        for j in range(H):
            o[j] = dout[j] * tanh_c[j] * o[j] * (one - o[j])
        for j in range(H):
            dcell[j] = d[j] * f[j] * k
        for j in range(H):
            f[j] = d[j] * k * before[j] * f[j] * (one - f[j])
        for j in range(H):
            di, dg = d[j] * g[j], d[j] * i[j]
            g[j] = dg * (one - g[j] * g[j])
            i[j] = di * i[j] * (one - i[j])


@njit(cache=True, error_model="numpy", fastmath=FASTMATH, inline="always")
def _softmax_row(logits, b, target):  # type: ignore[no-untyped-def]
    """Turn one row of logits into exp(logit + b - max); return the sum and the loss."""
    V = len(logits)
    top = logits[0] + b[0]
    for v in range(V):
        logits[v] += b[v]
        top = max(top, logits[v])
    at_target = logits[max(target, 0)] - top
    total = logits.dtype.type(0)
    for v in range(V):
        e = fast_exp(logits[v] - top)
        logits[v] = e
        total += e
    return total, math.log(total) - at_target


@njit(cache=True, parallel=True, error_model="numpy", fastmath=FASTMATH)
def _bias_softmax_xent(logits, b, targets, losses, scale, dbs):  # type: ignore[no-untyped-def]
    """Add the bias, compute losses and gradients in one visit of each row.

    dbs (threads, V): each thread adds its rows' gradients to its own row of dbs.
    """
    N, V = logits.shape
    threads = len(dbs)
    for k in prange(threads):
        db = dbs[k]
        for n in range(k * N // threads, (k + 1) * N // threads):
            x = logits[n]
            target = targets[n]
            if target < 0:
                losses[n] = 0
                x[:] = 0
                continue
            total, loss = _softmax_row(x, b, target)
            losses[n] = loss
            share = scale / total
            for v in range(V):
                d = x[v] * share
                x[v] = d
                db[v] += d
            x[target] -= scale
            db[target] -= scale


@njit(cache=True, parallel=True, error_model="numpy", fastmath=FASTMATH)
def _bias_softmax_nll(logits, b, targets, losses):  # type: ignore[no-untyped-def]
    for n in prange(len(logits)):
        if targets[n] < 0:
            losses[n] = 0
        else:
            losses[n] = _softmax_row(logits[n], b, targets[n])[1]


@njit(cache=True, error_model="numpy", fastmath=FASTMATH)
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


@njit(cache=True)
def _philox_word(c0, c1, c2, lane, k0, k1):  # type: ignore[no-untyped-def]
    """Return one of the four 32-bit words of a Philox4x32-10 block."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    a, b, c, d = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(0)
    x, y = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p0 = a * np.uint64(0xD2511F53)
        p1 = c * np.uint64(0xCD9E8D57)
        a, b, c, d = (p1 >> shift) ^ b ^ x, p1 & low, (p0 >> shift) ^ d ^ y, p0 & low
        x = (x + np.uint64(0x9E3779B9)) & low
        y = (y + np.uint64(0xBB67AE85)) & low
    return a, b, c, d


@njit(cache=True)
def _dropout(x, threshold, scale, stream, step, k0, k1):  # type: ignore[no-untyped-def]
    n = len(x)
    zero = x.dtype.type(0)
    for block in range((n + 3) // 4):
        words = _philox_word(block, stream, step, 0, k0, k1)
        for lane in range(min(4, n - 4 * block)):
            k = 4 * block + lane
            x[k] = x[k] * scale if words[lane] >= threshold else zero


@njit(cache=True, parallel=True, error_model="numpy", fastmath=FASTMATH)
def _sum_squares(g, partial):  # type: ignore[no-untyped-def]
    n, parts = len(g), len(partial)
    for k in prange(parts):
        total = 0.0
        for j in range(k * n // parts, (k + 1) * n // parts):
            total += g[j] * g[j]
        partial[k] = total


@njit(cache=True, parallel=True, error_model="numpy", fastmath=FASTMATH)
def _adam_step(p, g, m, v, rate, beta1, beta2, eps, correct2, scale):  # type: ignore[no-untyped-def]
    one = p.dtype.type(1)
    for k in prange(len(p)):
        d = scale * g[k]
        m[k] = beta1 * m[k] + (one - beta1) * d
        v[k] = beta2 * v[k] + (one - beta2) * d * d
        p[k] -= rate * m[k] / (math.sqrt(v[k] * correct2) + eps)


@njit(cache=True, parallel=True, error_model="numpy", fastmath=FASTMATH)
def _adam_step_rows(  # type: ignore[no-untyped-def]
    p, where, values, m, v, rate, beta1, beta2, eps, correct2, scale
):
    """`_adam_step` with the gradient values[where[r]] of row r, or none where where[r] < 0."""
    one = p.dtype.type(1)
    V, E = p.shape
    for r in prange(V):
        n = where[r]
        if n >= 0:
            for j in range(E):
                d = scale * values[n, j]
                m[r, j] = beta1 * m[r, j] + (one - beta1) * d
                v[r, j] = beta2 * v[r, j] + (one - beta2) * d * d
                p[r, j] -= rate * m[r, j] / (math.sqrt(v[r, j] * correct2) + eps)
        else:
            for j in range(E):
                m[r, j] = beta1 * m[r, j]
                v[r, j] = beta2 * v[r, j]
                p[r, j] -= rate * m[r, j] / (math.sqrt(v[r, j] * correct2) + eps)


class NumbaOps(NumpyOps):
    """NumPy's ops, with those overridden that Numba runs faster."""

    name = "numba"

    def __init__(self, dtype: DTypeLike = "float32") -> None:
        super().__init__(dtype)
        self._none = np.zeros(0, self.dtype)
        self._gemm = blas.sgemm if self.dtype == np.float32 else blas.dgemm

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul_add, without a temporary: the BLAS adds to out itself."""
        # The BLAS is column-major: out.T += b.T · a.T. A transposed view costs no copy.
        left, left_t = (b.T, False) if b.flags.c_contiguous else (b, True)
        right, right_t = (a.T, False) if a.flags.c_contiguous else (a, True)
        self._gemm(1.0, left, right, 1.0, out.T, trans_a=left_t, trans_b=right_t, overwrite_c=True)

    def lstm_cell_forward(
        self, gates: Array, recurrent: Array, keep: Array | None, c_prev: Array, c: Array, h: Array
    ) -> None:
        """As NumpyOps.lstm_cell_forward, in one pass."""
        _lstm_cell_forward(gates, recurrent, self._none if keep is None else keep, c_prev, c, h)

    def lstm_cell_backward(
        self, gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
    ) -> None:
        """As NumpyOps.lstm_cell_backward, in one pass."""
        _lstm_cell_backward(gates, self._none if keep is None else keep, c_prev, c, dh, dc)

    def embedding_backward(self, ids: Array, dx: Array) -> RowGradient:
        """As NumpyOps.embedding_backward, without a sorted copy of dx."""
        order = np.argsort(ids, kind="stable")
        rows, values = np.empty_like(ids), np.empty_like(dx)
        n = _embedding_backward(ids, order, dx, rows, values)
        return RowGradient(rows[:n], values[:n])

    def softmax_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """As NumpyOps.softmax_xent, in one visit of each row."""
        V = logits.shape[1]
        dbs = np.zeros((get_num_threads(), V), self.dtype)
        _bias_softmax_xent(
            logits, np.zeros(V, self.dtype), targets, losses, self.dtype.type(scale), dbs
        )

    def linear_softmax_xent(
        self,
        h: Array,
        W: Array,
        b: Array,
        targets: Array,
        scale: float,
        losses: Array,
        dh: Array,
        dW: Array,
        db: Array,
        work: Workspace,
    ) -> None:
        """As NumpyOps.linear_softmax_xent; bias, loss, gradient and db in one visit of a row."""
        dbs = work.array("dbs", (get_num_threads(), len(b)))
        dbs[...] = 0
        for rows, logits in logit_chunks(len(h), len(b), work):
            np.matmul(h[rows], W, out=logits)
            _bias_softmax_xent(logits, b, targets[rows], losses[rows], self.dtype.type(scale), dbs)
            np.matmul(logits, W.T, out=dh[rows])
            if rows.start == 0:
                np.matmul(h[rows].T, logits, out=dW)
            else:
                self.matmul_add(h[rows].T, logits, dW)
        np.sum(dbs, axis=0, out=db)

    def linear_softmax_nll(
        self, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
    ) -> None:
        """As NumpyOps.linear_softmax_nll, with the bias added on the way."""
        for rows, logits in logit_chunks(len(h), len(b), work):
            np.matmul(h[rows], W, out=logits)
            _bias_softmax_nll(logits, b, targets[rows], losses[rows])

    def dropout(self, x: Array, p: float, seed: int, stream: int, step: int) -> None:
        """As NumpyOps.dropout, with the same bits."""
        k0, k1 = philox.split_seed(seed)
        scale = self.dtype.type(1 / (1 - p))
        _dropout(x.reshape(-1), np.uint64(dropout_threshold(p)), scale, stream, step, k0, k1)

    def sum_squares(self, g: Array) -> float:
        """As NumpyOps.sum_squares, summed in float64 by parts of a fixed order."""
        partial = np.zeros(get_num_threads())
        _sum_squares(g.reshape(-1), partial)
        return float(partial.sum())

    def adam_step(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
    ) -> None:
        """As NumpyOps.adam_step, in one pass."""
        real = self.dtype.type
        _adam_step(
            p.reshape(-1),
            g.reshape(-1),
            m.reshape(-1),
            v.reshape(-1),
            real(lr / (1 - beta1**t)),
            real(beta1),
            real(beta2),
            real(eps),
            real(1 / (1 - beta2**t)),
            real(scale),
        )

    def adam_step_rows(
        self,
        p: Array,
        g: RowGradient,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
    ) -> None:
        """As NumpyOps.adam_step_rows, without a dense gradient."""
        real = self.dtype.type
        where = np.full(len(p), -1, np.int32)
        where[g.rows] = np.arange(len(g.rows), dtype=np.int32)
        _adam_step_rows(
            p,
            where,
            g.values,
            m,
            v,
            real(lr / (1 - beta1**t)),
            real(beta1),
            real(beta2),
            real(eps),
            real(1 / (1 - beta2**t)),
            real(scale),
        )
