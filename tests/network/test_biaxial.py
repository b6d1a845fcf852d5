"""A biaxial network beside what test_heads.py and test_model.py ask of all: what notes read."""

from itertools import product

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from small import as_read
from test_model import check_model, random_batch, some_resets

from lstm_music.arrays import NO_NOTES, Batch
from lstm_music.network.biaxial import PLACES, Neighbourhood, row_width
from lstm_music.network.config import Config, State
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.ops import NumpyOps
from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING

KINDS = [0] * 1 + [1] * 2 + [2] * 2 + [3] * 5 + [4] * 3  # by bucket


def row(D, notes=(), place=0, start=0, candidates=()):
    """An input (1, width): notes that sound, and the notes and bucket, from 1, of candidates."""
    x = np.zeros(row_width(D, len(candidates)), np.uint8)
    x[list(notes)], x[D], x[D + 1] = 1, start, place
    for k, (told, bucket) in enumerate(candidates):
        x[D + 2 + k * D + np.array(told, int)] = 1
        x[D + 2 + len(candidates) * D + k] = bucket
    return x[None]


def read(D, x, K=0):
    """What each note reads of one input for itself (D, F), and all alike (G,)."""
    embedding, ops = Neighbourhood(D, 1, K), NumpyOps("float64")
    F, G = (embedding.shapes()[name][0] for name in ("W", "frame"))
    embedding = Neighbourhood(D, F + G, K)
    p = {"W": np.eye(F, F + G), "frame": np.eye(G, F + G, F), "pitch": np.zeros((D, F + G))}
    out = np.empty((1, D * (F + G)))
    embedding.forward(ops, p, x, out, ops.workspace())
    notes = out.reshape(D, F + G)
    assert (notes[:, F:] == notes[0, F:]).all()
    return notes[:, :F], notes[0, F:]


def test_a_note_reads_an_octave_on_both_sides_and_how_many_sound_at_each_place_above_it():
    near, _ = read(30, row(30, (0, 2, 12, 13, 25)))
    assert near.shape == (30, 25 + 12)
    # Of note 1: those an octave below to an octave above it, itself in the middle.
    assert np.flatnonzero(near[1, :25]).tolist() == [11, 13, 23, 24]
    assert near[1, 25:].tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]  # 13 and 25, 2, 0 and 12
    assert np.flatnonzero(near[25, :25]).tolist() == [0, 12]
    assert near[25, 25:].tolist() == near[1, 25:].tolist() == near[13, 25:].tolist()
    assert near[24, 25:].tolist() == near[0, 25:].tolist() == [2, 2, 1, *[0] * 9]


@pytest.mark.parametrize(("place", "start"), [(0, 1), (5, 0), (13, 0), (31, 0), (PLACES - 1, 0)])
def test_all_notes_read_the_start_and_the_place_in_bars_of_four_and_of_three(place, start):
    _, frame = read(3, row(3, (), place, start))
    assert frame.shape == (1 + 16 + 12,)
    assert frame[0] == start
    assert np.flatnonzero(frame[1:]).tolist() == [place % 16, 16 + place % 12]


@pytest.mark.parametrize("bucket", range(BUCKETS))
def test_a_note_reads_which_candidates_tell_it_and_how_far_these_are_to_be_trusted(bucket):
    """Beside one of another kind, and one that isn't there though its bits are set."""
    x = row(4, (), 0, 0, [((0, 2), bucket + 1), ((2, 3), 3), ((0, 1, 2, 3), 0)])
    near, frame = read(4, x, K=3)
    told = near[:, 25 + 12 :].reshape(4, 3, 5)
    expected = np.zeros((4, 3, 5))
    expected[[0, 2], 0, KINDS[bucket]] = expected[[2, 3], 1, KINDS[2]] = 1
    np.testing.assert_array_equal(told, expected)
    assert np.flatnonzero(frame[29:]).tolist() == [bucket, BUCKETS + 2]


def by_definition(D, K, p, x):
    """What each note reads of an input, (D, E), an element at a time."""
    notes, told = x[:D], x[D + 2 : D + 2 + K * D].reshape(K, D)
    buckets, place, out = x[D + 2 + K * D :], x[D + 1], []
    frame = [x[D], *(place % 16 == np.arange(16)), *(place % 12 == np.arange(12))]
    frame += [bucket == n + 1 for bucket in buckets for n in range(BUCKETS)]
    for d in range(D):
        near = [notes[d + n] if 0 <= d + n < D else 0 for n in range(-12, 13)]
        near += [sum(notes[m] for m in range(D) if (m - d) % 12 == n) for n in range(12)]
        for bits, bucket in zip(told, buckets.tolist(), strict=True):
            near += [bits[d] * (bucket > 0 and KINDS[bucket - 1] == kind) for kind in range(5)]
        own = (value * row for value, row in zip(near, p["W"], strict=True))
        alike = (value * row for value, row in zip(frame, p["frame"], strict=True))
        out.append(sum(own) + sum(alike) + p["pitch"][d])
    return np.array(out)


def case(D, E, K, N, seed):
    """An embedding, its parameters and inputs."""
    rng = np.random.default_rng(seed)
    embedding, config = Neighbourhood(D, E, K), Config(D, head="biaxial", copy=K)
    p = {name: rng.normal(size=shape) for name, shape in embedding.shapes().items()}
    return embedding, p, as_read(rng, config, rng.integers(2, size=(N, D + 1), dtype=np.uint8))


@settings(max_examples=20, deadline=None)
@given(
    st.builds(
        case,
        st.sampled_from([1, 5, 12, 13, 24, 27]),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(1, 3),
        st.integers(0, 1000),
    )
)
def test_what_notes_read_is_what_is_defined(ops, made):
    embedding, p, x = made
    E = embedding.E
    expected = [by_definition(embedding.D, embedding.K, p, row).reshape(-1) for row in x]
    given, x = {name: ops.asarray(a) for name, a in p.items()}, ops.asarray(x, np.uint8)
    for function in (embedding.forward, embedding.step):
        out = ops.xp.empty((len(x), embedding.D * E), ops.dtype)
        function(ops, given, x, out, ops.workspace())
        np.testing.assert_allclose(ops.to_numpy(out), expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_what_notes_read(ops):
    embedding, p, x = case(14, 2, 2, 3, 0)
    d = np.random.default_rng(1).normal(size=(3, 14 * 2))
    given, work = ops.asarray(x, np.uint8), ops.workspace()

    def out():
        out = ops.xp.empty(d.shape, ops.dtype)
        on = {name: ops.asarray(a) for name, a in p.items()}
        embedding.forward(ops, on, given, out, work)
        return on, out

    on, _ = out()
    grads = embedding.backward(ops, on, given, ops.asarray(d), work)
    found = {name: ops.to_numpy(g).copy() for name, g in grads.items()}
    check_gradients(lambda: float((ops.to_numpy(out()[1]) * d).sum()), p, found)


def test_a_new_embedding_knows_nothing_of_places_and_of_the_note_itself(ops):
    p = Neighbourhood(88, 20, 9).init(ops, np.random.default_rng(0))
    assert {name: a.shape for name, a in p.items()} == Neighbourhood(88, 20, 9).shapes()
    assert not ops.to_numpy(p["frame"]).any()
    assert not ops.to_numpy(p["pitch"]).any()
    assert 0.95 < ops.to_numpy(p["W"]).std() < 1.05


def test_gradients_of_a_copy_gate_that_the_network_reads_too(ops):
    """With resets, rows without notes and dropout; the gate reads the mean of a stream's rows."""
    config = Config(3, 1, 2, 1, 0.3, None, 0.2, "biaxial", nade=2, copy=2)
    check_model(config, ops, random_batch(config, T=4, B=3, resets=some_resets))


# Whole models ---------------------------------------------------------------------------------


def model_of(config, seed=0, scale=0.7):
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    p = {name: rng.normal(0, scale, shape) for name, shape in shapes.items()}
    return Model(config, NumpyOps("float64"), parameters=p)


def transposed(x, D, K, n):
    """Inputs (…, width) with all notes, told ones too, n higher."""
    out = x.copy()
    for first in (0, *(D + 2 + k * D for k in range(K))):
        out[..., first : first + n] = 0
        out[..., first + n : first + D] = x[..., first : first + D - n]
    return out


@pytest.mark.parametrize("n", [1, 5, 12])
@pytest.mark.parametrize("K", [0, 2])
def test_transposed_music_moves_the_outputs_alone_unless_notes_have_rows_of_their_own(K, n):
    D, H, T, B = 40, 3, 4, 2
    config = Config(D, 4, H, 2, head="biaxial", nade=2, copy=K)
    model, rng = model_of(config), np.random.default_rng(1)
    x = as_read(rng, config, rng.integers(2, size=(T, B, D + 1), dtype=np.uint8))
    for first in (0, *(D + 2 + k * D for k in range(K))):
        x[..., first + D - n : first + D] = 0  # what would leave the notes
    y = np.zeros((T, B, D), np.uint8)

    def outputs(x):
        found, _ = model.outputs(Batch(x, y, None, T * B), model.zero_state(B))
        return found.reshape(T, B, D, H).copy()

    moved = transposed(x, D, K, n)
    assert np.abs(outputs(moved)[:, :, n:] - outputs(x)[:, :, :-n]).max() > 0.1
    model.parameters["embedding.pitch"][...] = 0
    np.testing.assert_allclose(outputs(moved)[:, :, n:], outputs(x)[:, :, :-n], rtol=1e-12)


@pytest.mark.parametrize("told", [False, True])
def test_all_sets_of_notes_share_a_probability_of_1_with_and_without_a_gate(told):
    """All 16 sets that may follow one past, as streams of a window."""
    D, K = 4, 3 * told
    config = Config(D, 2, 3, 2, head="biaxial", nade=2, copy=K)
    model, rng = model_of(config), np.random.default_rng(2)
    sets = np.array(list(product((0, 1), repeat=D)), np.uint8)
    x = as_read(rng, config, rng.integers(2, size=(1, 1, D + 1), dtype=np.uint8))
    state = State(*rng.normal(size=(2, 2, 1, D * 3)).repeat(16, axis=2))
    recall = None
    if told:
        candidates, buckets = [3, 12, 3], rng.integers(BUCKETS, size=3)
        hits = HIT * (np.arange(16)[:, None] == candidates)
        recall = (buckets + hits).astype(np.uint8)[None]
        recall[..., 1] = NOTHING
    batch = Batch(x.repeat(16, axis=1), sets[None], None, 16, recall=recall)
    for losses in (model.losses(batch, state)[0], model.losses_and_grads(batch, state)[0]):
        nats = losses.reshape(16)
        assert nats.std() > 0.1
        assert np.exp(-nats).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("copy", [0, 2])
def test_streams_of_several_ranks_are_dropped_as_of_one(copy):
    """Their losses are the whole window's, and their gradients add up to its."""
    D, T, B = 5, 3, 4
    config = Config(D, 4, 3, 2, 0.5, head="biaxial", nade=2, copy=copy)
    model, rng = model_of(config), np.random.default_rng(3)
    x = as_read(rng, config, rng.integers(2, size=(T, B, D + 1), dtype=np.uint8))
    y = rng.integers(2, size=(T, B, D), dtype=np.uint8)
    y[1, 2, 0] = NO_NOTES
    keep, recall = np.ones((T, B)), rng.integers(BUCKETS, size=(T, B, copy), dtype=np.uint8)
    keep[1, 1] = keep[2, 3] = 0
    state = State(*rng.normal(size=(2, 2, B, D * 3)))

    def run(first, stop):
        some = slice(first, stop)
        batch = Batch(
            x[:, some], y[:, some], keep[:, some], T * B - 1, first, B,
            recall[:, some] if copy else None,
        )  # fmt: skip
        part = State(*(a[:, some].copy() for a in state))
        losses, grads, after = model.losses_and_grads(batch, part, seed=7, step=3)
        found = {name: g.copy() for name, g in grads.items()}
        return losses.reshape(T, -1).copy(), found, State(*(a.copy() for a in after))

    losses, grads, after = run(0, B)
    parts = [run(0, 1), run(1, 4)]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts], axis=1), losses, rtol=1e-12)
    for name, g in grads.items():
        np.testing.assert_allclose(parts[0][1][name] + parts[1][1][name], g, atol=1e-12)
    for a, *of_parts in zip(after, parts[0][2], parts[1][2], strict=True):
        np.testing.assert_allclose(np.concatenate(of_parts, axis=1), a, rtol=1e-12)
