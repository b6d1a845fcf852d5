"""The ops of notes: their gradients, and that a NADE is a distribution which its samples follow."""

import itertools

import numpy as np
import pytest
from gradcheck import check_gradients

from lstm_music.arrays import NO_NOTES
from lstm_music.ops.reference.maths import sigmoid

D, K = 4, 3


def nade(rng, D, K):
    """The weights of a NADE, and the biases of one row."""
    return {
        "visible": rng.normal(size=D),
        "hidden": rng.normal(size=K),
        "W": rng.normal(size=(D, K)),
        "U": rng.normal(size=(D, K)),
    }


def every_set(D):
    """All 2^D sets of notes, (2^D, D) uint8."""
    return np.array(list(itertools.product((0, 1), repeat=D)), np.uint8)


def by_the_definition(p, notes, temperature=1.0):
    """The probability of each row of notes, note by note as the paper has it."""
    found = np.ones(len(notes))
    for n, row in enumerate(notes):
        for d, on in enumerate(row):
            hidden = sigmoid(p["hidden"] + row[:d] @ p["W"][:d])
            q = sigmoid((p["visible"][d] + p["U"][d] @ hidden) / temperature)
            found[n] *= q if on else 1 - q
    return found


def nade_losses(ops, p, targets):
    """Nats of rows of notes under the NADE of one row, or of as many rows."""
    N = len(targets)
    visible, hidden = (
        ops.asarray(np.broadcast_to(p[k], (N, p[k].shape[-1])).copy())
        for k in ("visible", "hidden")
    )
    losses = ops.asarray(np.full(N, np.nan))
    W, U = ops.asarray(p["W"]), ops.asarray(p["U"])
    ops.nade_nll(visible, hidden, ops.asarray(targets, np.uint8), W, U, losses)
    return ops.to_numpy(losses)


@pytest.mark.parametrize("seed", range(3))
def test_nade_gives_each_set_of_notes_its_probability(any_ops, seed):
    p = nade(np.random.default_rng(seed), D, K)
    found = np.exp(-nade_losses(any_ops, p, every_set(D)).astype(np.float64))
    rtol = 1e-10 if any_ops.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, by_the_definition(p, every_set(D)), rtol=rtol)
    np.testing.assert_allclose(found.sum(), 1, rtol=rtol)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_nade_samples_follow_its_distribution(any_ops, temperature):
    """Pearson's chi-square of 16 sets, 15 degrees of freedom: above 50 once in 100,000 seeds."""
    p, N = nade(np.random.default_rng(0), D, K), 40_000
    draws = np.random.default_rng(1).random((N, D))
    visible, hidden = (
        any_ops.asarray(np.broadcast_to(p[k], (N, len(p[k]))).copy()) for k in ("visible", "hidden")
    )
    W, U, out = any_ops.asarray(p["W"]), any_ops.asarray(p["U"]), np.empty((N, D), np.uint8)
    out = any_ops.asarray(out, np.uint8)
    # float64 whatever the ops' type: the contract takes both.
    any_ops.nade_sample(visible, hidden, W, U, any_ops.asarray(draws, "f8"), temperature, out)
    counts = np.bincount(any_ops.to_numpy(out) @ (8, 4, 2, 1), minlength=16)
    expected = N * by_the_definition(p, every_set(D), temperature)
    assert expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum() < 50


def test_gradients_of_a_nade(ops):
    rng, N = np.random.default_rng(0), 6
    p = nade(rng, D, K) | {"visible": rng.normal(size=(N, D)), "hidden": rng.normal(size=(N, K))}
    targets = (rng.random((N, D)) < 0.5).astype(np.uint8)
    targets[0], targets[1], targets[2, 0] = 0, 1, NO_NOTES
    device = {k: ops.asarray(v.copy()) for k, v in p.items()}
    losses, dW, dU = (ops.asarray(np.full(s, np.nan)) for s in (N, (D, K), (D, K)))
    notes = ops.asarray(targets, np.uint8)
    ops.nade_xent(
        device["visible"], device["hidden"], notes, device["W"], device["U"], 0.7, losses, dW, dU,
        ops.workspace(),
    )  # fmt: skip
    grads = {"visible": device["visible"], "hidden": device["hidden"], "W": dW, "U": dU}
    grads = {k: ops.to_numpy(g) for k, g in grads.items()}
    check_gradients(lambda: 0.7 * float(nade_losses(ops, p, targets).sum()), p, grads)


def test_gradients_of_independent_notes(ops):
    rng, N = np.random.default_rng(0), 5
    targets = (rng.random((N, D)) < 0.5).astype(np.uint8)
    targets[3, 0] = NO_NOTES
    logits = rng.normal(size=(N, D))
    notes = ops.asarray(targets, np.uint8)
    gradient, losses = ops.asarray(logits.copy()), ops.asarray(np.full(N, np.nan))
    ops.sigmoid_xent(gradient, notes, losses, 0.3)

    def loss():
        found = ops.asarray(np.full(N, np.nan))
        ops.sigmoid_nll(ops.asarray(logits.copy()), notes, found)
        return 0.3 * float(ops.to_numpy(found).sum())

    check_gradients(loss, {"logits": logits}, {"logits": ops.to_numpy(gradient)})


def test_gradient_of_an_embedding_of_notes(ops):
    rng, N, E = np.random.default_rng(0), 6, 3
    W, weights = rng.normal(size=(D, E)), rng.normal(size=(N, E))
    x = ops.asarray(rng.random((N, D)) < 0.4, np.uint8)

    def loss():
        out = ops.asarray(np.full((N, E), np.nan))
        ops.note_embedding_forward(ops.asarray(W), x, out)
        return float((weights * ops.to_numpy(out)).sum())

    dW = ops.asarray(np.full((D, E), np.nan))
    ops.note_embedding_backward(x, ops.asarray(weights), dW)
    check_gradients(loss, {"W": W}, {"W": ops.to_numpy(dW)})


def test_independent_notes_by_hand(any_ops):
    logits = any_ops.asarray(np.log([[3.0, 0.25], [1.0, 1.0]]))
    targets = any_ops.asarray([[1, 0], [NO_NOTES, 1]], np.uint8)
    losses = any_ops.asarray([np.nan, np.nan])
    any_ops.sigmoid_xent(logits, targets, losses, 2.0)
    # Probabilities 3/4 and 1/5; the second row has no target.
    expected = [-np.log(0.75) - np.log(0.8), 0]
    np.testing.assert_allclose(any_ops.to_numpy(losses), expected, rtol=1e-6)
    np.testing.assert_allclose(any_ops.to_numpy(logits), [[-0.5, 0.4], [0, 0]], rtol=1e-6)
