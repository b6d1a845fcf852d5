"""Files to pieces: what is known already is not read again, the rest is parsed in parallel."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import joblib
import numpy as np
from tqdm import tqdm

from lstm_music.corpus.piece_store import BATCH_FILES, LOST, File, PieceStore, piece_of
from lstm_music.corpus.sources import Skipped, Source
from lstm_music.files import write_whole
from lstm_music.midi.piece import MidiError, Piece

Digests: TypeAlias = list[str | Skipped]
"""By source: the SHA-256 of its bytes, or why it has none."""

STAMP, DIGEST = 16, 32  # bytes of each hash in a memo


class Workers(NamedTuple):
    """Who parses MIDI files: processes at once (None for one a core), and joblib's backend."""

    jobs: int | None = None
    engine: str | None = None

    def for_files(self, files: int) -> int:
        """Return how many processes so many files are worth."""
        if self.engine is not None:
            return self.jobs or -1
        return min(self.jobs or joblib.cpu_count(), -(-files // BATCH_FILES)) or 1


def read_source(source: Source) -> bytes | Skipped:
    """Return the bytes of a source, or why it can't be read."""
    try:
        return source.read()
    except MidiError as error:
        return Skipped(source.name, str(error))
    except OSError as error:
        return Skipped(source.name, f"can't be read: {error.strerror or error}")


# What hasn't changed ----------------------------------------------------------------------------


def digests_of(
    sources: Sequence[Source], memo: Path | None = None, progress: bool = False
) -> Digests:
    """Return a hash of each file's bytes, without reading those that are as they were.

    memo: a file that remembers the hashes by where, how large and how old each file is.
    """
    known = read_memo(memo)
    now: dict[bytes, str] = {}
    digests: Digests = []
    for source in watched(sources, "looking for changes", progress):
        stamp = hashlib.sha256(os.fsencode(source.stamp)).digest()[:STAMP]
        digest: str | Skipped | None = known.get(stamp) if source.stamp else None
        if digest is None:
            data = read_source(source)
            digest = data if isinstance(data, Skipped) else hashlib.sha256(data).hexdigest()
        if source.stamp and isinstance(digest, str):
            now[stamp] = digest
        digests.append(digest)
    if memo is not None and now != known:
        write_memo(memo, now)
    return digests


def read_memo(path: Path | None) -> dict[bytes, str]:
    """Return the hashes that were remembered, none where they are damaged."""
    with suppress(OSError):
        data = path.read_bytes() if path else b""
        body, seal = data[:-DIGEST], data[-DIGEST:]
        if hashlib.sha256(body).digest() == seal:
            rows = range(0, len(body), STAMP + DIGEST)
            return {body[r : r + STAMP]: body[r + STAMP : r + STAMP + DIGEST].hex() for r in rows}
    return {}


def write_memo(path: Path, known: dict[bytes, str]) -> None:
    """Remember hashes for the next run; where the disk refuses, it reads the files again."""
    body = b"".join(stamp + bytes.fromhex(digest) for stamp, digest in known.items())
    with suppress(OSError):
        write_whole(body + hashlib.sha256(body).digest(), path)


# Pieces -----------------------------------------------------------------------------------------


def pieces_of(
    sources: Sequence[Source],
    digests: Digests,
    store: PieceStore,
    workers: Workers,
    progress: bool,
    most: int = 0,
    seed: int = 0,
) -> Iterator[Piece | Skipped]:
    """Yield each file's piece, or why there is none, in order; parse what the store doesn't hold.

    most: so many pieces, from files drawn by seed, 0 for all; what can't be used is made up for.
    """
    order = np.random.default_rng(seed).permutation(len(sources)) if most else range(len(sources))
    chosen: list[int] = []
    lost: set[str] = set()
    usable = 0
    while len(chosen) < len(sources) and (not most or usable < most):
        more = [int(n) for n in order[len(chosen) :][: most - usable if most else None]]
        lost |= parse([(sources[n], digests[n]) for n in more], store, workers, progress)
        if most:
            found = (kept(sources[n], digests[n], store, lost) for n in more)
            usable += sum(isinstance(piece, Piece) for piece in found)
        chosen += more
    for n in watched(sorted(chosen), "gathering", progress):
        yield kept(sources[n], digests[n], store, lost)


def kept(
    source: Source, digest: str | Skipped, store: PieceStore, lost: set[str]
) -> Piece | Skipped:
    """Return what a store holds of a file; what a damaged shard held is parsed anew."""
    if isinstance(digest, Skipped):
        return digest
    try:
        read = store.get(digest)
    except KeyError:
        if digest in lost or parse([(source, digest)], store, Workers(1), progress=False):
            return Skipped(source.name, LOST)
        read = store.get(digest)
    if read.reason is not None:
        return Skipped(source.name, read.reason)
    return piece_of(read, source.name, store.played)


def parse(
    files: Sequence[tuple[Source, str | Skipped]],
    store: PieceStore,
    workers: Workers,
    progress: bool,
) -> set[str]:
    """Make a store hold all of some files; return the hashes of those that it can't."""
    missing: dict[str, Source] = {}
    for _ in range(2):  # once more for those that were near a worker's death
        missing = {
            digest: source
            for source, digest in files
            if isinstance(digest, str) and digest not in store
        }
        jobs = workers.for_files(len(missing))
        read = store.fill(unread(missing), jobs, workers.engine) if missing else ()
        for _ in watched(read, "reading", progress, len(missing)):
            pass
    return {digest for digest in missing if digest not in store}


def unread(missing: dict[str, Source]) -> Iterator[File]:
    """Yield the content of files, but of those that changed since they were hashed."""
    for digest, source in missing.items():
        data = read_source(source)
        if isinstance(data, bytes) and hashlib.sha256(data).hexdigest() == digest:
            yield File(digest, data)


def watched(
    items: Iterable[Any], what: str, progress: bool, total: int | None = None
) -> Iterable[Any]:
    """Return items with a progress bar for those who wait longer than two seconds."""
    hide = not progress
    return tqdm(
        items, what, total, leave=False, file=sys.stderr, disable=hide, unit="file", delay=2
    )
