"""Numba on the CPU: NumPy's ops with the element-wise work fused, vectorised and threaded.

GEMMs stay with the BLAS. Only what measures faster than NumPy is overridden
(`pytest --benchmark`). In float32, exp is a polynomial that LLVM can vectorise (relative error
at most 3e-7 where it does not under- or overflow); in float64 everything is the maths library's.
Compiled code is cached on disk, so that only the first start of a version compiles.
"""

from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import DTypeLike

from lstm_music.arrays import Array
from lstm_music.errors import UserError
from lstm_music.ops.cpu import copying, elementwise, losses, lstm, panels, updates
from lstm_music.ops.cpu.blas import parallel_gemm, single_threaded_blas
from lstm_music.ops.cpu.lstm import LARGE
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.workspace import empty

FEW = 8  # terms of a sum or rows, and columns in pairs, from which a product in bf16 wins


def bf16_products() -> Any:
    """Return the products in bf16, with scratch; imported here, for they are compiled at once."""
    from lstm_music.ops.cpu.bf16 import Products

    return Products(get_num_threads())


class NumbaOps(NumpyOps):
    """NumPy's ops, with those overridden that Numba runs faster: functions of their parts.

    precision: "fp32", or "bf16", which rounds the factors of products of float32 and adds up in
    float32, but for those of so FEW rows or columns that it takes longer; state, losses and weights
    are fp32 in both. "auto" is bf16 where the processor has it. Raises UserError for another, or
    where the processor has no such instructions.
    """

    name = "numba"

    def __init__(self, dtype: DTypeLike = "float32", precision: str = "fp32") -> None:
        super().__init__(dtype)
        if precision == "auto":
            precision = "bf16" if panels.HAS_BF16 and self.dtype == np.float32 else "fp32"
        if precision == "bf16" and not panels.HAS_BF16:
            raise UserError(
                "this processor has no instructions for bf16 (AVX512_BF16): leave --precision out"
            )
        if precision not in ("fp32", "bf16"):
            raise UserError(
                f"--precision {precision} is for a GPU (--backend cupy), and this run computes "
                "with numba: leave --precision out"
            )
        self.precision = precision
        self.bf16 = bf16_products() if precision == "bf16" and self.dtype == np.float32 else None
        self._wide = panels.HAS_AVX512 and self.dtype == np.float32
        self._scratch = empty(np, (0,), self.dtype)  # a transposed matrix, its rows contiguous
        single_threaded_blas()

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul, each thread with its own part of out."""
        self._product(a, b, out, 0.0)

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul_add, without a temporary: what adds up begins with out itself."""
        self._product(a, b, out, 1.0)

    def _product(self, a: Array, b: Array, out: Array, beta: float) -> None:
        """Write a·b + beta·out to out: in bf16, or a weight's gradient xᵀ·d by our own product.

        All else is the BLAS's.
        """
        (M, K), N = a.shape, b.shape[1]
        assert N == 1 or out.strides[1] == out.itemsize, "rows of out must be contiguous"
        turned = a.strides[0] == a.itemsize and b.strides[1] == b.itemsize
        least = 4 * FEW if turned else FEW  # fewer rows are packed for too little
        if self.bf16 and K >= FEW and N >= 2 * FEW and least <= M:
            self.bf16(a, b, out, beta)
            return
        if not (self._wide and turned and N >= panels.WIDE and min(M, K) >= panels.ROWS):
            parallel_gemm(a, b, out, beta, get_num_threads())
            return
        if self._scratch.size < a.size:
            self._scratch = empty(np, (a.size,), self.dtype)
        rows = self._scratch[: a.size].reshape(M, K)
        panels.wide_product(a.T, b, rows, out, beta, get_num_threads())

    def affine(self, x: Array, W: Array, b: Array | None, out: Array) -> None:
        """As NumpyOps.affine, in one call; NumPy keeps the large matrices, where it wins."""
        if W.size >= LARGE:
            super().affine(x, W, b, out)
        else:
            panels.affine(x, W, np.zeros(0, self.dtype) if b is None else b, out)

    lstm_cell_forward = lstm.lstm_cell_forward
    lstm_cell_backward = lstm.lstm_cell_backward
    lstm_sequence_forward = lstm.lstm_sequence_forward
    lstm_sequence_backward = lstm.lstm_sequence_backward

    embedding_backward = elementwise.embedding_backward
    note_embedding_forward = elementwise.note_embedding_forward
    note_embedding_backward = elementwise.note_embedding_backward
    dropout = elementwise.dropout

    softmax_xent = losses.softmax_xent
    linear_softmax_xent = losses.linear_softmax_xent
    _linear_softmax_nll = losses.linear_softmax_nll
    sigmoid_xent = losses.sigmoid_xent
    nade_xent = losses.nade_xent
    nade_nll = losses.nade_nll
    nade_sample = losses.nade_sample

    copy_shares = copying.copy_shares
    copy_backward = copying.copy_backward

    adam_step = updates.adam_step
    adam_step_rows = updates.adam_step_rows
    average_step = updates.average_step
