"""Prepared corpora on disk: memory-mapped arrays, keyed by content and settings."""

import atexit
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_music.arrays import Array
from lstm_music.files import cache_folder

MAKING, LEFT_SECONDS = ".making-", 86_400.0  # folders of unfinished corpora, and their age at most
META, HASH = "corpus.json", "sha256"  # files of a prepared corpus, beside its arrays


def places() -> Iterator[Path]:
    """Yield where prepared corpora may be kept: the cache, else a folder that goes at the end."""
    yield cache_folder()
    yield passing_folder(cache_folder())


@cache
def passing_folder(_: Path) -> Path:
    """Return what stands in for a cache that can't be written: it goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="lstm-music-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def read_cache(folder: Path) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """Return a prepared corpus's JSON and memory-mapped arrays, None where none is whole."""
    try:
        if (folder / HASH).read_text("ascii") != cache_hash(folder):
            return None
        meta = dict(json.loads((folder / META).read_text("utf-8")))
        return meta, {p.stem: np.load(p, mmap_mode="r") for p in folder.glob("*.npy")}
    except Exception:  # NumPy raises whatever the rubbish leads it to
        return None


def write_cache(folder: Path, make: Callable[[Path], Mapping[str, Any]]) -> None:
    """Keep a prepared corpus for this run and the next.

    make: writes its arrays, as .npy, into a folder, and returns its JSON. The corpus appears under
    its name once it's whole. Raises OSError where the disk refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=MAKING) as made:
        new = Path(made) / "new"
        new.mkdir()
        (new / META).write_text(json.dumps(make(new)), "utf-8")
        (new / HASH).write_text(cache_hash(new), "ascii")
        if folder.exists():  # a damaged one, or another process was quicker
            folder.rename(Path(made) / "old")
        new.rename(folder)


def sweep(folder: Path) -> None:
    """Remove what preparations left that were killed more than a day ago."""
    for path in folder.glob(f"{MAKING}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(path)


def write_array(path: Path, blocks: Iterable[Array], length: int, dtype: npt.DTypeLike) -> None:
    """Write a (length,) .npy file block by block, so that it never lies in memory whole."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype(dtype).tobytes())


def cache_hash(folder: Path) -> str:
    """Return a hash of what a prepared corpus consists of."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.name != HASH:
            digest.update(path.name.encode())
            digest.update(file_hash(path))
    return digest.hexdigest()


def file_hash(path: Path) -> bytes:
    """Return the SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()
