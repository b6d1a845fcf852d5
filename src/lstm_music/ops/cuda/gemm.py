"""Products of matrices by cuBLAS, in the precision that was asked for."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops.cuda.cublas import Cublas
from lstm_music.ops.cuda.layout import apart, pointer

# cuBLAS: types of matrices, and what it computes in. NumPy has no bf16: its bits are uint16.
BF16 = "uint16"
MATRIX_TYPES = {"float32": 0, "float64": 1, BF16: 14}
COMPUTE_TYPES = {"fp32": 68, "tf32": 77, "bf16": 75, "float64": 70}


def gemm(cublas: Cublas, precision: str, a: Array, b: Array, out: Array, beta: float) -> None:
    """Compute out = a·b + beta·out. cuBLAS is column-major: it computes out.T = b.T·a.T.

    a (M, K), b (K, N), out (M, N); a and b may be transposed views, and in bf16 where out is
    float32.
    """
    M, K = a.shape
    N = b.shape[1]
    assert N == 1 or out.strides[1] == out.itemsize, "rows of out must be contiguous"
    factor, real = MATRIX_TYPES[a.dtype.name], MATRIX_TYPES[out.dtype.name]
    if a.dtype == BF16:  # nothing is left to round
        precision = "fp32"
    compute = COMPUTE_TYPES["float64" if out.dtype == np.float64 else precision]
    transpose_b, ldb = leading(b)
    transpose_a, lda = leading(a)
    # Read by cuBLAS before the call returns.
    scalars = np.array([1, beta], out.dtype)
    one = scalars.ctypes.data
    cublas.gemm_ex(
        transpose_b, transpose_a, N, M, K,
        one, pointer(b), factor, ldb, pointer(a), factor, lda,
        one + out.itemsize, pointer(out), real, max(apart(out), N),
        compute, -1,
    )  # fmt: skip


def leading(a: Array) -> tuple[int, int]:
    """Return (transposed, leading dimension) of a row-major matrix or a transposed view of one."""
    rows, columns = a.shape
    down, across = (stride // a.itemsize for stride in a.strides)
    if across == 1:
        return 0, max(down, columns)
    return 1, max(across, rows)
