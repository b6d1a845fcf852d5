import math
from itertools import product

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.arrays import NO_NOTES
from lstm_music.network.biaxial import BiaxialHead
from lstm_music.network.config import Config
from lstm_music.network.factored import FactoredHead, Parts
from lstm_music.network.heads import SoftmaxHead
from lstm_music.network.notes import NadeHead, SigmoidHead
from lstm_music.ops import Workspace, workspace


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
        patch.setattr(workspace, "LOGITS_BYTES", rows * V * ops.dtype.itemsize)


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
    p = SoftmaxHead(H, V).init(ops, np.random.default_rng(0))
    W, b = ops.to_numpy(p["W"]), ops.to_numpy(p["b"])
    assert (W.shape, b.shape) == ((H, V), (V,))
    assert not b.any()
    assert 0.99 / np.sqrt(H) < np.abs(W).max() <= 1 / np.sqrt(H)


# Words in two parts -----------------------------------------------------------------------------


def factored_problem(N, H, C, D, seed=0):
    """A factored head's parameters and inputs; some rows ask for nothing, some have no delta."""
    rng = np.random.default_rng(seed)
    a = {name: rng.normal(size=shape) for name, shape in FactoredHead(H, C, D).shapes().items()}
    classes, deltas = (rng.integers(most, size=N, dtype=np.int32) for most in (C, D))
    deltas[rng.random(N) < 0.3] = -1
    without = rng.random(N) < 0.2
    classes[without] = deltas[without] = -1
    return a | {"h": rng.normal(size=(N, H))}, Parts(classes, deltas)


def factored(ops, a, targets, scale=1.0):
    """Losses without gradients; losses, and gradients with that of h."""
    h, p = ops.asarray(a["h"]), {n: ops.asarray(value) for n, value in a.items() if n != "h"}
    targets, work = Parts(*(ops.asarray(part, np.int32) for part in targets)), ops.workspace()
    judged = ops.to_numpy(FactoredHead.losses(ops, p, h, targets, work)).copy()
    losses, dh, grads = FactoredHead.losses_and_grads(ops, p, h, targets, scale, work)
    assert list(grads) == list(p)
    found = {name: ops.to_numpy(g) for name, g in (grads | {"h": dh}).items()}
    return judged, ops.to_numpy(losses), found


def softmax(x):
    weights = [math.exp(z - max(x)) for z in x]
    return [w / sum(weights) for w in weights]


def naive_probability(a, h, c, d):
    """p(class | h) · p(delta | h, class), an element at a time; d is -1 for a class alone."""
    H = len(h)
    logits = [sum(h[k] * a["Wc"][k, j] for k in range(H)) + b for j, b in enumerate(a["bc"])]
    p = softmax(logits)[c]
    if d < 0:
        return p
    z = [math.tanh(sum(h[k] * a["A"][k, j] for k in range(H)) + a["U"][c, j]) for j in range(H)]
    logits = [sum(z[k] * a["Wd"][k, j] for k in range(H)) + b for j, b in enumerate(a["bd"])]
    return p * softmax(logits)[d]


@pytest.mark.parametrize("rows", [None, 2], ids=lambda rows: f"chunks of {rows}")
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 2, 3, 1), (9, 3, 1, 4), (12, 3, 4, 5), (8, 5, 2, 1)]
)
def test_gradients_of_a_factored_head(ops, monkeypatch, shape, rows):
    chunked(monkeypatch, ops, rows, max(shape[2:]))
    a, targets = factored_problem(*shape)
    targets.classes[0], targets.deltas[0] = 0, 0
    found = factored(ops, a, targets, 1 / 7)[2]
    check_gradients(lambda: factored(ops, a, targets, 1 / 7)[0].sum() / 7, a, found)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*(st.integers(1, most) for most in (6, 4, 5, 5))), st.integers(0, 1000))
def test_losses_are_minus_the_log_of_the_words_probabilities(ops, shape, seed):
    a, targets = factored_problem(*shape, seed)
    nats = [
        0 if c < 0 else -math.log(naive_probability(a, h, c, d))
        for h, c, d in zip(a["h"], *targets, strict=True)
    ]
    judged, trained, _ = factored(ops, a, targets)
    np.testing.assert_allclose(judged, nats, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(trained, nats, rtol=1e-10, atol=1e-12)


def test_all_words_of_two_parts_share_a_probability_of_1(ops):
    a, _ = factored_problem(N=1, H=3, C=4, D=5)
    words = np.array([(0, -1), *product(range(1, 4), range(5))], np.int32)
    every = a | {"h": a["h"].repeat(len(words), axis=0)}
    assert np.exp(-factored(ops, every, Parts(*words.T))[0]).sum() == pytest.approx(1, rel=1e-12)


def test_rows_of_a_factored_head_without_a_target_ask_for_nothing(ops):
    a, (classes, deltas) = factored_problem(N=12, H=3, C=4, D=5)
    classes[[1, 5]] = deltas[[1, 5]] = -1
    used = classes >= 0
    judged, _, grads = factored(ops, a, Parts(classes, deltas), 0.5)
    _, _, expected = factored(ops, a | {"h": a["h"][used]}, Parts(classes[used], deltas[used]), 0.5)
    assert not judged[~used].any()
    assert not grads["h"][~used].any()
    np.testing.assert_allclose(grads["h"][used], expected.pop("h"), rtol=1e-12)
    for name, g in expected.items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-10, atol=1e-14)


def test_a_factored_heads_scratch_is_made_once(ops, monkeypatch):
    a, targets = factored_problem(N=6, H=3, C=4, D=5)
    p = {n: ops.asarray(value) for n, value in a.items()}
    on = Parts(*(ops.asarray(part, np.int32) for part in targets))
    h, work, array = p.pop("h"), ops.workspace(), Workspace.array
    seen = []

    def spy(*args):
        seen.append(array(*args))
        return seen[-1]

    monkeypatch.setattr(Workspace, "array", spy)
    for _ in range(2):
        FactoredHead.losses_and_grads(ops, p, h, on, 1.0, work)
    once = len(seen) // 2
    assert once and all(x is y for x, y in zip(seen[:once], seen[once:], strict=True))


def test_the_logits_of_a_factored_head_are_its_words_log_probabilities(any_ops):
    """But for a constant a row; and a row's bits don't depend on the others, but by cuBLAS."""
    a, _ = factored_problem(N=5, H=3, C=4, D=5)
    words = np.array([(0, -1), (3, 4), (1, 0), (3, 2), (2, 0)], np.int32)
    p = {n: any_ops.asarray(value) for n, value in a.items() if n != "h"}
    head = FactoredHead(3, 4, 5, Parts.by_id(any_ops, *words.T))

    def logits(h):
        return any_ops.to_numpy(head.logits(any_ops, p, any_ops.asarray(h)))

    found = logits(a["h"])
    for row, h in zip(found, a["h"], strict=True):
        expected = np.log([naive_probability(a, h, c, d) for c, d in words])
        np.testing.assert_allclose(row - row[0], expected - expected[0], rtol=1e-4, atol=1e-5)
    for n in range(5):
        rtol = 1e-6 if any_ops.name == "cupy" else 0
        np.testing.assert_allclose(logits(a["h"][n : n + 1])[0], found[n], rtol)


def test_a_new_factored_heads_parameters(ops):
    head = FactoredHead(50, 20, 30)
    p = {name: ops.to_numpy(v) for name, v in head.init(ops, np.random.default_rng(0)).items()}
    assert {name: value.shape for name, value in p.items()} == head.shapes()
    assert list(p) == list(head.shapes())
    for value in p.values():
        bound = 1 / np.sqrt(50)
        assert not value.any() if value.ndim == 1 else 0.98 * bound < np.abs(value).max() <= bound


# Notes ------------------------------------------------------------------------------------------


def make_head(kind, H, V, K, C=1, D=1):
    return Config(V, hidden=H, head=kind, nade=K, classes=C, deltas=D).make_head()


note_heads = pytest.mark.parametrize("kind", ["sigmoid", "nade", "biaxial"])


def note_problem(kind, N, H, D, K=3, seed=0):
    """A head, its parameters and inputs, and notes; about a quarter of the rows ask for none."""
    rng = np.random.default_rng(seed)
    head = make_head(kind, H, D, K)
    a = {name: rng.normal(size=shape) for name, shape in head.shapes().items()}
    notes = rng.integers(2, size=(N, D), dtype=np.uint8)
    notes[rng.random(N) < 0.25, 0] = NO_NOTES
    return head, a | {"h": rng.normal(size=(N, H * D if kind == "biaxial" else H))}, notes


def note_losses_and_grads(ops, head, a, notes, scale):
    a = {name: ops.asarray(value) for name, value in a.items()}
    losses, dh, grads = head.losses_and_grads(
        ops, a, a["h"], ops.asarray(notes, np.uint8), scale, ops.workspace()
    )
    grads = {name: ops.to_numpy(g) for name, g in (grads | {"h": dh}).items()}
    return ops.to_numpy(losses), grads


def note_losses(ops, head, a, notes):
    a = {name: ops.asarray(value) for name, value in a.items()}
    notes = ops.asarray(notes, np.uint8)
    return ops.to_numpy(head.losses(ops, a, a["h"], notes, ops.workspace()))


def drawn(ops, head, a, draws, temperature=1.0):
    a = {name: ops.asarray(value) for name, value in a.items()}
    return ops.to_numpy(head.draw(ops, a, a["h"], ops.asarray(draws), temperature))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def conditionals(a, h, notes, temperature=1.0):
    """The probability that each note is on, given those below it, an element at a time."""
    found = []
    if "Wo" in a:
        return biaxial_conditionals(a, h, notes, temperature)
    if "U" not in a:
        for W, b in zip(a["W"].T, a["b"], strict=True):
            found.append(sigmoid((sum(h * W) + b) / temperature))
        return found
    hidden = [sum(h * W) + b for W, b in zip(a["Wh"].T, a["bh"], strict=True)]
    for d, on in enumerate(notes):
        z = sum(h * a["Wv"][:, d]) + a["bv"][d]
        z += sum(u * sigmoid(x) for u, x in zip(a["U"][d], hidden, strict=True))
        found.append(sigmoid(z / temperature))
        hidden = [x + on * w for x, w in zip(hidden, a["W"][d], strict=True)]
    return found


def biaxial_conditionals(a, h, notes, temperature):
    """The same, of an LSTM over the notes that remembers the last octave and counts all below."""
    found, (state, cell) = [], np.zeros((2, len(a["Wh"])))
    for d, own in enumerate(h.reshape(len(notes), -1)):
        below = [notes[d - n] if d >= n else 0 for n in range(1, 13)]
        octaves = [sum(notes[k] for k in range(d - n, -1, -12)) for n in range(1, 13)]
        x = np.concatenate([own, below, octaves])
        i, f, g, o = np.split(x @ a["Wx"] + state @ a["Wh"] + a["b"], 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        cell = f * cell + i * np.tanh(g)
        state = o * np.tanh(cell)
        found.append(sigmoid(float(state @ a["Wo"][:, 0] + a["bo"][0]) / temperature))
    return found


def probability(a, h, notes, temperature=1.0):
    """The probability of a set of notes."""
    each = conditionals(a, h, notes, temperature)
    return math.prod(p if on else 1 - p for p, on in zip(each, notes, strict=True))


@note_heads
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 2, 1, 2), (7, 3, 5, 2), (4, 1, 3, 4), (2, 1, 14, 1)]
)
def test_gradients_of_notes(ops, kind, shape):
    head, a, notes = note_problem(kind, *shape)
    notes[0] &= 1  # one row asks for something
    scale = 1 / 7
    found = note_losses_and_grads(ops, head, a, notes, scale)[1]

    def loss():
        return scale * float(note_losses_and_grads(ops, head, a, notes, scale)[0].sum())

    check_gradients(loss, a, found)


@note_heads
@settings(max_examples=30, deadline=None)
@given(st.tuples(*(st.integers(1, most) for most in (5, 4, 26, 4))), st.integers(0, 1000))
def test_losses_are_minus_the_log_of_the_notes_probabilities(ops, kind, shape, seed):
    head, a, notes = note_problem(kind, *shape, seed)
    nats = [
        0 if row[0] == NO_NOTES else -math.log(probability(a, h, row.tolist()))
        for h, row in zip(a["h"], notes, strict=True)
    ]
    np.testing.assert_allclose(note_losses(ops, head, a, notes), nats, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        note_losses_and_grads(ops, head, a, notes, 0.5)[0], nats, rtol=1e-10, atol=1e-12
    )


@note_heads
def test_rows_without_notes_to_predict_ask_for_nothing(ops, kind):
    head, a, notes = note_problem(kind, N=6, H=3, D=4)
    notes &= 1
    notes[[1, 3, 4], 0] = NO_NOTES
    used = notes[:, 0] != NO_NOTES
    found, grads = note_losses_and_grads(ops, head, a, notes, 0.5)
    expected, expected_grads = note_losses_and_grads(
        ops, head, a | {"h": a["h"][used]}, notes[used], 0.5
    )
    assert not found[~used].any()
    assert not grads["h"][~used].any()
    np.testing.assert_allclose(found[used], expected, rtol=1e-12)
    np.testing.assert_allclose(grads["h"][used], expected_grads["h"], rtol=1e-12)
    for name in head.shapes():
        np.testing.assert_allclose(grads[name], expected_grads[name], rtol=1e-10, atol=1e-14)


@note_heads
def test_all_sets_of_notes_share_a_probability_of_1(ops, kind):
    head, a, _ = note_problem(kind, N=1, H=3, D=4)
    sets = np.array(list(product((0, 1), repeat=4)), np.uint8)
    nats = note_losses(ops, head, a | {"h": a["h"].repeat(16, axis=0)}, sets)
    assert np.exp(-nats).sum() == pytest.approx(1, rel=1e-12)


@note_heads
def test_a_half_draws_the_likelier_value_of_each_note(ops, kind):
    head, a, _ = note_problem(kind, N=20, H=3, D=6)
    found = drawn(ops, head, a, np.full((20, 6), 0.5))
    assert found.dtype == np.uint8
    for h, notes in zip(a["h"], found.tolist(), strict=True):
        assert notes == [int(p > 0.5) for p in conditionals(a, h, notes)]
    assert 0 < found.mean() < 1


@note_heads
def test_draws_below_a_notes_probability_turn_it_on(ops, kind):
    head, a, _ = note_problem(kind, N=20, H=3, D=26)
    draws = np.random.default_rng(1).random((20, 26))
    for temperature in (0.5, 1.0, 2.0):
        found = drawn(ops, head, a, draws, temperature)
        for h, row, notes in zip(a["h"], draws, found.tolist(), strict=True):
            p = conditionals(a, h, notes, temperature)
            assert notes == [int(u < p) for u, p in zip(row, p, strict=True)]
    np.testing.assert_array_equal(
        drawn(ops, head, a, draws, 1e-6), drawn(ops, head, a, np.full((20, 26), 0.5))
    )


@note_heads
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_many_draws_come_as_often_as_they_should(ops, kind, temperature):
    """Pearson's chi-square over all sets; 37.7 is its 99.9 % quantile for 15 degrees."""
    draws, D = 4000, 4
    head, a, _ = note_problem(kind, N=1, H=3, D=D, seed=2)
    many = a | {"h": a["h"].repeat(draws, axis=0)}
    uniform = np.random.default_rng(0).random((draws, D))
    found = drawn(ops, head, many, uniform, temperature)
    counts = np.bincount(found @ (2 ** np.arange(D)), minlength=2**D)
    sets = [[(number >> d) & 1 for d in range(D)] for number in range(2**D)]
    expected = draws * np.array([probability(a, a["h"][0], s, temperature) for s in sets])
    assert expected.sum() == pytest.approx(draws)
    assert ((counts - expected) ** 2 / expected).sum() < 37.7


@note_heads
def test_what_a_row_draws_depends_on_no_other_row(any_ops, kind):
    head, a, _ = note_problem(kind, N=9, H=5, D=8)
    draws = np.random.default_rng(3).random((9, 8))
    together = drawn(any_ops, head, a, draws)
    for n in range(9):
        alone = drawn(any_ops, head, a | {"h": a["h"][n : n + 1]}, draws[n : n + 1])
        np.testing.assert_array_equal(alone[0], together[n])


def test_a_sigmoids_logits_are_its_notes_log_odds(ops):
    head, a, _ = note_problem("sigmoid", N=4, H=3, D=5)
    p = {name: ops.asarray(a[name]) for name in "Wb"}
    logits = ops.to_numpy(head.logits(ops, p, ops.asarray(a["h"])))
    expected = [conditionals(a, h, [0] * 5) for h in a["h"]]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, rtol=1e-10)


@note_heads
def test_a_new_note_heads_parameters(ops, kind):
    head = make_head(kind, 50, 20, 30)
    p = {name: ops.to_numpy(v) for name, v in head.init(ops, np.random.default_rng(0)).items()}
    assert {name: value.shape for name, value in p.items()} == head.shapes()
    assert list(p) == list(head.shapes())
    fan_in = {"W": 20 if kind == "nade" else 50, "Wv": 50, "Wh": 50, "U": 30}
    if kind == "biaxial":
        fan_in = dict.fromkeys(("Wx", "Wh", "Wo"), 30)
    for name, value in p.items():
        if name == "b" and kind == "biaxial":  # which remembers at first
            assert value.tolist() == [0] * 30 + [1] * 30 + [0] * 60
        elif value.ndim == 1:
            assert not value.any()
        else:
            bound = 1 / np.sqrt(fan_in[name])
            assert (0.99 if value.size > 50 else 0.9) * bound < np.abs(value).max() <= bound


def test_a_head_is_made_by_its_name_and_is_a_value():
    assert make_head("softmax", 3, 5, 7) == SoftmaxHead(3, 5)
    assert make_head("factored", 3, 5, 7, 2, 4) == FactoredHead(3, 2, 4)
    assert make_head("sigmoid", 3, 5, 7) == SigmoidHead(3, 5)
    assert make_head("nade", 3, 5, 7) == NadeHead(3, 5, 7)
    assert make_head("biaxial", 3, 5, 7) == BiaxialHead(3, 5, 7)
    for kind in ("softmax", "sigmoid", "nade", "biaxial"):
        assert len({make_head(kind, 3, 5, 7), make_head(kind, 3, 5, 7)}) == 1


def test_a_note_as_likely_as_not_is_silent_at_a_half(ops):
    a = {"h": np.zeros((1, 2)), "W": np.ones((2, 3)), "b": np.zeros(3)}
    draws = np.array([[0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)]])
    assert drawn(ops, SigmoidHead(2, 3), a, draws).tolist() == [[0, 1, 0]]
