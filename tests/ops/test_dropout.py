import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.ops import NumpyOps, philox

REFERENCE = NumpyOps("float64")

seeds = st.integers(0, 2**64 - 1)
words = st.integers(0, 2**32 - 1)
rates = st.floats(0, 0.99)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def dropped(ops, x, p, seed=0, stream=0, step=0):
    """x after dropout."""
    out = ops.asarray(x.copy())
    ops.dropout(out, p, seed, stream, step)
    return ops.to_numpy(out)


def mask(ops, shape, p, seed=0, stream=0, step=0):
    """1 where an element survives."""
    return dropped(ops, np.ones(shape), p, seed, stream, step) != 0


def test_gradient(ops):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 3, 4, 5))
    site = {"p": 0.4, "seed": 7, "stream": 1, "step": 3}

    def loss():
        return float((weights * dropped(ops, x, **site)).sum())

    check_gradients(loss, {"x": x}, {"x": dropped(ops, weights, **site)})


@settings(max_examples=100, deadline=None)
@given(shapes, rates, seeds, words, words)
def test_every_backend_draws_the_same_mask(any_ops, shape, p, seed, stream, step):
    found = mask(any_ops, shape, p, seed, stream, step)
    np.testing.assert_array_equal(found, mask(REFERENCE, shape, p, seed, stream, step))


@settings(max_examples=100, deadline=None)
@given(shapes, rates, seeds, words, words, st.data())
def test_columns_have_their_part_of_the_whole_mask(any_ops, shape, p, seed, stream, step, data):
    first = data.draw(st.integers(0, shape[1] - 1))
    stop = data.draw(st.integers(first + 1, shape[1]))
    part = any_ops.asarray(np.ones((shape[0], stop - first, *shape[2:])))
    any_ops.dropout(part, p, seed, stream, step, first, shape[1])
    whole = mask(REFERENCE, shape, p, seed, stream, step)
    np.testing.assert_array_equal(any_ops.to_numpy(part) != 0, whole[:, first:stop])


def test_many_columns_have_their_part_too(any_ops):
    """More than a thread makes at once, at a place that is no multiple of four."""
    part = any_ops.asarray(np.ones((3, 700)))
    any_ops.dropout(part, 0.4, 1, 2, 3, 1001, 2003)
    whole = mask(REFERENCE, (3, 2003), 0.4, 1, 2, 3)
    np.testing.assert_array_equal(any_ops.to_numpy(part) != 0, whole[:, 1001:1701])


@settings(max_examples=50, deadline=None)
@given(shapes, rates, seeds, words, words)
def test_an_element_survives_where_its_random_number_is_at_least_p(shape, p, seed, stream, step):
    u = philox.uniform(seed, stream, step, np.prod(shape)).reshape(shape)
    found = mask(REFERENCE, shape, p, seed, stream, step)
    # p itself is rounded to 32 bits.
    sure = np.abs(u - p) > 2.0**-32
    np.testing.assert_array_equal(found[sure], (u >= p)[sure])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_rate_is_p_and_survivors_are_scaled(any_ops, p):
    n = 200_000
    x = np.random.default_rng(0).normal(size=n).astype(any_ops.dtype)
    y = dropped(any_ops, x, p, seed=1)
    survives = y != 0
    assert abs(survives.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_allclose(y[survives], x[survives] / (1 - p), rtol=1e-6)


def test_rate_0_changes_nothing(any_ops):
    x = np.random.default_rng(0).normal(size=1000).astype(any_ops.dtype)
    np.testing.assert_array_equal(dropped(any_ops, x, 0.0), x)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"seed": 1 << 32},
        {"seed": 1 << 63},
        {"stream": 1},
        {"stream": 1 << 31},
        {"step": 1},
        {"step": 1 << 31},
        {"stream": 3, "step": 2},
    ],
    ids=str,
)
def test_no_mask_is_used_twice(any_ops, other):
    """Masks of other seeds, streams and steps agree no more often than chance has it."""
    n = 10_000
    site = {"seed": 0, "stream": 2, "step": 3}
    first = mask(any_ops, n, 0.5, **site)
    again = mask(any_ops, n, 0.5, **site)
    second = mask(any_ops, n, 0.5, **(site | other))
    np.testing.assert_array_equal(first, again)
    assert abs((first == second).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_no_mask_repeats_within_itself(any_ops):
    """The mask's lags are uncorrelated: neither words of a block nor blocks come back."""
    n = 10_000
    found = mask(any_ops, n, 0.5)
    for lag in (1, 2, 3, 4, 8, 1000):
        agree = (found[lag:] == found[:-lag]).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(n - lag)
