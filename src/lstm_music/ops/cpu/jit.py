"""Numba's compiler as this package uses it: where compiled code is kept, and how threads wait."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import isfunction
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numba
from numba import prange

from lstm_music.errors import UserError
from lstm_music.files import cache_folder, can_write

PACKAGE = Path(__file__).resolve().parents[2]
# The files with compiled functions, and those whose constants are compiled into them.
SOURCES = (
    "arrays.py", "midi/piece.py", "midi/roll.py", "network/*recall*.py", "ops/*.py", "ops/cpu/*.py",
    "ops/reference/copying.py", "sampling/*.py", "tokenizers/*.py",
)  # fmt: skip
UNUSED_SECONDS = 7 * 86_400.0  # after which the code of other versions goes

__all__ = ["njit", "prange"]

config: Any = numba.config
# OpenMP's main thread does its share itself; Numba's own pool, the next best, hands all over. Numba
# chooses when threads are first asked for, and so before anything here asks.
config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]


def sources() -> list[Path]:
    """Return the files on which compiled code depends."""
    return sorted(path for pattern in SOURCES for path in PACKAGE.glob(pattern))


def places() -> Iterator[Path]:
    """Yield where compiled code may be kept, best first; raises UserError after the last."""
    own = os.environ.get("NUMBA_CACHE_DIR")
    if own:
        yield Path(own)
    yield PACKAGE / "__pycache__"
    yield cache_folder()


def code_folder() -> Path | None:
    """Return the folder of this version's compiled code, None where nothing can be written.

    Numba notices that a function's own file changed, but not the file of one that it calls or of a
    constant in it: so each version of the files has a folder of its own.
    """
    version = hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in sources()))
    name = f"numba-{version.hexdigest()[:16]}"
    with suppress(UserError):
        for place in places():
            folder = place / name
            if can_write(folder):
                if not folder.is_dir():
                    remove_unused(place)
                return folder
    return None


def remove_unused(place: Path) -> None:
    """Remove the code of other versions that nothing was added to for long."""
    for folder in place.glob("numba-*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


FOLDER = code_folder()


def njit(cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As numba.njit; what is cached is kept in FOLDER, or compiled anew where there is none."""

    def compiled(function: Callable[..., Any]) -> Any:
        before = config.CACHE_DIR
        try:
            config.CACHE_DIR = str(FOLDER or before)
            return numba.njit(cache=cache and FOLDER is not None, **options)(function)
        finally:
            config.CACHE_DIR = before

    return compiled


def njit_module(
    module: ModuleType, instead: Mapping[str, Any] | None = None, leave: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a module's names, with its functions compiled as they are, which call one another.

    instead: functions that take the place of those of these names; leave: those that stay. None may
    make an array: they don't count references, which takes ten times as long as what they do.
    """
    names, replaced = dict(vars(module)), instead or {}
    for name, function in vars(module).items():
        if isfunction(function) and function.__module__ == module.__name__ and name not in leave:
            same: Any = FunctionType(function.__code__, names, name, function.__defaults__)
            names[name] = replaced.get(name) or njit(cache=True, _nrt=False)(same)
    return names


def limit_threads(threads: int) -> None:
    """Have compiled code use at most so many threads."""
    numba.set_num_threads(min(threads, numba.get_num_threads()))
