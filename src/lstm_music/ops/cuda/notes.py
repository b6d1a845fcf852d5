"""Launches kernels/sigmoid_xent.cu and nade.cu: losses of notes, and the drawing of them."""

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.ops.cuda.copying import pointers
from lstm_music.ops.cuda.launch import Launcher, blocks
from lstm_music.ops.cuda.matrices import column_sum
from lstm_music.ops.workspace import Workspace

NADE_PARTS = 128  # of the rows, each with its own sums of a NADE's gradients


def sigmoid_xent(
    ops: Launcher,
    logits: Array,
    targets: Array,
    losses: Array,
    scale: float,
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.sigmoid_xent, in one launch."""
    N, D = logits.shape
    ops.launch(
        "sigmoid_xent", "sigmoid_xent_backward", (N,), (128,),
        logits, targets, losses, ops.real(scale), np.int32(D), *pointers(mix),
    )  # fmt: skip


def sigmoid_nll(ops: Launcher, logits: Array, targets: Array, losses: Array) -> None:
    """As NumpyOps.sigmoid_nll, in one launch."""
    N, D = logits.shape
    ops.launch(
        "sigmoid_xent", "sigmoid_xent_forward", (N,), (128,),
        logits, targets, losses, np.int32(D),
    )  # fmt: skip


def nade_xent(
    ops: Launcher,
    visible: Array,
    hidden: Array,
    targets: Array,
    W: Array,
    U: Array,
    scale: float,
    losses: Array,
    dW: Array,
    dU: Array,
    work: Workspace,
    mix: Mixture | None = None,
) -> None:
    """As NumpyOps.nade_xent: a launch each way, and sums of parts in a fixed order."""
    _nade_forward(ops, visible, hidden, targets, W, U, scale, losses, mix)
    (N, K), D = hidden.shape, len(U)
    parts = min(N, NADE_PARTS)
    dWs, dUs = (work.array(name, (parts, D * K)) for name in ("nade_dW", "nade_dU"))
    ops.launch(
        "nade", "nade_backward", (blocks(K, 32), parts), (32,),
        visible, hidden, targets, W, U, dWs, dUs, np.int32(N), np.int32(D), np.int32(K),
        shared=64 * D * ops.dtype.itemsize,
    )  # fmt: skip
    column_sum(ops, dWs, dW.reshape(-1))
    column_sum(ops, dUs, dU.reshape(-1))


def nade_nll(
    ops: Launcher, visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
) -> None:
    """As NumpyOps.nade_nll, in one launch."""
    _nade_forward(ops, visible, hidden, targets, W, U, 1.0, losses, None)


def _nade_forward(
    ops: Launcher,
    visible: Array,
    hidden: Array,
    targets: Array,
    W: Array,
    U: Array,
    scale: float,
    losses: Array,
    mix: Mixture | None,
) -> None:
    """Write the losses, and over visible (N, D) scale times the gradient of the logits."""
    D, K = U.shape
    ops.launch(
        "nade", "nade_forward", (len(visible),), (128,),
        visible, hidden, targets, W, U, losses, ops.real(scale), np.int32(D), np.int32(K),
        *pointers(mix),
        shared=2 * K * ops.dtype.itemsize,
    )  # fmt: skip


def nade_sample(
    ops: Launcher,
    visible: Array,
    hidden: Array,
    W: Array,
    U: Array,
    draws: Array,
    temperature: float,
    out: Array,
) -> None:
    """As NumpyOps.nade_sample, in one launch."""
    D, K = U.shape
    ops.launch(
        "nade", "nade_sample", (len(visible),), (128,),
        visible, hidden, W, U, ops.asarray(draws), ops.real(1 / temperature), out,
        np.int32(D), np.int32(K),
        shared=2 * K * ops.dtype.itemsize,
    )  # fmt: skip
