"""Launches kernels/dropout.cu."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops import philox
from lstm_music.ops.cuda.launch import Launcher, blocks
from lstm_music.ops.philox import dropout_threshold, rows_and_place


def dropout(
    ops: Launcher,
    x: Array,
    p: float,
    seed: int,
    stream: int,
    step: int,
    first: int = 0,
    whole: int | None = None,
    out: Array | None = None,
) -> None:
    """As NumpyOps.dropout, with the same bits; inside `recording` the step is the device's."""
    k0, k1 = philox.split_seed(seed)
    rows, before, row = rows_and_place(x, first, whole)
    T, n = rows.shape
    counter = None if ops.recorded is None else ops.recorded.step
    each = (n + 6) // 4  # blocks of four words that a row may touch, which may begin inside one
    ops.launch(
        "dropout", "dropout_forward", (blocks(T * each, 256),), (256,),
        x, x if out is None else out,
        np.uint64(T), np.uint64(n), np.uint64(before), np.uint64(row), np.uint64(each),
        dropout_threshold(p), ops.real(1 / (1 - p)),
        np.uint32(k0), np.uint32(k1), np.uint32(stream & philox.MASK32),
        np.uint32(step & philox.MASK32), counter,
    )  # fmt: skip
