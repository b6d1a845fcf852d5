"""Launches kernels/softmax_head.cu: a softmax layer's loss and gradients without its logits.

Of N · V numbers memory holds the logits' gradient alone, in bf16, for as many rows at once as
GRADIENT_BYTES allow. From it cuBLAS makes the gradients of h and W.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lstm_music.ops.numpy_ops import Array, Workspace

if TYPE_CHECKING:
    from lstm_music.ops.cupy_ops import CupyOps

TILE = 128  # as in softmax_head.cu: rows of h, and of W transposed, of a block's product
THREADS = 256
STATIC_SHARED = 4 * TILE + 16 * THREADS  # bytes that the kernels declare themselves
GRADIENT_BYTES = 200_000_000  # of the logits' gradient at once
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
    found = Plan(2 * TILE * (2 * H + 8) + 128, 2 if H <= 128 else 1)
    return found if found.shared + STATIC_SHARED <= shared_bytes else None


def tiles(n: int) -> int:
    """Return how many tiles n rows need."""
    return -(-n // TILE)


def segment_length(fixed: int, passing: int, at_once: int) -> int:
    """Return how many of the passing tiles a block takes, where `at_once` blocks run together.

    There are `fixed` blocks for each segment. All take the same time, a tile's for each that
    passes and one more for those that stay, so the last round should be full.
    """

    def cost(length: int) -> int:
        blocks = fixed * -(-passing // length)
        return -(-blocks // at_once) * (length + 1)

    return min(range(1, passing + 1), key=lambda length: (cost(length), -length))


def row_chunks(N: int, V: int) -> list[slice]:
    """Return slices of N rows, whole tiles each but the last, whose gradients have room."""
    most = max(1, GRADIENT_BYTES // (2 * TILE * TILE * tiles(V))) * TILE
    size = -(-tiles(N) // -(-N // most)) * TILE
    return [slice(start, min(start + size, N)) for start in range(0, N, size)]


def linear_softmax_xent(
    ops: "CupyOps",
    how: Plan,
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
) -> None:
    """As NumpyOps.linear_softmax_xent, with h, W and the logits' gradient rounded to bf16."""
    (N, H), V = h.shape, len(b)
    half = work.part("head", "uint16")
    rows, columns = ops.rounded(h, "h", work), half.array("W", (V, H))
    biases = work.array("head_biases", (tiles(V) * TILE,))
    ops.launch(
        "softmax_head", "softmax_head_copy", (tiles(V) * TILE // 64, H // 64), (THREADS,),
        W, b, columns, biases, np.int32(V), options=options(H),
    )  # fmt: skip
    matrices = Matrices(rows, columns, biases)
    offsets, wanted = _losses(ops, how, matrices, targets, scale, losses, work)
    chunks = row_chunks(N, V)
    d = half.array("d", (tiles(V) * TILE, tiles(chunks[0].stop) * TILE))
    for chunk in chunks:
        part = rows[chunk]
        at = slice(chunk.start, None)
        sums = _gradient(
            ops, how, matrices._replace(h=part), offsets[at], wanted[at], scale, d, work
        )
        gradient = d[:V, : len(part)].T
        ops.matmul(gradient, columns, dh[chunk])
        (ops.matmul_add if chunk.start else ops.matmul)(part.T, gradient, dW)
        ops.column_sum(sums[:, :V], db, chunk.start > 0)


def _losses(
    ops: "CupyOps",
    how: Plan,
    matrices: Matrices,
    targets: Array,
    scale: float,
    losses: Array,
    work: Workspace,
) -> tuple[Array, Array]:
    """Write the losses; return what the kernel back reads of each row, for whole tiles of rows."""
    (N, H), V = matrices.h.shape, len(matrices.W)
    length = segment_length(tiles(N), tiles(V), ops.multiprocessors * how.blocks)
    segments = -(-tiles(V) // length)
    parts = work.array("head_seen", (N, 2 * segments, 2))
    ops.launch(
        "softmax_head", "softmax_head_forward", (segments, tiles(N)), (THREADS,),
        *matrices, parts, np.int32(N), np.int32(V), np.int32(length),
        shared=how.shared, options=options(H),
    )  # fmt: skip
    offsets = work.array("head_offsets", (tiles(N) * TILE,))
    wanted = work.part("head_targets", "int32").array("wanted", (tiles(N) * TILE,))
    ops.launch(
        "softmax_head", "softmax_head_join", (tiles(N) * TILE // (THREADS // 32),), (THREADS,),
        parts, *matrices, targets, losses, offsets, wanted, np.float32(scale),
        np.int32(N), np.int32(2 * segments), options=options(H),
    )  # fmt: skip
    return offsets, wanted


def _gradient(
    ops: "CupyOps",
    how: Plan,
    matrices: Matrices,
    offsets: Array,
    wanted: Array,
    scale: float,
    d: Array,
    work: Workspace,
) -> Array:
    """Write the gradient of the logits to d, transposed; return sums over parts of its rows."""
    (N, H), V = matrices.h.shape, len(matrices.W)
    length = segment_length(tiles(V), tiles(N), ops.multiprocessors * how.blocks)
    segments = -(-tiles(N) // length)
    sums = work.array(f"head_sums_{segments}", (2 * segments, tiles(V) * TILE))
    ops.launch(
        "softmax_head", "softmax_head_backward", (tiles(V), segments), (THREADS,),
        *matrices, offsets, wanted, d, sums, np.float32(scale),
        np.int32(N), np.int32(V), np.uint32(d.shape[1] // 8), np.int32(length),
        shared=how.shared, options=options(H),
    )  # fmt: skip
    return sums


def options(H: int) -> tuple[str, ...]:
    """Return the compiler's options for a hidden size."""
    return (f"-DHEAD_H={H}",)
