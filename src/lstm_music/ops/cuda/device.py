"""Finding a GPU that CuPy can use, and saying in one line what to do where there is none."""

import os
from pathlib import Path
from typing import Any

from lstm_music.errors import UserError
from lstm_music.files import cache_folder, can_write

PRECISIONS = ("fp32", "tf32", "bf16")  # of the GEMMs of float32 models on a GPU


def usable_cupy() -> Any:
    """Return the module cupy, where it finds a GPU; raises UserError that says what is missing."""
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            f"the cupy backend needs CuPy ({error}): pip install 'lstm-music[cuda13]' "
            "(or [cuda12] for a driver older than 580), or use --backend numba"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(driver_message(str(error))) from error
    if not count:
        raise UserError("there is no CUDA device here: use --backend numba")
    keep_kernels()
    cupy.cuda.set_allocator(Allocator(cupy, cupy.get_default_memory_pool()))
    return cupy


def keep_kernels() -> None:
    """Have CuPy keep compiled kernels in our cache, where its own can't be written."""
    own = Path(os.path.expanduser("~/.cupy/kernel_cache"))  # as CuPy finds it
    if "CUPY_CACHE_DIR" not in os.environ and not can_write(own):
        os.environ["CUPY_CACHE_DIR"] = str(cache_folder() / "cupy")


def driver_message(what: str) -> str:
    """Return what to do about an error of the CUDA runtime."""
    if "InsufficientDriver" in what:
        return (
            "the NVIDIA driver is missing or older than CuPy: install a newer driver, or the CuPy "
            "that fits it (pip install 'lstm-music[cuda12]'), or use --backend numba"
        )
    return f"no CUDA device answers ({what}): check nvidia-smi, or use --backend numba"


class Allocator:
    """A pool's malloc that says in one line what to lower where the GPU's memory is full."""

    def __init__(self, cupy: Any, pool: Any) -> None:
        self.cupy, self.pool = cupy, pool

    def __call__(self, size: int) -> Any:
        """Return device memory of a size."""
        try:
            return self.pool.malloc(size)
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            used = self.pool.used_bytes() / 2**20
            raise UserError(
                f"the GPU has no {size / 2**20:,.0f} MB left beside the {used:,.0f} MB in use: "
                "lower --batch, --seq or --hidden, or use --backend numba"
            ) from error
