"""Repaired pieces on disk, by the hash of the MIDI file that each was read from.

Parsing MIDI is the slow part of preparing a corpus, so it's done once for any content: pieces are
kept in shards, each a safetensors file, and every corpus and representation reads them there. The
work is spread by joblib: workers get bytes and give arrays, and this process alone writes.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed, parallel_config
from safetensors import safe_open
from safetensors.numpy import save

from lstm_music.arrays import Array
from lstm_music.corpus.survey import Survey, survey_of
from lstm_music.files import write_whole
from lstm_music.midi.files import read_midi
from lstm_music.midi.piece import KIND, PITCH, TICK, MidiError, Part, Piece, no_tempo

FORMAT = 4  # of shards, and of what reading makes of a file: a new number makes old ones unused
SUFFIX = ".safetensors"
BATCH_FILES, BATCH_BYTES = 32, 2**20  # of MIDI files that a worker reads at a time, at most
ROUND = 64  # batches at once, where an engine can't give one result before the others
OPEN_SHARDS = 8  # kept in memory: pieces that are neighbours mostly lie in the same one
ARRAYS = ("ticks", "notes", "velocities", "tracks", "files")
ABOUT = ("digests", "pieces", "surveys", "reasons")
TIMES = ("meter", "tempo")  # fields of a piece with rows of two numbers
ON = 128  # added to the pitch of a note-on
LOST = "was lost while it was read: it changed then, or what read it was killed, as it may be again"


class File(NamedTuple):
    """A MIDI file's content: a hash of it, and its bytes."""

    digest: str
    data: bytes


class Read(NamedTuple):
    """What became of a MIDI file: a piece without a name, and its survey; or why it's useless."""

    digest: str
    piece: Piece
    survey: Survey | None
    reason: str | None


class PieceStore:
    """The pieces kept in a folder.

    drums, played: how they were read, as read_midi. Damaged shards are as if they weren't there.
    """

    def __init__(self, folder: Path, drums: bool, played: bool = False) -> None:
        self.folder = folder / f"pieces-{FORMAT}{'-drums-3' * drums}{'-played' * played}"
        self.drums, self.played = drums, played
        self._where: dict[str, tuple[Path, int]] = {}
        self._open: OrderedDict[Path, list[Read]] = OrderedDict()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            self._enter(path, digests_in(path))

    def _enter(self, path: Path, digests: Iterable[str]) -> None:
        for row, digest in enumerate(digests):
            self._where[digest] = path, row

    def __contains__(self, digest: str) -> bool:
        return digest in self._where

    def add(self, read: list[Read]) -> None:
        """Keep what became of some files as one shard. Raises OSError where the disk refuses."""
        name = hashlib.sha256("".join(file.digest for file in read).encode()).hexdigest()[:32]
        path = self.folder / f"{name}{SUFFIX}"
        write_whole(packed(read), path)
        self._enter(path, (file.digest for file in read))

    def get(self, digest: str) -> Read:
        """Return what became of a file. Raises KeyError where it isn't here, or no longer whole."""
        path, row = self._where[digest]
        if path not in self._open:
            try:
                self._open[path] = unpacked(path)
            except Exception as error:  # safetensors and NumPy raise what they like
                self._where = {d: at for d, at in self._where.items() if at[0] != path}
                with suppress(OSError):
                    path.unlink()
                raise KeyError(digest) from error
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path][row]

    def fill(self, files: Iterable[File], jobs: int, engine: str | None = None) -> Iterator[str]:
        """Read files that aren't here and keep them; yield the hash of each once it's kept.

        jobs: processes at once; engine: one of joblib's backends, None for its own. Files whose
        worker is killed twice are not kept: the second time they were alone in it.
        """
        waiting = BatchesOf(files)
        with suppress(BrokenProcessPool):
            yield from self._fill(waiting, jobs, engine)
            return
        # A worker was killed. What was kept is kept; those that were being read go alone now.
        suspects = list(chain.from_iterable(waiting.unfinished.values()))
        waiting.unfinished.clear()
        for file in suspects:
            with suppress(BrokenProcessPool):
                yield from self._fill(BatchesOf([file]), max(jobs, 2), engine)
        yield from self.fill(chain.from_iterable(waiting), jobs, engine)

    def _fill(self, batches: "BatchesOf", jobs: int, engine: str | None) -> Iterator[str]:
        with parallel_config(backend=engine or "loky", n_jobs=jobs):
            calls = (delayed(read_batch)(batch, self.drums, self.played) for batch in batches)
            for read in results(calls):
                self.add(read)
                batches.unfinished.pop(read[0].digest)
                yield from (file.digest for file in read)


def results(calls: Iterator[Any]) -> Iterator[list[Read]]:
    """Yield what calls return, as they return it, by the engine that is chosen."""
    try:
        run = Parallel(return_as="generator_unordered", pre_dispatch="2*n_jobs", batch_size=1)
    except ValueError:  # an engine that gives all its results at once
        while some := list(islice(calls, ROUND)):
            yield from Parallel(batch_size=1)(some)
    else:
        yield from run(calls)


class BatchesOf:
    """Files in batches, and which of them were handed out and aren't finished, by first hash."""

    def __init__(self, files: Iterable[File]) -> None:
        self._files = iter(files)
        self.unfinished: dict[str, list[File]] = {}

    def __iter__(self) -> Iterator[list[File]]:
        batch: list[File] = []
        for file in self._files:
            batch.append(file)
            full = len(batch) >= BATCH_FILES or sum(len(f.data) for f in batch) >= BATCH_BYTES
            if full:
                self.unfinished[batch[0].digest] = batch
                yield batch
                batch = []
        if batch:
            self.unfinished[batch[0].digest] = batch
            yield batch


def read_batch(batch: list[File], drums: bool, played: bool) -> list[Read]:
    """Read and repair some files; this is what workers do."""
    return [read_one(file, drums, played) for file in batch]


def read_one(file: File, drums: bool, played: bool = False) -> Read:
    """Read and repair a file."""
    try:
        piece = read_midi(file.data, "", drums, played)
    except MidiError as error:
        return Read(file.digest, Piece("", []), None, str(error))
    survey = survey_of(piece)
    said = piece.says_tempo or played
    return Read(file.digest, piece if said else replace(piece, tempo=no_tempo()), survey, None)


def piece_of(read: Read, name: str) -> Piece:
    """Return what was read as a piece of that name."""
    return replace(read.piece, name=name, repairs=dict(read.piece.repairs))


# A shard ----------------------------------------------------------------------------------------
#
# ticks (n,) int32 and notes (n,) uint8, the pitch and 128 for a note-on, of all messages end to
# end, and velocities (n / 2,) uint8, of the notes of each track; tracks (m + 1,) int64: where each
# track begins among the messages; files (f + 1,) int64: where each file begins among the tracks.
# What else there is of a file, in JSON.


def packed(read: list[Read]) -> bytes:
    """Return some files as a shard."""
    pieces = [file.piece for file in read]
    tracks = [track for piece in pieces for track in piece.tracks]
    rows = np.concatenate([np.zeros((0, 3), np.int32), *tracks])
    loud = [np.zeros(0, np.int32), *(v for piece in pieces for v in piece.velocities)]
    arrays = {
        "ticks": np.ascontiguousarray(rows[:, TICK]),
        "notes": (rows[:, PITCH] + ON * rows[:, KIND]).astype(np.uint8),
        "velocities": np.concatenate(loud).astype(np.uint8),
        "tracks": np.cumsum([0, *map(len, tracks)], dtype=np.int64),
        "files": np.cumsum([0, *(len(piece.tracks) for piece in pieces)], dtype=np.int64),
    }
    about = {
        "digests": json.dumps([file.digest for file in read]),
        "reasons": json.dumps([file.reason for file in read]),
        "pieces": json.dumps([as_json(piece) for piece in pieces]),
        "surveys": json.dumps([file.survey and asdict(file.survey) for file in read]),
    }
    about["sha256"] = hash_of(arrays, about)
    return bytes(save(arrays, about))


def as_json(piece: Piece) -> dict[str, Any]:
    """Return what a piece has beside its name and its notes."""
    times = {name: getattr(piece, name).tolist() for name in TIMES}
    return {
        **times,
        "phrases": piece.phrases.tolist(),
        "parts": piece.parts,
        "drums": piece.drums,
        "repairs": piece.repairs,
        "sharps": piece.sharps,
        "pedals": piece.pedals,
        "beats": list(piece.beats.items()),
    }


def from_json(told: dict[str, Any], tracks: list[Array], velocities: list[Array]) -> Piece:
    """Return a piece of notes and what `as_json` has told of it."""
    meter, tempo = (np.array(told.pop(name), np.int32).reshape(-1, 2) for name in TIMES)
    parts = tuple(Part(*part) for part in told.pop("parts"))
    drums, beats = tuple(told.pop("drums")), dict(told.pop("beats"))
    phrases = np.array(told.pop("phrases"), np.int32)
    return Piece(
        "", tracks, parts=parts, velocities=tuple(velocities), drums=drums, phrases=phrases,
        beats=beats, meter=meter, tempo=tempo, **told,
    )  # fmt: skip


def unpacked(path: Path) -> list[Read]:
    """Return the files of a shard. Raises anything where it's damaged."""
    with safe_open(path, framework="np") as shard:
        about: Mapping[str, str] = shard.metadata()
        arrays = {name: shard.get_tensor(name) for name in ARRAYS}
    if about["sha256"] != hash_of(arrays, about):
        raise ValueError("damaged")
    columns = arrays["ticks"], arrays["notes"] // ON, arrays["notes"] % ON
    rows = np.stack(columns, axis=1).astype(np.int32)
    cuts, ends = arrays["tracks"][1:-1], arrays["files"].tolist()
    some = len(arrays["tracks"]) > 1
    tracks = np.split(rows, cuts) if some else []
    loud = np.split(arrays["velocities"].astype(np.int32), cuts // 2) if some else []
    fields: list[Any] = [json.loads(about[name]) for name in ABOUT]
    return [
        Read(
            digest,
            from_json(told, tracks[first:stop], loud[first:stop]),
            survey and Survey.from_json(survey),
            reason,
        )
        for first, stop, digest, told, survey, reason in zip(
            ends[:-1], ends[1:], *fields, strict=True
        )
    ]  # fmt: skip


def hash_of(arrays: Mapping[str, Array], about: Mapping[str, str]) -> str:
    """Return a hash of a shard's arrays and of what it says of them."""
    digest = hashlib.sha256("".join(f"{name} {about[name]}" for name in ABOUT).encode())
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def digests_in(path: Path) -> list[str]:
    """Return the hashes of the files in a shard, none where it's damaged."""
    try:
        with safe_open(path, framework="np") as shard:
            return [str(digest) for digest in json.loads(shard.metadata()["digests"])]
    except Exception:  # safetensors has errors of its own
        return []
