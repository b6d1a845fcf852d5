"""The estimate that --sampled-softmax trains with, beside the exact softmax."""

from dataclasses import replace

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from test_heads import problem
from test_model import loss_and_grads, model_of, random_batch, random_parameters, random_state

from lstm_music.arrays import Mixture
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.heads import SoftmaxHead
from lstm_music.network.sampled import Draws, capped, draws_of
from lstm_music.ops import get_ops

V = 40
STEPS = 4000
FAR = 5  # standard errors: one in two million is further away


def zipf(V):
    return np.log1p(1 / np.arange(1.0, V + 1))


def estimated(head, ops, a, targets, scale=1.0, mix=None):
    """Losses and all gradients of a head, on the host."""
    p = {name: ops.asarray(value) for name, value in a.items()}
    ids = ops.asarray(targets, np.int32)
    losses, dh, grads = head.losses_and_grads(ops, p, p["h"], ids, scale, ops.workspace(), mix)
    return losses, {**grads, "h": dh}


def mixture(N):
    own = np.random.default_rng(1).uniform(0.2, 0.9, N)
    return Mixture(np.log(own), np.log((1 - own) / 2))


# Drawing -----------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 70), st.sampled_from(["zipf", "even", "any"]))
def test_chances_add_up_to_what_is_drawn(V, N, kind):
    weights = {
        "zipf": zipf(V), "even": np.ones(V), "any": np.random.default_rng(V).random(V) + 0.01,
    }[kind]  # fmt: skip
    chances = capped(weights, N)
    assert chances.sum() == pytest.approx(min(N, V)) and chances.max() <= 1
    ratio = chances / weights
    np.testing.assert_allclose(ratio[chances < 1], ratio.max())  # in proportion, unless that is 1
    drawn = Draws(weights, N).head(3, 5).drawn
    assert len(drawn) == min(N, V)
    assert N < V or sorted(drawn) == list(range(V))


@pytest.mark.parametrize("weights", [zipf(V), np.ones(V), np.arange(V) % 7 + 0.3], ids=len)
@pytest.mark.parametrize("N", [1, 7, 31])
def test_words_are_drawn_as_often_as_their_chances_say(weights, N):
    draws, found = Draws(weights, N), np.zeros(V)
    for step in range(STEPS):
        head = draws.head(1, step)
        found[np.unique(head.drawn)] += 1
    q = head.chances
    error = np.sqrt(q * (1 - q) / STEPS)
    assert (np.abs(found / STEPS - q) <= FAR * error).all()


def test_seed_and_step_choose_the_words():
    draws = Draws(zipf(1000), 50)
    words = [draws.head(*at).drawn.tolist() for at in ((1, 2), (1, 2), (1, 3), (2, 2))]
    assert words[0] == words[1]
    assert words[0] != words[2] and words[0] != words[3]


# The estimate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "with a copy gate"])
@pytest.mark.parametrize("N", [V, V + 9])
def test_with_all_words_it_is_exact(ops, N, mixed):
    a, targets = problem(12, 5, V)
    mix = mixture(12) if mixed else None
    exact = estimated(SoftmaxHead(5, V), ops, a, targets, 0.5, mix)
    found = estimated(Draws(zipf(V), N).head(0, 0), ops, a, targets, 0.5, mix)
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-13)
    for name, g in exact[1].items():
        np.testing.assert_allclose(found[1][name], g, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "with a copy gate"])
@pytest.mark.parametrize(("N", "rows"), [(1, 1), (6, 12), (20, 12), (20, 3)])
def test_gradients_are_of_the_estimate(ops, N, rows, mixed):
    a, targets = problem(rows, 4, V)
    targets[0] = 2
    head, mix = Draws(zipf(V), N).head(0, 3), mixture(rows) if mixed else None
    found = estimated(head, ops, a, targets, 1 / 7, mix)[1]
    found = {name: g.copy() for name, g in found.items()}

    def loss():
        return float(estimated(head, ops, a, targets, 1 / 7, mix)[0].sum()) / 7

    check_gradients(loss, a, found)


def test_the_sum_that_it_estimates_is_right_on_average():
    """exp(loss) is Z / exp(z of the target): its mean over draws is what the exact loss has."""
    ops, draws = get_ops("numpy", "float64"), Draws(zipf(V), 8)
    a, targets = problem(6, 5, V)
    a["W"] /= 2
    exact = estimated(SoftmaxHead(5, V), ops, a, targets)[0]
    losses = np.array(
        [estimated(draws.head(0, n), ops, a, targets)[0].copy() for n in range(STEPS)]
    )
    ratios, asked = np.exp(losses - exact), targets >= 0
    error = ratios.std(axis=0) / np.sqrt(STEPS)
    assert (np.abs(ratios.mean(axis=0) - 1) <= FAR * error)[asked].all()
    assert (error[asked] < 0.02).all()  # so that another correction would be seen
    assert (losses.mean(axis=0) < exact)[asked].all()  # the logarithm of a mean, by Jensen
    assert (losses[:, ~asked] == 0).all()


def test_its_gradient_approaches_the_exact_one():
    ops = get_ops("numpy", "float64")
    a, targets = problem(6, 5, V)
    a["W"] /= 2
    exact = estimated(SoftmaxHead(5, V), ops, a, targets)[1]["W"].copy()
    away = []
    for N in (4, 16, 36):
        draws, mean = Draws(zipf(V), N), np.zeros_like(exact)
        for n in range(1000):
            mean += estimated(draws.head(0, n), ops, a, targets)[1]["W"] / 1000
        away.append(np.linalg.norm(mean - exact) / np.linalg.norm(exact))
    assert away[0] > 2 * away[1] and away[1] > 4 * away[2] and away[2] < 0.03


def test_only_words_that_count_have_gradients(ops):
    a, targets = problem(12, 5, V)
    head = Draws(zipf(V), 6).head(0, 0)
    count = np.isin(np.arange(V), [*head.drawn, *targets])
    work = ops.workspace()
    for n in range(2):  # of scratch that held another step's
        if n:
            head.losses_and_grads(ops, a, a["h"], targets[::-1] * 0 + 39, 1.0, work)
        grads = head.losses_and_grads(ops, a, a["h"], targets, 1.0, work)[2]
        assert ((grads["W"] != 0).any(axis=0) == count).all()
        assert ((grads["b"] != 0) == count).all()


def test_in_bf16_too():
    ops = get_ops("numba", precision="bf16")
    if ops.precision != "bf16":
        pytest.skip("this processor has no AVX512_BF16")
    a, targets = problem(70, 64, 300)
    a["W"] /= 8
    head = Draws(zipf(300), 50).head(0, 0)
    losses, grads = estimated(head, ops, a, targets)
    exact, of_exact = estimated(head, get_ops("numpy"), a, targets)
    np.testing.assert_allclose(losses, exact, atol=0.05)
    for name, g in of_exact.items():
        assert np.linalg.norm(grads[name] - g) < 0.02 * np.linalg.norm(g), name


# In a model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [0, 3])
def test_a_model_predicts_among_all_words_but_in_training(ops, copy):
    config = Config(V, 6, 5, dropout=0.3, copy=copy)
    model = model_of(config, ops, random_parameters(config))
    batch, state = random_batch(config, 4, 3), random_state(config, 3)
    exact, grads, _ = loss_and_grads(model, batch, state, 1, 2)
    valid = model.losses(batch, state)[0].copy()
    model.draws = draws_of(config, V, ops)
    found, of_found, _ = loss_and_grads(model, batch, state, 1, 2)
    assert found == pytest.approx(exact, rel=1e-12)
    for name, g in grads.items():
        np.testing.assert_allclose(of_found[name], g, rtol=1e-10, atol=1e-15)
    model.draws = draws_of(config, 5, ops)
    assert loss_and_grads(model, batch, state, 1, 2)[0] != pytest.approx(exact, rel=1e-4)
    np.testing.assert_array_equal(model.losses(batch, state)[0], valid)


def test_other_heads_and_gpus_are_refused_in_one_line(cupy_module):
    config, ops = Config(V), get_ops("numpy")
    assert draws_of(config, 0, ops) is None
    assert draws_of(replace(config, head="nade"), 0, ops) is None
    with pytest.raises(UserError, match=r"for --head softmax, and this network's is nade: leave"):
        draws_of(replace(config, head="nade"), 9, ops)
    with pytest.raises(UserError, match=r"leave --sampled-softmax out or use --backend numba"):
        draws_of(config, 9, get_ops("cupy"))
