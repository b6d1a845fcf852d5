"""Embeddings: their gradients, and what they look up."""

import numpy as np
import pytest
from gradcheck import check_gradients, dense

from lstm_music.arrays import RowGradient
from lstm_music.network.config import HEADS, NOTE_HEADS, Config
from lstm_music.network.embedding import TokenEmbedding
from lstm_music.network.factored import FactoredEmbedding, Parts
from lstm_music.network.notes import NoteEmbedding

V, E = 7, 3
LOOKED_UP = tuple(head for head in HEADS if head != "biaxial")  # that: test_biaxial.py
WORDS = np.array([(0, -1), (1, 0), (1, 2), (2, 1), (3, 3), (2, -1), (3, 0)], np.int32).T


def make_embedding(head, V, E, C=1, D=1, words=None):
    return Config(V, E, head=head, classes=C, deltas=D).make_embedding(words)


def problem(ops, head, N=9, seed=0):
    """An embedding for a head, parameters that are all different, and inputs."""
    rng = np.random.default_rng(seed)
    embedding = make_embedding(head, V, E, 4, 4, Parts.by_id(ops, *WORDS))
    p = {name: rng.normal(size=shape) for name, shape in embedding.shapes().items()}
    if isinstance(embedding, NoteEmbedding):
        return embedding, p, (rng.random((N, V + 1)) < 0.4).astype(np.uint8)
    return embedding, p, rng.integers(V - 1, size=N, dtype=np.int32)  # the last occurs nowhere


def forward(ops, embedding, p, x, how="forward"):
    on = {name: ops.asarray(value) for name, value in p.items()}
    out = ops.xp.empty((len(x), E), ops.dtype)
    getattr(embedding, how)(ops, on, ops.asarray(x, x.dtype), out, ops.workspace())
    return ops.to_numpy(out).copy()


def backward(ops, embedding, p, x, dx):
    """Whole gradients on the host."""
    on, work = {name: ops.asarray(value) for name, value in p.items()}, ops.workspace()
    grads = embedding.backward(ops, on, ops.asarray(x, x.dtype), ops.asarray(dx), work)
    found = {}
    for name, g in grads.items():
        if isinstance(g, RowGradient):
            g = RowGradient(ops.to_numpy(g.rows), ops.to_numpy(g.values))
            found[name] = dense(g, p[name].shape)
        else:
            found[name] = ops.to_numpy(g).copy()
    return found


@pytest.mark.parametrize("N", [1, 9])
@pytest.mark.parametrize("head", LOOKED_UP)
def test_gradients(ops, head, N):
    embedding, p, x = problem(ops, head, N)
    dx = np.random.default_rng(1).normal(size=(N, E))

    def loss():
        return float((forward(ops, embedding, p, x) * dx).sum())

    check_gradients(loss, p, backward(ops, embedding, p, x, dx))


def by_hand(embedding, p, x):
    if isinstance(embedding, NoteEmbedding):
        return np.array([p["W"][row.astype(bool)].sum(axis=0) for row in x])
    if isinstance(embedding, TokenEmbedding):
        return np.array([p["W"][id] for id in x])
    return np.array([p["Wc"][WORDS[0][id]] + p["Wd"][max(WORDS[1][id], 0)] for id in x])


@pytest.mark.parametrize("how", ["forward", "step"])
@pytest.mark.parametrize("head", LOOKED_UP)
def test_rows_are_looked_up_and_added(any_ops, head, how):
    embedding, p, x = problem(any_ops, head)
    found = forward(any_ops, embedding, p, x, how)
    np.testing.assert_allclose(found, by_hand(embedding, p, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", LOOKED_UP)
def test_a_steps_bits_dont_depend_on_the_other_rows(any_ops, head):
    embedding, p, x = problem(any_ops, head, N=40)
    whole = forward(any_ops, embedding, p, x, "step")
    rtol = 1e-6 if any_ops.name == "cupy" else 0
    for n in range(len(x)):
        alone = forward(any_ops, embedding, p, x[n : n + 1], "step")[0]
        np.testing.assert_allclose(alone, whole[n], rtol)


@pytest.mark.parametrize("head", LOOKED_UP)
def test_new_parameters_are_normal_and_named(ops, head):
    embedding = make_embedding(head, 400, 30, 200, 100)
    p = {n: ops.to_numpy(v) for n, v in embedding.init(ops, np.random.default_rng(0)).items()}
    names = ["Wc", "Wd"] if head == "factored" else ["W"]
    rows = {"Wc": 200, "Wd": 100, "W": 401 if head in NOTE_HEADS else 400}
    assert {n: v.shape for n, v in p.items()} == {n: (rows[n], 30) for n in names}
    assert list(p) == list(embedding.shapes()) == names
    for value in p.values():
        assert abs(value.mean()) < 0.05 and value.std() == pytest.approx(1, abs=0.05)


def test_make_embedding():
    assert make_embedding("softmax", 5, 2) == TokenEmbedding(5, 2)
    assert make_embedding("factored", 5, 2, 3, 4) == FactoredEmbedding(3, 4, 2)
    assert make_embedding("sigmoid", 5, 2) == make_embedding("nade", 5, 2) == NoteEmbedding(5, 2)
