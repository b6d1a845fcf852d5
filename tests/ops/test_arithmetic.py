"""Sums, products, maxima and multiply-adds of compiled code, against NumPy's."""

import numba
import numpy as np
import pytest

from lstm_music.ops.cpu import arithmetic


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 63, 64, 65, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_in_lanes_are_of_all_elements(n, dtype):
    rng = np.random.default_rng(n)
    x, y = rng.uniform(0.9, 1.1, (2, n)).astype(dtype)
    near = {"rtol": 1e-5 if dtype == "float32" else 1e-13}
    np.testing.assert_allclose(lane_sum(x), x.sum(dtype="float64"), **near)
    np.testing.assert_allclose(lane_product(x), x.prod(dtype="float64"), **near)
    np.testing.assert_allclose(dot(x, y), x.astype("float64") @ y, **near)
    assert lane_max(x) == x.max(initial=-np.inf)
    for k in (0, n // 2, n - 1) if n else ():
        x[k] = 2
        assert lane_max(x) == 2
        x[k] = np.nan
        assert np.isnan(lane_sum(x))
        x[k] = 0


@numba.njit
def lane_sum(x):
    return arithmetic.lane_sum(x)


@numba.njit
def lane_product(x):
    return arithmetic.lane_product(x)


@numba.njit
def lane_max(x):
    return arithmetic.lane_max(x)


@numba.njit
def dot(x, y):
    return arithmetic.dot(x, y)


def test_a_multiply_add_is_rounded_once_and_rows_with_gaps_are_refused():
    a = np.float32(1 + 2**-12)
    exact = np.float32(np.float64(a) * a - 1)
    fused = numba.njit(lambda a, c: arithmetic.fma(a, a, c))(a, np.float32(-1))
    assert fused in (exact, a * a - np.float32(1))
    with pytest.raises(numba.core.errors.TypingError):
        lane_sum(np.zeros(8)[::2])
