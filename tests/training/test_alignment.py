"""Rows as long as the vocabulary are aligned in a GPU's memory, and nowhere else does it show."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from small import words_of
from test_graph import batches
from test_graph_trainer import corpus, host_gpu, trainer_of  # noqa: F401 (a fixture)

from lstm_music.arrays import Batch
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.layout import apart, extent, padded, pointer
from lstm_music.ops.reference.maths import Adam
from lstm_music.ops.workspace import zeros_as
from lstm_music.runs.checkpoint import checkpoints_of, read_checkpoint
from lstm_music.training.graph_step import GraphStep

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
V = 67
# Heads on tensor cores, by copies in bf16, and in two parts.
HEADS = {
    "softmax": Config(V, 64, 64, 2),
    "copies": Config(V, 16, 16, 1),
    "factored": Config(V, 16, 16, 1, head="factored", classes=9, deltas=11),
}


def watched(products):
    """A stand-in for CuPy that notes the places and leading dimensions of each product."""
    cupy = HostCupy(("ascending",))
    gemm_ex = cupy.cublas_library.cublasGemmEx

    def gemm(*args):
        products.append([(args[at], args[at + 2]) for at in (7, 10, 14)])
        return gemm_ex(*args)

    cupy.cublas_library = SimpleNamespace(**vars(cupy.cublas_library) | {"cublasGemmEx": gemm})
    return cupy


def taken(config, dtype, precision, steps=6, cupy=None):
    """A model after some steps, its losses, and the arrays of its parameters."""
    ops = CupyOps(dtype, precision, cupy=cupy or HostCupy(("ascending",)))
    model = Model(config, ops, seed=1, words=words_of(config))
    optimizer = Optimizer(ops, "adam", model.parameters, 0.1)
    averages = Averages(model, 0.9)
    # Not clipped: the norm adds up in another order where rows lie elsewhere.
    step = GraphStep(model, optimizer, 0.0, averages=averages)
    losses = []
    for batch in batches(np.random.default_rng(0), V, steps):
        step.run(batch, 1e-2)
        losses.append(step.read().loss)
    (captured,) = step._graphs.values()
    return model, losses, captured.alive[1].alive


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("head", HEADS)
def test_cublas_finds_every_matrix_aligned(head, precision):
    products, config = [], HEADS[head]
    model, *_ = taken(config, "float32", precision, 1, watched(products))
    if head == "softmax":
        ids = model.ops.asarray(np.zeros((2, 3)), np.int32)
        model.losses(Batch(ids, ids, None, 6), model.zero_state(3))
        model.step(ids[0], model.zero_state(3))
    assert len(products) > 10
    for matrices in products:
        for address, leading in matrices:
            assert leading % 8 == 0 and address % 16 == 0


def test_rows_are_apart_by_eights_or_by_lines_of_the_cache():
    assert [padded(n) for n in (1, 8, 473, 951, 1024, 35_509)] == [8, 8, 480, 952, 1024, 35_520]
    ops = CupyOps("float32", cupy=HostCupy())
    a = ops.aligned(ops.asarray(np.ones((3, 5))))
    assert a.shape == (3, 5) and apart(a) == 8 and extent(a) == 24
    assert ops.aligned(a) is a


@pytest.mark.slow(keep=3)
@pytest.mark.parametrize(("dtype", "precision"), [("float32", "fp32"), ("float32", "bf16"),
                                                  ("float64", "fp32")])  # fmt: skip
@pytest.mark.parametrize("head", HEADS)
def test_training_gives_the_bits_of_rows_without_gaps(head, dtype, precision, monkeypatch):
    model, losses, _ = taken(HEADS[head], dtype, precision)
    monkeypatch.setattr(CupyOps, "aligned", lambda self, a: a)
    plain, expected, _ = taken(HEADS[head], dtype, precision)
    assert losses == expected
    for name, p in plain.parameters.items():
        assert p.flags.c_contiguous
        found = model.ops.to_numpy(model.parameters[name])
        np.testing.assert_array_equal(found, model.ops.to_numpy(p), name)


@pytest.mark.parametrize("head", HEADS)
def test_what_lies_between_rows_stays_zero(head):
    model, _, parameters = taken(HEADS[head], "float32", "bf16")
    gaps = 0
    for each in parameters:
        for a in (each.p, each.g, each.m, each.v, each.mean):
            if not hasattr(a, "strides") or a.flags.c_contiguous:
                continue
            kind = ctypes.c_float * extent(a)
            whole = np.ctypeslib.as_array(kind.from_address(pointer(a))).reshape(len(a), -1)
            assert whole[:, : a.shape[1]].any() and not whole[:, a.shape[1] :].any()
            gaps += 1
    assert gaps == 5 * len(model.head.wide)


def test_a_norm_a_step_and_a_mean_take_such_a_matrix():
    ops, rng = CupyOps("float64", cupy=HostCupy()), np.random.default_rng(0)
    values = [rng.random((24, 170)) for _ in range(5)]  # with what lies between, a block more
    p, g, m, v, mean = (ops.aligned(ops.asarray(a)) for a in values)
    assert ops.sum_squares(g) == pytest.approx(float((values[1] ** 2).sum()))
    how = Adam(0.1, 3, 0.5, 0.2, 0.9, 0.99, 1e-3)
    ops.adam_step(p, g, m, v, how)
    NumpyOps("float64").adam_step(*values[:4], how)
    ops.average_step(p, mean, 0.3)
    NumpyOps("float64").average_step(values[0], values[4], 0.3)
    for a, expected in zip((p, g, m, v, mean), values, strict=True):
        np.testing.assert_allclose(ops.to_numpy(a), expected, rtol=1e-12)
    slot = zeros_as(ops.xp, p)
    assert slot.strides == p.strides and not ops.to_numpy(slot).any()


@pytest.mark.parametrize("first", ["gpu", "cpu"])
def test_files_know_nothing_of_it(corpus, tmp_path, first):  # noqa: F811
    cpu, gpu = NumpyOps("float64"), host_gpu()
    one, other = (gpu, cpu) if first == "gpu" else (cpu, gpu)
    how = {"average": 0.8, "max_steps": 4}
    written = trainer_of(one, corpus, tmp_path / "run", **how)
    written.train()
    words, of_gpu = len(corpus.vocabulary), written if first == "gpu" else None
    kept = read_checkpoint(checkpoints_of(tmp_path / "run")[0])
    assert kept.parameters["head.W"].shape == (8, words) and words % 8
    found = trainer_of(other, corpus, tmp_path / "run", resume=True, **how)
    of_gpu = of_gpu or found
    assert apart(of_gpu.model.parameters["head.W"]) == padded(words) > words
    pairs = [
        (found.model.parameters, written.model.parameters),
        (found.averages.means, written.averages.means),
        (found.optimizer.slots, written.optimizer.slots),
    ]
    for ours, theirs in pairs:
        for name, a in theirs.items():
            np.testing.assert_array_equal(other.to_numpy(ours[name]), one.to_numpy(a), name)
