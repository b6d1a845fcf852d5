"""Backends: one contract (`NumpyOps`), and subclasses that override what they win.

`ops` is always an explicit first argument; nothing in the package holds a global backend.
"""

from typing import Any, Literal

from lstm_music.errors import UserError
from lstm_music.ops.numpy_ops import NumpyOps, Workspace

Backend = Literal["auto", "numpy", "numba"]
BACKENDS: tuple[Backend, ...] = ("auto", "numpy", "numba")

__all__ = ["BACKENDS", "Backend", "NumpyOps", "Workspace", "get_ops"]


def get_ops(backend: str = "auto", dtype: Any = "float32") -> NumpyOps:
    """Return the ops of a backend: "auto" (the fastest that works here), "numpy" or "numba".

    Raises UserError for an unknown name, or for "numba" where Numba can't be imported.
    """
    if backend == "numpy":
        return NumpyOps(dtype)
    if backend in ("auto", "numba"):
        try:
            from lstm_music.ops.numba_ops import NumbaOps
        except ImportError as error:
            if backend == "auto":
                return NumpyOps(dtype)
            raise UserError(
                f"the numba backend is not usable here ({error}): "
                "use --backend numpy, or reinstall with pip install numba"
            ) from error
        return NumbaOps(dtype)
    raise UserError(f"unknown backend '{backend}': choose one of {', '.join(BACKENDS)}")
