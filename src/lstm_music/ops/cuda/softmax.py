"""Launches kernels/softmax_xent.cu: a softmax layer's loss and gradients, in chunks of rows.

Where the tensor cores make all of it, softmax_head.py does.
"""

from collections.abc import Iterator

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.ops.cuda import softmax_head
from lstm_music.ops.cuda.copying import pointers
from lstm_music.ops.cuda.gemm import BF16
from lstm_music.ops.cuda.launch import Launcher
from lstm_music.ops.cuda.layout import apart, padded
from lstm_music.ops.cuda.matrices import column_sum, rounded
from lstm_music.ops.workspace import Workspace, logit_chunks

L2_BYTES = 32 << 20  # of logits at once: what the second-level cache of a large GPU holds
CHUNK_ROWS = 200  # at least: each chunk reads W and its gradient, whatever its rows


def softmax_xent(
    ops: Launcher,
    logits: Array,
    targets: Array,
    losses: Array,
    scale: float,
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.softmax_xent, in one launch."""
    _softmax_xent(ops, logits, None, targets, losses, scale, mix)


def _softmax_xent(
    ops: Launcher,
    logits: Array,
    b: Array | None,
    targets: Array,
    losses: Array,
    scale: float,
    mix: Mixture | None,
    d: Array | None = None,
) -> None:
    """As `softmax_xent` with a bias (V,); the gradient goes to d (N, V) in bf16 if given."""
    N, V = logits.shape
    ops.launch(
        "softmax_xent", "softmax_xent_backward", (N,), (row_threads(V),),
        logits, b, targets, losses, ops.real(scale), np.int32(V), np.int32(apart(logits)), d,
        *pointers(mix),
    )  # fmt: skip


def softmax_nll(ops: Launcher, logits: Array, targets: Array, losses: Array) -> None:
    """As NumpyOps.softmax_nll, in one launch."""
    _softmax_nll(ops, logits, None, targets, losses)


def _softmax_nll(
    ops: Launcher, logits: Array, b: Array | None, targets: Array, losses: Array
) -> None:
    N, V = logits.shape
    ops.launch(
        "softmax_xent", "softmax_xent_forward", (N,), (row_threads(V),),
        logits, b, targets, losses, np.int32(V), np.int32(apart(logits)),
    )  # fmt: skip


def linear_softmax_xent(
    ops: Launcher,
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
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.linear_softmax_xent; the logits of a chunk stay in the L2 cache.

    With bf16 and tensor cores there are no logits: softmax_head.py.
    """
    half = ops.precision == "bf16" and ops.dtype == np.float32
    how = softmax_head.plan(len(W), ops.shared_bytes) if half and ops.tensor_cores else None
    if how is not None:
        softmax_head.linear_softmax_xent(
            ops, how, h, W, b, targets, scale, losses, dh, dW, db, work, mix
        )
        return
    if half:
        h, W = (rounded(ops, a, name, work) for a, name in ((h, "h"), (W, "W")))
    for rows, logits, d in gradient_chunks(len(h), len(b), work, half):
        later = rows.start > 0
        ops.matmul(h[rows], W, logits)
        own = mix and mix.rows(rows)
        to = d if half else None
        _softmax_xent(ops, logits, b, targets[rows], losses[rows], scale, own, to)
        ops.matmul(d, W.T, dh[rows])
        (ops.matmul_add if later else ops.matmul)(h[rows].T, d, dW)
        column_sum(ops, d, db, later)


def linear_softmax_nll(
    ops: Launcher, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
) -> None:
    """As NumpyOps.linear_softmax_nll, with the bias added on the way."""
    for rows, logits in padded_chunks(len(h), len(b), work):
        ops.matmul(h[rows], W, logits)
        _softmax_nll(ops, logits, b, targets[rows], losses[rows])


def padded_chunks(N: int, V: int, work: Workspace) -> Iterator[tuple[slice, Array]]:
    """Yield what `logit_chunks` does, in rows that begin where loads of 16 bytes may."""
    limit = max(L2_BYTES, CHUNK_ROWS * padded(V) * work.dtype.itemsize)
    for rows, logits in logit_chunks(N, padded(V), work, limit):
        yield rows, logits[:, :V]


def gradient_chunks(
    N: int, V: int, work: Workspace, half: bool
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield slices of rows, logits, and where their gradient goes: over them, or half: to bf16."""
    d = None
    for rows, logits in padded_chunks(N, V, work):
        if half and d is None:  # the first chunk is the largest
            d = work.part("bf16", BF16).array("d", (len(logits), padded(V)))[:, :V]
        yield rows, logits, logits if d is None else d[: len(logits)]


def row_threads(V: int) -> int:
    """Return the threads of a block that goes over a row of V logits."""
    return 128 if V <= 1024 else 512
