"""cuBLAS for the stand-in: one product, column-major, with everything checked that it is given."""

import ctypes
from types import SimpleNamespace

import numpy as np

from .compile import LaunchError
from .host_array import STATE, do

HANDLE = 1


def from_bf16(bits):
    """Return the float32 numbers whose bf16 bits are given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gemm_ex(
    handle,
    ta,
    tb,
    m,
    n,
    k,
    alpha,
    a,
    a_type,
    lda,
    b,
    b_type,
    ldb,
    beta,
    c,
    c_type,
    ldc,
    compute,
    algo,
):
    """cublasGemmEx, column-major: C = alpha · op(A) · op(B) + beta · C."""
    # Factors in bf16 (14) are for sums in fp32 (compute 68).
    if a_type != b_type or (a_type != c_type and (a_type, c_type, compute) != (14, 0, 68)):
        raise LaunchError("gemmEx: types differ")
    if lda < (k if ta else m) or ldb < (n if tb else k) or ldc < m:
        raise LaunchError("gemmEx: a leading dimension is too small")
    real = ctypes.c_float if c_type == 0 else ctypes.c_double
    factor = [real.from_address(x).value for x in (alpha, beta)]

    def matrix(address, ld, rows, columns, kind=real):
        # Column-major: column j starts at j·ld.
        flat = np.ctypeslib.as_array((kind * (ld * (columns - 1) + rows)).from_address(address))
        strides = (flat.itemsize, ld * flat.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

    def factor_of(address, ld, rows, columns):
        if a_type != 14:
            return matrix(address, ld, rows, columns)
        return from_bf16(matrix(address, ld, rows, columns, ctypes.c_uint16))

    def work():
        left = factor_of(a, lda, k, m).T if ta else factor_of(a, lda, m, k)
        right = factor_of(b, ldb, n, k).T if tb else factor_of(b, ldb, k, n)
        out = matrix(c, ldc, m, n)
        product = left @ right
        # beta 0 must not read what C holds.
        out[...] = product if factor[1] == 0 else factor[0] * product + factor[1] * out

    do("gemm", work)
    return 0


def set_stream(handle, stream):
    """cublasSetStream."""
    return 0 if (handle, stream) == (HANDLE, STATE.streams[-1].ptr if STATE.streams else 0) else 1


def set_workspace(handle, address, size):
    """cublasSetWorkspace, which wants it aligned to 256 bytes."""
    return 0 if handle == HANDLE and address and address % 256 == 0 and size > 0 else 1


CUBLAS = SimpleNamespace(
    cublasSetStream_v2=set_stream, cublasSetWorkspace_v2=set_workspace, cublasGemmEx=gemm_ex
)
