"""cublasGemmEx, called past CuPy: CuPy's own refuses while a CUDA graph is captured.

(cupy_backends/cuda/libs/cublas.pyx, setStream: "calling cuBLAS API during stream capture is
currently unsupported". cuBLAS itself can be captured.)
"""

import ctypes
import sys
from typing import Any

from lstm_music.errors import UserError

WORKSPACE = 32 << 20  # bytes: what NVIDIA advises for Hopper
NAMES = {"win32": "cublas64_{}.dll", "linux": "libcublas.so.{}"}


class Cublas:
    """The library that CuPy has loaded, in the stream that is CuPy's current one.

    library: what to call in its place, for tests.
    """

    def __init__(self, xp: Any, library: Any = None) -> None:
        self.xp = xp
        # With a handle CuPy loads the library, wherever that lies.
        xp.cuda.device.get_cublas_handle()
        self.library = loaded(xp) if library is None else library
        # Of ours, or in a graph each product brings a node that allocates and one that frees.
        self.workspace = xp.cuda.alloc(WORKSPACE)

    def gemm_ex(self, *args: int) -> None:
        """Call cublasGemmEx with all its arguments but the handle; raises RuntimeError."""
        handle = self.xp.cuda.device.get_cublas_handle()  # the device's own
        stream = self.xp.cuda.get_current_stream().ptr
        status = self.library.cublasSetStream_v2(handle, stream)
        # Anew each time: with a stream cuBLAS takes a workspace of its own again.
        status = status or self.library.cublasSetWorkspace_v2(handle, self.workspace.ptr, WORKSPACE)
        status = status or self.library.cublasGemmEx(handle, *args)
        if status:
            raise RuntimeError(f"cuBLAS failed with status {status}")


def loaded(xp: Any) -> Any:
    """Return cuBLAS of the CUDA version that CuPy runs with; raises UserError."""
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    name = NAMES.get(sys.platform, NAMES["linux"]).format(version)
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise UserError(
            f"cuBLAS isn't found ({error}): install CuPy with its CUDA libraries "
            f"(pip install 'lstm-music[cuda{version}]'), or use --backend numba"
        ) from error
    number: Any = ctypes.c_int
    address: Any = ctypes.c_void_p
    matrix = [address, number, number]  # where it lies, its type, its leading dimension
    library.cublasSetStream_v2.argtypes = [address, address]
    library.cublasSetWorkspace_v2.argtypes = [address, address, ctypes.c_size_t]
    library.cublasGemmEx.argtypes = [
        address, *[number] * 5, address, *matrix, *matrix, address, *matrix, number, number,
    ]  # fmt: skip
    return library
