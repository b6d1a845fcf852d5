"""The copies in bf16 that --precision bf16 keeps of a head's factors, on the CPU stand-in."""

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cublas import from_bf16
from host_cuda.host_cupy import HostCupy

from lstm_music.arrays import Mixture
from lstm_music.ops import NumpyOps, workspace
from lstm_music.ops.cuda import matrices
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import PRECISIONS

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
NAMES = ("losses", "dh", "dW", "db")


def rounded(x):
    """The nearest bf16 of float32 numbers, by arithmetic: 8 binary digits, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(mantissa * 256), exponent - 8).astype(np.float32)


def head(ops, h, W, b, targets, scale, mix=None):
    """Run linear_softmax_xent, of a mixture if given; return what it writes, by name."""
    shapes = dict(zip(NAMES, ((len(h),), h.shape, W.shape, b.shape), strict=True))
    out = {name: ops.asarray(np.full(shape, np.nan)) for name, shape in shapes.items()}
    given = [ops.asarray(a) for a in (h, W, b)] + [ops.asarray(targets, np.int32)]
    mix = mix and Mixture(*(ops.asarray(a) for a in mix))
    ops.linear_softmax_xent(*given, scale, *out.values(), ops.workspace(), mix)
    return {name: np.asarray(ops.to_numpy(a), np.float64) for name, a in out.items()}


def problem(N=23, H=16, V=67):
    rng = np.random.default_rng(0)
    h, W, b = rng.uniform(-1, 1, (N, H)), rng.normal(size=(H, V)), rng.normal(size=V)
    targets = rng.integers(-1, V, size=N)
    return *(a.astype(np.float32) for a in (h, W, b)), targets


def bf16_ops():
    return CupyOps("float32", "bf16", cupy=HostCupy())


def test_rounding_is_to_the_nearest_and_even():
    rng = np.random.default_rng(1)
    x = np.ldexp(rng.normal(size=(40, 13)), rng.integers(-60, 60, size=(40, 13)))
    x[0, :8] = 1 + np.arange(8) / 256  # halfway between two, every second time
    x[1, :4] = 0.0, -0.0, np.inf, -np.inf
    x = x.astype(np.float32)
    ops = bf16_ops()
    bits = ops.to_numpy(matrices.rounded(ops, ops.asarray(x), "x", ops.workspace()))
    np.testing.assert_array_equal(from_bf16(bits), rounded(x))
    x[2, 3] = np.nan
    x.view(np.uint32)[2, 4] = 0x7F800001  # a NaN whose upper half is infinity's
    bits = ops.to_numpy(matrices.rounded(ops, ops.asarray(x), "x", ops.workspace()))
    np.testing.assert_array_equal(np.isnan(from_bf16(bits)), np.isnan(x))


@pytest.mark.parametrize("rows", [4, 23])
def test_a_head_is_that_of_rounded_factors(rows, monkeypatch):
    h, W, b, targets = problem()
    monkeypatch.setattr(workspace, "LOGITS_BYTES", rows * 72 * 4)
    found = head(bf16_ops(), h, W, b, targets, 0.3)
    # In float64 but for what is rounded: h, W, and the gradient of the logits.
    h, W = (rounded(a).astype(np.float64) for a in (h, W))
    logits, losses = h @ W + b, np.empty(len(h))
    NumpyOps("float64").softmax_xent(logits, targets, losses, 0.3)
    d = rounded(logits).astype(np.float64)
    expected = {"losses": losses, "dh": d @ W.T, "dW": h.T @ d, "db": d.sum(axis=0)}
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    for name, a in expected.items():
        # A gradient next to a tie may round to the other side: a unit of its last place.
        assert np.linalg.norm(found[name] - a) < 2e-4 * np.linalg.norm(a), name


def test_the_error_of_gradients_is_that_of_bf16():
    h, W, b, targets = problem(200, 128, 301)
    W /= np.sqrt(128, dtype=np.float32)
    exact = head(NumpyOps("float64"), h, W, b, targets, 1.0)
    for precision, bound in (("fp32", 1e-5), ("bf16", 4e-3)):
        found = head(CupyOps("float32", precision, cupy=HostCupy()), h, W, b, targets, 1.0)
        for name, a in exact.items():
            error = np.linalg.norm(found[name] - a) / np.linalg.norm(a)
            print(precision, name, f"{error:.1e}")
            assert error < bound, (precision, name)


def test_a_logit_that_is_no_number_shows_in_losses_and_gradients():
    h, W, b, targets = problem()
    targets[3] = 5
    h[3, 2] = np.nan
    found = head(bf16_ops(), h, W, b, targets, 1.0)
    assert np.isnan(found["losses"][3]) and np.isnan(found["dh"][3]).all()
    assert np.isnan(found["dW"]).all() and np.isnan(found["db"]).all()


def test_only_bf16_keeps_copies():
    for dtype in ("float32", "float64"):
        for precision in PRECISIONS:
            ops = CupyOps(dtype, precision, cupy=HostCupy())
            head(ops, *problem(5, 8, 19), 1.0)
            kept = "bf16_forward" in ops.xp.launches
            assert kept == (dtype == "float32" and precision == "bf16")
