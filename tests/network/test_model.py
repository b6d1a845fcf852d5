import json

import numpy as np
import pytest
from gradcheck import check_gradients, dense
from hypothesis import given, settings
from hypothesis import strategies as st
from small import as_read, random_recall, words_of

from lstm_music.arrays import NO_NOTES, Batch, RowGradient
from lstm_music.errors import UserError
from lstm_music.network.config import HEADS, HEADS_OF, Config, State
from lstm_music.network.model import Model, init_parameters, parameter_shapes, rows_of
from lstm_music.ops import NumpyOps, workspace
from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING

every_head = pytest.mark.parametrize("head", HEADS)
note_heads = pytest.mark.parametrize("head", HEADS_OF["note"])


def random_parameters(config, seed=0):
    """Parameters large enough that everything has an effect."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.7, shape) for name, shape in parameter_shapes(config).items()}


def random_state(config, B, seed=0):
    size = config.rows * config.hidden
    return State(*np.random.default_rng(seed).normal(size=(2, config.layers, B, size)))


def random_batch(config, T, B, resets=None, seed=0):
    """Random ids or notes, a fifth of the targets masked.

    resets gives keep as a function of T and B.
    """
    rng = np.random.default_rng(seed)
    if config.reads_notes:
        x, y = rng.integers(2, size=(2, T, B, config.vocabulary + 1), dtype=np.uint8)
        x, y = as_read(rng, config, x), y[..., : config.vocabulary].copy()
    else:
        x, y = rng.integers(config.vocabulary, size=(2, T, B), dtype=np.int32)
    last = y[-1, -1].copy()
    mask(y, rng.random((T, B)) < 0.2)
    y[-1, -1] = last
    recall = random_recall(rng, asked(y), config.copy) if config.copy else None
    return Batch(x, y, resets(T, B) if resets else None, int(asked(y).sum()), recall=recall)


def asked(y):
    """Where there is a target, (T, B) or (B,)."""
    return y >= 0 if y.dtype == np.int32 else y[..., 0] != NO_NOTES


def mask(y, where):
    """Make targets ask for nothing."""
    if y.dtype == np.int32:
        y[where] = -1
    else:
        y[where, 0] = NO_NOTES


def model_of(config, ops, parameters):
    given = {n: ops.asarray(p) for n, p in parameters.items()}
    return Model(config, ops, parameters=given, words=words_of(config))


def batch_on(ops, batch):
    keep = None if batch.keep is None else ops.asarray(batch.keep)
    x, y = (ops.asarray(a, a.dtype) for a in batch[:2])
    recall = None if batch.recall is None else ops.asarray(batch.recall, np.uint8)
    return Batch(x, y, keep, batch.targets, recall=recall)


def state_on(ops, state):
    return State(ops.asarray(state.h), ops.asarray(state.c))


def on_host(ops, state):
    return State(ops.to_numpy(state.h).copy(), ops.to_numpy(state.c).copy())


def dense_grads(ops, grads, parameters):
    """The gradients as whole arrays on the host."""
    found = {}
    for name, g in grads.items():
        if isinstance(g, RowGradient):
            rows = RowGradient(ops.to_numpy(g.rows), ops.to_numpy(g.values))
            found[name] = dense(rows, parameters[name].shape)
        else:
            found[name] = ops.to_numpy(g).copy()
    return found


def losses(model, batch, state):
    """Losses (T, B) and the next state, on the host."""
    ops = model.ops
    found, final = model.losses(batch_on(ops, batch), state_on(ops, state))
    return ops.to_numpy(found).copy(), on_host(ops, final)


def loss_and_grads(model, batch, state, seed=0, step=0):
    """The mean loss, dense gradients, and the next state, on the host."""
    ops = model.ops
    loss, grads, final = model.loss_and_grads(
        batch_on(ops, batch), state_on(ops, state), seed, step
    )
    return loss, dense_grads(ops, grads, model.parameters), on_host(ops, final)


def some_resets(T, B):
    """A reset at t = 0 in the first row, in the middle of the second, both in the third."""
    keep = np.ones((T, B))
    keep[0, 0] = keep[T // 2, 1 % B] = keep[0, 2 % B] = keep[T - 1, 2 % B] = 0
    return keep


# Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gradients(ops, layers, dropout):
    config = Config(vocabulary=6, embedding=2, hidden=3, layers=layers, dropout=dropout)
    check_model(config, ops, random_batch(config, T=5, B=3, resets=some_resets))


@pytest.mark.slow(keep=4)
@pytest.mark.parametrize(
    ("T", "B", "V", "E", "H"),
    [(1, 1, 1, 1, 1), (1, 3, 5, 2, 3), (4, 1, 7, 5, 2), (3, 5, 3, 1, 4), (3, 3, 3, 3, 3)],
)
def test_gradients_of_other_shapes(ops, T, B, V, E, H):
    config = Config(vocabulary=V, embedding=E, hidden=H, layers=2, dropout=0.25)
    check_model(config, ops, random_batch(config, T, B))


@pytest.mark.parametrize("rows", [1, 4])
def test_gradients_in_chunks_of_logits(ops, monkeypatch, rows):
    config = Config(vocabulary=5, embedding=2, hidden=3, layers=1)
    monkeypatch.setattr(workspace, "LOGITS_BYTES", rows * config.vocabulary * 8)
    check_model(config, ops, random_batch(config, T=5, B=3, resets=some_resets))


@pytest.mark.parametrize(("V", "C", "D"), [(1, 1, 1), (7, 3, 3), (9, 2, 4)])
def test_gradients_of_a_factored_model(ops, V, C, D):
    """Words that share a class, a delta or both, one without deltas, deltas of no word."""
    config = Config(V, 2, 3, 1, 0.3, 0.5, 0.2, "factored", classes=C, deltas=D)
    check_model(config, ops, random_batch(config, T=4, B=3, resets=some_resets))


@pytest.mark.slow(keep=4)
@note_heads
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_of_notes(ops, head, layers):
    config = Config(4, 2, 3, layers, 0.3, 0.5, 0.2, head, nade=2)
    check_model(config, ops, random_batch(config, T=4, B=3, resets=some_resets))


@pytest.mark.parametrize("head", [head for head in HEADS if head != "biaxial"])
def test_gradients_of_a_copy_gate(ops, head):
    config = Config(7, 2, 3, 1, 0.3, None, 0.2, head, nade=2, classes=3, deltas=3, copy=3)
    check_model(config, ops, random_batch(config, T=4, B=3, resets=some_resets))


def test_a_copy_gate_and_the_network_are_a_distribution(ops):
    """Whatever the candidates are, the probabilities of all targets sum to 1."""
    config = Config(vocabulary=6, embedding=2, hidden=3, copy=4)
    model, state = model_of(config, ops, random_parameters(config)), random_state(config, 1)
    rng = np.random.default_rng(1)
    words, runs = rng.integers(6, size=(2, 1, 4)), rng.integers(BUCKETS, size=(2, 1, 4))
    total = 0
    for target in range(6):
        recall = (runs + HIT * (words == target)).astype(np.uint8)
        recall[0, 0, 2] = NOTHING
        y = np.full((2, 1), target, np.int32)
        batch = Batch(np.ones((2, 1), np.int32), y, None, 2, recall=recall)
        total += np.exp(-losses(model, batch, state)[0])
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@every_head
def test_backends_agree_about_a_copy_gate(any_ops, head):
    config = Config(7, 2, 3, 1, head=head, nade=2, classes=3, deltas=3, copy=3)
    parameters, batch = random_parameters(config), random_batch(config, 5, 3, some_resets)
    state, reference = random_state(config, 3), NumpyOps("float64")
    unit = 1 if any_ops.dtype == np.float64 else 3e8
    found, expected = (
        loss_and_grads(model_of(config, ops, parameters), batch, state)
        for ops in (any_ops, reference)
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-12 * unit)
    for name, g in expected[1].items():
        np.testing.assert_allclose(found[1][name], g, atol=1e-13 * unit, err_msg=name)


@note_heads
def test_gradients_of_a_single_note(ops, head):
    check_model(config := Config(1, 1, 1, 1, head=head, nade=1), ops, random_batch(config, 1, 1))


def check_model(config, ops, batch):
    parameters, state = random_parameters(config), random_state(config, batch.x.shape[1])
    model = model_of(config, ops, parameters)

    def run():
        model.parameters = {name: ops.asarray(p) for name, p in parameters.items()}
        return loss_and_grads(model, batch, state, seed=11, step=5)

    check_gradients(lambda: run()[0], parameters, run()[1])


@every_head
@pytest.mark.parametrize("copy", [0, 3])
def test_the_loss_is_the_mean_over_targets(ops, head, copy):
    config = Config(6, 2, 3, head=head, nade=4, classes=3, deltas=2, copy=copy)
    model = model_of(config, ops, random_parameters(config))
    batch, state = random_batch(config, T=5, B=3, resets=some_resets), random_state(config, 3)
    found, final = losses(model, batch, state)
    loss, _, trained_final = loss_and_grads(model, batch, state)
    assert found.shape == (5, 3)
    assert (found[asked(batch.y)] > 0).all()
    assert not found[~asked(batch.y)].any()
    assert loss == pytest.approx(found.sum() / batch.targets, rel=1e-12)
    np.testing.assert_array_equal(trained_final, final)


@every_head
def test_a_batch_without_targets_has_no_loss_and_no_gradient(ops, head):
    config = Config(vocabulary=6, embedding=2, hidden=3, head=head, nade=4, classes=3, deltas=2)
    model = model_of(config, ops, random_parameters(config))
    batch = random_batch(config, T=2, B=2)._replace(targets=0)
    mask(batch.y, np.ones((2, 2), bool))
    loss, grads, _ = loss_and_grads(model, batch, random_state(config, 2))
    assert loss == 0
    assert not any(g.any() for g in grads.values())


def test_the_embeddings_gradient_has_only_the_rows_that_occur(ops):
    config = Config(vocabulary=50, embedding=2, hidden=3)
    model = model_of(config, ops, random_parameters(config))
    batch = random_batch(config, T=3, B=2)
    _, grads, _ = model.loss_and_grads(batch_on(ops, batch), model.zero_state(2))
    assert ops.to_numpy(grads["embedding.W"].rows).tolist() == sorted(set(batch.x.flat))
    assert set(grads) == set(parameter_shapes(config))


@every_head
def test_a_returned_state_stays_and_nothing_given_is_changed(ops, head):
    config = Config(
        vocabulary=6, embedding=2, hidden=3, dropout=0.3, head=head, nade=4, classes=3, deltas=2
    )
    parameters = random_parameters(config)
    model = model_of(config, ops, {n: p.copy() for n, p in parameters.items()})
    batch, state = random_batch(config, T=5, B=3, resets=some_resets), random_state(config, 3)
    given_batch, given_state = batch_on(ops, batch_on(ops, batch)), on_host(ops, state)
    _, _, final = model.loss_and_grads(given_batch, state_on(ops, given_state))
    kept = on_host(ops, final)
    model.losses(given_batch, final)
    model.loss_and_grads(given_batch, final, step=1)
    np.testing.assert_array_equal(on_host(ops, final), kept)
    for name, p in parameters.items():
        np.testing.assert_array_equal(ops.to_numpy(model.parameters[name]), p)
    np.testing.assert_array_equal(ops.to_numpy(given_batch.x), batch.x)
    np.testing.assert_array_equal(ops.to_numpy(given_batch.y), batch.y)
    np.testing.assert_array_equal(ops.to_numpy(given_batch.keep), batch.keep)
    np.testing.assert_array_equal(given_state, state)


# Dropout --------------------------------------------------------------------------------------


def test_only_training_drops(ops):
    """Losses and steps are those of the same parameters without dropout."""
    plain = Config(vocabulary=6, embedding=4, hidden=5)
    wet = Config(vocabulary=6, embedding=4, hidden=5, dropout=0.5)
    parameters, batch = random_parameters(plain), random_batch(plain, 4, 3)
    state = random_state(plain, 3)
    models = [model_of(config, ops, parameters) for config in (plain, wet)]
    (a, a_final), (b, b_final) = (losses(model, batch, state) for model in models)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a_final, b_final)
    device_state = state_on(ops, state)
    (a, _), (b, _) = (model.step(batch_on(ops, batch).x[0], device_state) for model in models)
    np.testing.assert_array_equal(ops.to_numpy(a), ops.to_numpy(b))
    a, b = (loss_and_grads(model, batch, state)[0] for model in models)
    assert a != b


def test_seed_and_step_choose_the_masks(ops):
    config = Config(vocabulary=6, embedding=8, hidden=8, dropout=0.5)
    model = model_of(config, ops, random_parameters(config))
    batch, state = random_batch(config, T=4, B=3), random_state(config, 3)

    def loss(seed, step):
        return loss_and_grads(model, batch, state, seed, step)[0]

    assert loss(1, 1) == loss(1, 1)
    assert len({loss(1, 1), loss(1, 2), loss(2, 1)}) == 3


def test_the_sites_of_dropout_have_masks_of_their_own(ops):
    """Embedding and layers draw from streams 0 … L, once forwards and once backwards."""
    config = Config(vocabulary=6, embedding=4, hidden=4, layers=3, dropout=0.5)
    model = model_of(config, ops, random_parameters(config))
    calls, dropout = [], ops.dropout

    def recorded(x, p, seed, stream, step, *part):
        calls.append((p, seed, stream, step))
        dropout(x, p, seed, stream, step, *part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "dropout", recorded)
        loss_and_grads(model, random_batch(config, 4, 3), random_state(config, 3), 9, 7)
    streams = [0, 1, 2, 3, 3, 2, 1, 0]
    assert calls == [(0.5, 9, stream, 7) for stream in streams]


def test_embedding_layers_and_output_have_rates_of_their_own(ops):
    config = Config(6, 4, 4, 3, dropout=0.5, input_dropout=0.25, output_dropout=0.0)
    assert [config.dropout_after(layer) for layer in range(4)] == [0.25, 0.5, 0.5, 0.0]
    assert Config(6, 4, 4, 1, 0.5, 0.25, 0.125).dropout_after(1) == 0.125
    assert [Config(6, dropout=0.5).dropout_after(layer) for layer in range(3)] == [0.5] * 3
    model = model_of(config, ops, random_parameters(config))
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "dropout", lambda x, p, seed, stream, *_: calls.append((p, stream)))
        loss_and_grads(model, random_batch(config, 4, 3), random_state(config, 3), 9, 7)
    forwards = [(0.25, 0), (0.5, 1), (0.5, 2)]
    assert calls == [*forwards, *reversed(forwards)]


# Steps and windows ----------------------------------------------------------------------------


@st.composite
def cases(draw, heads=HEADS):
    config = Config(
        head=draw(st.sampled_from(heads)),
        nade=draw(st.integers(1, 4)),
        classes=draw(st.integers(1, 4)),
        deltas=draw(st.integers(1, 3)),
        vocabulary=draw(st.integers(1, 9)),
        embedding=draw(st.integers(1, 5)),
        hidden=draw(st.integers(1, 9)),
        layers=draw(st.integers(1, 3)),
    )
    T, B, seed = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(0, 1000))
    resets = draw(st.sampled_from([None, some_resets]))
    return (
        config,
        random_parameters(config, seed),
        random_batch(config, T, B, resets, seed),
        random_state(config, B, seed),
    )


@settings(max_examples=30, deadline=None)
@given(cases(heads=["softmax"]))
def test_steps_predict_what_the_losses_judge(ops, case):
    config, parameters, batch, state = case
    batch = batch._replace(keep=None)
    model = model_of(config, ops, parameters)
    found, final = losses(model, batch, state)
    state = state_on(ops, state)
    expected = np.zeros_like(found)
    for t, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        logits, state = model.step(ops.asarray(x, np.int32), state)
        logits = ops.to_numpy(logits)
        assert logits.shape == (len(x), config.vocabulary)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected[t] = np.where(y < 0, 0, -np.log(p[np.arange(len(y)), y]))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(on_host(ops, state), final, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("C", "D"), [(2, 1), (4, 3)])
def test_steps_of_a_factored_model_predict_what_its_losses_judge(ops, C, D):
    """Of all words that two parts make, the step's probabilities add up to 1."""
    config = Config((C - 1) * D + 1, 3, 4, head="factored", classes=C, deltas=D)
    batch, state = random_batch(config, T=5, B=4), random_state(config, 4)
    model = model_of(config, ops, random_parameters(config))
    found, final = losses(model, batch, state)
    state = state_on(ops, state)
    expected = np.zeros_like(found)
    for t, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        logits, state = model.step(ops.asarray(x, np.int32), state)
        p = np.exp(ops.to_numpy(logits))
        p /= p.sum(axis=1, keepdims=True)
        expected[t] = np.where(y < 0, 0, -np.log(p[np.arange(len(y)), y]))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(on_host(ops, state), final, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(heads=["sigmoid"]))
def test_steps_give_the_log_odds_of_the_notes_that_the_losses_judge(ops, case):
    config, parameters, batch, state = case
    batch = batch._replace(keep=None)
    model = model_of(config, ops, parameters)
    found, final = losses(model, batch, state)
    state = state_on(ops, state)
    expected = np.zeros_like(found)
    for t, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        logits, state = model.step(ops.asarray(x, np.uint8), state)
        p = 1 / (1 + np.exp(-ops.to_numpy(logits)))
        assert p.shape == y.shape
        nats = -np.log(np.where(y == 1, p, 1 - p)).sum(axis=1)
        expected[t] = np.where(asked(y), nats, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(on_host(ops, state), final, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(heads=HEADS_OF["note"]), st.sampled_from([0.5, 1.0, 1.5]))
def test_steps_draw_what_is_drawn_from_the_outputs_of_a_window(ops, case, temperature):
    config, parameters, batch, state = case
    batch = batch._replace(keep=None)
    model = model_of(config, ops, parameters)
    draws = np.random.default_rng(0).random(batch.y.shape)
    h, final = model.outputs(batch_on(ops, batch), state_on(ops, state))
    final = on_host(ops, final)
    whole = ops.to_numpy(model.draw(rows_of(h), ops.asarray(rows_of(draws)), temperature))
    state = state_on(ops, state)
    for t, x in enumerate(batch.x):
        notes, state = model.step_and_draw(
            ops.asarray(x, np.uint8), state, ops.asarray(draws[t]), temperature
        )
        np.testing.assert_array_equal(
            ops.to_numpy(notes), whole.reshape(batch.y.shape)[t], strict=True
        )
    np.testing.assert_allclose(on_host(ops, state), final, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_outputs_are_what_the_head_judges(ops, case):
    config, parameters, batch, state = case
    model = model_of(config, ops, parameters)
    expected, expected_final = losses(model, batch, state)
    on = batch_on(ops, batch)
    h, final = model.outputs(on, state_on(ops, state))
    assert h.shape == (*batch.x.shape[:2], config.rows * config.hidden)
    head = {n[5:]: p for n, p in model.parameters.items() if n.startswith("head.")}
    found = model.head.losses(ops, head, rows_of(h), model.targets(on.y), ops.workspace())
    np.testing.assert_allclose(ops.to_numpy(found), expected.reshape(-1), rtol=1e-12)
    np.testing.assert_array_equal(on_host(ops, final), expected_final)


@pytest.mark.parametrize("head", ["sigmoid", "nade"])
def test_a_frames_input_is_the_sum_of_its_notes_embeddings(ops, head):
    config = Config(vocabulary=5, embedding=3, hidden=4, head=head, nade=2)
    model = model_of(config, ops, random_parameters(config))
    state = model.zero_state(1)
    x = np.zeros((1, 6), np.uint8)
    x[0, [1, 3, 5]] = 1
    many, _ = model.outputs(Batch(ops.asarray(x[None], np.uint8), x, None, 1), state)
    many = ops.to_numpy(many).copy()
    W = ops.to_numpy(model.parameters["embedding.W"]).copy()
    W[0] = W[1] + W[3] + W[5]
    model.parameters["embedding.W"] = ops.asarray(W)
    one = np.eye(6, dtype=np.uint8)[:1]
    alone, _ = model.outputs(Batch(ops.asarray(one[None], np.uint8), x, None, 1), state)
    np.testing.assert_allclose(ops.to_numpy(alone), many, rtol=1e-12)


def test_a_factored_input_is_the_sum_of_its_parts_embeddings(ops):
    """Words of one class and one delta are one to the network, whatever their ids."""
    config = Config(9, 3, 4, head="factored", classes=3, deltas=2)  # 0 … 4, and again
    model = model_of(config, ops, random_parameters(config))
    x, state = np.arange(9, dtype=np.int32), model.zero_state(9)
    h = ops.to_numpy(model.step(ops.asarray(x, np.int32), state)[1].h[-1])
    np.testing.assert_array_equal(h[5:], h[:4])
    assert len({row.tobytes() for row in h[:5]}) == 5
    p = {name: ops.to_numpy(a).copy() for name, a in model.parameters.items()}
    one = p["embedding.Wc"][2] + p["embedding.Wd"][1]  # of word 4
    p["embedding.Wc"][2], p["embedding.Wd"][1] = one, 0
    other = model_of(config, ops, p)
    again = ops.to_numpy(other.step(ops.asarray(x, np.int32), state)[1].h[-1])
    np.testing.assert_allclose(again[4], h[4], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(), st.data())
def test_two_windows_are_one_long_window(ops, case, data):
    config, parameters, batch, state = case
    cut = data.draw(st.integers(1, len(batch.x)), "cut")
    model = model_of(config, ops, parameters)
    whole, whole_final = losses(model, batch, state)

    def window(part):
        keep = None if batch.keep is None else batch.keep[part]
        return Batch(batch.x[part], batch.y[part], keep, int(asked(batch.y[part]).sum()))

    found, final = losses(model, window(slice(0, cut)), state)
    if cut < len(batch.x):
        rest, final = losses(model, window(slice(cut, None)), final)
        found = np.concatenate([found, rest])
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(final, whole_final, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_losses_and_state(ops, case, random):
    config, parameters, batch, state = case
    order = list(range(batch.x.shape[1]))
    random.shuffle(order)
    model = model_of(config, ops, parameters)
    found, final = losses(model, batch, state)
    keep = None if batch.keep is None else batch.keep[:, order]
    permuted = Batch(batch.x[:, order], batch.y[:, order], keep, batch.targets)
    other, other_final = losses(model, permuted, State(state.h[:, order], state.c[:, order]))
    np.testing.assert_allclose(other, found[:, order], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other_final, np.stack(final)[:, :, order], rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(), st.data())
def test_a_reset_starts_from_the_zero_state(ops, case, data):
    config, parameters, batch, state = case
    T, B = batch.x.shape[:2]
    t = data.draw(st.integers(0, T - 1), "t")
    keep = np.ones((T, B))
    keep[t] = 0
    model = model_of(config, ops, parameters)
    found, final = losses(model, batch._replace(keep=keep), state)
    new = Batch(batch.x[t:], batch.y[t:], None, int(asked(batch.y[t:]).sum()))
    expected, expected_final = losses(model, new, on_host(ops, model.zero_state(B)))
    np.testing.assert_allclose(found[t:], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(final, expected_final, rtol=1e-12, atol=1e-12)


@every_head
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backends_agree_on_a_training_step_in_float32(any_ops, dropout, head):
    config = Config(40, 17, 33, layers=2, dropout=dropout, head=head, nade=9, classes=7, deltas=6)
    parameters = init_parameters(config, NumpyOps("float32"), seed=3)
    batch, state = random_batch(config, T=7, B=5, resets=some_resets), random_state(config, 5)
    reference = model_of(config, NumpyOps("float64"), parameters)
    expected, expected_grads, expected_final = loss_and_grads(reference, batch, state, 1, 2)
    model = model_of(config, any_ops, parameters)
    loss, grads, final = loss_and_grads(model, batch, state, 1, 2)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, g in expected_grads.items():
        np.testing.assert_allclose(grads[name], g, rtol=1e-3, atol=1e-4 * np.abs(g).max())
    np.testing.assert_allclose(final, expected_final, rtol=1e-4, atol=1e-5)


# Configuration and parameters -----------------------------------------------------------------


@every_head
@pytest.mark.parametrize("layers", [1, 3])
def test_parameters_have_the_shapes_of_the_configuration(ops, layers, head):
    config = Config(
        vocabulary=7, embedding=3, hidden=5, layers=layers, head=head, nade=4, classes=3, deltas=2
    )
    p = Model(config, ops, seed=1, words=words_of(config)).parameters
    assert {name: value.shape for name, value in p.items()} == parameter_shapes(config)
    assert list(p) == list(parameter_shapes(config))
    assert {value.dtype for value in p.values()} == {ops.dtype}


def test_the_seed_chooses_the_parameters(ops):
    config = Config(vocabulary=7, embedding=3, hidden=5)
    a, again, b = (init_parameters(config, ops, seed) for seed in (1, 1, 2))
    for name, value in a.items():
        np.testing.assert_array_equal(ops.to_numpy(value), ops.to_numpy(again[name]))
        if not name.endswith(".b"):
            assert (ops.to_numpy(value) != ops.to_numpy(b[name])).all()


def test_the_zero_state_is_zero(ops):
    state = Model(Config(vocabulary=7, embedding=3, hidden=5, layers=2), ops).zero_state(4)
    for a in state:
        assert (a.shape, a.dtype) == ((2, 4, 5), ops.dtype)
        assert not ops.to_numpy(a).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": 0}, "vocabulary is 0"),
        ({"embedding": -1}, "embedding is -1"),
        ({"hidden": 1.5}, "hidden is 1.5"),
        ({"layers": 0}, "layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"input_dropout": 1.0}, "input_dropout is 1.0"),
        ({"output_dropout": -0.5}, "output_dropout is -0.5"),
        ({"nade": 0}, "nade is 0"),
        ({"head": "factored", "deltas": 1}, "classes is 0"),
        ({"head": "factored", "classes": 1}, "deltas is 0"),
        ({"head": "rbm"}, "unknown head 'rbm': choose one of softmax, factored, sigmoid, nade"),
    ],
)
def test_an_impossible_configuration_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Config(**({"vocabulary": 10} | change))


def test_a_configuration_survives_json():
    config = Config(10, 3, 4, 5, 0.25, 0.125, 0.0, "nade", 6, 7, 8)
    assert Config(**json.loads(json.dumps(config.to_json()))) == config


def test_an_older_versions_configuration_means_what_it_meant():
    old = {"vocabulary": 10, "embedding": 3, "hidden": 4, "layers": 2, "dropout": 0.25}
    config = Config(**old)
    assert config.head == "softmax"
    assert not config.reads_notes
    assert [config.dropout_after(layer) for layer in range(3)] == [0.25] * 3
