import math

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.network.lstm import lstm_backward, lstm_forward, lstm_init, lstm_step

NAMES = ("Wx", "Wh", "b", "x", "h0", "c0")


def problem(T, B, E, H, seed=0):
    """Parameters, inputs and an initial state, all random and none of them zero."""
    rng = np.random.default_rng(seed)
    return {
        "Wx": rng.normal(size=(E, 4 * H)) / np.sqrt(E),
        "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
        "b": rng.normal(size=4 * H),
        "x": rng.normal(size=(T, B, E)),
        "h0": rng.normal(size=(B, H)),
        "c0": rng.normal(size=(B, H)),
    }


def split(ops, a):
    """The parameters of a problem, and the rest, on a backend."""
    a = {name: ops.asarray(value) for name, value in a.items()}
    return {name: a[name] for name in ("Wx", "Wh", "b")}, a["x"], a["h0"], a["c0"]


def forward(ops, a, keep=None):
    """y, hT, cT of a problem as arrays of their own."""
    keep = None if keep is None else ops.asarray(keep)
    y, (hT, cT), _ = lstm_forward(ops, *split(ops, a), keep)
    return tuple(ops.to_numpy(out).copy() for out in (y, hT, cT))


def backward(ops, a, dy, dhT, dcT, keep=None):
    """The gradient of Σ dy·y + Σ dhT·hT + Σ dcT·cT by everything in a problem."""
    p, x, h0, c0 = split(ops, a)
    work = ops.workspace()
    keep = None if keep is None else ops.asarray(keep)
    _, _, cache = lstm_forward(ops, p, x, h0, c0, keep, work)
    dy, dhT, dcT = (None if d is None else ops.asarray(d) for d in (dy, dhT, dcT))
    dx, (dh0, dc0), grads = lstm_backward(ops, p, dy, dhT, dcT, cache, work)
    grads |= {"x": dx, "h0": dh0, "c0": dc0}
    return {name: ops.to_numpy(g).copy() for name, g in grads.items()}


def assert_same(found, expected, rtol=1e-12):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol, atol=rtol)


# Gradients ------------------------------------------------------------------------------------


def no_resets(T, B):
    return None


def at_the_start(T, B):
    """Every second row starts anew at t = 0."""
    keep = np.ones((T, B))
    keep[0, ::2] = 0
    return keep


def in_the_middle(T, B):
    """Each row starts anew at a time of its own."""
    keep = np.ones((T, B))
    keep[1 + np.arange(B) % (T - 1), np.arange(B)] = 0
    return keep


def everywhere(T, B):
    return np.zeros((T, B))


@pytest.mark.parametrize(
    ("shape", "resets"),
    [
        ((1, 1, 1, 1), no_resets),
        ((1, 1, 3, 2), no_resets),
        ((1, 3, 2, 3), at_the_start),
        ((6, 1, 2, 3), no_resets),
        ((5, 3, 3, 5), no_resets),
        ((5, 3, 3, 5), at_the_start),
        ((6, 5, 4, 3), in_the_middle),
        ((6, 1, 1, 2), in_the_middle),
        ((3, 2, 5, 3), everywhere),
        ((3, 2, 2, 7), no_resets),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_gradients(ops, shape, resets):
    T, B, _, H = shape
    a = problem(*shape)
    keep = resets(T, B)
    rng = np.random.default_rng(1)
    dy, dhT, dcT = rng.normal(size=(T, B, H)), rng.normal(size=(B, H)), rng.normal(size=(B, H))

    def loss():
        y, hT, cT = forward(ops, a, keep)
        return float((dy * y).sum() + (dhT * hT).sum() + (dcT * cT).sum())

    check_gradients(loss, a, backward(ops, a, dy, dhT, dcT, keep))


def test_no_gradient_of_the_final_state_means_zero(ops):
    a = problem(T=4, B=2, E=3, H=5)
    dy, zero = np.random.default_rng(1).normal(size=(4, 2, 5)), np.zeros((2, 5))
    found = backward(ops, a, dy, None, None)
    expected = backward(ops, a, dy, zero, zero)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_nothing_flows_back_across_a_reset(ops):
    a, keep = problem(T=5, B=2, E=3, H=4), np.ones((5, 2))
    keep[3] = 0
    dy = np.zeros((5, 2, 4))
    dy[3:] = 1
    grads = backward(ops, a, dy, np.ones((2, 4)), np.ones((2, 4)), keep)
    assert not grads["x"][:3].any()
    assert not grads["h0"].any()
    assert not grads["c0"].any()
    assert grads["x"][3:].all()


def test_the_gradients_handed_in_are_left_alone(ops):
    a, rng = problem(T=4, B=2, E=3, H=5), np.random.default_rng(1)
    given_ = [rng.normal(size=(4, 2, 5)), rng.normal(size=(2, 5)), rng.normal(size=(2, 5))]
    before = [d.copy() for d in given_]
    backward(ops, a, *given_)
    for d, copy in zip(given_, before, strict=True):
        np.testing.assert_array_equal(d, copy)


def test_a_workspace_used_before_gives_the_same(ops):
    a, other = problem(T=4, B=2, E=3, H=5), problem(T=4, B=2, E=3, H=5, seed=9)
    work = ops.workspace()
    keep = ops.asarray(np.zeros((4, 2)))
    dy = ops.asarray(np.ones((4, 2, 5)))
    for b, resets in ((other, keep), (a, None)):
        p, x, h0, c0 = split(ops, b)
        y, _, cache = lstm_forward(ops, p, x, h0, c0, resets, work)
        y = ops.to_numpy(y).copy()
        dx, _, grads = lstm_backward(ops, p, dy, None, None, cache, work)
    assert_same([y], forward(ops, a)[:1])
    expected = backward(ops, a, np.ones((4, 2, 5)), None, None)
    assert_same(
        [ops.to_numpy(g) for g in (dx, grads["Wx"], grads["Wh"], grads["b"])],
        [expected[name] for name in ("x", "Wx", "Wh", "b")],
    )


# Against a naive LSTM -------------------------------------------------------------------------


def naive_forward(a, keep=None):
    """An LSTM in scalars, written from its equations and from nothing in the package."""
    Wx, Wh, b = a["Wx"].tolist(), a["Wh"].tolist(), a["b"].tolist()
    x, T, B = a["x"].tolist(), len(a["x"]), len(a["h0"])
    E, H = len(Wx), len(Wh)

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    y = np.empty((T, B, H))
    hT, cT = np.empty((2, B, H))
    for n in range(B):
        h, c = a["h0"][n].tolist(), a["c0"][n].tolist()
        for t in range(T):
            if keep is not None and keep[t][n] == 0:
                h, c = [0.0] * H, [0.0] * H
            z = list(b)
            for k in range(4 * H):
                for e in range(E):
                    z[k] += x[t][n][e] * Wx[e][k]
                for j in range(H):
                    z[k] += h[j] * Wh[j][k]
            for j in range(H):
                i, f, o = sigmoid(z[j]), sigmoid(z[H + j]), sigmoid(z[3 * H + j])
                g = math.tanh(z[2 * H + j])
                c[j] = f * c[j] + i * g
                h[j] = o * math.tanh(c[j])
            y[t, n] = h
        hT[n], cT[n] = h, c
    return y, hT, cT


shapes = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))
problems = st.builds(lambda shape, seed: problem(*shape, seed), shapes, st.integers(0, 1000))


@st.composite
def problems_with_keep(draw):
    a = draw(problems)
    T, B, _ = a["x"].shape
    resets = st.lists(st.tuples(st.integers(0, T - 1), st.integers(0, B - 1)), max_size=6)
    keep = np.ones((T, B))
    for t, n in draw(resets):
        keep[t, n] = 0
    return a, keep


@settings(max_examples=30, deadline=None)
@given(problems_with_keep())
def test_forward_is_the_naive_lstms(ops, case):
    a, keep = case
    assert_same(forward(ops, a, keep), naive_forward(a, keep))
    assert_same(forward(ops, a), naive_forward(a))


# Properties -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(problems_with_keep(), st.data())
def test_a_sequence_in_two_parts_is_the_whole(ops, case, data):
    a, keep = case
    cut = data.draw(st.integers(1, len(keep)), "cut")
    whole = forward(ops, a, keep)
    y, hT, cT = forward(ops, a | {"x": a["x"][:cut]}, keep[:cut])
    if cut < len(keep):
        rest = a | {"x": a["x"][cut:], "h0": hT, "c0": cT}
        y2, hT, cT = forward(ops, rest, keep[cut:])
        y = np.concatenate([y, y2])
    assert_same((y, hT, cT), whole)


@settings(max_examples=30, deadline=None)
@given(problems)
def test_steps_give_what_the_sequence_gives(ops, a):
    p, x, h, c = split(ops, a)
    outputs = []
    for x_t in x:
        h, c = lstm_step(ops, p, x_t, h, c)
        outputs.append(ops.to_numpy(h))
    assert_same((np.stack(outputs), ops.to_numpy(h), ops.to_numpy(c)), forward(ops, a))


def test_a_step_leaves_the_old_state_alone(ops):
    a = problem(T=1, B=2, E=3, H=4)
    p, x, h, c = split(ops, a)
    before = ops.to_numpy(h).copy(), ops.to_numpy(c).copy()
    lstm_step(ops, p, x[0], h, c)
    np.testing.assert_array_equal(ops.to_numpy(h), before[0])
    np.testing.assert_array_equal(ops.to_numpy(c), before[1])


@settings(max_examples=30, deadline=None)
@given(problems_with_keep(), st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_results(ops, case, random):
    a, keep = case
    order = list(range(keep.shape[1]))
    random.shuffle(order)
    y, hT, cT = forward(ops, a, keep)
    permuted = a | {"x": a["x"][:, order], "h0": a["h0"][order], "c0": a["c0"][order]}
    assert_same(forward(ops, permuted, keep[:, order]), (y[:, order], hT[order], cT[order]))


@settings(max_examples=30, deadline=None)
@given(problems, st.data())
def test_a_row_of_the_batch_is_alone(ops, a, data):
    n = data.draw(st.integers(0, len(a["h0"]) - 1), "row")
    y, hT, cT = forward(ops, a)
    row = a | {"x": a["x"][:, n : n + 1], "h0": a["h0"][n : n + 1], "c0": a["c0"][n : n + 1]}
    alone = forward(ops, row)
    assert_same(alone, (y[:, n : n + 1], hT[n : n + 1], cT[n : n + 1]))


@settings(max_examples=30, deadline=None)
@given(problems, st.data())
def test_a_reset_is_a_new_sequence(ops, a, data):
    T, B, _ = a["x"].shape
    t = data.draw(st.integers(0, T - 1), "t")
    keep = np.ones((T, B))
    keep[t] = 0
    y, hT, cT = forward(ops, a, keep)
    zero = np.zeros_like(a["h0"])
    new = forward(ops, a | {"x": a["x"][t:], "h0": zero, "c0": zero})
    assert_same(new, (y[t:], hT, cT))


def test_a_new_layer_remembers(ops):
    E, H = 30, 50
    p = lstm_init(ops, np.random.default_rng(0), E, H)
    p = {name: ops.to_numpy(value) for name, value in p.items()}
    assert {name: value.shape for name, value in p.items()} == {
        "Wx": (E, 4 * H),
        "Wh": (H, 4 * H),
        "b": (4 * H,),
    }
    i, f, g, o = np.split(p["b"], 4)
    assert (f == 1).all()
    assert not np.concatenate([i, g, o]).any()
    for name in ("Wx", "Wh"):
        assert 0.99 / np.sqrt(H) < np.abs(p[name]).max() <= 1 / np.sqrt(H)
        assert abs(p[name].mean()) < 5 / np.sqrt(3 * H * p[name].size)


def test_scratch_is_used_where_it_is_given_and_made_where_it_is_not(ops):
    a = problem(3, 2, 4, 5)
    dy = np.random.default_rng(1).normal(size=(3, 2, 5))
    expected = backward(ops, a, dy, None, None)
    p, x, h0, c0 = split(ops, a)
    _, _, cache = lstm_forward(ops, p, x, h0, c0)
    dx, (dh0, dc0), grads = lstm_backward(ops, p, ops.asarray(dy), None, None, cache)
    for name, g in (grads | {"x": dx, "h0": dh0, "c0": dc0}).items():
        np.testing.assert_array_equal(ops.to_numpy(g), expected[name], err_msg=name)
    work = ops.workspace()
    y, _, cache = lstm_forward(ops, p, x, h0, c0, None, work)
    dx, _, grads = lstm_backward(ops, p, ops.asarray(dy), None, None, cache, work)
    assert dx is work.array("dx", dx.shape)
    assert grads["Wh"] is work.array("dWh", grads["Wh"].shape)
    assert np.shares_memory(y, work.array("h", (4, 2, 5)))
