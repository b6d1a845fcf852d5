"""The CUDA sources: where they lie, and the options each is compiled with.

The text handed to a compiler holds each .cuh in place of its #include, those that `structs`
generates too: no include path is needed, and a cache keyed by the text notices every change.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.ops.cuda import structs

# The package's kernels/ is the repository's top-level folder of that name.
FOLDER = Path(__file__).resolve().parents[2] / "kernels"
INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


@cache
def text(name: str) -> str:
    """Return the text of kernels/NAME.cu with its includes in it."""
    return with_includes((FOLDER / f"{name}.cu").read_text("utf-8"))


def with_includes(code: str) -> str:
    """Return a source's text with each file of kernels/ where it is included first."""
    seen = set[str]()

    def included(found: re.Match[str]) -> str:
        name = found[1]
        if name in seen:
            return ""
        seen.add(name)
        body = structs.generated(name) or (FOLDER / name).read_text("utf-8")
        return INCLUDE.sub(included, body)

    return INCLUDE.sub(included, code)


def names() -> list[str]:
    """Return the names of all sources."""
    return sorted(path.stem for path in FOLDER.glob("*.cu"))


def real_option(dtype: DTypeLike) -> str:
    """Return the option that sets a kernel's precision."""
    return "-DREAL=float" if np.dtype(dtype) == np.float32 else "-DREAL=double"
