"""Drawing on the device against the sampler on the CPU, with the same random numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from lstm_music.device_sampling import DeviceSampler
from lstm_music.model import Config, Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.cupy_ops import CupyOps
from lstm_music.ops.philox import uniform
from lstm_music.sampler import Options, choose

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
START = 0


def small_model(ops, V):
    return Model(Config(vocabulary=V, embedding=4, hidden=5, layers=1), ops, seed=1)


@pytest.fixture(scope="module", params=["float64", "float32"])
def ops(request):
    return CupyOps(request.param, cupy=HostCupy())


@settings(max_examples=40, deadline=None)
@given(
    V=st.sampled_from([1, 2, 31, 33, 300, 1025]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 5000]),
    top_p=st.sampled_from([1.0, 0.9, 0.3, 0.01]),
    greedy=st.booleans(),
    masked=st.booleans(),
    levels=st.sampled_from([2, 5, 10**6]),  # few levels: many equal logits
)
def test_draws_what_the_cpu_draws(ops, V, seed, temperature, top_k, top_p, greedy, masked, levels):
    rng = np.random.default_rng(seed)
    options = Options(temperature=temperature, top_k=top_k, top_p=top_p, greedy=greedy)
    logits = (rng.integers(levels, size=(3, V)) * (8 / levels)).astype(np.float32)
    allowed = np.flatnonzero(rng.random(V) < 0.5) if masked else None
    if allowed is not None and not len(allowed):
        allowed = np.array([V - 1])
    mask = None if allowed is None else np.isin(np.arange(V), allowed).astype(np.uint8)
    draws = rng.random(3)
    # A start symbol outside the vocabulary: no draw ends a piece.
    sampler = DeviceSampler(small_model(ops, V), 3, options, start=V, allowed=mask)
    out = ops.asarray(np.full((1, 3), -1), np.int32)
    sampler.draw(ops.asarray(logits), out, ops.asarray(draws, np.float64))
    expected = [choose(row, allowed, u, options) for row, u in zip(logits, draws, strict=True)]
    assert ops.to_numpy(out)[0].tolist() == expected


def draw_on_the_cpu(V, N, most, options):
    """The same loop, written plainly."""
    model = small_model(NumpyOps("float64"), V)
    x, state = np.full(N, START, np.int32), model.zero_state(N)
    pieces, alive = [[] for _ in range(N)], [True] * N
    for t in range(most):
        logits, state = model.step(x, state)
        for n in range(N):
            u = float(uniform(options.seed, n, t // 1024, 1024)[t % 1024])
            x[n] = choose(logits[n], None, u, options) if alive[n] else START
            alive[n] = alive[n] and x[n] != START
            if alive[n]:
                pieces[n].append(int(x[n]))
    return pieces


@pytest.mark.parametrize("options", [Options(seed=5), Options(seed=6, top_k=4, top_p=0.8)])
def test_a_whole_piece_is_the_cpus(options):
    ops = CupyOps("float64", cupy=HostCupy(("shuffled",)))
    V, N, most = 23, 3, 40
    sampler = DeviceSampler(small_model(ops, V), N, options, START)
    found = sampler.run(most)
    assert found == draw_on_the_cpu(V, N, most, options)
    assert any(found)
