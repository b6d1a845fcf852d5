"""GEMM inside Numba: SciPy's BLAS, one thread a call, so that Numba's threads are the only ones.

A training step makes hundreds of small GEMMs. A BLAS that spreads each over its own threads meets
them all at every call; here each Numba thread runs its own share of the work from end to end.
"""

from typing import Any

import llvmlite.binding as llvm
import numpy as np
import scipy.linalg  # noqa: F401  (loads the BLAS that threadpoolctl is to limit)
from numba import types
from numba.extending import get_cython_function_address, overload
from threadpoolctl import ThreadpoolController

from lstm_music.ops.cpu.jit import njit, prange

# Registered by name, so that compiled code can be cached on disk.
for _name in ("sgemm", "dgemm"):
    llvm.add_symbol(
        f"lstm_music_{_name}", get_cython_function_address("scipy.linalg.cython_blas", _name)
    )


def _external(name: str, real: Any) -> Any:
    pointer: Any = types.CPointer
    char, integer, reals = (pointer(t) for t in (types.uint8, types.int32, real))
    return types.ExternalFunction(
        name,
        types.void(
            char, char, integer, integer, integer, reals, reals, integer, reals, integer, reals,
            reals, integer,
        ),
    )  # fmt: skip


_sgemm = _external("lstm_music_sgemm", types.float32)
_dgemm = _external("lstm_music_dgemm", types.float64)


def single_threaded_blas() -> None:
    """Have SciPy's BLAS, not NumPy's, run each call in the thread that makes it."""
    libraries = ThreadpoolController().select(user_api="blas")
    ours = [lib for lib in libraries.lib_controllers if "scipy.libs" in lib.filepath]
    for library in ours or libraries.lib_controllers:
        library.set_num_threads(1)


def _call(*arguments: Any) -> None:
    raise NotImplementedError("compiled only")


@overload(_call, inline="always")
def _call_overload(ta, tb, dims, alpha, b, a, beta, out):  # type: ignore[no-untyped-def]
    function = _sgemm if out.dtype == types.float32 else _dgemm

    def call(ta, tb, dims, alpha, b, a, beta, out):  # type: ignore[no-untyped-def]
        function(
            ta.ctypes, tb.ctypes, dims.ctypes, dims[1:].ctypes, dims[2:].ctypes, alpha.ctypes,
            b.ctypes, dims[3:].ctypes, a.ctypes, dims[4:].ctypes, beta.ctypes,
            out.ctypes, dims[5:].ctypes,
        )  # fmt: skip

    return call


@njit(cache=True)
def gemm(a, b, out, beta):  # type: ignore[no-untyped-def]
    """Compute out = a·b + beta·out in this thread. a (M, K), b (K, N), out (M, N) row-major.

    a and b may be row-major or transposed views of row-major arrays, whole or slices.
    """
    M, K = a.shape
    N = b.shape[1]
    size = a.itemsize
    # The BLAS is column-major: it computes out.T = b.T · a.T.
    a_rows, b_rows = a.strides[1] == size, b.strides[1] == size
    dims = np.empty(6, np.int32)
    dims[0], dims[1], dims[2] = N, M, K
    dims[3] = max(b.strides[0] // size, N) if b_rows else max(b.strides[1] // size, K)
    dims[4] = max(a.strides[0] // size, K) if a_rows else max(a.strides[1] // size, M)
    dims[5] = max(out.strides[0] // size, N)
    ta, tb = np.empty(1, np.uint8), np.empty(1, np.uint8)
    ta[0] = 78 if b_rows else 84  # "N" or "T"
    tb[0] = 78 if a_rows else 84
    scalars = np.empty(2, out.dtype)
    scalars[0], scalars[1] = 1, beta
    _call(ta, tb, dims, scalars, b, a, scalars[1:], out)


@njit(cache=True, parallel=True)
def parallel_gemm(a, b, out, beta, parts):  # type: ignore[no-untyped-def]
    """Compute `gemm` in parts side by side, by rows or by columns of out, whichever are more."""
    M, N = out.shape
    for k in prange(parts):
        if M >= N:
            rows = slice(k * M // parts, (k + 1) * M // parts)
            if rows.stop > rows.start:
                gemm(a[rows], b, out[rows], beta)
        else:
            columns = slice(k * N // parts, (k + 1) * N // parts)
            if columns.stop > columns.start:
                gemm(a, b[:, columns], out[:, columns], beta)
