"""A training step as one CUDA graph, on the stand-in for CuPy, against the steps of NumpyOps."""

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import RECORDER, HostCupy, idle
from small import as_read, random_recall, words_of

from lstm_music.arrays import NO_NOTES, Batch
from lstm_music.network import learning_rate
from lstm_music.network.config import HEADS, Config
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer, clip_scale, global_norm
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.training.graph_step import GraphStep, step_of

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
T, B = 3, 5
RATE = 0.3  # of the averages


def batches(rng, V, n, shape=(T, B), notes=False, copy=0):
    for k in range(n):
        without = rng.random(shape) < 0.2
        if notes:
            x, y = ((rng.random((*shape, V + more)) < 0.3).astype(np.uint8) for more in (1, 0))
            y[without, 0] = NO_NOTES
        else:
            x, y = rng.integers(V, size=(2, *shape), dtype=np.int32)
            y[without] = -1
        keep = (rng.random(shape) < 0.8).astype(np.float32) if k % 2 else None
        recall = random_recall(rng, ~without, copy) if copy else None
        yield Batch(x, y, keep, int((~without).sum()), recall=recall)


def plain_steps(config, given, clip, rates, seed, decay=0.0):
    """Losses, norms, parameters, slots and averages of the reference's own steps."""
    ops = NumpyOps("float64")
    model = Model(config, ops, seed=1, words=words_of(config))
    optimizer = Optimizer(ops, "adam", model.parameters, decay)
    averages = Averages(model, 1 - RATE)
    state = model.zero_state(B)
    found = []
    for step, (batch, lr) in enumerate(zip(given, rates, strict=True)):
        keep = None if batch.keep is None else batch.keep.astype(np.float64)
        loss, grads, state = model.loss_and_grads(batch._replace(keep=keep), state, seed, step)
        norm = global_norm(ops, grads)
        optimizer.step(model.parameters, grads, lr, clip_scale(norm, clip))
        averages.update(optimizer.t)
        found.append((loss, norm))
    return found, model, optimizer, averages.means, state


def graph_model(config, dtype="float64", decay=0.0):
    ops = CupyOps(dtype, cupy=HostCupy())
    model = Model(config, ops, seed=1, words=words_of(config))
    return model, Optimizer(ops, "adam", model.parameters, decay)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("clip", "dropout", "decay", "copy"), [(0.0, 0.3, 0.0, 0), (0.5, 0.0, 0.2, 0), (0.5, 0, 0, 3)]
)
def test_graph_steps_are_the_plain_steps(head, clip, dropout, decay, copy):
    sizes = {"nade": 5, "classes": 4, "deltas": 3, "copy": copy}
    config = Config(11, embedding=6, hidden=7, dropout=dropout, head=head, **sizes)
    rng = np.random.default_rng(0)
    given = list(batches(rng, 11, 5, notes=config.reads_notes, copy=copy))
    given = [batch._replace(x=as_read(rng, config, batch.x)) for batch in given]
    rates = [1e-2, 1e-2, 1e-2, 5e-3, 5e-3]
    expected, reference, slots, means, state = plain_steps(config, given, clip, rates, 3, decay)

    model, optimizer = graph_model(config, decay=decay)
    averages = Averages(model, 1 - RATE)
    step = step_of(model, optimizer, clip, 3, averages)
    assert isinstance(step, GraphStep)
    for batch, lr, each in zip(given, rates, expected, strict=True):
        step.run(batch, lr)
        totals = step.read()
        np.testing.assert_allclose((totals.loss, totals.norm), each, rtol=1e-9)
        np.testing.assert_allclose(totals.loss_sum, totals.loss * batch.targets, rtol=1e-12)
        assert not totals.failed
    for name, p in reference.parameters.items():
        found = model.ops.to_numpy(model.parameters[name])
        np.testing.assert_allclose(found, p, rtol=1e-7, atol=1e-9, err_msg=name)
        mean = model.ops.to_numpy(averages.means[name])
        np.testing.assert_allclose(mean, means[name], rtol=1e-7, atol=1e-9, err_msg=name)
    for name, p in slots.slots.items():
        found = model.ops.to_numpy(optimizer.slots[name])
        np.testing.assert_allclose(found, p, rtol=1e-7, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(model.ops.to_numpy(step.state.h), state.h, rtol=1e-7, atol=1e-9)
    assert optimizer.t == slots.t


def test_a_graph_is_captured_anew_where_averages_move_by_another_share(monkeypatch):
    """Steps of one graph read that share as a constant."""
    monkeypatch.setattr(learning_rate, "RECENT", 2)
    config = Config(11, embedding=6, hidden=7, dropout=0.3)
    given = list(batches(np.random.default_rng(0), 11, 7))
    _, _, _, means, _ = plain_steps(config, given, 0.5, [1e-2] * 7, 3)
    model, optimizer = graph_model(config)
    averages = Averages(model, 1 - RATE)
    step, shares = step_of(model, optimizer, 0.5, 3, averages), []
    for batch in given:
        step.run(batch, 1e-2)
        shares.append(step.share)
    step.read()
    assert shares == pytest.approx([1, 0.5, 0.5, 0.5, 0.5, RATE, RATE])
    for name, mean in means.items():
        found = model.ops.to_numpy(averages.means[name])
        np.testing.assert_allclose(found, mean, rtol=1e-7, atol=1e-9, err_msg=name)


def test_bf16_learns_as_float64_does_with_logits_nowhere():
    config = Config(vocabulary=150, embedding=32, hidden=64, dropout=0.1)
    given = list(batches(np.random.default_rng(0), 150, 2)) * 8
    expected, *_ = plain_steps(config, given, 5.0, [1e-2] * len(given), seed=3)
    ops = CupyOps("float32", "bf16", cupy=HostCupy(("shuffled",)))
    model = Model(config, ops, seed=1)
    step = GraphStep(model, Optimizer(ops, "adam", model.parameters), 5.0, 3)
    found = []
    for batch in given:
        step.run(batch, 1e-2)
        found.append(step.read().loss)
    losses = [loss for loss, _ in expected]
    assert losses[-1] < 0.6 * losses[0]  # there is something to lose
    np.testing.assert_allclose(found, losses, rtol=0.02)
    used = ops.xp.launches
    assert used["softmax_head_backward"] and used["lstm_sequence_bf16_backward"]
    assert not used.keys() & {"softmax_xent_backward", "lstm_sequence_backward"}


def nodes(config, precision, T=50, B=50):
    """The nodes of a captured step on an H200."""
    cupy = HostCupy(multiprocessors=132)
    with idle():
        ops = CupyOps("float32", precision, cupy=cupy)
        model = Model(config, ops, seed=1, words=words_of(config))
        step = GraphStep(model, Optimizer(ops, "adam", model.parameters), 5.0)
        ids, recall = np.zeros((T, B), np.int32), np.zeros((T, B, config.copy), np.uint8)
        batch = Batch(ids, ids, None, T * B, recall=recall if config.copy else None)
        with step.stream:
            return step._capture(batch).graph.nodes


OPENING = ["embedding_forward"]
CLOSING = ["embedding_sort", "embedding_backward"]
CLOSING += ["sum_squares_forward", "clip_forward", "adam_forward"]


def layer(kernel, *between):
    """The nodes of a layer forward, and backward with what stands before."""
    backward = [*between, f"{kernel}_backward", "column_sum", *["gemm"] * 3]
    return ["gemm", f"{kernel}_forward"], backward


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_captured_step_of_the_papers_size_is_kernels_and_products_alone(precision):
    forward, backward = layer("lstm_sequence")
    chunk = ["gemm", "softmax_xent_backward", "gemm", "gemm", "column_sum"]
    found = nodes(Config(35_509), precision)
    assert found == OPENING + 2 * forward + 11 * chunk + 2 * backward + CLOSING
    assert len(found) == 75


def test_so_it_is_in_bf16():
    forward, backward = layer("lstm_sequence_bf16")
    head = ["bf16_forward"] + [f"softmax_head_{name}" for name in ("copy", "forward", "merge")]
    head += 6 * ["softmax_head_backward", "gemm", "gemm"] + ["column_sum"]
    found = nodes(Config(35_509), "bf16")
    assert found == OPENING + 2 * forward + head + 2 * backward + CLOSING
    assert len(found) == 43


def test_a_copy_gate_is_three_products_and_four_kernels():
    forward, backward = layer("lstm_sequence")
    gate = (
        ["gemm", "divide", "copy_gate_shares"],
        ["copy_gate_backward", "divide", "gemm", "gemm"],
    )
    chunk = ["gemm", "softmax_xent_backward", "gemm", "gemm", "column_sum"]
    found = nodes(Config(473, copy=9), "fp32")
    assert found == OPENING + 2 * forward + gate[0] + chunk + gate[1] + 2 * backward + CLOSING


def test_dropout_is_a_node_each_time_and_no_copy():
    forward, backward = layer("lstm_sequence", "dropout_forward")
    chunk = ["gemm", "softmax_xent_backward", "gemm", "gemm", "column_sum"]
    found = nodes(Config(473, hidden=192, dropout=0.25), "fp32", 64, 16)
    dropped = ["dropout_forward"]
    expected = OPENING + dropped + 2 * (forward + dropped) + chunk + 2 * backward + dropped
    assert found == expected + CLOSING


def test_each_capture_has_memory_of_its_own():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    for number, shape in enumerate([(3, B), (2, B), (3, B)]):
        (batch,) = batches(np.random.default_rng(number), 11, 1, shape)
        step.run(batch, 1e-2)
    pools = [captured.pool for captured in step._graphs.values()]
    assert len(pools) == 2 and pools[0] is not pools[1]


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    (batch,) = batches(np.random.default_rng(0), 11, 1)
    model, optimizer = graph_model(config)
    adam_all, calls = model.ops.adam_all, []

    def failing(*args, **kwargs):
        calls.append(RECORDER.steps is not None)
        if calls[-1]:
            raise OSError("not in a graph")
        adam_all(*args, **kwargs)

    monkeypatch.setattr(model.ops, "adam_all", failing)
    with pytest.raises(OSError, match="not in a graph"):
        GraphStep(model, optimizer, 5.0).run(batch, 1e-2)
    assert calls == [False, True] and RECORDER.steps is None


def test_totals_add_up_until_they_are_read():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    given = list(batches(np.random.default_rng(0), 11, 3))
    expected, *_ = plain_steps(config, given, 5.0, [1e-2] * 3, seed=0)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    for batch in given:
        step.run(batch, 1e-2)
    totals = step.read()
    nats = sum(loss * batch.targets for (loss, _), batch in zip(expected, given, strict=True))
    np.testing.assert_allclose(totals.loss_sum, nats, rtol=1e-9)
    np.testing.assert_allclose(totals.norm_sum, sum(norm for _, norm in expected), rtol=1e-9)
    assert step.read().loss_sum == 0


def test_a_step_without_a_finite_loss_changes_nothing_and_says_so():
    config = Config(vocabulary=11, embedding=6, hidden=7, layers=1)
    first, second = batches(np.random.default_rng(0), 11, 2)
    model, optimizer = graph_model(config, decay=0.1)
    averages = Averages(model, 1 - RATE)
    step = GraphStep(model, optimizer, 5.0, averages=averages)
    step.run(first, 1e-2)
    model.parameters["head.b"][...] = np.nan
    arrays = model.parameters | {f"mean of {name}": mean for name, mean in averages.means.items()}
    before = {name: model.ops.to_numpy(a) for name, a in arrays.items()}
    for _ in range(3):
        step.run(second, 1e-2)
    assert step.read().failed == 3
    for name, a in before.items():
        np.testing.assert_array_equal(model.ops.to_numpy(arrays[name]), a, name)


@pytest.mark.parametrize("head", HEADS)
def test_each_shape_has_its_graph_and_a_run_between_does_not_disturb_it(head):
    config = Config(11, embedding=6, hidden=7, layers=2, head=head, classes=4, deltas=3)
    rng = np.random.default_rng(0)
    made = [batch for T in (4, 2) for batch in batches(rng, 11, 1, (T, B), config.reads_notes)]
    long, short = (batch._replace(x=as_read(rng, config, batch.x)) for batch in made)
    given = [long, short, long]
    expected, *_ = plain_steps(config, given, 5.0, [1e-2] * 3, seed=0)
    model, optimizer = graph_model(config)
    step = GraphStep(model, optimizer, 5.0)
    for batch, (loss, _) in zip(given, expected, strict=True):
        step.run(batch, 1e-2)
        np.testing.assert_allclose(step.read().loss, loss, rtol=1e-9)
        on_device = Batch(*(model.ops.asarray(a, a.dtype) for a in (short.x, short.y)), None, 1)
        model.losses(on_device, model.zero_state(B))
