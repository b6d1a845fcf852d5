"""Losses and gradients compiled by Numba: softmax, sigmoid, NADE, in one visit of each row."""

import math
from typing import Any

import numpy as np
from numba import get_num_threads, types
from numba.extending import overload

from lstm_music.arrays import NO_NOTES, Array, Mixture
from lstm_music.ops.cpu.arithmetic import (
    dot,
    fast_exp,
    fast_sigmoid,
    fma,
    lane_max,
    lane_product,
    lane_sum,
)
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.panels import COLUMNS, HAS_BF16
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.workspace import Workspace, logit_chunks

FEWEST = 64  # rows, and columns of either factor, from which gradients of logits are rounded once
NONE = np.empty((0, 0), np.uint32)
FACTORS = 64  # numbers between 1 and 2 whose product no float overflows


def round_row(x: Any, out: Any, edge: Any) -> None:
    """Round x (1, V) to out, which may be its own memory; compiled by `_round_row`."""
    raise NotImplementedError


@overload(round_row)
def _round_row(x, out, edge):  # type: ignore[no-untyped-def]
    if not HAS_BF16 or x.dtype != types.float32:
        return lambda x, out, edge: None
    from lstm_music.ops.cpu.bf16 import pack_across

    return lambda x, out, edge: pack_across(x, out, edge)


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


@njit(cache=True, error_model="numpy", inline="always")
def _mixed(nats, own, copied):  # type: ignore[no-untyped-def]
    """Return a mixture's nats and the network's share, as reference.copying.mixed, of one row."""
    own -= nats
    top = max(own, copied)
    total = top + math.log(math.exp(own - top) + math.exp(copied - top))
    return -total, math.exp(own - total)


@njit(cache=True, parallel=True, error_model="numpy")
def _bias_softmax_xent(  # type: ignore[no-untyped-def]
    logits, b, targets, losses, scale, floor, dbs, own, copied, rounded
):
    """Add the bias, compute losses and gradients in one visit of each row.

    dbs (threads, V): each thread adds its rows' gradients to its own row of dbs. own, copied: a
    mixture's (N,), empty without one. rounded: the logits as uint32, whose first half then holds
    the gradients in bf16, two in each; empty where they stay.
    """
    N, V = logits.shape
    threads = len(dbs)
    for k in prange(threads):
        db, edge = dbs[k], np.empty((2, 64), logits.dtype)
        for n in range(k * N // threads, (k + 1) * N // threads):
            x = logits[n]
            target = targets[n]
            if target < 0:
                losses[n] = 0
                x[:] = 0
                continue
            total, loss = _softmax_row(x, b, target, floor)
            weight = scale
            if len(own) > 0:
                loss, part = _mixed(loss, own[n], copied[n])
                weight = logits.dtype.type(scale * part)
            losses[n] = loss
            share = weight / total
            for v in range(V):
                d = x[v] * share
                x[v] = d
                db[v] += d
            x[target] -= weight
            db[target] -= weight
            if len(rounded) > 0:
                round_row(logits[n : n + 1], rounded[n : n + 1], edge)


@njit(cache=True, parallel=True, error_model="numpy")
def _bias_softmax_nll(logits, b, targets, losses, floor):  # type: ignore[no-untyped-def]
    for n in prange(len(logits)):
        losses[n] = _softmax_row(logits[n], b, targets[n], floor)[1]


@njit(cache=True, error_model="numpy", inline="always")
def _sigmoids(a, s):  # type: ignore[no-untyped-def]
    for j in range(len(a)):
        s[j] = fast_sigmoid(a[j])


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


@njit(cache=True, error_model="numpy")
def _mixed_sigmoid_row(z, y, scale, scratch, own, copied, n):  # type: ignore[no-untyped-def]
    """As `_sigmoid_row`, of row n of a mixture where there is one."""
    if len(own) == 0:
        return _sigmoid_row(z, y, scale, scratch)
    nats, part = _mixed(_sigmoid_row(z, y, scale, scratch), own[n], copied[n])
    z *= z.dtype.type(part)
    return nats


@njit(cache=True, parallel=True, error_model="numpy")
def _sigmoid_xent(logits, targets, losses, scale, parts, own, copied):  # type: ignore[no-untyped-def]
    N = len(logits)
    for part in prange(parts):
        scratch = np.empty((2, logits.shape[1]), logits.dtype)
        for n in range(part * N // parts, (part + 1) * N // parts):
            if targets[n, 0] == NO_NOTES:
                losses[n] = 0
                logits[n] = 0
            else:
                losses[n] = _mixed_sigmoid_row(
                    logits[n], targets[n], scale, scratch, own, copied, n
                )


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
    visible, hidden, targets, W, U, scale, losses, grads, own, copied
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
            losses[n] = _mixed_sigmoid_row(z, x, scale, scratch, own, copied, n)
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


def softmax_xent(
    ops: NumpyOps,
    logits: Array,
    targets: Array,
    losses: Array,
    scale: float,
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.softmax_xent, in one visit of each row."""
    V = logits.shape[1]
    b, dbs = np.zeros(V, ops.dtype), np.zeros((get_num_threads(), V), ops.dtype)
    _bias_softmax_xent(
        logits, b, targets, losses, ops.real(scale), floor(ops), dbs, *shares(ops, mix), NONE
    )


def linear_softmax_xent(
    ops: NumpyOps,
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
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.linear_softmax_xent; bias, loss, gradient and db in one visit of a row."""
    dbs = work.array("dbs", (get_num_threads(), len(b)))
    dbs[...] = 0
    back = backward_of(ops, h, W, work)
    for rows, logits in logit_chunks(len(h), len(b), work):
        ops.matmul(h[rows], W, logits)
        rounded = NONE if back is None else logits.view(np.uint32)
        _bias_softmax_xent(
            logits, b, targets[rows], losses[rows], ops.real(scale), floor(ops), dbs,
            *shares(ops, mix and mix.rows(rows)), rounded,
        )  # fmt: skip
        if back is not None:
            back(h[rows], rounded, dh[rows], dW, rows.start > 0)
            continue
        ops.matmul(logits, W.T, dh[rows])
        (ops.matmul_add if rows.start else ops.matmul)(h[rows].T, logits, dW)
    np.sum(dbs, axis=0, out=db)


def backward_of(ops: NumpyOps, h: Array, W: Array, work: Workspace) -> Any:
    """Return `bf16_head.backward` of a head's weights, None where gradients of logits stay fp32."""
    products = getattr(ops, "bf16", None)
    if products is None or min(len(h), *W.shape) < FEWEST:
        return None
    from lstm_music.ops.cpu.bf16_head import backward

    return backward(products, W, work)


def linear_softmax_nll(
    ops: NumpyOps, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
) -> None:
    """As NumpyOps._linear_softmax_nll, with the bias added on the way."""
    for rows, logits in logit_chunks(len(h), len(b), work):
        ops.matmul(h[rows], W, logits)
        _bias_softmax_nll(logits, b, targets[rows], losses[rows], floor(ops))


def sigmoid_xent(
    ops: NumpyOps,
    logits: Array,
    targets: Array,
    losses: Array,
    scale: float,
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.sigmoid_xent, in one pass."""
    _sigmoid_xent(logits, targets, losses, ops.real(scale), get_num_threads(), *shares(ops, mix))


def nade_xent(
    ops: NumpyOps,
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
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.nade_xent; the hidden units are computed anew only where a note is on."""
    grads = work.array("nade_grads", (2, get_num_threads(), *W.shape))
    grads[...] = 0
    _nade_xent(visible, hidden, targets, W, U, ops.real(scale), losses, grads, *shares(ops, mix))
    np.sum(grads[0], axis=0, out=dW)
    np.sum(grads[1], axis=0, out=dU)


def nade_nll(
    ops: NumpyOps, visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
) -> None:
    """As NumpyOps.nade_nll, in one pass."""
    _nade_nll(visible, hidden, targets, W, U, losses, get_num_threads())


def nade_sample(
    ops: NumpyOps,
    visible: Array,
    hidden: Array,
    W: Array,
    U: Array,
    draws: Array,
    temperature: float,
    out: Array,
) -> None:
    """As NumpyOps.nade_sample, in one call."""
    _nade_sample(visible, hidden, W, U, draws, ops.real(1 / temperature), out)


def shares(ops: NumpyOps, mix: Mixture | None) -> Mixture:
    """Return a mixture, or an empty one, as compiled code takes it."""
    return mix or Mixture(np.empty(0, ops.dtype), np.empty(0, ops.dtype))


def floor(ops: NumpyOps) -> Any:
    """Return what exponents count as at least, in the arrays' type: exp of it is no denormal."""
    return ops.real(-60 if ops.dtype == np.float32 else -680)
