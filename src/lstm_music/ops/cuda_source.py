"""The CUDA sources: where they lie, and the options each is compiled with.

The text handed to a compiler holds common.cuh in place of its #include: no include path is needed,
and a cache keyed by the text notices every change.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

# The package's kernels/ is the repository's top-level folder of that name.
FOLDER = Path(__file__).resolve().parents[1] / "kernels"
INCLUDE = '#include "common.cuh"'


@cache
def source(name: str) -> str:
    """Return the text of kernels/NAME.cu with its includes in it."""
    text = (FOLDER / f"{name}.cu").read_text("utf-8")
    return text.replace(INCLUDE, (FOLDER / "common.cuh").read_text("utf-8"))


def names() -> list[str]:
    """Return the names of all sources."""
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def real_option(dtype: DTypeLike) -> str:
    """Return the option that sets a kernel's precision."""
    return "-DREAL=float" if np.dtype(dtype) == np.float32 else "-DREAL=double"
