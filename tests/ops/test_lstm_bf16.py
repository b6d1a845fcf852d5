"""The recurrent product on the matrix units, of --precision bf16, on the CPU stand-in.

Each step is held to float64 arithmetic on what the kernel itself rounds: h, Wh and the gates'
gradients that it left behind. So a difference is one of a single step, and no tie that rounds the
other way can hide it.
"""

from typing import NamedTuple

import numpy as np
import pytest
import test_contract as contract
import test_cuda_nvrtc
from hypothesis import given
from hypothesis import strategies as st
from test_bf16 import rounded
from test_cuda_ops import backward_case, forward_case

from host_cuda import nvrtc
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from lstm_music.ops import NumpyOps, cupy_ops
from lstm_music.ops.cupy_ops import (
    CupyOps,
    bf16_sequence_options,
    bf16_sequence_rows,
    bf16_sequence_shared,
)

on_cpu = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
with_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
RTOL = 1e-5
FORWARD, BACKWARD = "lstm_sequence_forward", "lstm_sequence_backward"
# T, B, H, multiprocessors, and the rows of a block that follow.
SHAPES = [
    (1, 1, 16, 132, 2),
    (7, 8, 16, 1, 8),
    (2, 3, 32, 132, 2),
    (6, 11, 32, 3, 4),
    (3, 11, 48, 2, 8),
    (2, 5, 112, 132, 2),
    (6, 8, 128, 132, 2),
    (3, 11, 128, 3, 4),
    (2, 50, 128, 7, 8),
]


def bf16_ops(multiprocessors=132, **given):
    return CupyOps("float32", "bf16", cupy=HostCupy(multiprocessors=multiprocessors, **given))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def doubles(args):
    """Arguments in float64; keep of ones where there is none."""
    args = {k: a.astype(np.float64) for k, a in args.items() if isinstance(a, np.ndarray)}
    return {"keep": np.ones(next(iter(args.values())).shape[:2])} | args


def forward_steps(case, found):
    """What each step forward gives by itself, from the h and c that the kernel left before it."""
    a = doubles(case.args)
    c, h = (found[k].astype(np.float64) for k in "ch")
    kept = a["keep"][:, :, None]
    recurrent = rounded(kept * h[:-1]).astype(np.float64) @ rounded(a["Wh"]).astype(np.float64)
    i, f, g, o = np.split(a["gates"] + a["b"] + recurrent, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    cells = f * kept * c[:-1] + i * g
    return {
        "gates": np.concatenate([i, f, g, o], axis=-1),
        "c": np.concatenate([a["c"][:1], cells]),
        "h": np.concatenate([a["h"][:1], o * np.tanh(cells)]),
    }


def backward_steps(case, found):
    """What each step back gives, from the gates' gradients that the kernel left after it."""
    a = doubles(case.args)
    Wh = rounded(a["Wh"]).astype(np.float64)
    dh, dc, gates = a["dh"], a["dc"], np.empty(a["gates"].shape)
    for t in reversed(range(len(gates))):
        i, f, g, o = np.split(a["gates"][t], 4, axis=-1)
        kept, tanh_c, d = a["keep"][t][:, None], np.tanh(a["c"][t + 1]), a["dy"][t] + dh
        dc = dc + d * o * (1 - tanh_c**2)
        slopes = (
            dc * g * i * (1 - i), dc * kept * a["c"][t] * f * (1 - f),
            dc * i * (1 - g**2), d * tanh_c * o * (1 - o),
        )  # fmt: skip
        gates[t] = np.concatenate(slopes, axis=-1)
        dc = dc * f * kept
        dh = kept * (rounded(found["gates"][t]).astype(np.float64) @ Wh.T)
    return {"gates": gates, "dh": dh, "dc": dc}


STEPS = {FORWARD: (forward_case, forward_steps), BACKWARD: (backward_case, backward_steps)}


def check(ops, op, T, B, H, keep):
    """Hold a sequence to its steps; return it and the case."""
    make, steps = STEPS[op]
    case = contract.rounded(make(np.random.default_rng(0), T, B, H, keep))
    found = contract.run(ops, op, case)
    for name, a in steps(case, found).items():
        assert np.isfinite(found[name]).all(), f"{op}: {name} isn't finite"
        contract.assert_close(found[name], a, RTOL, 1.0, name)
    return case, found


@on_cpu
@pytest.mark.parametrize("op", STEPS)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_step_is_that_of_rounded_factors(shape, keep, op):
    *sizes, multiprocessors, rows = shape
    assert bf16_sequence_rows(*sizes[1:], multiprocessors, 227 << 10) == rows
    ops = bf16_ops(multiprocessors)
    check(ops, op, *sizes, keep)
    assert ops.xp.launches == {op.replace("sequence", "sequence_bf16"): 1}
