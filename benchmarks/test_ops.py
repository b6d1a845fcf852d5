"""Each fused op, NumPy's beside Numba's, at the paper's sizes: `pytest --benchmark`.

Numba overrides an op only where this table shows that it wins.
"""

from collections.abc import Callable

import numpy as np
import pytest

from gpu_cases import GOAL_CASES, Case
from gpu_kernels import Random, layer_calls, note_calls, word_calls
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.reference.maths import Adam

SMALL, BACH = Case("bundled Bach", 951, 50, 50), GOAL_CASES[0]
K = 128  # hidden units of a NADE
Calls = dict[str, Callable[[], object]]


def update_calls(ops: NumpyOps, case: Case) -> Calls:
    """Return what changes weights, dense ones and rows that occur."""
    V, H, random = case.V, case.H, Random(ops)
    p, g, m, v = (random.real(V, H) for _ in range(4))
    v *= v
    rows = ops.embedding_backward(random.ids(case.N, V), random.real(case.N, H))
    return {
        "adam_step": lambda: ops.adam_step(p, g, m, v, Adam(1e-3, 1)),
        "adam_step_rows": lambda: ops.adam_step_rows(p, rows, m, v, Adam(1e-3, 1)),
        "average_step": lambda: ops.average_step(p, m, 0.01),
        "sum_squares": lambda: ops.sum_squares(g),
    }


def gemm_calls(ops: NumpyOps, case: Case) -> Calls:
    """Return the two kinds of a layer's products."""
    N, H, random = case.N, case.H, Random(ops)
    x, Wx, d = random.real(N, H), random.real(H, 4 * H), random.real(N, 4 * H)
    out, dW = np.empty_like(d), np.empty_like(Wx)
    return {
        "matmul, x·Wx": lambda: ops.matmul(x, Wx, out),
        "matmul, xᵀ·d": lambda: ops.matmul(x.T, d, dW),
    }


def likelihood_call(ops: NumpyOps, case: Case) -> Calls:
    """Return the loss alone, as in validation."""
    N, V, H, random, work = case.N, case.V, case.H, Random(ops), ops.workspace()
    h, W, b, losses = random.real(N, H), random.real(H, V), random.real(V), random.real(N)
    ids = random.ids(N, V)
    return {"linear_softmax_nll": lambda: ops.linear_softmax_nll(h, W, b, ids, losses, work)}


def calls_of(ops: NumpyOps, wide: Case, narrow: Case) -> Calls:
    """Return a call of each op by its name; those that grow with the words at both sizes."""
    found = {name: call for name, _, _, call in layer_calls(ops, wide)} | gemm_calls(ops, wide)
    found |= {name: call for name, _, _, call in note_calls(ops, wide.N, wide.H, K)}
    for case in (narrow, wide):
        sized = {name: call for name, _, _, call in word_calls(ops, case)}
        sized |= update_calls(ops, case) | likelihood_call(ops, case)
        found |= {f"{name}, V={case.V}": call for name, call in sized.items()}
    return found


NAMES = list(calls_of(NumpyOps(), *(case._replace(B=1, T=2, H=4) for case in (BACH, SMALL))))


@pytest.fixture(scope="module", params=["numpy", "numba"])
def calls(request: pytest.FixtureRequest) -> Calls:
    return calls_of(get_ops(request.param), BACH, SMALL)


@pytest.mark.parametrize("op", NAMES)
def test_op(benchmark, rounds, calls, op):
    benchmark.group = op
    benchmark.pedantic(calls[op], **rounds(15))
