import json
import math

import numpy as np
import pytest
from gradcheck import dense
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_music.arrays import RowGradient
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.learning_rate import (
    DEFAULT_LR,
    MANY_WORDS,
    Annealing,
    average_share,
    default_lr,
)
from lstm_music.network.model import Model
from lstm_music.network.optim import OPTIMIZERS, Averages, Optimizer, clip_scale, global_norm
from lstm_music.ops import NumpyOps
from lstm_music.ops.reference.maths import Adam

V, E = 7, 3
ROWS = np.array([0, 3, 4], np.int32)


def random_steps(steps, seed=0):
    """Parameters, and for each step a dense gradient and one of rows."""
    rng = np.random.default_rng(seed)
    parameters = {"embedding.W": rng.normal(size=(V, E)), "head.b": rng.normal(size=V)}
    grads = [
        {
            "embedding.W": RowGradient(ROWS, rng.normal(size=(len(ROWS), E))),
            "head.b": rng.normal(size=V),
        }
        for _ in range(steps)
    ]
    return parameters, grads


def dense_like(g, p):
    return dense(g, p.shape) if isinstance(g, RowGradient) else g


def on_device(ops, g):
    if isinstance(g, RowGradient):
        return RowGradient(ops.asarray(g.rows, np.int32), ops.asarray(g.values))
    return ops.asarray(g.copy())


def optimized(ops, kind, parameters, grads, lr, scale, weight_decay=0.0):
    """The parameters after a step for each of the gradients, on the host."""
    p = {name: ops.asarray(value.copy()) for name, value in parameters.items()}
    optimizer = Optimizer(ops, kind, p, weight_decay)
    for step in grads:
        optimizer.step(p, {name: on_device(ops, g) for name, g in step.items()}, lr, scale)
    assert optimizer.t == len(grads)
    return {name: ops.to_numpy(value) for name, value in p.items()}


# The formulas, an element at a time -----------------------------------------------------------


def adam(p, grads, lr, decay=0.0, beta1=0.9, beta2=0.999, eps=1e-8):
    """Kingma & Ba 2015, algorithm 1; with a decay, Loshchilov & Hutter 2019, algorithm 2."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        p -= lr * decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p -= lr * m_hat / (math.sqrt(v_hat) + eps)
    return p


def rmsprop(p, grads, lr, decay=0.0, alpha=0.99, eps=1e-8):
    """The documentation of torch.optim.RMSprop, without momentum and not centred."""
    v = 0.0
    for g in grads:
        p -= lr * decay * p
        v = alpha * v + (1 - alpha) * g**2
        p -= lr * g / (math.sqrt(v) + eps)
    return p


def sgd(p, grads, lr, decay=0.0):
    for g in grads:
        p -= lr * decay * p
        p -= lr * g
    return p


FORMULAS = {"adam": adam, "rmsprop": rmsprop, "sgd": sgd}


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_follow_the_formula(ops, kind, scale):
    """For dense gradients and for rows; a row that doesn't occur has a gradient of zero."""
    parameters, grads = random_steps(6)
    found = optimized(ops, kind, parameters, grads, 0.05, scale)
    for name, p in parameters.items():
        whole = [dense_like(g[name], p) for g in grads]
        for k in np.ndindex(p.shape):
            expected = FORMULAS[kind](float(p[k]), [scale * float(g[k]) for g in whole], 0.05)
            assert found[name][k] == pytest.approx(expected, rel=1e-12, abs=1e-13), (name, k)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_weights_decay_apart_from_their_gradients_and_biases_dont(ops, kind):
    """By lr · decay of themselves at each step, also rows that don't occur."""
    parameters, grads = random_steps(6)
    found = optimized(ops, kind, parameters, grads, 0.05, 0.5, weight_decay=0.3)
    for name, decay in (("embedding.W", 0.3), ("head.b", 0.0)):
        p = parameters[name]
        whole = [dense_like(g[name], p) for g in grads]
        for k in np.ndindex(p.shape):
            steps = [0.5 * float(g[k]) for g in whole]
            expected = FORMULAS[kind](float(p[k]), steps, 0.05, decay)
            assert found[name][k] == pytest.approx(expected, rel=1e-12, abs=1e-13), (name, k)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_without_a_gradient_weights_shrink_step_by_step(ops, kind):
    parameters = {"W": np.ones((2, 3)), "b": np.ones(3)}
    grads = [{name: np.zeros_like(p) for name, p in parameters.items()}] * 4
    found = optimized(ops, kind, parameters, grads, 0.1, 1.0, weight_decay=0.5)
    np.testing.assert_allclose(found["W"], (1 - 0.1 * 0.5) ** 4, rtol=1e-12)
    np.testing.assert_array_equal(found["b"], 1)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rows_that_come_and_go_take_the_dense_step(ops, kind):
    """The rows change from step to step; some never occur."""
    rng = np.random.default_rng(1)
    parameters = {"W": rng.normal(size=(V, E))}
    rows = [[0, 1], [5], [1, 2, 5], list(range(V - 1))]
    grads = [{"W": RowGradient(np.array(r, np.int32), rng.normal(size=(len(r), E)))} for r in rows]
    whole = [{"W": dense(g["W"], (V, E))} for g in grads]
    found = optimized(ops, kind, parameters, grads, 0.05, 0.5)["W"]
    expected = optimized(ops, kind, parameters, whole, 0.05, 0.5)["W"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(found[-1], parameters["W"][-1])
    # Adam's moments go on moving a row; the others leave it where it is.
    alone = optimized(ops, kind, parameters, grads[:1], 0.05, 0.5)["W"]
    later = optimized(ops, kind, parameters, grads[:2], 0.05, 0.5)["W"]
    assert (later[0] != alone[0]).all() == (kind == "adam")


@pytest.mark.parametrize("t", [1, 2, 3, 10, 1000, 1_000_000])
def test_adam_corrects_its_moments_at_every_t(ops, t):
    rng = np.random.default_rng(t)
    p, g, m = rng.normal(size=(3, V, E))
    v = rng.random((V, E))
    after = [ops.asarray(a.copy()) for a in (p, g, m, v)]
    lr, beta1, beta2, eps, scale = 0.01, 0.8, 0.95, 1e-3, 0.5
    ops.adam_step(*after, Adam(lr, t, scale, 0.0, beta1, beta2, eps))
    m = beta1 * m + (1 - beta1) * scale * g
    v = beta2 * v + (1 - beta2) * (scale * g) ** 2
    p = p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    for found, expected in zip(after, (p, g, m, v), strict=True):
        np.testing.assert_allclose(ops.to_numpy(found), expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, V - 1), min_size=1), st.integers(1, 1000), st.integers(0, 1000))
def test_adam_by_rows_is_dense_adam(ops, rows, t, seed):
    rng = np.random.default_rng(seed)
    p, m = rng.normal(size=(2, V, E))
    v = rng.random((V, E))
    g = RowGradient(np.array(sorted(rows), np.int32), rng.normal(size=(len(rows), E)))
    how = Adam(0.01, t, 0.7)
    by_rows = [ops.asarray(a.copy()) for a in (p, m, v)]
    whole = [ops.asarray(a.copy()) for a in (p, m, v)]
    ops.adam_step_rows(by_rows[0], on_device(ops, g), *by_rows[1:], how)
    ops.adam_step(whole[0], ops.asarray(dense(g, p.shape)), *whole[1:], how)
    for found, expected in zip(by_rows, whole, strict=True):
        np.testing.assert_allclose(ops.to_numpy(found), ops.to_numpy(expected), rtol=1e-12)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_goes_on_from_its_slots_and_t(ops, kind):
    """What a checkpoint holds is all that the next step depends on."""
    parameters, grads = random_steps(4)
    expected = optimized(ops, kind, parameters, grads, 0.05, 1.0)
    p = {name: ops.asarray(value.copy()) for name, value in parameters.items()}
    first = Optimizer(ops, kind, p)
    for step in grads[:2]:
        first.step(p, {name: on_device(ops, g) for name, g in step.items()}, 0.05, 1.0)
    second = Optimizer(ops, kind, p)
    assert set(second.slots) == set(first.slots)
    second.t = first.t
    for name, slot in first.slots.items():
        second.slots[name][...] = slot
    for step in grads[2:]:
        second.step(p, {name: on_device(ops, g) for name, g in step.items()}, 0.05, 1.0)
    for name, value in expected.items():
        np.testing.assert_array_equal(ops.to_numpy(p[name]), value)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_gradients_are_left_alone(ops, kind):
    parameters, (step,) = random_steps(1)
    given_ = {name: on_device(ops, g) for name, g in step.items()}
    p = {name: ops.asarray(value.copy()) for name, value in parameters.items()}
    Optimizer(ops, kind, p).step(p, given_, 0.1, 0.5)
    np.testing.assert_array_equal(ops.to_numpy(given_["head.b"]), step["head.b"])
    np.testing.assert_array_equal(
        ops.to_numpy(given_["embedding.W"].values), step["embedding.W"].values
    )


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_precision_stays(any_ops, kind):
    parameters, grads = random_steps(3)
    found = optimized(any_ops, kind, parameters, grads, 0.05, 0.5)
    for name, p in found.items():
        assert p.dtype == any_ops.dtype
        first = (0,) * p.ndim  # of a row that occurs
        values = [0.5 * dense_like(g[name], p)[first] for g in grads]
        expected = FORMULAS[kind](float(parameters[name][first]), values, 0.05)
        assert p[first] == pytest.approx(expected, rel=1e-4)


def test_many_words_are_learnt_at_a_lower_rate():
    assert [default_lr("adam", words) for words in (145, MANY_WORDS - 1)] == [5e-3, 5e-3]
    assert [default_lr("adam", words) for words in (MANY_WORDS, 10**6)] == [1e-3, 1e-3]
    assert [default_lr(name, 10**6) for name in ("rmsprop", "sgd")] == [2e-3, 1.0]


def test_every_optimizer_has_a_default_rate_and_others_are_refused(ops):
    assert set(DEFAULT_LR) == set(OPTIMIZERS)
    with pytest.raises(UserError, match="unknown optimizer 'adagrad'"):
        Optimizer(ops, "adagrad", {})


# Clipping -------------------------------------------------------------------------------------


def test_the_global_norm_is_that_of_one_long_vector(any_ops):
    _, (grads,) = random_steps(1)
    whole = np.concatenate([grads["embedding.W"].values.ravel(), grads["head.b"]])
    found = global_norm(any_ops, {name: on_device(any_ops, g) for name, g in grads.items()})
    assert isinstance(found, float)
    assert found == pytest.approx(
        math.sqrt(sum(x * x for x in whole.tolist())),
        rel=1e-12 if any_ops.dtype == np.float64 else 1e-6,
    )


def test_the_global_norm_of_nothing_is_zero(ops):
    assert global_norm(ops, {"b": ops.asarray(np.zeros(5))}) == 0


@given(st.floats(0, 1e6), st.floats(1e-3, 1e3))
def test_clipping_brings_the_norm_down_to_the_limit_and_never_up(norm, clip):
    scale = clip_scale(norm, clip)
    if norm + 1e-6 <= clip:
        assert scale == 1
    else:
        assert norm * scale <= clip
        assert scale == pytest.approx(clip / (norm + 1e-6))


def test_a_limit_of_zero_is_no_limit():
    assert clip_scale(1e9, 0) == 1


# Averages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.99])
@pytest.mark.parametrize("first", [1, 17, 5000])
def test_averages_follow_the_parameters(any_ops, decay, first):
    """By more at first: each ninth of the steps forgets what was before."""
    ops = any_ops
    model = Model(Config(vocabulary=4, embedding=2, hidden=3, layers=1), ops)
    averages = Averages(model, decay)
    expected = {name: ops.to_numpy(p).astype("float64") for name, p in model.parameters.items()}
    rng = np.random.default_rng(0)
    for t in range(first, first + 5):
        for p in model.parameters.values():
            p += ops.asarray(rng.normal(size=p.shape))
        averages.update(t)
        share = max(1 - decay, 2.0 ** -math.floor(math.log2(1 + t // 9)))
        for name, p in model.parameters.items():
            expected[name] = (1 - share) * expected[name] + share * ops.to_numpy(p)
    assert averages.means.keys() == expected.keys()
    tolerance = 1e-12 if ops.dtype == np.float64 else 1e-5
    for name, mean in expected.items():
        found = averages.means[name]
        assert found.dtype == ops.dtype
        np.testing.assert_allclose(ops.to_numpy(found), mean, rtol=tolerance, atol=tolerance)
        assert averages.model.parameters[name] is found  # the model of the averages moves along


def test_an_average_is_of_the_last_part_of_a_short_run_and_then_of_its_decay():
    """Of a parameter that rises by 1 a step, it is so many steps behind."""
    model = Model(Config(vocabulary=4, embedding=2, hidden=3, layers=1), NumpyOps("float64"))
    averages, b = Averages(model, 0.998), model.parameters["lstm.0.b"]
    behind, shares = {}, []
    for t in range(1, 20_001):
        b[...] = t
        averages.update(t)
        behind[t] = t - averages.means["lstm.0.b"][0]
        shares.append(average_share(averages.rate, t))
    for t in (100, 1000, 3000):
        assert t / 20 < behind[t] < t / 8
    assert behind[20_000] == pytest.approx(499, abs=1)
    assert shares == sorted(shares, reverse=True) and shares[0] == 1 and shares[-1] == 1 - 0.998
    assert len(set(shares)) == 10  # as often a step is captured anew


def test_averages_begin_as_the_parameters_and_are_arrays_of_their_own(ops):
    model = Model(Config(vocabulary=4, embedding=2, hidden=3, layers=1), ops)
    averages = Averages(model, 0.9)
    before = {name: ops.to_numpy(p).copy() for name, p in model.parameters.items()}
    averages.update(1)
    for p in model.parameters.values():
        p += 1
    for name, p in before.items():
        np.testing.assert_array_equal(ops.to_numpy(averages.means[name]), p)
    assert averages.model.config == model.config


# Annealing ------------------------------------------------------------------------------------


def rates(annealing, losses):
    """The rate after each epoch; checks that update() tells when it was lowered."""
    found = []
    for loss in losses:
        before = annealing.lr
        assert annealing.update(loss) == (annealing.lr < before)
        found.append(annealing.lr)
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([5, 4, 3, 2, 1], [1, 1, 1, 1, 1], id="falls fast"),
        pytest.param([5, 5, 5], [1, 1, 0.5], id="stands still"),
        pytest.param([5, 4.99, 4.98, 4.97, 4.96], [1, 1, 0.5, 0.5, 0.25], id="falls slowly"),
        pytest.param([5, 6, 7], [1, 1, 0.5], id="rises"),
        pytest.param([5, 5, 4, 4, 3, 3], [1, 1, 1, 1, 1, 1], id="slow epochs not in a row"),
        pytest.param([5, 9, 4.99], [1, 1, 0.5], id="less than the best so far counts"),
        pytest.param([5, 4.94, 4.88, 4.82], [1, 1, 1, 1], id="falls by more than a hundredth"),
        pytest.param([5] * 7, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125], id="counts anew when lowered"),
    ],
)
def test_the_rate_is_lowered_after_patience_slow_epochs(losses, expected):
    assert rates(Annealing(1.0, factor=0.5, patience=2, threshold=0.01), losses) == expected


def test_patience_is_a_number_of_epochs():
    for patience in (1, 2, 5):
        found = rates(Annealing(1.0, patience=patience), [3.0] * (patience + 1))
        assert found == [1.0] * patience + [0.5]


def test_a_factor_of_1_never_lowers():
    assert rates(Annealing(1.0, factor=1.0, patience=1), [5] * 9) == [1.0] * 9


def test_a_rate_that_fell_to_next_to_nothing_is_thawed_for_good():
    annealing = Annealing(1.0, factor=0.5, patience=1)
    found = rates(annealing, [3.0] * 6)
    assert found[-1] == 1 / 32 and annealing.thaw(1.0)
    assert annealing.lr == 0.1
    assert rates(Annealing.from_json(annealing.to_json()), [3.0] * 6) == [0.1] * 6
    still = Annealing(1.0, factor=0.5, patience=1)
    rates(still, [3.0] * 5)
    assert still.lr == 1 / 16 and not still.thaw(1.0) and still.lr == 1 / 16 and still.factor == 0.5


@given(st.lists(st.floats(0.1, 10), max_size=12), st.integers(0, 12))
def test_annealing_goes_on_from_json(losses, cut):
    """Also before the first epoch, when the best loss is infinite."""
    whole = Annealing(0.1, factor=0.7, patience=2, threshold=0.02)
    expected = rates(whole, losses)
    first = Annealing(0.1, factor=0.7, patience=2, threshold=0.02)
    found = rates(first, losses[:cut])
    text = json.dumps(first.to_json(), allow_nan=False)
    second = Annealing.from_json(json.loads(text))
    assert second == first
    assert found + rates(second, losses[cut:]) == expected
