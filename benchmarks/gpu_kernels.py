"""Calls of our ops and layers at the sizes of a case, for gpu.py and test_ops.py to time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np

from gpu_cases import CLIP, LR, Case
from lstm_music.arrays import RowGradient
from lstm_music.network.lstm import lstm_backward, lstm_forward, lstm_init
from lstm_music.network.model import Model
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.layout import padded
from lstm_music.ops.cuda.optimizer import Parameter, step_inputs, structs_on_device
from lstm_music.ops.cuda.softmax import padded_chunks
from lstm_music.ops.cuda.structs import STEP_INPUTS, STEP_RESULTS
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.reference.maths import Adam
from lstm_music.ops.workspace import zeros_as

Call: TypeAlias = Callable[[], Any]
Timed: TypeAlias = tuple[str, float, float, Call]
"""A kernel's name, FLOPs and bytes, and a launch."""

COPY = """
extern "C" __global__ void copy_quads(const float* a, float* b, unsigned quads)
{
    struct alignas(16) Quad { float x, y, z, w; };
    const unsigned apart = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < quads; i += apart)
        reinterpret_cast<Quad*>(b)[i] = reinterpret_cast<const Quad*>(a)[i];
}
"""


def copy_quads(ops: CupyOps, a: Any, b: Any) -> Call:
    """Return a copy of a to b, 16 bytes a thread and turn."""
    kernel = ops.xp.RawModule(code=COPY, options=("-std=c++17",)).get_function("copy_quads")
    quads = a.size // 4
    grid = min(-(-quads // 256), 16 * ops.multiprocessors)
    return lambda: kernel((grid,), (256,), (a, b, np.uint32(quads)))


class Random:
    """Makes arrays of small random numbers on the device."""

    def __init__(self, ops: NumpyOps, seed: int = 0) -> None:
        self.ops, self.rng = ops, np.random.default_rng(seed)

    def real(self, *shape: int) -> Any:
        """Return normal numbers of deviation 0.1."""
        return self.ops.asarray(np.float32(0.1) * self.rng.standard_normal(shape, np.float32))

    def ids(self, n: int, words: int) -> Any:
        """Return random ids."""
        return self.ops.asarray(self.rng.integers(words, size=n), np.int32)


def layer_call(ops: CupyOps, H: int, L: int, B: int, T: int) -> Callable[[], dict[str, Any]]:
    """Return layers of H units, forward and backward; a call returns some of its results."""
    random = Random(ops)
    layers = [(lstm_init(ops, random.rng, H, H), ops.workspace()) for _ in range(L)]
    x, dy, zero = random.real(T, B, H), random.real(T, B, H), ops.xp.zeros((B, H), ops.dtype)

    def call() -> dict[str, Any]:
        y, caches = x, []
        for p, work in layers:
            y, _, cache = lstm_forward(ops, p, y, zero, zero, None, work)
            caches.append(cache)
        d = dy
        grads: dict[str, Any] = {}
        for (p, work), cache in zip(reversed(layers), reversed(caches), strict=True):
            d, _, grads = lstm_backward(ops, p, d, None, None, cache, work)
        return {"y": y, "dx": d, **{f"layer.d{name}": g for name, g in grads.items()}}

    return call


def sequence_call(ops: CupyOps, H: int, B: int, T: int) -> Call:
    """Return one layer's steps in time, forward and backward, without the GEMMs of all steps."""
    random, work = Random(ops), ops.workspace()
    gates, Wh, b = random.real(T, B, 4 * H), random.real(H, 4 * H), random.real(4 * H)
    c, h = random.real(T + 1, B, H), random.real(T + 1, B, H)
    dy, h0, c0 = random.real(T, B, H), random.real(B, H), random.real(B, H)
    dh, dc, db = random.real(B, H), random.real(B, H), random.real(4 * H)

    def call() -> None:
        ops.lstm_sequence_forward(gates, Wh, b, None, h0, c0, c, h, h0, c0, work)
        ops.lstm_sequence_backward(gates, Wh, None, c, h, dy, None, None, dh, dc, db, work)

    return call


def loss_call(ops: NumpyOps, N: int, V: int, H: int) -> tuple[Call, dict[str, Any]]:
    """Return the loss layer of N rows and V words, forward and backward, and what it writes."""
    random, work, xp = Random(ops), ops.workspace(), ops.xp
    h, b, ids = random.real(N, H), random.real(V), random.ids(N, V)
    wide = padded(V) if isinstance(ops, CupyOps) else V  # as ops.aligned would have it, once
    W = xp.zeros((H, wide), ops.dtype)[:, :V]
    for row in W:
        row[...] = random.real(V)
    out = {"losses": xp.empty(N, ops.dtype)}
    out |= {"dh": zeros_as(xp, h), "dW": zeros_as(xp, W), "db": zeros_as(xp, b)}

    def call() -> None:
        losses, dh, dW, db = out.values()
        ops.linear_softmax_xent(h, W, b, ids, 1 / N, losses, dh, dW, db, work)

    return call, out


def rest_calls(ops: CupyOps, case: Case, model: Model) -> tuple[Call, Call]:
    """Return what is no layer's and no loss's in a step: the embedding, clipping and Adam."""
    random, xp, N = Random(ops), ops.xp, case.N
    W = model.parameters["embedding.W"]
    ids, x, losses = random.ids(N, case.V), random.real(N, case.H), random.real(N)
    step, where = xp.zeros(1, np.uint32), xp.zeros(case.V, np.int32)
    slots: dict[str, Any] = {}
    inputs = structs_on_device(ops, STEP_INPUTS, step_inputs(Adam(LR, 1), 1 / N, CLIP))
    results = xp.zeros(STEP_RESULTS.itemsize, np.uint8)

    def embedding() -> None:
        ops.embedding_forward(W, ids, x)
        with ops.recording(step, where, slots):
            ops.embedding_backward(ids, x)

    embedding()
    rows = RowGradient(slots["rows"], slots["values"])
    parameters = []
    for name, p in model.parameters.items():
        m, v, g = zeros_as(xp, p), zeros_as(xp, p), rows
        if name != "embedding.W":
            g = zeros_as(xp, p)
            g[...] = random.real(*p.shape)
        parameters.append(Parameter(p, g, m, v, where))
    table = ops.table(parameters)
    partial = xp.empty(table.norm_blocks, np.float64)

    def optimizer() -> None:
        ops.clip_all(table, losses, inputs, results, partial)
        ops.adam_all(table, inputs, results)

    return embedding, optimizer


def kernel_calls(ops: CupyOps, case: Case) -> list[Timed]:
    """Return each kernel at the sizes of a case, with its bounds."""
    V, E, N, xp, random = case.V, case.H, case.N, ops.xp, Random(ops)
    ids, losses, W = random.ids(N, V), random.real(N), random.real(V, E)
    logits = next(padded_chunks(N, V, ops.workspace()))[1]
    logits[...] = 0.5
    n = len(logits)
    table = ops.table([Parameter(W, random.real(V, E), xp.zeros_like(W), xp.zeros_like(W))])
    partial = xp.empty(table.norm_blocks, np.float64)
    inputs = structs_on_device(ops, STEP_INPUTS, step_inputs(Adam(LR, 1), 1 / N, CLIP))
    results = xp.zeros(STEP_RESULTS.itemsize, np.uint8)
    return [
        *layer_calls(ops, case), *word_calls(ops, case), *note_calls(ops, N, E, 128),
        ("softmax_xent_backward, a chunk", 0, 8 * n * V,
         lambda: ops.softmax_xent(logits, ids[:n], losses[:n], 1.0)),
        ("clip, head.W", 0, 4 * V * E,
         lambda: ops.clip_all(table, losses, inputs, results, partial)),
        ("adam, head.W", 0, 28 * V * E, lambda: ops.adam_all(table, inputs, results)),
    ]  # fmt: skip


# Ops that all backends have ---------------------------------------------------------------------


def layer_calls(ops: NumpyOps, case: Case) -> list[Timed]:
    """Return a layer's steps in time and dropout, with their FLOPs and bytes."""
    T, B, H, N, random = case.T, case.B, case.H, case.N, Random(ops)
    gates, Wh, b = random.real(T, B, 4 * H), random.real(H, 4 * H), random.real(4 * H)
    c, h, dy = random.real(T + 1, B, H), random.real(T + 1, B, H), random.real(T, B, H)
    dh, dc, h0, c0 = (random.real(B, H) for _ in range(4))
    gradients = (dy, None, None, dh, dc, random.real(4 * H))
    x, work = random.real(N, H), ops.workspace()
    flops, moved = 2 * N * H * 4 * H, 4 * N * (2 * 4 * H + 2 * H)

    def backward() -> None:
        if not isinstance(ops, CupyOps):  # gradients in the gates' place would become denormal
            gates[...] = 0.1
        ops.lstm_sequence_backward(gates, Wh, None, c, h, *gradients, work)

    return [
        ("lstm_sequence_forward", flops, moved,
         lambda: ops.lstm_sequence_forward(gates, Wh, b, None, h0, c0, c, h, h0, c0, work)),
        ("lstm_sequence_backward", flops, moved + 4 * N * H, backward),
        ("dropout", 0, 8 * N * H, lambda: ops.dropout(x, 0.1, 0, 0, 0)),
    ]  # fmt: skip


def word_calls(ops: NumpyOps, case: Case) -> list[Timed]:
    """Return the embedding and the loss layer of words."""
    N, V, E, xp, random = case.N, case.V, case.H, ops.xp, Random(ops)
    W, x, ids = random.real(V, E), random.real(N, E), random.ids(N, V)
    step, where = xp.zeros(1, np.uint32), xp.zeros(V, np.int32)
    slots: dict[str, Any] = {}

    def backward() -> None:
        recording = ops.recording(step, where, slots) if isinstance(ops, CupyOps) else nullcontext()
        with recording:
            ops.embedding_backward(ids, x)

    return [
        ("linear_softmax_xent, whole", 6 * N * E * V, 4 * 3 * E * V, loss_call(ops, N, V, E)[0]),
        ("embedding_forward", 0, 8 * N * E, lambda: ops.embedding_forward(W, ids, x)),
        ("embedding_backward", 0, 8 * N * E, backward),
    ]


def note_calls(ops: NumpyOps, N: int, E: int, K: int, D: int = 88) -> list[Timed]:
    """Return all of N rows of notes, of which one in twenty is on."""
    random = Random(ops)
    real = random.real
    x = ops.asarray(random.rng.random((N, D)) < 0.05, np.uint8)
    out, visible, hidden, losses = real(N, E), real(N, D), real(N, K), real(N)
    embedding, dE, W, U, dW, dU = real(D, E), real(D, E), *(real(D, K) for _ in range(4))
    draws, drawn = ops.asarray(random.rng.random((N, D))), ops.xp.zeros_like(x)
    biases, work = 4 * N * (D + K), ops.workspace()
    return [
        ("note_embedding_forward", 0, 4 * N * E + N * D,
         lambda: ops.note_embedding_forward(embedding, x, out)),
        ("note_embedding_backward", 0, 4 * N * E + N * D,
         lambda: ops.note_embedding_backward(x, out, dE)),
        ("sigmoid_xent_backward", 0, 9 * N * D,
         lambda: ops.sigmoid_xent(visible, x, losses, 1.0)),
        ("nade_forward", 2 * N * D * K, biases,
         lambda: ops.nade_nll(visible, hidden, x, W, U, losses)),
        ("nade_forward, nade_backward, sums", 6 * N * D * K, 2 * biases,
         lambda: ops.nade_xent(visible, hidden, x, W, U, 1.0, losses, dW, dU, work)),
        ("nade_sample", 2 * N * D * K, biases,
         lambda: ops.nade_sample(visible, hidden, W, U, draws, 1.0, drawn)),
    ]  # fmt: skip
