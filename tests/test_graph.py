"""A training step as one CUDA graph, on the stand-in for CuPy, against the steps of NumpyOps."""

import numpy as np
import pytest

from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from lstm_music.graph import GraphStep
from lstm_music.model import Batch, Config, Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.cupy_ops import CupyOps
from lstm_music.optim import Optimizer, clip_scale, global_norm

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
T, B = 3, 5


def batches(rng, V, n, shape=(T, B)):
    for k in range(n):
        x, y = rng.integers(V, size=(2, *shape), dtype=np.int32)
        y[rng.random(shape) < 0.2] = -1
        keep = (rng.random(shape) < 0.8).astype(np.float32) if k % 2 else None
        yield Batch(x, y, keep, int((y >= 0).sum()))


def plain_steps(config, given, clip, rates, seed):
    """Losses, norms, parameters and slots of the reference's own steps."""
    ops = NumpyOps("float64")
    model = Model(config, ops, seed=1)
    optimizer = Optimizer(ops, "adam", model.parameters)
    state = model.zero_state(B)
    found = []
    for step, (batch, lr) in enumerate(zip(given, rates, strict=True)):
        keep = None if batch.keep is None else batch.keep.astype(np.float64)
        loss, grads, state = model.loss_and_grads(batch._replace(keep=keep), state, seed, step)
        norm = global_norm(ops, grads)
        optimizer.step(model.parameters, grads, lr, clip_scale(norm, clip))
        found.append((loss, norm))
    return found, model, optimizer, state


def graph_model(config, dtype="float64"):
    ops = CupyOps(dtype, cupy=HostCupy())
    model = Model(config, ops, seed=1)
    return model, Optimizer(ops, "adam", model.parameters)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_graph_steps_are_the_plain_steps(clip, dropout):
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=2, dropout=dropout)
    given = list(batches(np.random.default_rng(0), 11, 5))
    rates = [1e-2, 1e-2, 1e-2, 5e-3, 5e-3]
    expected, reference, slots, state = plain_steps(config, given, clip, rates, seed=3)

    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, clip, seed=3)
    for number, (batch, lr) in enumerate(zip(given, rates, strict=True)):
        step.run(batch, lr, number)
        totals = step.read()
        np.testing.assert_allclose((totals.loss, totals.norm), expected[number], rtol=1e-9)
        np.testing.assert_allclose(totals.loss_sum, totals.loss * batch.targets, rtol=1e-12)
        assert not totals.failed
    for name, p in reference.parameters.items():
        found = model.ops.to_numpy(model.parameters[name])
        np.testing.assert_allclose(found, p, rtol=1e-7, atol=1e-9, err_msg=name)
    for name, p in slots.slots.items():
        found = model.ops.to_numpy(optimizer.slots[name])
        np.testing.assert_allclose(found, p, rtol=1e-7, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(model.ops.to_numpy(step.state.h), state.h, rtol=1e-7, atol=1e-9)
    assert optimizer.t == slots.t


def test_totals_add_up_until_they_are_read():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    given = list(batches(np.random.default_rng(0), 11, 3))
    expected, *_ = plain_steps(config, given, 5.0, [1e-2] * 3, seed=0)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    for number, batch in enumerate(given):
        step.run(batch, 1e-2, number)
    totals = step.read()
    nats = sum(loss * batch.targets for (loss, _), batch in zip(expected, given, strict=True))
    np.testing.assert_allclose(totals.loss_sum, nats, rtol=1e-9)
    np.testing.assert_allclose(totals.norm_sum, sum(norm for _, norm in expected), rtol=1e-9)
    assert step.read().loss_sum == 0


def test_a_step_without_a_finite_loss_changes_nothing_and_says_so():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    first, second = batches(np.random.default_rng(0), 11, 2)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    step.run(first, 1e-2, 0)
    model.parameters["head.b"][...] = np.nan
    before = {k: model.ops.to_numpy(p) for k, p in model.parameters.items()}
    step.run(second, 1e-2, 1)
    assert step.read().failed
    for name, p in before.items():
        np.testing.assert_array_equal(model.ops.to_numpy(model.parameters[name]), p, name)


def test_each_shape_has_its_graph_and_a_run_between_does_not_disturb_it():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=2)
    rng = np.random.default_rng(0)
    (long,), (short,) = (list(batches(rng, 11, 1, s)) for s in ((4, B), (2, B)))
    given = [long, short, long]
    expected, *_ = plain_steps(config, given, 5.0, [1e-2] * 3, seed=0)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    for number, batch in enumerate(given):
        step.run(batch, 1e-2, number)
        np.testing.assert_allclose(step.read().loss, expected[number][0], rtol=1e-9)
        on_device = Batch(*(model.ops.asarray(a, "int32") for a in (short.x, short.y)), None, 1)
        model.losses(on_device, model.zero_state(B))
