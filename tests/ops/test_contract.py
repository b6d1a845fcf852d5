"""Every op of every backend against NumpyOps in float64, the reference.

A Case is one call of an op: its arguments, and those among them that its docstring lists as
overwritten. All other arguments must come back unchanged.
"""

import inspect
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import random_recall

from lstm_music.arrays import NO_NOTES, Mixture, RowGradient
from lstm_music.ops import NumpyOps, get_ops, workspace
from lstm_music.ops.reference.copying import BUCKETS
from lstm_music.ops.reference.maths import Adam, sigmoid
from lstm_music.ops.workspace import logit_chunks

REFERENCE = NumpyOps("float64")
RTOL = {"float64": 1e-10, "float32": 1e-4}

WORK = object()  # stands for scratch of the backend under test
UNSET = np.nan  # what an array holds that an op has to fill


class Case(NamedTuple):
    """args by name; writes, the arguments to compare; scratch, overwritten with anything.

    unit: the size of the results' terms, which bounds what cancellation may leave of them.
    """

    args: dict
    writes: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    unit: float = 1.0


# Running a case -------------------------------------------------------------------------------


def dirty_workspace(ops):
    """A workspace whose arrays hold NaN whenever they are asked for."""
    work = ops.workspace()
    clean = work.array

    def array(*args, **kwargs):
        a = clean(*args, **kwargs)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a

    work.array = array
    return work


def on_device(ops, value):
    """A copy of an argument on a backend, reals in its precision."""
    if value is WORK:
        return dirty_workspace(ops)
    if isinstance(value, RowGradient | Mixture):
        return type(value)(*(on_device(ops, a) for a in value))
    if isinstance(value, np.ndarray):
        # A transposed argument stays transposed.
        flat = value.T if value.ndim == 2 and not value.flags.c_contiguous else value
        copy = ops.asarray(flat.copy(), flat.dtype if flat.dtype.kind in "iu" else None)
        return copy if flat is value else copy.T
    return value


def on_host(ops, value):
    """The arrays of an argument or result, by a suffix of its name."""
    if isinstance(value, RowGradient | Mixture):
        return {f".{name}": ops.to_numpy(a) for name, a in value._asdict().items()}
    if hasattr(value, "dtype"):
        return {"": ops.to_numpy(value)}
    return {"": np.asarray(value)} if isinstance(value, int | float) else {}


def run(ops, op, case):
    """Call an op; return what it wrote and returned. Fails if it touched anything else."""
    args = {name: on_device(ops, value) for name, value in case.args.items()}
    before = {
        name + suffix: a.copy()
        for name, value in args.items()
        for suffix, a in on_host(ops, value).items()
    }
    result = getattr(ops, op)(**args)
    found = {f"return{suffix}": a for suffix, a in on_host(ops, result).items()}
    for name, value in args.items():
        for suffix, a in on_host(ops, value).items():
            if name in case.writes:
                found[name + suffix] = a
            elif name not in case.scratch:
                np.testing.assert_array_equal(
                    a, before[name + suffix], f"{op} wrote to {name}{suffix}"
                )
    return found


def rounded(case):
    """The case with its reals rounded to float32, so that both precisions get the same."""

    def convert(value):
        if isinstance(value, RowGradient | Mixture):
            return type(value)(*map(convert, value))
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value.astype(np.float32).astype(np.float64)
        return value

    return case._replace(args={name: convert(value) for name, value in case.args.items()})


def assert_close(found, expected, rtol, unit=0.0, name=""):
    """Elementwise to rtol, or to a tenth of that of the array's largest element or unit."""
    assert found.shape == expected.shape, name
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(found, expected, rtol, 0.1 * rtol * max(largest, unit), err_msg=name)


def compare(ops, op, case):
    case = rounded(case)
    expected = run(REFERENCE, op, case)
    found = run(ops, op, case)
    assert set(found) == set(expected)
    for name, a in expected.items():
        if a.dtype.kind in "iu":
            np.testing.assert_array_equal(found[name], a, name)
        else:
            # Of a mixture, the log of what nothing was copied to is minus infinity.
            assert np.isfinite(found[name]).all() or ".copied" in name, f"{op}: {name} isn't finite"
            assert_close(found[name], a, RTOL[ops.dtype.name], case.unit, name)


# Cases ----------------------------------------------------------------------------------------

# Ones, sizes around those of vector units, none of them a multiple of anything.
sizes = st.sampled_from([1, 2, 3, 5, 7, 13, 17, 35])
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def draw_keep(draw, rng, shape):
    """None, or an array of 0 (reset) and 1: all of one kind, or mixed."""
    p = draw(st.sampled_from([None, 0.0, 0.6, 1.0]))
    return None if p is None else (rng.random(shape) < p).astype(np.float64)


def activations(rng, *shape):
    """Gates as a forward pass leaves them: sigmoids i, f, o and a tanh g."""
    *rest, H4 = shape
    i, f, o = rng.random((3, *rest, H4 // 4))
    g = np.tanh(rng.normal(0, 1, i.shape))
    return np.concatenate([i, f, g, o], axis=-1)


def factors(draw):
    """Two matrices that can be multiplied, each stored as it is or transposed; and their shape."""
    rng, M, K, N = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    a = rng.normal(size=(K, M)).T if draw(st.booleans()) else rng.normal(size=(M, K))
    b = rng.normal(size=(N, K)).T if draw(st.booleans()) else rng.normal(size=(K, N))
    return {"a": a, "b": b}, rng, (M, K, N)


@st.composite
def matmul(draw):
    args, _, (M, K, N) = factors(draw)
    return Case(args | {"out": np.full((M, N), UNSET)}, ("out",), unit=K)


@st.composite
def matmul_add(draw):
    args, rng, (M, K, N) = factors(draw)
    return Case(args | {"out": rng.normal(size=(M, N))}, ("out",), unit=K)


@st.composite
def lstm_cell_forward(draw):
    rng, B, H = draw(rngs), draw(sizes), draw(sizes)
    size = draw(st.sampled_from([1, 10, 80]))  # 80 saturates every gate
    return Case(
        {
            "gates": size * rng.normal(size=(B, 4 * H)),
            "recurrent": rng.normal(size=(B, 4 * H)),
            "keep": draw_keep(draw, rng, B),
            "c_prev": rng.normal(size=(B, H)),
            "c": np.full((B, H), UNSET),
            "h": np.full((B, H), UNSET),
        },
        ("gates", "c", "h"),
    )


@st.composite
def lstm_step_forward(draw):
    rng, B, E, H = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    size = draw(st.sampled_from([1, 10]))
    return Case(
        {
            "x": size * rng.normal(size=(B, E)),
            "Wx": rng.normal(size=(E, 4 * H)) / np.sqrt(E),
            "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
            "b": rng.normal(size=4 * H),
            "h_prev": rng.normal(size=(B, H)),
            "c_prev": rng.normal(size=(B, H)),
            "c": np.full((B, H), UNSET),
            "h": np.full((B, H), UNSET),
        },
        ("c", "h"),
        unit=10,
    )


@st.composite
def lstm_cell_backward(draw):
    rng, B, H = draw(rngs), draw(sizes), draw(sizes)
    return Case(
        {
            "gates": activations(rng, B, 4 * H),
            "keep": draw_keep(draw, rng, B),
            "c_prev": rng.normal(size=(B, H)),
            "c": rng.normal(size=(B, H)),
            "dh": rng.normal(size=(B, H)),
            "dc": rng.normal(size=(B, H)),
        },
        ("gates", "dc"),
    )


STATES = ("gates", "c", "h", "hT", "cT")  # what a sequence writes going forward


def states(rng, T, B, H):
    """A sequence's initial state, and arrays for what becomes of it."""
    unset = {"c": (T + 1, B, H), "h": (T + 1, B, H), "hT": (B, H), "cT": (B, H)}
    return {"h0": rng.normal(size=(B, H)), "c0": rng.normal(size=(B, H))} | {
        name: np.full(shape, UNSET) for name, shape in unset.items()
    }


def gradients(rng, B, H, given=True):
    """Gradients of a sequence's final state, None for zero; arrays for others."""
    final = {name: rng.normal(size=(B, H)) if given else None for name in ("dhT", "dcT")}
    unset = {name: np.full((B, H), UNSET) for name in ("dh", "dc")}
    return final | unset | {"db": np.full(4 * H, UNSET)}


@st.composite
def lstm_sequence_forward(draw):
    rng, T, B, H = draw(rngs), draw(st.integers(1, 6)), draw(sizes), draw(sizes)
    return Case(
        {
            "gates": draw(st.sampled_from([1, 10])) * rng.normal(size=(T, B, 4 * H)),
            "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
            "b": rng.normal(size=4 * H),
            "keep": draw_keep(draw, rng, (T, B)),
            **states(rng, T, B, H),
            "work": WORK,
        },
        STATES,
    )


@st.composite
def lstm_sequence_backward(draw):
    rng, T, B, H = draw(rngs), draw(st.integers(1, 6)), draw(sizes), draw(sizes)
    return Case(
        {
            "gates": activations(rng, T, B, 4 * H),
            "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
            "keep": draw_keep(draw, rng, (T, B)),
            "c": rng.normal(size=(T + 1, B, H)),
            "h": rng.normal(size=(T + 1, B, H)),
            "dy": rng.normal(size=(T, B, H)),
            **gradients(rng, B, H, draw(st.booleans())),
            "work": WORK,
        },
        ("gates", "h", "dh", "dc", "db"),
    )


def draw_ids(draw, rng, V, N):
    """Ids below V: any, or one repeated."""
    if draw(st.booleans()):
        return np.full(N, rng.integers(V), np.int32)
    return rng.integers(V, size=N, dtype=np.int32)


@st.composite
def embedding_forward(draw):
    rng, V, E, T, B = draw(rngs), draw(sizes), draw(sizes), draw(sizes), draw(sizes)
    ids = draw_ids(draw, rng, V, T * B).reshape(T, B)
    W, out = rng.normal(size=(V, E)), np.full((T, B, E), UNSET)
    return Case({"W": W, "ids": ids, "out": out}, ("out",))


@st.composite
def embedding_backward(draw):
    rng, V, E, N = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    return Case({"ids": draw_ids(draw, rng, V, N), "dx": rng.normal(size=(N, E))}, unit=N)


@st.composite
def embedding_backward_dense(draw):
    rng, V, E, N = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    ids, dx, dW = draw_ids(draw, rng, V, N), rng.normal(size=(N, E)), np.full((V, E), UNSET)
    return Case({"ids": ids, "dx": dx, "dW": dW}, ("dW",), unit=N)


def draw_targets(rng, N, V):
    """Ids below V, about a quarter of them -1: no target."""
    targets = rng.integers(V, size=N, dtype=np.int32)
    targets[rng.random(N) < 0.25] = -1
    return targets


def draw_logits(draw, rng, N, V):
    """Logits of a common size, or all of ±80, or as far apart as float32's exp underflows."""
    kind = draw(st.sampled_from(["common", "shifted", "±80", "underflow"]))
    logits = rng.normal(size=(N, V))
    if kind == "shifted":
        return logits + 500 * rng.normal(size=(N, 1))
    if kind == "±80":
        return 80 * np.sign(logits)
    return 300 * logits if kind == "underflow" else logits


def draw_mix(draw, rng, N):
    """None, or a mixture: a third of the rows copy nothing, a few leave the network little."""
    if draw(st.booleans()):
        return None
    own, copied = np.log(rng.random((2, N)))
    copied[rng.random(N) < 0.3] = -np.inf
    own[rng.random(N) < 0.1] -= 30
    return Mixture(own, copied)


@st.composite
def copy_shares(draw):
    rng, N, K = draw(rngs), draw(sizes), draw(sizes)
    size = draw(st.sampled_from([1, 10]))
    args = {
        "scores": size * rng.normal(size=(N, K)),
        "recall": random_recall(rng, rng.random(N) < 0.8, K),
        "R": rng.normal(size=(K, BUCKETS)),
        "mix": Mixture(*np.full((2, N), UNSET)),
    }
    return Case(args, ("scores", "mix"))


@st.composite
def copy_backward(draw):
    rng, N, K = draw(rngs), draw(sizes) + draw(st.sampled_from([0, 600])), draw(sizes)
    scores, recall = rng.normal(size=(N, K)), random_recall(rng, rng.random(N) < 0.8, K)
    mix = Mixture(*np.full((2, N), UNSET))
    REFERENCE.copy_shares(scores, recall, rng.normal(size=(K, BUCKETS)), mix)
    losses = draw(st.sampled_from([5, 200])) * rng.random(N)  # exp of 200 overflows in float32
    REFERENCE.mix_losses(losses, mix)
    scale = draw(st.sampled_from([1.0, 1 / 7]))
    args = {"shares": scores, "recall": recall, "losses": losses, "scale": scale}
    unset = {"dR": np.full((K, BUCKETS), UNSET)}
    return Case(args | unset, ("shares", "dR"), unit=scale * np.sqrt(N))


@st.composite
def mix_losses(draw):
    rng, N = draw(rngs), draw(sizes)
    mix = draw_mix(lambda _: False, rng, N)
    return Case({"losses": 20 * rng.random(N), "mix": mix}, ("losses",))


@st.composite
def softmax_xent(draw):
    rng, N, V = draw(rngs), draw(sizes), draw(sizes)
    scale = draw(st.sampled_from([1.0, 1 / 7]))
    return Case(
        {
            "logits": draw_logits(draw, rng, N, V),
            "targets": draw_targets(rng, N, V),
            "losses": np.full(N, UNSET),
            "scale": scale,
            "mix": draw_mix(draw, rng, N),
        },
        ("logits", "losses"),
        unit=scale,
    )


@st.composite
def affine(draw):
    rng, B, K, N = draw(rngs), draw(sizes), draw(sizes), draw(st.sampled_from([1, 5, 35, 2100]))
    b = rng.normal(size=N) if draw(st.booleans()) else None
    return Case(
        {
            "x": rng.normal(size=(B, K)),
            "W": rng.normal(size=(K, N)),
            "b": b,
            "out": np.full((B, N), UNSET),
        },
        ("out",),
    )


@st.composite
def softmax_nll(draw):
    rng, N, V = draw(rngs), draw(sizes), draw(sizes)
    logits, targets = draw_logits(draw, rng, N, V), draw_targets(rng, N, V)
    args = {"logits": logits, "targets": targets, "losses": np.full(N, UNSET)}
    return Case(args, ("losses",), scratch=("logits",))


def linear_softmax(draw):
    """The arguments that the two linear_softmax ops share, and the shape N, H, V."""
    rng, N, H, V = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    args = {
        "h": rng.normal(size=(N, H)),
        "W": rng.normal(size=(H, V)) / np.sqrt(H),
        "b": draw(st.sampled_from([1, 80])) * rng.normal(size=V),
        "targets": draw_targets(rng, N, V),
        "losses": np.full(N, UNSET),
        "work": WORK,
    }
    return args, (N, H, V)


@st.composite
def linear_softmax_xent(draw):
    args, (N, H, V) = linear_softmax(draw)
    scale = draw(st.sampled_from([1.0, 1 / 7]))
    unset = {name: np.full(s, UNSET) for name, s in {"dh": (N, H), "dW": (H, V), "db": V}.items()}
    writes, mix = ("losses", "dh", "dW", "db"), draw_mix(draw, draw(rngs), N)
    return Case(args | unset | {"scale": scale, "mix": mix}, writes, unit=scale * np.sqrt(N))


@st.composite
def linear_softmax_nll(draw):
    return Case(linear_softmax(draw)[0], ("losses",))


def draw_notes(draw, rng, N, D):
    """Rows of notes 0 or 1: all off, all on, or mixed."""
    return (rng.random((N, D)) < draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))).astype(np.uint8)


def draw_note_targets(draw, rng, N, D):
    """Rows of notes, about a quarter of them without a target."""
    targets = draw_notes(draw, rng, N, D)
    targets[rng.random(N) < 0.25, 0] = NO_NOTES
    return targets


@st.composite
def note_embedding_forward(draw):
    rng, N, D, E = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    W, x, out = rng.normal(size=(D, E)), draw_notes(draw, rng, N, D), np.full((N, E), UNSET)
    return Case({"W": W, "x": x, "out": out}, ("out",), unit=D)


@st.composite
def note_embedding_backward(draw):
    rng, N, D, E = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    x, dx, dW = draw_notes(draw, rng, N, D), rng.normal(size=(N, E)), np.full((D, E), UNSET)
    return Case({"x": x, "dx": dx, "dW": dW}, ("dW",), unit=N)


@st.composite
def sigmoid_xent(draw):
    rng, N, D = draw(rngs), draw(sizes), draw(sizes)
    scale = draw(st.sampled_from([1.0, 1 / 7]))
    return Case(
        {
            "logits": draw_logits(draw, rng, N, D),
            "targets": draw_note_targets(draw, rng, N, D),
            "losses": np.full(N, UNSET),
            "scale": scale,
            "mix": draw_mix(draw, rng, N),
        },
        ("logits", "losses"),
        unit=scale,
    )


@st.composite
def sigmoid_nll(draw):
    rng, N, D = draw(rngs), draw(sizes), draw(sizes)
    logits, targets = draw_logits(draw, rng, N, D), draw_note_targets(draw, rng, N, D)
    args = {"logits": logits, "targets": targets, "losses": np.full(N, UNSET)}
    return Case(args, ("losses",), scratch=("logits",))


def nade(draw):
    """A NADE's biases and weights, with logits and hidden units of a common size or saturated."""
    rng, N, D, K = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    visible, hidden = rng.normal(size=(N, D)), rng.normal(size=(N, K))
    saturated = draw(st.sampled_from(["none", "visible", "hidden"]))
    if saturated == "visible":
        visible = 80 * np.sign(visible)
    if saturated == "hidden":
        hidden = 80 * np.sign(hidden)
    W, U = rng.normal(size=(D, K)), rng.normal(size=(D, K)) / np.sqrt(K)
    return {"visible": visible, "hidden": hidden, "W": W, "U": U}, rng, (N, D, K)


@st.composite
def nade_xent(draw):
    args, rng, (N, D, K) = nade(draw)
    scale = draw(st.sampled_from([1.0, 1 / 7]))
    more = {
        "targets": draw_note_targets(draw, rng, N, D),
        "scale": scale,
        "losses": np.full(N, UNSET),
        "dW": np.full((D, K), UNSET),
        "dU": np.full((D, K), UNSET),
        "work": WORK,
        "mix": draw_mix(draw, rng, N),
    }
    writes = ("visible", "hidden", "losses", "dW", "dU")
    return Case(args | more, writes, unit=scale * np.sqrt(N))


@st.composite
def nade_nll(draw):
    args, rng, (N, D, _) = nade(draw)
    more = {"targets": draw_note_targets(draw, rng, N, D), "losses": np.full(N, UNSET)}
    return Case(args | more, ("losses",), scratch=("visible", "hidden"))


@st.composite
def nade_sample(draw):
    args, rng, (N, D, _) = nade(draw)
    temperature = draw(st.sampled_from([1.0, 0.5, 3.0]))
    draws = clear_draws(rng, args, temperature)
    more = {"draws": draws, "temperature": temperature, "out": np.full((N, D), 7, np.uint8)}
    return Case(args | more, ("out",), scratch=("visible", "hidden"))


def clear_draws(rng, nade, temperature):
    """Numbers in 0 … 1, none so near its note's probability that rounding decides."""
    u, share = rng.random((2, *nade["visible"].shape))
    draws, a = np.empty_like(u), nade["hidden"].copy()
    for d, (w, weights) in enumerate(zip(nade["W"], nade["U"], strict=True)):
        z = nade["visible"][:, d] + sigmoid(a) @ weights
        p = sigmoid(z / temperature)
        on = u[:, d] < p
        draws[:, d] = np.where(on, 0.9 * p * share[:, d], 1 - 0.9 * (1 - p) * share[:, d])
        a += on[:, None] * w
    return draws


@st.composite
def dropout(draw):
    rng, T, B, E = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    whole = draw(st.none() | st.integers(B, B + 5))
    out = np.full((T, B, E), UNSET) if draw(st.booleans()) else None
    return Case(
        {
            "x": rng.normal(size=(T, B, E)),
            "out": out,
            "first": draw(st.integers(0, (whole or B) - B)),
            "whole": whole,
            "p": draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])),
            "seed": draw(st.integers(0, 2**64 - 1)),
            "stream": draw(st.integers(0, 2**32 - 1)),
            "step": draw(st.integers(0, 2**32 - 1)),
        },
        ("x",) if out is None else ("out",),
    )


@st.composite
def sum_squares(draw):
    rng, N, E = draw(rngs), draw(sizes), draw(sizes)
    return Case({"g": rng.normal(size=(N, E))})


def adam(draw, rng, shape):
    return {
        "p": rng.normal(size=shape),
        "m": 0.1 * rng.normal(size=shape),
        "v": 0.1 * rng.random(shape),
        "how": Adam(
            lr=draw(st.sampled_from([1e-3, 0.5])),
            t=draw(st.sampled_from([1, 2, 10, 100_000])),
            scale=draw(st.sampled_from([1.0, 0.3])),
            decay=draw(st.sampled_from([0.0, 0.01, 0.3])),
            beta1=draw(st.sampled_from([0.9, 0.5])),
            beta2=draw(st.sampled_from([0.999, 0.9])),
            eps=draw(st.sampled_from([1e-8, 1e-3])),
        ),
    }


@st.composite
def adam_step(draw):
    rng, V, E = draw(rngs), draw(sizes), draw(sizes)
    shape = draw(st.sampled_from([(V, E), (V,)]))
    g = rng.normal(size=shape)
    return Case(adam(draw, rng, shape) | {"g": g}, ("p", "m", "v"), unit=0.1)


@st.composite
def adam_step_rows(draw):
    rng, V, E = draw(rngs), draw(sizes), draw(sizes)
    rows = np.unique(draw_ids(draw, rng, V, draw(sizes)))
    g = RowGradient(rows, rng.normal(size=(len(rows), E)))
    return Case(adam(draw, rng, (V, E)) | {"g": g}, ("p", "m", "v"), unit=0.1)


@st.composite
def average_step(draw):
    rng, V, E = draw(rngs), draw(sizes), draw(sizes)
    shape = draw(st.sampled_from([(V, E), (V,)]))
    p, mean, rate = rng.normal(size=shape), rng.normal(size=shape), draw(st.floats(0, 1))
    return Case({"p": p, "mean": mean, "rate": rate}, ("mean",), unit=1)


CASES = {
    case.__name__: case
    for case in (
        matmul,
        matmul_add,
        lstm_cell_forward,
        lstm_step_forward,
        lstm_cell_backward,
        lstm_sequence_forward,
        lstm_sequence_backward,
        embedding_forward,
        embedding_backward,
        embedding_backward_dense,
        softmax_xent,
        affine,
        softmax_nll,
        linear_softmax_xent,
        linear_softmax_nll,
        note_embedding_forward,
        note_embedding_backward,
        sigmoid_xent,
        sigmoid_nll,
        nade_xent,
        nade_nll,
        nade_sample,
        copy_shares,
        copy_backward,
        mix_losses,
        dropout,
        sum_squares,
        adam_step,
        adam_step_rows,
        average_step,
    )
}


# Tests ----------------------------------------------------------------------------------------


def public_methods(cls):
    return {
        name: method
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_op_has_a_case():
    others = {"asarray", "aligned", "to_numpy", "workspace"}
    assert set(CASES) == set(public_methods(NumpyOps)) - others


def test_signatures_are_the_contracts(ops):
    for name in public_methods(NumpyOps):
        method, contract = getattr(ops, name), getattr(REFERENCE, name)
        assert inspect.signature(method) == inspect.signature(contract), name


@pytest.mark.parametrize("op", CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_op_agrees_with_the_reference(any_ops, op, data):
    compare(any_ops, op, data.draw(CASES[op]()))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("op", ["linear_softmax_xent", "linear_softmax_nll"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_chunks_of_rows_give_what_the_whole_gives(any_ops, op, rows, data):
    case = rounded(data.draw(CASES[op]()))
    V = len(case.args["b"])
    whole = run(any_ops, op, case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "LOGITS_BYTES", rows * V * any_ops.dtype.itemsize)
        chunked = run(any_ops, op, case)
    for name, a in whole.items():
        assert_close(chunked[name], a, RTOL[any_ops.dtype.name], case.unit, name)


@settings(max_examples=50, deadline=None)
@given(N=st.integers(1, 100), V=st.integers(1, 50), limit=st.integers(1, 10_000))
def test_logit_chunks_cover_the_rows_once_within_the_limit(N, V, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "LOGITS_BYTES", limit)
        chunks = list(logit_chunks(N, V, REFERENCE.workspace()))
    covered = [n for rows, _ in chunks for n in range(N)[rows]]
    assert covered == list(range(N))
    for rows, logits in chunks:
        assert logits.shape == (len(range(N)[rows]), V)
        assert logits.nbytes <= limit or len(logits) == 1


@pytest.mark.parametrize("op", ["matmul", "matmul_add"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_matmul_multiplies(any_ops, op, data):
    case = rounded(data.draw(CASES[op]()))
    expected = np.einsum("mk,kn->mn", case.args["a"], case.args["b"])
    if op == "matmul_add":
        expected += case.args["out"]
    found = run(any_ops, op, case)["out"]
    assert_close(found, expected, RTOL[any_ops.dtype.name], case.unit)


def xent(ops, logits, targets, scale=1.0):
    args = {
        "logits": np.array(logits, np.float64),
        "targets": np.array(targets, np.int32),
        "losses": np.full(len(targets), UNSET),
        "scale": scale,
    }
    found = run(ops, "softmax_xent", Case(args, ("logits", "losses")))
    return found["losses"], found["logits"]


def test_softmax_xent_of_one_row_by_hand(any_ops):
    losses, gradient = xent(any_ops, np.log([[1, 2, 5]]), [1], scale=0.5)
    np.testing.assert_allclose(losses, [np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0.0625, -0.375, 0.3125]], rtol=1e-6)


@pytest.mark.parametrize("gap", [80, 120, 1000, 3e4])
def test_a_target_whose_probability_underflows_has_its_finite_loss(any_ops, gap):
    losses, gradient = xent(any_ops, [[0, -gap, -gap], [gap, 0, 0], [-gap, 0, -gap]], [1, 2, 0])
    np.testing.assert_allclose(losses, gap, rtol=1e-6)
    expected = [[1, -1, 0], [1, 0, -1], [-1, 1, 0]]
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_probabilities_are_good_to_a_millionth(any_ops):
    """Whatever stands for exp(x), from 0 to -50; a GPU's own loses with |x|."""
    x = np.linspace(0, -50, 20_001).astype(np.float32).astype(np.float64)
    logits, p = np.stack([np.zeros_like(x), x], axis=1), np.exp(x) / (1 + np.exp(x))
    _, gradient = xent(any_ops, logits, np.zeros(len(x)))
    assert (np.abs(gradient[:, 1] / p - 1) < 1e-6 * (1 - x / 5)).all()
    losses, gradient = xent(any_ops, logits, np.ones(len(x)))
    np.testing.assert_allclose(gradient[:, 0], 1 - p, rtol=1e-6)
    np.testing.assert_allclose(losses, np.log1p(np.exp(x)) - x, rtol=2e-6)


def test_gates_are_good_to_a_millionth(any_ops):
    """Whatever stands for tanh and the sigmoid: pre-activations from -20 to 20."""
    x = np.linspace(-20, 20, 20_001).astype(np.float32).astype(np.float64)[:, None]
    args = {
        "gates": np.tile(x, 4),
        "recurrent": np.zeros((len(x), 4)),
        "keep": None,
        "c_prev": np.zeros_like(x),
        "c": np.zeros_like(x),
        "h": np.zeros_like(x),
    }
    gates = run(any_ops, "lstm_cell_forward", Case(args, ("gates", "c", "h")))["gates"]
    sigmoid, tanh = 1 / (1 + np.exp(-x)), np.tanh(x)
    expected = np.concatenate([sigmoid, sigmoid, tanh, sigmoid], axis=1)
    np.testing.assert_allclose(gates, expected, rtol=0, atol=1e-6)


def test_no_target_means_no_loss_and_no_gradient(any_ops):
    losses, gradient = xent(any_ops, [[1, 2, 3], [80, -80, 0]], [-1, -1])
    assert not losses.any()
    assert not gradient.any()


def test_one_word_is_certain(any_ops):
    losses, gradient = xent(any_ops, [[3.0], [-80.0]], [0, -1])
    assert not losses.any()
    assert not gradient.any()


def with_mixtures(op, case, *copied):
    """A case, and of an op that takes mixtures the same of those whose copies have such shares."""
    yield case
    N = len(case.args["losses"])
    for share in copied if op.endswith("xent") else ():
        mix = Mixture(np.full(N, -0.7), np.full(N, share))
        yield case._replace(args=case.args | {"mix": mix})


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("op", ["softmax_xent", "softmax_nll"])
def test_a_loss_shows_that_a_logit_is_no_number(any_ops, op, bad):
    """Training stops at such a loss; wherever it is hidden, it must come out, of a mixture too."""
    V = 35
    logits = np.zeros((V, V))
    np.fill_diagonal(logits, bad)
    args = {
        "logits": logits,
        "targets": np.full(V, 3, np.int32),
        "losses": np.zeros(V),
    } | ({"scale": 1.0} if op == "softmax_xent" else {})
    plain = Case(args, ("losses",), scratch=("logits",))
    for case in with_mixtures(op, plain, -0.7, -np.inf):
        assert not np.isfinite(run(any_ops, op, case)["losses"]).any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_state_shows_that_a_gate_is_no_number(any_ops):
    H = 35
    gates = np.zeros((4 * H, 4 * H))
    np.fill_diagonal(gates, np.nan)
    args = {
        "gates": gates,
        "recurrent": np.zeros((4 * H, 4 * H)),
        "keep": None,
        "c_prev": np.zeros((4 * H, H)),
        "c": np.zeros((4 * H, H)),
        "h": np.zeros((4 * H, H)),
    }
    h = run(any_ops, "lstm_cell_forward", Case(args, ("gates", "c", "h")))["h"]
    assert np.isnan(h[np.arange(4 * H), np.arange(4 * H) % H]).all()


def test_a_sum_of_squares_shows_that_an_element_is_no_number(any_ops):
    for k in range(35):
        g = np.zeros(35)
        g[k] = np.nan
        assert np.isnan(any_ops.sum_squares(any_ops.asarray(g)))


def not_finite(op, bad):
    """A case of 35 rows, each with one input that is no finite number, each in another place."""
    N = D = K = 35
    targets = (np.arange(N * D).reshape(N, D) % 3 == 0).astype(np.uint8)
    names = ("visible", "hidden", "W", "U") if op.startswith("nade") else ("logits",)
    shapes = {"visible": (N, D), "hidden": (N, K), "W": (D, K), "U": (D, K), "logits": (N, D)}
    args = {name: np.zeros(shapes[name]) for name in names}
    np.fill_diagonal(args[names[0]], bad)
    args |= {"targets": targets, "losses": np.zeros(N)}
    if op.endswith("xent"):
        args["scale"] = 1.0
    if op == "nade_xent":
        args |= {"dW": np.zeros((D, K)), "dU": np.zeros((D, K)), "work": WORK}
    return Case(args, ("losses",), scratch=("logits", "visible", "hidden", "dW", "dU"))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("op", ["sigmoid_xent", "sigmoid_nll", "nade_xent", "nade_nll"])
def test_a_loss_of_notes_shows_that_a_logit_is_no_number(any_ops, op, bad):
    # A copy makes up for a network that is sure of the contrary: such a loss is finite.
    copied = (-np.inf,) if bad == -np.inf else (-0.7, -np.inf)
    for case in with_mixtures(op, not_finite(op, bad), *copied):
        assert not np.isfinite(run(any_ops, op, case)["losses"]).any()


@pytest.mark.parametrize("op", ["nade_xent", "nade_nll"])
def test_a_loss_of_notes_shows_that_a_hidden_unit_is_no_number(any_ops, op):
    case = not_finite(op, 0.0)
    case.args["hidden"][0, 3] = case.args["hidden"][7, 34] = np.nan
    losses = run(any_ops, op, case)["losses"]
    assert np.flatnonzero(np.isnan(losses)).tolist() == [0, 7]


def test_rows_of_an_embedding_gradient_are_sorted_unique_sums(any_ops):
    ids = np.array([4, 0, 4, 2, 4], np.int32)
    dx = np.array([[1, 2], [3, 4], [10, 20], [5, 6], [100, 200]], any_ops.dtype)
    gradient = any_ops.embedding_backward(any_ops.asarray(ids, np.int32), any_ops.asarray(dx))
    assert any_ops.to_numpy(gradient.rows).tolist() == [0, 2, 4]
    assert any_ops.to_numpy(gradient.values).tolist() == [[3, 4], [5, 6], [111, 222]]


def test_a_workspace_keeps_its_arrays_by_name_until_the_shape_changes(any_ops):
    work = any_ops.workspace()
    first = work.array("a", (2, 3))
    assert (first.shape, first.dtype) == ((2, 3), any_ops.dtype)
    assert work.array("b", (2, 3)) is not first
    assert work.array("a", (2, 3)) is first
    assert work.array("a", (3, 2)).shape == (3, 2)


@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 100, 192)])
def test_scratch_of_the_host_begins_at_a_cache_line(shape):
    work = workspace.Workspace(np, "float32")
    for name in "abc":
        made = work.array(name, shape)
        assert made.ctypes.data % workspace.LINE == 0
        assert (made.shape, made.dtype, made.flags.c_contiguous) == (shape, np.float32, True)


@pytest.mark.parametrize("shapes", [(20, 30, 40), (2, 3, 4), (300, 200, 200)])
def test_no_product_is_written_to_columns(any_ops, shapes):
    """An array indexed by columns lies by columns: what took it for rows wrote wrong values."""
    M, K, N = shapes
    xp, rng = any_ops.xp, np.random.default_rng(0)
    a, b = (any_ops.asarray(rng.normal(size=shape)) for shape in ((M, K), (K, N)))
    out = xp.zeros((N, M), any_ops.dtype).T
    if any_ops.name == "numpy":
        any_ops.matmul(a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
        return
    with pytest.raises(AssertionError, match="contiguous"):
        any_ops.matmul(a, b, out)
    any_ops.matmul(a, b[:, :1], xp.zeros((1, M), any_ops.dtype).T)


def test_a_large_parameter_is_updated_as_its_parts_are():
    """Small ones by one thread, large ones by all: the same bits."""
    pytest.importorskip("numba")
    from lstm_music.ops.cpu.updates import SMALL

    ops, rng = get_ops("numba"), np.random.default_rng(0)
    whole = [rng.random(2 * SMALL).astype(np.float32) for _ in range(5)]  # p, g, m, v, mean
    parts = [a.copy().reshape(4, -1) for a in whole]
    how = Adam(1e-3, 3, 0.5, 0.1)
    ops.adam_step(*whole[:4], how)
    ops.average_step(whole[0], whole[4], 0.01)
    for p, g, m, v, mean in zip(*parts, strict=True):
        ops.adam_step(p, g, m, v, how)
        ops.average_step(p, mean, 0.01)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b.reshape(-1))


def test_asarray_converts_to_the_backends_precision_and_back(any_ops):
    transposed = np.arange(6.0).reshape(2, 3).T
    a = any_ops.asarray(transposed)
    assert (a.dtype, a.flags.c_contiguous) == (any_ops.dtype, True)
    assert any_ops.asarray([1, 2], np.int32).dtype == np.int32
    assert type(any_ops.to_numpy(a)) is np.ndarray
    np.testing.assert_array_equal(any_ops.to_numpy(a), transposed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("M", "K", "N"), [(1, 3, 5), (25, 128, 512), (25, 512, 128), (7, 33, 132)])
def test_the_product_of_a_time_step_is_the_product(M, K, N, dtype):
    """Numba's own product of few rows, at sizes that leave rests, from a slice of a batch."""
    numba = pytest.importorskip("numba")
    from lstm_music.ops.cpu.panels import small_product

    @numba.njit
    def product(a, b, out):
        small_product(a, b, out)

    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 1, shape).astype(dtype) for shape in ((M + 2, K), (K, N)))
    out = np.full((M, N), np.nan, dtype)
    product(a[1:-1], b, out)
    expected = a[1:-1].astype(np.float64) @ b.astype(np.float64)
    bound = {4: 1e-5, 8: 1e-13}[a.itemsize] * np.abs(expected).max()
    np.testing.assert_allclose(out, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("M", "K", "N"), [(4, 4, 96), (7, 5, 97), (30, 1100, 224), (128, 513, 600), (6, 9, 4099)]
)
def test_a_gradient_of_weights_is_the_product_in_parts_and_added_up(M, K, N, threads):
    """Numba's own product of xᵀ·d, beside the BLAS's, at sizes that leave rests of each kind."""
    pytest.importorskip("numba")
    from lstm_music.ops.cpu.panels import wide_product

    rng = np.random.default_rng(0)
    x, d = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((K, M), (K, N)))
    expected = x.T.astype(np.float64) @ d
    bound = 1e-5 * np.abs(expected).max()
    out = np.full((M, N), np.nan, np.float32)
    wide_product(x, d, np.empty((M, K), np.float32), out, 0.0, threads)
    np.testing.assert_allclose(out, expected, rtol=0, atol=bound)
    ops = get_ops("numba")
    out[...] = np.nan
    ops.matmul(x.T, d, out)
    ops.matmul_add(x.T, d, out)
    np.testing.assert_allclose(out, 2 * expected, rtol=0, atol=2 * bound)
