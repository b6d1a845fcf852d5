"""A training step: what is asked of one, of the step done at once and of the captured one alike."""

import math

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from test_graph import RATE, B, batches, plain_steps

from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.training.graph_step import GraphStep, step_of
from lstm_music.training.ranks import Alone
from lstm_music.training.step import EagerStep

CONFIG = Config(vocabulary=11, embedding=6, hidden=7, layers=2, dropout=0.3)
NEEDS_COMPILER = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++, c++)")
KINDS = [EagerStep, pytest.param(GraphStep, marks=NEEDS_COMPILER)]


def made(kind, clip=0.05, seed=3):
    """Steps of a new model, with averages."""
    ops = CupyOps("float64", cupy=HostCupy()) if kind is GraphStep else NumpyOps("float64")
    model = Model(CONFIG, ops, seed=1)
    optimizer = Optimizer(ops, "adam", model.parameters, 0.1)
    return kind(model, optimizer, clip, seed, Averages(model, 1 - RATE))


def arrays(step):
    """Copies of all that a step changes, by name."""
    found = step.model.parameters | step.optimizer.slots | dict(zip("hc", step.state, strict=True))
    return {name: step.model.ops.to_numpy(a).copy() for name, a in found.items()}


def given(n, seed=0):
    return list(batches(np.random.default_rng(seed), CONFIG.vocabulary, n))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_add_up_until_they_are_read(kind):
    step, windows = made(kind), given(5)
    expected, model, _, means, _ = plain_steps(CONFIG, windows, 0.05, [1e-2] * 5, 3, 0.1)
    read = []
    for number, batch in enumerate(windows):
        step.run(batch, 1e-2)
        if number in (2, 4):
            read.append(step.read())
    for totals, part in zip(read, (slice(0, 3), slice(3, 5)), strict=True):
        np.testing.assert_allclose((totals.loss, totals.norm), expected[part][-1], rtol=1e-8)
        losses, norms = zip(*expected[part], strict=True)
        nats = np.dot(losses, [batch.targets for batch in windows[part]])
        np.testing.assert_allclose((totals.loss_sum, totals.norm_sum), (nats, sum(norms)), 1e-8)
        assert not totals.failed
    assert step.number == 5
    for name, p in model.parameters.items():
        found = step.model.ops.to_numpy(step.model.parameters[name])
        np.testing.assert_allclose(found, p, rtol=1e-7, atol=1e-9, err_msg=name)
    averages = step.averages.means if kind is EagerStep else step.means
    for name, mean in means.items():
        found = step.model.ops.to_numpy(averages[name])
        np.testing.assert_allclose(found, mean, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_goes_on_from_a_state_and_a_number(kind):
    straight, parts, windows = made(kind), made(kind), given(4)
    for batch in windows:
        straight.run(batch, 1e-2)
    for batch in windows[:2]:
        parts.run(batch, 1e-2)
    kept = arrays(parts)
    again = made(kind)
    for name, a in (again.model.parameters | again.optimizer.slots).items():
        a[...] = again.model.ops.asarray(kept[name])
    again.optimizer.t = again.number = 2
    again.reset(type(parts.state)(*(again.model.ops.asarray(kept[name]) for name in "hc")))
    for batch in windows[2:]:
        again.run(batch, 1e-2)
    expected = arrays(straight)
    for name, a in arrays(again).items():
        np.testing.assert_array_equal(a, expected[name], name)
    again.reset(again.model.zero_state(B))
    assert not any(a.any() for name, a in arrays(again).items() if name in "hc")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_and_those_after_it_change_nothing_until_it_is_read(kind):
    step, (first, second) = made(kind), given(2)
    step.run(first, 1e-2)
    assert not step.read().failed
    spoiled = step.model.parameters["head.b"]
    healthy = step.model.ops.to_numpy(spoiled).copy()
    spoiled[...] = np.nan
    step.run(second, 1e-2)
    spoiled[...] = step.model.ops.asarray(healthy)
    before = arrays(step)
    step.run(first, 1e-2)
    for name, a in arrays(step).items():
        if name not in "hc":
            np.testing.assert_array_equal(a, before[name], name)
    totals = step.read()
    assert totals.failed == 2 and math.isnan(totals.loss_sum)
    assert totals.tensor == ("head.b" if kind is EagerStep else "")
    step.reset(step.model.zero_state(B))
    step.run(first, 1e-2)
    assert not step.read().failed
    assert (arrays(step)["head.W"] != before["head.W"]).any()


def test_after_a_bad_step_the_next_begins_from_an_empty_state():
    step, (first, second) = made(EagerStep), given(2)
    step.run(first, 1e-2)
    assert step.state.h.any()
    step.model.parameters["lstm.0.Wh"][...] = np.inf
    with np.errstate(all="ignore"):
        step.run(second, 1e-2)
    assert step.read().tensor == "lstm.0.Wh"
    assert not step.state.h.any() and not step.state.c.any()


@NEEDS_COMPILER
def test_a_step_is_captured_where_it_can_be():
    class Together(Alone):
        alone = False

    def kind_of(ops, kind="adam", ranks=None, skips=False):
        model = Model(CONFIG, ops, seed=1)
        optimizer = Optimizer(ops, kind, model.parameters)
        return type(step_of(model, optimizer, 5.0, ranks=ranks or Alone(), skips=skips))

    gpu = CupyOps("float64", cupy=HostCupy())
    assert kind_of(gpu) is GraphStep
    assert kind_of(NumpyOps()) is EagerStep
    assert kind_of(gpu, "sgd") is kind_of(gpu, ranks=Together()) is EagerStep
    assert kind_of(gpu, skips=True) is EagerStep
