"""Training and sampling, tokens a second on each backend: `pytest --benchmark`.

The cases are the paper's shapes and the bundled Bach's, with random ids. The table that conftest.py
prints at the end holds each to its bound: the FLOPs of a step's GEMMs at the rate of a large GEMM,
or its bytes (for sampling those of the weights) at the rate of reading memory, whichever takes
longer; both rates are measured first.
"""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from gpu_cases import CLIP, COPIED, GOAL_CASES, LR, SAMPLING_WORDS, SQUARE, Case
from gpu_ours import Ours, by_events, config_of, random_batch, step_bound
from lstm_music.arrays import Batch
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.network.optim import Optimizer
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.sampling.composer import sample_on_cpu
from lstm_music.sampling.device import DeviceSampler
from lstm_music.sampling.options import Options
from lstm_music.sampling.word_rules import chord_rules
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary
from lstm_music.training.graph_step import step_of
from lstm_music.training.step import Step

TRAINING = (Case("bundled Bach", 951, 50, 50), *GOAL_CASES)
BACKENDS = ("numpy", "numba", "cupy")
SAMPLED = {"numpy": 20, "numba": 20, "cupy": 512}  # tokens of a piece, a round
EIGHTH = 240  # ticks


@pytest.fixture(scope="module", params=BACKENDS)
def ops(request: pytest.FixtureRequest, throughput) -> NumpyOps:
    try:
        found = get_ops(request.param)
    except UserError as error:
        throughput.missing[request.param] = str(error)
        pytest.skip(f"no GPU here: {error}" if request.param == "cupy" else str(error))
    device = device_of(found)
    if device not in throughput.ceilings:
        measured = gpu_ceilings(found) if isinstance(found, CupyOps) else cpu_ceilings()
        throughput.ceilings[device] = measured
    return found


def device_of(ops: NumpyOps) -> str:
    return "GPU" if isinstance(ops, CupyOps) else "CPU"


# Bounds -----------------------------------------------------------------------------------------


def best_seconds(call: Callable[[], object], rounds: int = 5) -> float:
    """Return the least seconds of a call: a ceiling is what the machine does undisturbed."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)


def cpu_ceilings() -> dict[str, float]:
    """Return what this CPU reaches: FLOP a second of the BLAS, bytes a second it reads."""
    n = 2048
    x = np.ones((n, n), np.float32)
    out = np.empty_like(x)
    flops = 2 * n**3 / best_seconds(lambda: np.matmul(x, x, out=out))
    big = np.ones(1 << 26, np.float32)
    return {"fp32": flops, "bytes": big.nbytes / best_seconds(lambda: big @ big)}


def gpu_ceilings(ops: CupyOps) -> dict[str, float]:
    """Return what this GPU reaches: FLOP a second of a GEMM, bytes a second of a copy."""
    ours = Ours(ops.xp, by_events(ops.xp))
    return {"fp32": ours.gemm_rate("fp32", SQUARE), "bytes": ours.copy_rate(COPIED)}


def sampling_bound(B: int, ceiling: dict[str, float]) -> float:
    """Return the seconds a token of each piece takes at least."""
    sizes = parameter_shapes(Config(SAMPLING_WORDS))
    read = sum(math.prod(s) for name, s in sizes.items() if not name.startswith("embedding"))
    return max(2 * B * read / ceiling["fp32"], 4 * read / ceiling["bytes"])


# Training ---------------------------------------------------------------------------------------


def training_round(model: Model, batch: Batch) -> tuple[Callable[[], None], int]:
    """Return what a round does, and its steps."""
    optimizer = Optimizer(model.ops, "adam", model.parameters)
    step = step_of(model, optimizer, CLIP)
    return lambda: training_steps(step, batch), step.read_every


def training_steps(step: Step, batch: Batch) -> None:
    """Take steps as the trainer does, until it reads the losses."""
    for _ in range(step.read_every):
        step.run(batch, LR)
    assert not step.read().failed


@pytest.mark.parametrize("case", TRAINING, ids=lambda case: f"V={case.V}")
def test_training(benchmark, throughput, rounds, ops, case):
    batch = random_batch(case, np.random.default_rng(0))
    call, steps = training_round(Model(config_of(case), ops), batch)
    name = f"training, {case.name} (V={case.V:,}, B={case.B}, T={case.T})"
    benchmark.group = f"throughput: {name}"
    # A small step takes milliseconds, a large one a second or more.
    benchmark.pedantic(call, **rounds(15 if case.V < 10_000 else 3))
    rate = steps * case.N / benchmark.stats.stats.median
    benchmark.extra_info["tokens_per_second"] = round(rate)
    bound = step_bound(case, throughput.ceilings[device_of(ops)], "fp32")
    throughput.add(name, ops.name, rate, case.N / bound)


# Sampling ---------------------------------------------------------------------------------------


def sampling_round(model: Model, B: int, tokens: int) -> Callable[[], object]:
    """Return what a round does: compose pieces of so many tokens, one an eighth note long.

    Drawn on a CPU as bin/sample draws, on a GPU by the loop on the device.
    """
    # As far apart as a trained network's logits; equal ones would have top-p keep the vocabulary.
    model.parameters["head.W"] *= 50
    if isinstance(model.ops, CupyOps):
        allowed = np.ones(SAMPLING_WORDS, np.uint8)
        allowed[0] = 0  # no piece ends
        options = Options(top_p=0.9)
        return lambda: DeviceSampler(model, B, options, 0, allowed=allowed).run(tokens)
    words = Vocabulary([PIECE_END, *map(str, range(1, SAMPLING_WORDS))])
    options = Options(limit=tokens * EIGHTH, top_p=0.9)
    rules, primers = chord_rules(words, EIGHTH), [[] for _ in range(B)]

    def call() -> None:
        pieces = sample_on_cpu(model, primers, options, rules, lambda *_: None)
        assert all(len(piece) == tokens for piece in pieces)

    return call


@pytest.mark.parametrize("B", [1, 64])
def test_sampling(benchmark, throughput, rounds, ops, B):
    model, tokens = Model(Config(SAMPLING_WORDS), ops), SAMPLED[ops.name]
    name = f"sampling, batch {B} (V={SAMPLING_WORDS:,})"
    benchmark.group = f"throughput: {name}"
    benchmark.pedantic(sampling_round(model, B, tokens), **rounds(3))
    rate = tokens * B / benchmark.stats.stats.median
    benchmark.extra_info["tokens_per_second"] = round(rate)
    bound = sampling_bound(B, throughput.ceilings[device_of(ops)])
    throughput.add(name, ops.name, rate, B / bound)
