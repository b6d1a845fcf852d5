"""Steps of the optimiser compiled by Numba, each in one pass over the parameter."""

import math
from typing import Any

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops.cpu.arithmetic import fma
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.reference.maths import Adam

SMALL = 1 << 14  # elements that a thread has updated before another one wakes


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


def _average_step(p, mean, rate):  # type: ignore[no-untyped-def]
    for k in prange(len(p)):
        mean[k] = fma(rate, p[k] - mean[k], mean[k])


_ADAM, _AVERAGE = (
    {
        parallel: njit(cache=True, parallel=parallel, error_model="numpy")(step)
        for parallel in (True, False)
    }
    for step in (_adam_step, _average_step)
)


def adam_step(
    ops: NumpyOps,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    how: Adam,
) -> None:
    """As NumpyOps.adam_step, in one pass."""
    _ADAM[p.size > SMALL](
        p.reshape(-1),
        g.reshape(-1),
        m.reshape(-1),
        v.reshape(-1),
        *adam_scalars(ops, how),
    )


def adam_step_rows(
    ops: NumpyOps,
    p: Array,
    g: RowGradient,
    m: Array,
    v: Array,
    how: Adam,
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
        *adam_scalars(ops, how),
    )


def adam_scalars(ops: NumpyOps, how: Adam) -> list[Any]:
    """Return what the compiled steps take, in the arrays' type: the bias corrections too."""
    correct1, correct2 = how.corrections
    rate, shrink = how.lr * correct1, 1 - how.lr * how.decay
    scalars = (rate, how.beta1, how.beta2, how.eps, correct2, how.scale, shrink)
    return [ops.real(x) for x in scalars]


def average_step(ops: NumpyOps, p: Array, mean: Array, rate: float) -> None:
    """As NumpyOps.average_step, in one pass."""
    _AVERAGE[p.size > SMALL](p.reshape(-1), mean.reshape(-1), ops.real(rate))
