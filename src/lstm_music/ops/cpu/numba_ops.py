"""Numba on the CPU: NumPy's ops with the element-wise work fused, vectorised and threaded.

GEMMs stay with the BLAS. Only what measures faster than NumPy is overridden
(`pytest --benchmark`). In float32, exp is a polynomial that LLVM can vectorise (relative error
at most 3e-7 where it does not under- or overflow); in float64 everything is the maths library's.
Compiled code is cached on disk, so that only the first start of a version compiles.
"""

import math
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import DTypeLike

from lstm_music.ops import philox
from lstm_music.ops.cpu.arithmetic import (
    dot,
    fast_exp,
    fast_sigmoid,
    fast_tanh,
    fma,
    lane_max,
    lane_product,
    lane_sum,
)
from lstm_music.ops.cpu.blas import parallel_gemm, single_threaded_blas
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.panels import HAS_AVX512, ROWS, WIDE, small_product, wide_product
from lstm_music.ops.numpy_ops import (
    NO_NOTES,
    Array,
    NumpyOps,
    RowGradient,
    Workspace,
    dropout_threshold,
    logit_chunks,
    rows_and_place,
)

LARGE = 1 << 20  # elements of a matrix from which memory is the bound, and the BLAS's threads help
COLUMNS = 2048  # of a matrix at once: so much of a row of out stays in the first-level cache


@njit(cache=True, error_model="numpy")
def _affine_columns(x, W, b, out, first, stop):  # type: ignore[no-untyped-def]
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
def _affine(x, W, b, out):  # type: ignore[no-untyped-def]
    N = W.shape[1]
    for first in range(0, N, COLUMNS):
        _affine_columns(x, W, b, out, first, min(first + COLUMNS, N))


@njit(cache=True, error_model="numpy")
def _cell_forward(x, before, k, after, out):  # type: ignore[no-untyped-def]
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
def _cell_backward(x, before, k, after, dout, dcell, scratch):  # type: ignore[no-untyped-def]
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
        _cell_forward(x, c_prev[n], k, c[n], h[n])


@njit(cache=True)
def _lstm_cell_backward(gates, keep, c_prev, c, dh, dc):  # type: ignore[no-untyped-def]
    scratch = np.empty((2, c.shape[1]), c.dtype)
    for n in range(len(c)):
        k = keep[n] if len(keep) > 0 else gates.dtype.type(1)
        _cell_backward(gates[n], c_prev[n], k, c[n], dh[n], dc[n], scratch)


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
                _cell_forward(x, c[t, n], k, c[t + 1, n], h[t + 1, n])


@njit(cache=True, parallel=True)
def _lstm_sequence_backward(gates, Wh, keep, c, dy, dh, dc, parts):  # type: ignore[no-untyped-def]
    T, B, H4 = gates.shape
    Wh_T = np.ascontiguousarray(Wh.T)
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
                _cell_backward(gates[t, n], c[t, n], k, c[t + 1, n], dout, dc[n], scratch)
            small_product(gates[t, rows], Wh_T, dh[rows])
            if len(keep) > 0:
                for n in range(rows.start, rows.stop):
                    k, dout = keep[t, n], dh[n]
                    for j in range(len(dout)):
                        dout[j] *= k


@njit(cache=True, error_model="numpy", inline="always")
def _softmax_row(logits, b, target, floor):  # type: ignore[no-untyped-def]
    """Turn one row of logits into exp(logit + b - max); return the sum and the loss.

    What lies below max + floor counts as lying there: its gradient would be a denormal number,
    and those slow the GEMMs tenfold. (The maximum may miss a NaN, the sum has it.)
    """
    top, total = logits.dtype.type(-np.inf), logits.dtype.type(0)
    for first in range(0, len(logits), COLUMNS):
        some, bias = logits[first : first + COLUMNS], b[first : first + COLUMNS]
        for j in range(len(some)):
            some[j] += bias[j]
        top = max(top, lane_max(some))
    at_target = logits[max(target, 0)] - top
    for first in range(0, len(logits), COLUMNS):
        some = logits[first : first + COLUMNS]
        for j in range(len(some)):
            some[j] = fast_exp(max(some[j] - top, floor))
        total += lane_sum(some)
    return total, math.log(total) - at_target


@njit(cache=True, parallel=True, error_model="numpy")
def _bias_softmax_xent(logits, b, targets, losses, scale, floor, dbs):  # type: ignore[no-untyped-def]
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
            total, loss = _softmax_row(x, b, target, floor)
            losses[n] = loss
            share = scale / total
            for v in range(V):
                d = x[v] * share
                x[v] = d
                db[v] += d
            x[target] -= scale
            db[target] -= scale


@njit(cache=True, parallel=True, error_model="numpy")
def _bias_softmax_nll(logits, b, targets, losses, floor):  # type: ignore[no-untyped-def]
    for n in prange(len(logits)):
        losses[n] = _softmax_row(logits[n], b, targets[n], floor)[1]


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


@njit(cache=True, error_model="numpy", inline="always")
def _sigmoids(a, s):  # type: ignore[no-untyped-def]
    for j in range(len(a)):
        s[j] = fast_sigmoid(a[j])


FACTORS = 64  # numbers between 1 and 2 whose product no float overflows


@njit(cache=True, error_model="numpy")
def _sigmoid_row(z, y, scale, scratch):  # type: ignore[no-untyped-def]
    """Turn logits z (D,) into scale · (sigmoid - y); return the nats. As NumpyOps.sigmoid_xent.

    log(1 + e^x) - y·x without overflow; the sum of logs is the log of a product. scratch (2, D).
    """
    zero, one = z.dtype.type(0), z.dtype.type(1)
    terms, factors = scratch[0], scratch[1]
    for d in range(len(z)):
        x, t = z[d], z.dtype.type(y[d])
        e = fast_exp(-abs(x))
        terms[d] = fma(-t, x, max(x, zero))
        factors[d] = one + e
        z[d] = scale * ((one if x >= 0 else e) / (one + e) - t)
    total = lane_sum(terms)
    for first in range(0, len(z), FACTORS):
        total += math.log(lane_product(factors[first : first + FACTORS]))
    return total


@njit(cache=True, parallel=True, error_model="numpy")
def _sigmoid_xent(logits, targets, losses, scale, parts):  # type: ignore[no-untyped-def]
    N = len(logits)
    for part in prange(parts):
        scratch = np.empty((2, logits.shape[1]), logits.dtype)
        for n in range(part * N // parts, (part + 1) * N // parts):
            if targets[n, 0] == NO_NOTES:
                losses[n] = 0
                logits[n] = 0
            else:
                losses[n] = _sigmoid_row(logits[n], targets[n], scale, scratch)


@njit(cache=True, error_model="numpy")
def _nade_row_forward(z, a, x, W, U, s):  # type: ignore[no-untyped-def]
    """Add U·s to the visible biases z (D,), s anew after each note that is on; return their number.

    a (K,) hidden biases, overwritten; s (D + 1, K): what sigmoid(a) was before the first note that
    is on, after it, after the second … : it changes nowhere else.
    """
    count = 0
    _sigmoids(a, s[0])
    for d in range(len(z)):
        z[d] += dot(U[d], s[count])
        if x[d]:
            w = W[d]
            for j in range(len(a)):
                a[j] += w[j]
            count += 1
            _sigmoids(a, s[count])
    return count


@njit(cache=True, error_model="numpy")
def _nade_row_backward(dz, da, x, U, s, count, dW, dU, ds):  # type: ignore[no-untyped-def]
    """Go back from dz (D,): add to dW, dU (D, K) and write da (K,). ds (K,) is scratch."""
    K = len(da)
    one = dz.dtype.type(1)
    da[:] = 0
    ds[:] = 0
    for back in range(len(dz)):
        d = len(dz) - 1 - back
        now = s[count]
        if x[d]:
            for j in range(K):
                da[j] = fma(ds[j] * now[j], one - now[j], da[j])
                ds[j] = 0
            dw = dW[d]
            for j in range(K):
                dw[j] += da[j]
            count -= 1
            now = s[count]
        g, u, du = dz[d], U[d], dU[d]
        for j in range(K):
            ds[j] = fma(g, u[j], ds[j])
        for j in range(K):
            du[j] = fma(g, now[j], du[j])
    now = s[0]
    for j in range(K):
        da[j] = fma(ds[j] * now[j], one - now[j], da[j])


@njit(cache=True, parallel=True, error_model="numpy")
def _nade_xent(  # type: ignore[no-untyped-def]
    visible, hidden, targets, W, U, scale, losses, grads
):
    """grads (2, parts, D, K): each part adds to its own copies of dW and dU."""
    N, D = visible.shape
    parts, K = grads.shape[1], grads.shape[3]
    for part in prange(parts):
        s, ds = np.empty((D + 1, K), visible.dtype), np.empty(K, visible.dtype)
        scratch = np.empty((2, D), visible.dtype)
        dW, dU = grads[0, part], grads[1, part]
        for n in range(part * N // parts, (part + 1) * N // parts):
            z, a, x = visible[n], hidden[n], targets[n]
            if x[0] == NO_NOTES:
                losses[n] = 0
                z[:] = 0
                a[:] = 0
                continue
            count = _nade_row_forward(z, a, x, W, U, s)
            losses[n] = _sigmoid_row(z, x, scale, scratch)
            _nade_row_backward(z, a, x, U, s, count, dW, dU, ds)


@njit(cache=True, parallel=True, error_model="numpy")
def _nade_nll(visible, hidden, targets, W, U, losses, parts):  # type: ignore[no-untyped-def]
    N, D = visible.shape
    for part in prange(parts):
        s = np.empty((D + 1, hidden.shape[1]), visible.dtype)
        scratch, one = np.empty((2, D), visible.dtype), visible.dtype.type(1)
        for n in range(part * N // parts, (part + 1) * N // parts):
            if targets[n, 0] == NO_NOTES:
                losses[n] = 0
            else:
                _nade_row_forward(visible[n], hidden[n], targets[n], W, U, s)
                losses[n] = _sigmoid_row(visible[n], targets[n], one, scratch)


@njit(cache=True, error_model="numpy")
def _nade_sample(visible, hidden, W, U, draws, inverse, out):  # type: ignore[no-untyped-def]
    one = visible.dtype.type(1)
    s = np.empty(hidden.shape[1], hidden.dtype)
    for n in range(len(visible)):
        a = hidden[n]
        _sigmoids(a, s)
        for d in range(visible.shape[1]):
            z = (visible[n, d] + dot(U[d], s)) * inverse
            e = fast_exp(-abs(z))
            p = (one if z >= 0 else e) / (one + e)
            out[n, d] = draws[n, d] < p
            if out[n, d]:
                for j in range(len(a)):
                    a[j] += W[d, j]
                _sigmoids(a, s)


@njit(cache=True, parallel=True, error_model="numpy")
def _average_step(p, mean, rate):  # type: ignore[no-untyped-def]
    for k in prange(len(p)):
        mean[k] = fma(rate, p[k] - mean[k], mean[k])


@njit(cache=True, error_model="numpy")
def _philox_blocks(first, stream, step, k0, k1, words):  # type: ignore[no-untyped-def]
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


DROPOUT_BLOCKS = 64  # made at once: 256 elements, a fit for the first-level cache


@njit(cache=True, parallel=True, error_model="numpy")
def _dropout(x, first, whole, threshold, scale, stream, step, k0, k1, parts):  # type: ignore[no-untyped-def]
    """x (T, n) is the columns first … first+n-1 of a (T, whole), whose mask it takes."""
    zero = x.dtype.type(0)
    T, n = x.shape
    size = 4 * DROPOUT_BLOCKS
    groups = (n + 3 + size - 1) // size  # of a row, which may begin inside a block of 4
    for part in prange(parts):
        words = np.empty((4, DROPOUT_BLOCKS), np.uint32)
        factors = np.empty((DROPOUT_BLOCKS, 4), x.dtype)
        flat = factors.reshape(-1)
        for work in range(part * T * groups // parts, (part + 1) * T * groups // parts):
            t, group = work // groups, work % groups
            block = (t * whole + first) // 4 + group * DROPOUT_BLOCKS
            _philox_blocks(block, stream, step, k0, k1, words)
            for lane in range(4):
                for j in range(DROPOUT_BLOCKS):
                    factors[j, lane] = scale if words[lane, j] >= threshold else zero
            start = 4 * block - t * whole - first  # the column of flat[0]
            low, high = max(start, 0), min(start + size, n)
            if low >= high:
                continue
            some = x[t, low:high]
            for j in range(len(some)):
                some[j] *= flat[low - start + j]


@njit(cache=True, parallel=True, error_model="numpy")
def _adam_step(p, g, m, v, rate, beta1, beta2, eps, correct2, scale, shrink):  # type: ignore[no-untyped-def]
    one = p.dtype.type(1)
    for k in prange(len(p)):
        d = scale * g[k]
        m[k] = fma(beta1, m[k], (one - beta1) * d)
        v[k] = fma(beta2, v[k], (one - beta2) * d * d)
        p[k] = shrink * p[k] - rate * m[k] / (math.sqrt(v[k] * correct2) + eps)


@njit(cache=True, parallel=True, error_model="numpy")
def _adam_step_rows(  # type: ignore[no-untyped-def]
    p, where, values, m, v, rate, beta1, beta2, eps, correct2, scale, shrink
):
    """`_adam_step` with the gradient values[where[r]] of row r, or none where where[r] < 0."""
    one = p.dtype.type(1)
    V, E = p.shape
    for r in prange(V):
        n = where[r]
        if n >= 0:
            for j in range(E):
                d = scale * values[n, j]
                m[r, j] = fma(beta1, m[r, j], (one - beta1) * d)
                v[r, j] = fma(beta2, v[r, j], (one - beta2) * d * d)
                p[r, j] = shrink * p[r, j] - rate * m[r, j] / (math.sqrt(v[r, j] * correct2) + eps)
        else:
            for j in range(E):
                m[r, j] = beta1 * m[r, j]
                v[r, j] = beta2 * v[r, j]
                p[r, j] = shrink * p[r, j] - rate * m[r, j] / (math.sqrt(v[r, j] * correct2) + eps)


class NumbaOps(NumpyOps):
    """NumPy's ops, with those overridden that Numba runs faster."""

    name = "numba"

    def __init__(self, dtype: DTypeLike = "float32") -> None:
        super().__init__(dtype)
        self._none = np.zeros(0, self.dtype)
        self._wide = HAS_AVX512 and self.dtype == np.float32
        self._scratch = self._none  # a transposed matrix, its rows contiguous
        self._no_keep = np.zeros((0, 0), self.dtype)
        self._floor = self.real(-60 if self.dtype == np.float32 else -680)
        single_threaded_blas()

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul, each thread with its own part of out."""
        self._product(a, b, out, 0.0)

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul_add, without a temporary: what adds up begins with out itself."""
        self._product(a, b, out, 1.0)

    def _product(self, a: Array, b: Array, out: Array, beta: float) -> None:
        """Write a·b + beta·out to out: a weight's gradient xᵀ·d by our own product, where it wins.

        All else is the BLAS's.
        """
        (M, K), N = a.shape, b.shape[1]
        turned = a.strides[0] == a.itemsize and b.strides[1] == b.itemsize
        if not (self._wide and turned and N >= WIDE and min(M, K) >= ROWS):
            parallel_gemm(a, b, out, beta, get_num_threads())
            return
        if self._scratch.size < a.size:
            self._scratch = np.empty(a.size, self.dtype)
        rows = self._scratch[: a.size].reshape(M, K)
        rows[...] = a
        wide_product(rows, b, out, beta, get_num_threads())

    def affine(self, x: Array, W: Array, b: Array | None, out: Array) -> None:
        """As NumpyOps.affine, in one call; NumPy keeps the large matrices, where it wins."""
        if W.size >= LARGE:
            super().affine(x, W, b, out)
        else:
            _affine(x, W, self._none if b is None else b, out)

    def lstm_sequence_forward(
        self,
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
        kept = self._no_keep if keep is None else keep
        h[0], c[0] = h0, c0
        _lstm_sequence_forward(gates, Wh, b, kept, c, h, get_num_threads())
        hT[...], cT[...] = h[-1], c[-1]

    def lstm_sequence_backward(
        self,
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
        kept = self._no_keep if keep is None else keep
        dh[...] = 0 if dhT is None else dhT
        dc[...] = 0 if dcT is None else dcT
        _lstm_sequence_backward(gates, Wh, kept, c, dy, dh, dc, get_num_threads())
        if keep is not None:
            h[:-1] *= keep[:, :, None]
        np.sum(gates.reshape(-1, len(db)), axis=0, out=db)

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
            logits,
            np.zeros(V, self.dtype),
            targets,
            losses,
            self.real(scale),
            self._floor,
            dbs,
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
            self.matmul(h[rows], W, logits)
            _bias_softmax_xent(
                logits, b, targets[rows], losses[rows], self.real(scale), self._floor, dbs
            )
            self.matmul(logits, W.T, dh[rows])
            self._product(h[rows].T, logits, dW, float(rows.start > 0))
        np.sum(dbs, axis=0, out=db)

    def _linear_softmax_nll(
        self, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
    ) -> None:
        """As NumpyOps._linear_softmax_nll, with the bias added on the way."""
        for rows, logits in logit_chunks(len(h), len(b), work):
            self.matmul(h[rows], W, logits)
            _bias_softmax_nll(logits, b, targets[rows], losses[rows], self._floor)

    def note_embedding_forward(self, W: Array, x: Array, out: Array) -> None:
        """As NumpyOps.note_embedding_forward: only the rows that sound are read."""
        _note_embedding_forward(W, x, out, get_num_threads())

    def note_embedding_backward(self, x: Array, dx: Array, dW: Array) -> None:
        """As NumpyOps.note_embedding_backward: only the rows that sound are added to."""
        dWs = np.zeros((get_num_threads(), *dW.shape), self.dtype)
        _note_embedding_backward(x, dx, dWs)
        np.sum(dWs, axis=0, out=dW)

    def sigmoid_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """As NumpyOps.sigmoid_xent, in one pass."""
        _sigmoid_xent(logits, targets, losses, self.real(scale), get_num_threads())

    def nade_xent(
        self,
        visible: Array,
        hidden: Array,
        targets: Array,
        W: Array,
        U: Array,
        scale: float,
        losses: Array,
        dW: Array,
        dU: Array,
        work: Workspace,
    ) -> None:
        """As NumpyOps.nade_xent; the hidden units are computed anew only where a note is on."""
        grads = work.array("nade_grads", (2, get_num_threads(), *W.shape))
        grads[...] = 0
        _nade_xent(visible, hidden, targets, W, U, self.real(scale), losses, grads)
        np.sum(grads[0], axis=0, out=dW)
        np.sum(grads[1], axis=0, out=dU)

    def nade_nll(
        self, visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
    ) -> None:
        """As NumpyOps.nade_nll, in one pass."""
        _nade_nll(visible, hidden, targets, W, U, losses, get_num_threads())

    def nade_sample(
        self,
        visible: Array,
        hidden: Array,
        W: Array,
        U: Array,
        draws: Array,
        temperature: float,
        out: Array,
    ) -> None:
        """As NumpyOps.nade_sample, in one call."""
        _nade_sample(visible, hidden, W, U, draws, self.real(1 / temperature), out)

    def average_step(self, p: Array, mean: Array, rate: float) -> None:
        """As NumpyOps.average_step, in one pass."""
        _average_step(p.reshape(-1), mean.reshape(-1), self.real(rate))

    def dropout(
        self,
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
        scale = self.real(1 / (1 - p))
        threshold = dropout_threshold(p)
        if out is not None:
            out[...] = x
            x = out
        place = rows_and_place(x, first, whole)
        _dropout(*place, threshold, scale, stream, step, k0, k1, get_num_threads())

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
        decay: float = 0.0,
    ) -> None:
        """As NumpyOps.adam_step, in one pass."""
        _adam_step(
            p.reshape(-1),
            g.reshape(-1),
            m.reshape(-1),
            v.reshape(-1),
            *self._adam_scalars(lr, beta1, beta2, eps, t, scale, decay),
        )

    def _adam_scalars(
        self,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
        decay: float,
    ) -> list[Any]:
        """Return what the compiled steps take, in the arrays' type: the bias corrections too."""
        correct1, correct2, shrink = 1 / (1 - beta1**t), 1 / (1 - beta2**t), 1 - lr * decay
        scalars = (lr * correct1, beta1, beta2, eps, correct2, scale, shrink)
        return [self.real(x) for x in scalars]

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
        decay: float = 0.0,
    ) -> None:
        """As NumpyOps.adam_step_rows, without a dense gradient."""
        where = np.full(len(p), -1, np.int32)
        where[g.rows] = np.arange(len(g.rows), dtype=np.int32)
        _adam_step_rows(
            p,
            where,
            g.values,
            m,
            v,
            *self._adam_scalars(lr, beta1, beta2, eps, t, scale, decay),
        )
