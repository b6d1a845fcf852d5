"""Backends: one contract (`NumpyOps`), and subclasses that override what they win.

`ops` is always an explicit first argument; nothing in the package holds a global backend.
"""

import importlib.util
import shutil
import sys
from contextlib import suppress
from typing import Any, Literal

from lstm_music.errors import UserError
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.workspace import Workspace

Backend = Literal["auto", "numpy", "numba", "cupy"]
BACKENDS: tuple[Backend, ...] = ("auto", "numpy", "numba", "cupy")
__all__ = ["BACKENDS", "Backend", "NumpyOps", "Workspace", "get_ops"]


def get_ops(backend: str = "auto", dtype: Any = "float32", precision: str = "fp32") -> NumpyOps:
    """Return the ops of a backend: "auto" (the fastest that works here) or one of BACKENDS.

    precision: of matrix products: "fp32"; "bf16" on a GPU, or by numba where the processor has
    AVX512_BF16; "tf32" on a GPU; "auto" for bf16 by numba where it can, else fp32
    (`ops.precision` says which). Where backend "auto" finds none that has it, it is fp32.
    Raises UserError for an unknown name, or for a backend that can't be used here.
    """
    if backend == "numpy":
        return NumpyOps(dtype)
    if backend == "numba":
        return on_numba(dtype, precision)
    if backend == "cupy":
        return on_gpu(dtype, precision)
    if backend == "auto":
        return fastest_ops(dtype, precision)
    raise UserError(f"unknown backend '{backend}': choose one of {', '.join(BACKENDS)}")


def fastest_ops(dtype: Any, precision: str) -> NumpyOps:
    """Return cupy where a GPU answers, else numba, else numpy.

    Where there seems to be a GPU that can't be used, a line on standard error says why.
    """
    if importlib.util.find_spec("cupy") or shutil.which("nvidia-smi"):
        try:
            return on_gpu(dtype, precision)
        except UserError as error:
            print(f"note: using the CPU: {error}", file=sys.stderr)
    for possible in (precision, "fp32"):
        with suppress(UserError):
            return on_numba(dtype, possible)
    return NumpyOps(dtype)


def on_gpu(dtype: Any, precision: str) -> NumpyOps:
    """Return the ops of CuPy; "auto" is fp32, whose losses on a GPU are those of the CPU."""
    from lstm_music.ops.cuda.cupy_ops import CupyOps

    return CupyOps(dtype, "fp32" if precision == "auto" else precision)


def on_numba(dtype: Any, precision: str) -> NumpyOps:
    """Return the ops of Numba; raises UserError where it can't be used, or not so."""
    try:
        from lstm_music.ops.cpu.numba_ops import NumbaOps
    except ImportError as error:
        raise UserError(
            f"the numba backend is not usable here ({error}): "
            "use --backend numpy, or reinstall with pip install numba"
        ) from error
    return NumbaOps(dtype, precision)
