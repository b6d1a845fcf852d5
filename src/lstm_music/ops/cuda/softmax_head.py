"""Launches kernels/softmax_head.cu: a softmax layer's loss and gradients without its logits.

Of N · V numbers there is the logits' gradient alone, in bf16, for as many words at once as the L2
cache holds. From it cuBLAS makes the gradients of h and W.
"""

from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.ops.cuda.copying import pointers
from lstm_music.ops.cuda.launch import Launcher
from lstm_music.ops.cuda.matrices import column_sum, rounded
from lstm_music.ops.workspace import Workspace

TILE = 128  # as in softmax_head.cu: rows of h, and of W transposed, of a block's product
THREADS = 256
STATIC_SHARED = 4 * TILE + 16 * THREADS  # bytes that the kernels declare themselves
GRADIENT_BYTES = 32 << 20  # of the logits' gradient at once: what the L2 cache of a large GPU holds
LARGEST_H = 256


class Plan(NamedTuple):
    """How the kernels run: bytes of shared memory, and blocks that a multiprocessor has at once."""

    shared: int
    blocks: int


class Matrices(NamedTuple):
    """What all kernels read: h (N, H) and W transposed (V, H) in bf16, biases of whole tiles."""

    h: Array
    W: Array
    biases: Array


def plan(H: int, shared_bytes: int) -> Plan | None:
    """Return how the kernels run at a hidden size, None where they don't.

    shared_bytes: of a block at most.
    """
    if H % 64 or H > LARGEST_H:
        return None
    found = Plan(2 * TILE * (2 * H + 12) + 128, 2 if H <= 128 else 1)
    return found if found.shared + STATIC_SHARED <= shared_bytes else None


def tiles(n: int) -> int:
    """Return how many tiles n rows need."""
    return -(-n // TILE)


def segment_length(stationary: int, streamed: int, at_once: int) -> int:
    """Return how many of the streamed tiles a block takes, where `at_once` blocks run together.

    A segment has a block for each stationary tile. All take the same time, a tile's for each that
    is streamed and one more for the stationary one, so the last round should be full.
    """

    def cost(length: int) -> int:
        blocks = stationary * -(-streamed // length)
        return -(-blocks // at_once) * (length + 1)

    return min(range(1, streamed + 1), key=lambda length: (cost(length), -length))


def word_chunks(N: int, V: int) -> list[slice]:
    """Return slices of V words, whole tiles each but the last, whose gradients have room."""
    most = max(1, GRADIENT_BYTES // (2 * TILE * TILE * tiles(N))) * TILE
    size = -(-tiles(V) // -(-V // most)) * TILE
    return [slice(start, min(start + size, V)) for start in range(0, V, size)]


def linear_softmax_xent(
    ops: Launcher,
    run: Plan,
    h: Array,
    W: Array,
    b: Array,
    targets: Array,
    scale: float,
    losses: Array,
    dh: Array,
    dW: Array,
    db: Array,
    work: Workspace,
    mix: Mixture | None,
) -> None:
    """As NumpyOps.linear_softmax_xent, with h, W and the logits' gradient rounded to bf16.

    scale is more than 0: the kernels multiply by it as 2^log2(scale).
    """
    (N, H), V = h.shape, len(b)
    scratch = work.part("head", "uint16")
    rows, columns = rounded(ops, h, "h", work), scratch.array("W", (V, H))
    biases = work.array("head_biases", (tiles(V) * TILE,))
    ops.launch(
        "softmax_head", "softmax_head_copy", (tiles(V) * TILE // 64, H // 64), (THREADS,),
        W, b, columns, biases, np.int32(V), np.int32(W.strides[0] // W.itemsize),
        options=options(H),
    )  # fmt: skip
    matrices = Matrices(rows, columns, biases)
    of_rows = _losses(ops, run, matrices, targets, scale, losses, work, mix)
    chunks = word_chunks(N, V)
    largest = tiles(chunks[0].stop)
    d = scratch.array("d", (largest * TILE, tiles(N) * TILE))
    length = segment_length(largest, tiles(N), ops.multiprocessors * run.blocks)
    sums = work.array("head_sums", (2 * -(-tiles(N) // length), tiles(V) * TILE))
    for words in chunks:
        _gradient(ops, run, matrices, words, of_rows, d, sums, length)
        gradient = d[: words.stop - words.start, :N].T
        (ops.matmul_add if words.start else ops.matmul)(gradient, columns[words], dh)
        ops.matmul(rows.T, gradient, dW[:, words])
    column_sum(ops, sums[:, :V], db)


def _losses(
    ops: Launcher,
    run: Plan,
    matrices: Matrices,
    targets: Array,
    scale: float,
    losses: Array,
    work: Workspace,
    mix: Mixture | None,
) -> Array:
    """Write the losses; return what the backward kernel reads of whole tiles of rows."""
    (N, H), V = matrices.h.shape, len(matrices.W)
    length = segment_length(tiles(N), tiles(V), ops.multiprocessors * run.blocks)
    segments = -(-tiles(V) // length)
    partials = work.array("head_partials", (N, 2 * segments, 2))
    ops.launch(
        "softmax_head", "softmax_head_forward", (segments, tiles(N)), (THREADS,),
        *matrices, partials, np.int32(N), np.int32(V), np.int32(length),
        shared=run.shared, options=options(H),
    )  # fmt: skip
    of_rows = work.array("head_rows", (tiles(N), 3 * TILE))
    ops.launch(
        "softmax_head", "softmax_head_merge", (tiles(N) * TILE // (THREADS // 32),), (THREADS,),
        partials, *matrices, targets, losses, of_rows, np.float32(scale), np.int32(N),
        np.int32(2 * segments), *pointers(mix), options=options(H),
    )  # fmt: skip
    return of_rows


def _gradient(
    ops: Launcher,
    run: Plan,
    matrices: Matrices,
    words: slice,
    of_rows: Array,
    d: Array,
    sums: Array,
    length: int,
) -> None:
    """Write the gradient of some words' logits to d, a row each; to sums, those of parts of rows.

    length: tiles of h of a part, of which there are scratch as many as sums has rows.
    """
    (N, H), size = matrices.h.shape, words.stop - words.start
    ops.launch(
        "softmax_head", "softmax_head_backward", (tiles(size), len(sums) // 2), (THREADS,),
        matrices.h, matrices.W[words], matrices.biases[words.start :], of_rows, d,
        sums[:, words.start :], np.int32(N), np.int32(size), np.int32(words.start),
        np.uint32(d.shape[1] // 8), np.uint32(sums.shape[1]), np.int32(length),
        shared=run.shared, options=options(H),
    )  # fmt: skip


def options(H: int) -> tuple[str, ...]:
    """Return the compiler's options for a hidden size."""
    return (f"-DHEAD_H={H}",)
