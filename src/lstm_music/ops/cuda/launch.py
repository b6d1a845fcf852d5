"""The device as the ops see it: its arrays, its GEMMs, and kernels compiled and launched.

Kernels are compiled by NVRTC at first use and cached on disk by CuPy; nvcc isn't needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.arrays import Array
from lstm_music.errors import UserError
from lstm_music.ops.cuda import layout, source
from lstm_music.ops.cuda.capture import Recording
from lstm_music.ops.cuda.cublas import Cublas
from lstm_music.ops.cuda.device import PRECISIONS, usable_cupy
from lstm_music.ops.cuda.gemm import gemm
from lstm_music.ops.numpy_ops import NumpyOps

NULL = np.uint64(0)  # a null pointer, as an argument of a kernel


class Launcher(NumpyOps):
    """What every function of this package takes first; `CupyOps` adds these functions to it.

    precision: of the GEMMs of float32 models. cupy: the module to use, for tests, with a
    cublas_library of its own. Raises UserError for an unknown precision and where no GPU answers.
    """

    name = "cupy"

    def __init__(
        self, dtype: DTypeLike = "float32", precision: str = "fp32", cupy: Any = None
    ) -> None:
        super().__init__(dtype)
        if precision not in PRECISIONS:
            raise UserError(
                f"unknown precision '{precision}': choose one of {', '.join(PRECISIONS)}"
            )
        self.precision = precision
        self.xp = usable_cupy() if cupy is None else cupy
        device = self.xp.cuda.Device()
        # Whether there are instructions for products of matrices in bf16: kernels/tensor_cores.cuh.
        self.tensor_cores = int(device.compute_capability) >= 80
        # Whether blocks reach each other's shared memory: kernels/cluster.cuh.
        self.clusters = int(device.compute_capability) >= 90
        self.exchange = "mbarrier"  # of lstm_sequence.EXCHANGES: how the blocks of a cluster do
        attributes = device.attributes
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.shared_bytes = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self.cublas = Cublas(self.xp, getattr(self.xp, "cublas_library", None))
        self.recorded: Recording | None = None
        self._kernels: dict[tuple[str, tuple[str, ...]], Any] = {}

    # Arrays -----------------------------------------------------------------------------------

    def asarray(self, a: Any, dtype: DTypeLike | None = None) -> Array:
        """As NumpyOps.asarray, on the device."""
        array: Array = self.xp.ascontiguousarray(self.xp.asarray(a, dtype=dtype or self.dtype))
        return array

    def aligned(self, a: Array) -> Array:
        """As NumpyOps.aligned: an odd distance between rows keeps cuBLAS from its fast kernels."""
        return layout.aligned(self.xp, a)

    def to_numpy(self, a: Array) -> Array:
        """As NumpyOps.to_numpy: waits for the device and copies."""
        host: Array = self.xp.asnumpy(a)
        return host

    # GEMMs ------------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul, by cuBLAS."""
        gemm(self.cublas, self.precision, a, b, out, 0.0)

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul_add, by cuBLAS, which adds to out itself."""
        gemm(self.cublas, self.precision, a, b, out, 1.0)

    def affine(self, x: Array, W: Array, b: Array | None, out: Array) -> None:
        """As NumpyOps.affine, by one GEMM: rows are alike in batches of one size alone."""
        self.matmul(x, W, out)
        if b is not None:
            self.xp.add(out, b, out=out)

    # Kernels ----------------------------------------------------------------------------------

    def launch(
        self,
        file: str,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
        options: tuple[str, ...] = (),
    ) -> None:
        """Launch a kernel of kernels/FILE.cu; None is a null pointer.

        shared: bytes of its dynamic shared memory. options: of the compiler.
        """
        kernel = self.kernel(file, name, options)
        if shared:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(grid, block, tuple(NULL if a is None else a for a in args), shared_mem=shared)

    def kernel(self, file: str, name: str, options: tuple[str, ...] = ()) -> Any:
        """Return a kernel of kernels/FILE.cu, compiled at first use.

        Raises UserError where the compiler refuses it.
        """
        key = (name, options)
        if key not in self._kernels:
            flags = (source.real_option(self.dtype), "-std=c++17", *options)
            try:
                module = self.xp.RawModule(code=source.text(file), options=flags)
                self._kernels[key] = module.get_function(name)
            except self.xp.cuda.compiler.CompileException as error:
                first = str(error).strip().splitlines()[0]
                raise UserError(
                    f"the kernel {name} doesn't compile for this GPU ({first}): "
                    "use --backend numba, or update CuPy and the driver"
                ) from error
        return self._kernels[key]

    @contextmanager
    def recording(self, step: Array, where: Array, slots: dict[str, Array]) -> Iterator[None]:
        """Run what follows without a read from the device, as a graph's capture asks for.

        step, where, slots: as of `Recording`.
        """
        self.recorded = Recording(step, where, slots)
        try:
            yield
        finally:
            self.recorded = None


def blocks(n: int, size: int) -> int:
    """Return how many blocks of a size n elements need."""
    return -(-n // size)
