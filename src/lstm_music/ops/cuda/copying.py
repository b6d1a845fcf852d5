"""Launches kernels/copy_gate.cu: the shares of a copy gate, and the way back."""

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.ops.cuda.launch import Launcher, blocks

ROWS, THREADS = 128, 256  # of a block: a thread each; as in copy_gate.cu


def copy_shares(ops: Launcher, scores: Array, recall: Array, R: Array, mix: Mixture) -> None:
    """As NumpyOps.copy_shares, in one launch."""
    N, K = scores.shape
    ops.launch(
        "copy_gate", "copy_gate_shares", (blocks(N, ROWS),), (ROWS,),
        scores, recall, R, *mix, np.int32(N), np.int32(K),
    )  # fmt: skip


def copy_backward(
    ops: Launcher, shares: Array, recall: Array, losses: Array, scale: float, dR: Array
) -> None:
    """As NumpyOps.copy_backward, in one launch."""
    N, K = shares.shape
    ops.launch(
        "copy_gate", "copy_gate_backward", (K,), (THREADS,),
        shares, recall, losses, ops.real(scale), dR, np.int32(N),
    )  # fmt: skip


def mix_losses(ops: Launcher, losses: Array, mix: Mixture) -> None:
    """As NumpyOps.mix_losses, in one launch."""
    N = len(losses)
    ops.launch("copy_gate", "copy_gate_mix", (blocks(N, ROWS),), (ROWS,), losses, *mix, np.int32(N))


def pointers(mix: Mixture | None) -> tuple[Array | None, Array | None]:
    """Return a mixture as kernels of losses take it: null pointers where there is none."""
    return mix or (None, None)
