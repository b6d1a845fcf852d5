import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck import check_gradients
from lstm_music.heads import SoftmaxHead
from lstm_music.ops import numpy_ops


def problem(N, H, V, seed=0):
    """A head's parameters and inputs; about a quarter of the targets are -1."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(V, size=N, dtype=np.int32)
    targets[rng.random(N) < 0.25] = -1
    a = {"h": rng.normal(size=(N, H)), "W": rng.normal(size=(H, V)), "b": rng.normal(size=V)}
    return a, targets


def losses_and_grads(ops, a, targets, scale):
    a = {name: ops.asarray(value) for name, value in a.items()}
    losses, dh, grads = SoftmaxHead.losses_and_grads(
        ops, a, a["h"], ops.asarray(targets, np.int32), scale, ops.workspace()
    )
    grads = {name: ops.to_numpy(g) for name, g in (grads | {"h": dh}).items()}
    return ops.to_numpy(losses), grads


def losses(ops, a, targets):
    a = {name: ops.asarray(value) for name, value in a.items()}
    targets = ops.asarray(targets, np.int32)
    return ops.to_numpy(SoftmaxHead.losses(ops, a, a["h"], targets, ops.workspace()))


def chunked(patch, ops, rows, V):
    """Let logits be made for this many rows at a time; None leaves the limit as it is."""
    if rows:
        patch.setattr(numpy_ops, "LOGITS_BYTES", rows * V * ops.dtype.itemsize)


@pytest.mark.parametrize("rows", [None, 1, 3], ids=lambda rows: f"chunks of {rows}")
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 2, 3), (1, 3, 1), (7, 3, 5), (8, 1, 4), (10, 5, 7)]
)
def test_gradients(ops, monkeypatch, shape, rows):
    chunked(monkeypatch, ops, rows, shape[2])
    a, targets = problem(*shape)
    if len(targets) == 1:
        targets[:] = 0
    scale = 1 / 7
    found = losses_and_grads(ops, a, targets, scale)[1]

    def loss():
        return scale * float(losses_and_grads(ops, a, targets, scale)[0].sum())

    check_gradients(loss, a, found)


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_chunks_give_what_the_whole_gives(ops, monkeypatch, rows):
    N, H, V = 13, 6, 9
    a, targets = problem(N, H, V)
    whole, whole_grads = losses_and_grads(ops, a, targets, 0.5)
    whole_losses = losses(ops, a, targets)
    chunked(monkeypatch, ops, rows, V)
    parts, parts_grads = losses_and_grads(ops, a, targets, 0.5)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    np.testing.assert_allclose(losses(ops, a, targets), whole_losses, rtol=1e-12)
    for name, g in whole_grads.items():
        np.testing.assert_allclose(parts_grads[name], g, rtol=1e-10, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        problem,
        st.integers(1, 12),
        st.integers(1, 6),
        st.integers(1, 9),
        seed=st.integers(0, 1000),
    )
)
def test_losses_are_minus_the_log_of_the_softmax_of_the_logits(ops, case):
    a, targets = case
    logits = ops.to_numpy(
        SoftmaxHead.logits(ops, {n: ops.asarray(a[n]) for n in "Wb"}, ops.asarray(a["h"]))
    )
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    nats = [0 if y < 0 else -np.log(p[n, y]) for n, y in enumerate(targets)]
    np.testing.assert_allclose(losses(ops, a, targets), nats, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        losses_and_grads(ops, a, targets, 0.5)[0], nats, rtol=1e-10, atol=1e-12
    )


def test_rows_without_a_target_ask_for_nothing(ops):
    a, targets = problem(N=6, H=3, V=4)
    targets[:] = [0, -1, 3, -1, -1, 2]
    used = targets >= 0
    found, grads = losses_and_grads(ops, a, targets, 0.5)
    expected, expected_grads = losses_and_grads(ops, a | {"h": a["h"][used]}, targets[used], 0.5)
    assert not found[~used].any()
    assert not grads["h"][~used].any()
    np.testing.assert_allclose(found[used], expected, rtol=1e-12)
    np.testing.assert_allclose(grads["h"][used], expected_grads["h"], rtol=1e-12)
    for name in "Wb":
        np.testing.assert_allclose(grads[name], expected_grads[name], rtol=1e-10, atol=1e-14)


def test_no_targets_at_all(ops):
    a, targets = problem(N=3, H=2, V=4)
    targets[:] = -1
    found, grads = losses_and_grads(ops, a, targets, 1.0)
    assert not losses(ops, a, targets).any()
    assert not found.any()
    assert not any(g.any() for g in grads.values())


def test_a_new_heads_parameters(ops):
    H, V = 50, 20
    p = SoftmaxHead.init(ops, np.random.default_rng(0), H, V)
    W, b = ops.to_numpy(p["W"]), ops.to_numpy(p["b"])
    assert (W.shape, b.shape) == ((H, V), (V,))
    assert not b.any()
    assert 0.99 / np.sqrt(H) < np.abs(W).max() <= 1 / np.sqrt(H)
