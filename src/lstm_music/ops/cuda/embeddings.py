"""Launches kernels/embedding.cu and note_embedding.cu: what enters the network, ids or notes."""

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops.cuda.launch import Launcher, blocks


def embedding_forward(ops: Launcher, W: Array, ids: Array, out: Array) -> None:
    """As NumpyOps.embedding_forward, in one launch."""
    V, E = W.shape
    ops.launch(
        "embedding", "embedding_forward", (blocks(ids.size * blocks(E, 4), 256),), (256,),
        W, ids, out, np.int32(ids.size), np.int32(V), np.int32(E),
    )  # fmt: skip


def embedding_backward(ops: Launcher, ids: Array, dx: Array) -> RowGradient:
    """As NumpyOps.embedding_backward; inside `recording`, with slots that may be empty."""
    N, E = dx.shape
    where, slots = None, dict[str, Array]()
    if ops.recorded is not None:
        where, slots = ops.recorded.where, ops.recorded.slots
    if not slots:
        slots["order"] = ops.xp.empty((2, N), np.int32)
        slots["rows"] = ops.xp.empty(N, np.int32)
        slots["values"] = ops.xp.empty((N, E), ops.dtype)
    order, rows, values = slots["order"], slots["rows"], slots["values"]
    sum_rows(ops, ids, dx, order, rows, values, where)
    if where is not None:
        return RowGradient(rows, values)
    owned = ops.xp.flatnonzero(rows >= 0)
    return RowGradient(rows[owned], values[owned])


def embedding_backward_dense(ops: Launcher, ids: Array, dx: Array, dW: Array) -> None:
    """As NumpyOps.embedding_backward_dense, without slots in between."""
    order = ops.xp.empty((2, len(dx)), np.int32)
    dW[...] = 0
    sum_rows(ops, ids, dx, order, None, dW, None)


def sum_rows(
    ops: Launcher,
    ids: Array,
    dx: Array,
    order: Array,
    rows: Array | None,
    values: Array,
    where: Array | None,
) -> None:
    """Sum the rows of dx (N, E) with one id, in a fixed order.

    order (2, N) int32 is scratch. rows (N,): the ids of the slots of values (N, E), -1 for an empty
    slot; without it values (V, E) has a row for each id. where (V,): the slot of each id, or None.
    """
    N, E = dx.shape
    ops.launch("embedding", "embedding_sort", (blocks(N, 8),), (256,), ids, order, np.int32(N))
    ops.launch(
        "embedding", "embedding_backward", (N,), (32, 8),
        order, dx, rows, values, where, np.int32(N), np.int32(E),
    )  # fmt: skip


def note_embedding_forward(ops: Launcher, W: Array, x: Array, out: Array) -> None:
    """As NumpyOps.note_embedding_forward, in one launch: only the rows that sound are read."""
    D, E = W.shape
    ops.launch(
        "note_embedding", "note_embedding_forward", (len(x),), (128,),
        W, x, out, np.int32(D), np.int32(E),
    )  # fmt: skip


def note_embedding_backward(ops: Launcher, x: Array, dx: Array, dW: Array) -> None:
    """As NumpyOps.note_embedding_backward, in one launch and a fixed order."""
    D, E = dW.shape
    ops.launch(
        "note_embedding", "note_embedding_backward", (blocks(E, 32), D), (32, 8),
        x, dx, dW, np.int32(len(x)), np.int32(D), np.int32(E),
    )  # fmt: skip
