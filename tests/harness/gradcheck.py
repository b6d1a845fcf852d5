"""Gradient checks: every gradient against central differences in float64.

The numeric derivative is the sixth-order central difference, with f(±k) for f(x ± k·h),

    n = (45·(f(1) - f(-1)) - 9·(f(2) - f(-2)) + (f(3) - f(-3))) / 60h        h = 0.005

Its truncation error is h⁶·f⁽⁷⁾/140 and its rounding error about 1e-16·|f|/h: both near 1e-13 of a
loss, so that a relative error of 1e-6 is the gradient's fault and not the check's.

The error of an array is the largest |a - n| / max(|a|, |n|, floor) of its elements, where a is the
analytic gradient and floor = max(max|n| / 1000, 1e-7): relative to the element itself unless that
is less than a thousandth of the array's largest, absolute only where the whole gradient is zero.
"""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import RowGradient

STEP = 5e-3
TOLERANCE = 1e-6
RELATIVE_FLOOR = 1e-3
ABSOLUTE_FLOOR = 1e-7


class Check(NamedTuple):
    """One array's error, and where it was found."""

    error: float
    array: str
    test: str


checks: list[Check] = []  # of this session


def numeric_gradient(f: Callable[[], float], x: np.ndarray) -> np.ndarray:
    """Differentiate f() by every element of the array x that it reads."""
    gradient = np.empty_like(x)
    for k in np.ndindex(x.shape):
        before = x[k]

        def at(offset, k=k, before=before):
            x[k] = before + offset
            return f()

        d1, d2, d3 = (at(n * STEP) - at(-n * STEP) for n in (1, 2, 3))
        x[k] = before
        gradient[k] = (45 * d1 - 9 * d2 + d3) / (60 * STEP)
    return gradient


def relative_error(analytic: np.ndarray, numeric: np.ndarray) -> float:
    assert analytic.shape == numeric.shape
    floor = max(RELATIVE_FLOOR * np.abs(numeric).max(), ABSOLUTE_FLOOR)
    size = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), floor)
    return float((np.abs(analytic - numeric) / size).max())


def check_gradients(
    f: Callable[[], float], arrays: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]
) -> None:
    """Assert that grads are the derivatives of f() by the arrays, which f reads anew each time."""
    assert set(grads) == set(arrays)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
    failed = []
    for name, x in arrays.items():
        assert x.dtype == np.float64, f"{name} is {x.dtype}"
        check = Check(relative_error(grads[name], numeric_gradient(f, x)), name, test)
        checks.append(check)
        if not check.error <= TOLERANCE:  # NaN fails
            failed.append(f"{name}: {check.error:.1e}")
    assert not failed, "relative errors of gradients above 1e-6: " + ", ".join(failed)


def dense(g: RowGradient, shape: tuple[int, ...]) -> np.ndarray:
    """Return a gradient of rows as a whole array."""
    whole = np.zeros(shape, g.values.dtype)
    whole[g.rows] = g.values
    return whole


def summary() -> str | None:
    """Return the line about this session's gradient checks, None where there were none."""
    if not checks:
        return None
    # A NaN is the worst of all.
    worst = max(checks, key=lambda check: (np.isnan(check.error), check.error))
    return (
        f"worst gradient-check error: {worst.error:.1e} of {worst.array} in {worst.test}, "
        f"{len(checks)} checks"
    )
