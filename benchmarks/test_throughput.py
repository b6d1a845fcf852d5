"""Training and sampling, tokens a second on each backend: `pytest --benchmark`.

The cases are the paper's and the bundled Bach's shapes, with random ids. Where there is no GPU, its
rows are skipped and say so.
"""

from collections.abc import Callable

import numpy as np
import pytest

from lstm_music.batches import on_device
from lstm_music.errors import UserError
from lstm_music.graph import GraphStep, graph_step
from lstm_music.model import Batch, Config, Model, State
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.optim import Optimizer, clip_scale, global_norm

TRAINING = {  # V, B, T
    "bundled Bach": (950, 50, 50),
    "the paper's Bach": (35_509, 50, 50),
    "Muse-All": (39_289, 50, 50),
    "Classical": (132_437, 25, 25),
}
BACKENDS = ("numba", "cupy")
CLIP, LR = 5.0, 1e-3
GRAPH_STEPS = 20  # of a round: the device is waited for once


@pytest.fixture(params=BACKENDS)
def ops(request: pytest.FixtureRequest) -> NumpyOps:
    try:
        return get_ops(request.param)
    except UserError as error:
        pytest.skip(f"no GPU here: {error}" if request.param == "cupy" else str(error))


def random_batch(V: int, B: int, T: int) -> Batch:
    x, y = np.random.default_rng(0).integers(V, size=(2, T, B), dtype=np.int32)
    return Batch(x, y, None, T * B)


def training_round(model: Model, batch: Batch) -> tuple[Callable[[], None], int]:
    """Return what a round does, and its steps."""
    optimizer = Optimizer(model.ops, "adam", model.parameters)
    graph = graph_step(model, optimizer, CLIP, 0)
    if graph is not None:
        return lambda: graph_round(graph, batch), GRAPH_STEPS
    there = on_device(model.ops, batch)
    state = [model.zero_state(batch.x.shape[1])]
    return lambda: plain_round(model, optimizer, there, state), 1


def graph_round(graph: GraphStep, batch: Batch) -> None:
    """Take steps as graphs, then wait for the device."""
    for step in range(GRAPH_STEPS):
        graph.run(batch, LR, step)
    assert not graph.read().failed


def plain_round(model: Model, optimizer: Optimizer, batch: Batch, state: list[State]) -> None:
    """Take a step as the trainer does on a CPU."""
    _, grads, state[0] = model.loss_and_grads(batch, state[0])
    scale = clip_scale(global_norm(model.ops, grads), CLIP)
    optimizer.step(model.parameters, grads, LR, scale)


@pytest.mark.parametrize("case", TRAINING)
def test_training(benchmark, ops, case):
    V, B, T = TRAINING[case]
    model = Model(Config(vocabulary=V), ops)
    call, steps = training_round(model, random_batch(V, B, T))
    benchmark.group = f"training, {case} (V={V:,}, B={B}, T={T})"
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    tokens = steps * T * B
    benchmark.extra_info["tokens_per_second"] = round(tokens / benchmark.stats.stats.median)


@pytest.mark.parametrize("B", [1, 64])
def test_sampling(benchmark, ops, B):
    """Steps of the network, as the sampler on the CPU takes them; logits stay where they are."""
    V, tokens = 35_509, 20
    model = Model(Config(vocabulary=V), ops)
    x, state = ops.asarray(np.zeros(B), "int32"), model.zero_state(B)

    def call():
        now = state
        for _ in range(tokens):
            logits, now = model.step(x, now)
        ops.to_numpy(logits[0, :1])  # waits for a device

    benchmark.group = f"sampling, V={V:,}, batch {B}"
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    rate = round(tokens * B / benchmark.stats.stats.median)
    benchmark.extra_info["tokens_per_second"] = rate
