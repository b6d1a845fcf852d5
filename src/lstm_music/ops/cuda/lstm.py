"""Launches kernels/lstm_cell.cu, lstm_step.cu, lstm_sequence.cu and lstm_sequence_bf16.cu."""

from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops.cuda.launch import Launcher, blocks
from lstm_music.ops.cuda.layout import pointer
from lstm_music.ops.cuda.lstm_sequence import (
    SequencePlan,
    bf16_sequence_options,
    bf16_sequence_rows,
    bf16_sequence_shared,
    grid,
    sequence_options,
    sequence_plan,
    sequence_shared,
)
from lstm_music.ops.cuda.matrices import column_sum
from lstm_music.ops.reference.maths import row
from lstm_music.ops.workspace import Workspace


def lstm_cell_forward(
    ops: Launcher,
    gates: Array,
    recurrent: Array,
    keep: Array | None,
    c_prev: Array,
    c: Array,
    h: Array,
) -> None:
    """As NumpyOps.lstm_cell_forward, in one launch."""
    _cell_forward(ops, gates, recurrent, None, keep, c_prev, c, h)


def _cell_forward(
    ops: Launcher,
    gates: Array,
    recurrent: Array,
    b: Array | None,
    keep: Array | None,
    c_prev: Array,
    c: Array,
    h: Array,
) -> None:
    B, H = c.shape
    ops.launch(
        "lstm_cell", "lstm_cell_forward", (blocks(B * H, 128),), (128,),
        gates, recurrent, b, keep, c_prev, c, h, np.int32(B), np.int32(H),
    )  # fmt: skip


def lstm_cell_backward(
    ops: Launcher, gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
) -> None:
    """As NumpyOps.lstm_cell_backward, in one launch."""
    _cell_backward(ops, gates, keep, c_prev, c, None, dh, dc)


def _cell_backward(
    ops: Launcher,
    gates: Array,
    keep: Array | None,
    c_prev: Array,
    c: Array,
    dy: Array | None,
    dh: Array,
    dc: Array,
) -> None:
    B, H = c.shape
    ops.launch(
        "lstm_cell", "lstm_cell_backward", (blocks(B * H, 128),), (128,),
        gates, keep, c_prev, c, dy, dh, dc, np.int32(B), np.int32(H),
    )  # fmt: skip


def lstm_step_forward(
    ops: Launcher,
    x: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    h_prev: Array,
    c_prev: Array,
    c: Array,
    h: Array,
) -> None:
    """As NumpyOps.lstm_step_forward, in one launch."""
    (B, E), H = x.shape, c.shape[1]
    ops.launch(
        "lstm_step", "lstm_step_forward", (blocks(H, 2), blocks(B, 64)), (256,),
        x, Wx, Wh, b, h_prev, c_prev, c, h, np.int32(B), np.int32(E), np.int32(H),
    )  # fmt: skip


def lstm_sequence_forward(
    ops: Launcher,
    gates: Array,
    Wh: Array,
    b: Array,
    keep: Array | None,
    h0: Array,
    c0: Array,
    c: Array,
    h: Array,
    hT: Array,
    cT: Array,
    work: Workspace,
) -> None:
    """As NumpyOps.lstm_sequence_forward: one launch for H <= 256, else two a step."""
    T, B, H4 = gates.shape
    H = H4 // 4
    args = (gates, Wh, b, keep, h0, c0, c, h, hT, cT, np.int32(T), np.int32(B))
    rows = _tensor_core_rows(ops, B, H, gates, Wh)
    if rows is not None:
        _launch_bf16_sequence(ops, "forward", rows, H, B, *args)
        return
    plan = persistent_plan(ops, B, H)
    if plan is not None:
        _launch_persistent(ops, "lstm_sequence_forward", plan, B, H, *args, np.int32(H))
        return
    recurrent = work.array("recurrent", (B, H4))
    h[0], c[0] = h0, c0
    for t in range(T):
        ops.matmul(h[t], Wh, recurrent)
        _cell_forward(ops, gates[t], recurrent, b, row(keep, t), c[t], c[t + 1], h[t + 1])
    hT[...], cT[...] = h[T], c[T]


def lstm_sequence_backward(
    ops: Launcher,
    gates: Array,
    Wh: Array,
    keep: Array | None,
    c: Array,
    h: Array,
    dy: Array,
    dhT: Array | None,
    dcT: Array | None,
    dh: Array,
    dc: Array,
    db: Array,
    work: Workspace,
) -> None:
    """As NumpyOps.lstm_sequence_backward: one launch for H <= 256, else two a step.

    keep is 0 or 1.
    """
    T, B, H = dy.shape
    args = (gates, Wh, keep, c, h, dy, dhT, dcT, dh, dc)
    sizes = (np.int32(T), np.int32(B))
    rows = _tensor_core_rows(ops, B, H, gates, Wh, c, dy)
    if rows is not None:
        parts = work.array("db_parts", (blocks(B, rows), 4 * H))
        _launch_bf16_sequence(ops, "backward", rows, H, B, *args, parts, *sizes)
        column_sum(ops, parts, db)
        return
    plan = persistent_plan(ops, B, H)
    if plan is not None:
        parts = work.array("db_parts", (blocks(B, plan.rows), 4 * H))
        _launch_persistent(
            ops, "lstm_sequence_backward", plan, B, H, *args, parts, *sizes, np.int32(H)
        )
        column_sum(ops, parts, db)
        return
    dh[...] = 0 if dhT is None else dhT
    dc[...] = 0 if dcT is None else dcT
    for t in reversed(range(T)):
        kept = row(keep, t)
        _cell_backward(ops, gates[t], kept, c[t], c[t + 1], dy[t], dh, dc)
        ops.matmul(gates[t], Wh.T, dh)
        if kept is not None:
            ops.xp.multiply(dh, kept[:, None], out=dh)
    if keep is not None:
        ops.xp.multiply(h[:-1], keep[:, :, None], out=h[:-1])
    column_sum(ops, gates.reshape(T * B, 4 * H), db)


def _launch_persistent(
    ops: Launcher, name: str, plan: SequencePlan, B: int, H: int, *args: Any
) -> None:
    ops.launch(
        "lstm_sequence", name, (grid(plan, B),), (plan.threads,), *args,
        shared=sequence_shared(plan, H, ops.dtype.itemsize), options=sequence_options(plan),
    )  # fmt: skip


def _launch_bf16_sequence(
    ops: Launcher, direction: str, rows: int, H: int, B: int, *args: Any
) -> None:
    ops.launch(
        "lstm_sequence_bf16", f"lstm_sequence_bf16_{direction}",
        (blocks(B, rows),), (2 * H,), *args,
        shared=bf16_sequence_shared(rows, H, direction == "backward"),
        options=bf16_sequence_options(rows, H),
    )  # fmt: skip


def _tensor_core_rows(ops: Launcher, B: int, H: int, *copied: Array) -> int | None:
    """Return the rows of a block of the kernel on the tensor cores, None where it isn't used.

    copied: what the kernel reads 16 bytes at a time.
    """
    if not (ops.tensor_cores and ops.precision == "bf16" and ops.dtype == np.float32):
        return None
    if any(pointer(a) % 16 for a in copied):
        return None
    return bf16_sequence_rows(B, H, ops.multiprocessors, ops.shared_bytes)


def persistent_plan(ops: Launcher, B: int, H: int) -> SequencePlan | None:
    """Return how to run the persistent kernel, None where H is too large for it."""
    return sequence_plan(
        B, H, ops.dtype.itemsize, ops.multiprocessors, ops.shared_bytes, ops.clusters,
        ops.exchange,
    )  # fmt: skip
