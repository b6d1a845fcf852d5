"""Kernels over a whole matrix that several layers need: sums of columns, copies in bf16."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops.cuda.gemm import BF16
from lstm_music.ops.cuda.launch import Launcher, blocks
from lstm_music.ops.cuda.layout import apart, padded
from lstm_music.ops.workspace import Workspace


def column_sum(ops: Launcher, a: Array, out: Array, add: bool = False) -> None:
    """Write the sums of the columns of a (N, C) to out (C,), or add them to it."""
    N, C = a.shape
    name = "column_sum_bf16" if a.dtype == BF16 else "column_sum"
    ops.launch(
        "column_sum", name, (blocks(C, 128),), (32, 8),
        a, out, np.int32(N), np.int32(C), np.int32(apart(a)), np.int32(add),
    )  # fmt: skip


def rounded(ops: Launcher, a: Array, name: str, work: Workspace) -> Array:
    """Return a matrix's copy in bf16, in scratch of that name, with aligned rows."""
    N, C = a.shape
    out = work.part("bf16", BF16).array(name, (N, padded(C)))[:, :C]
    ops.launch(
        "bf16", "bf16_forward", (blocks(N * blocks(C, 4), 256),), (256,),
        a, out, np.int32(N), np.int32(C), np.int32(apart(a)), np.int32(apart(out)),
    )  # fmt: skip
    return out
