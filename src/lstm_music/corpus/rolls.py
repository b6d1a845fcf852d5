"""Piano rolls as chord tokens or note vectors: frames -> ids.

The chord vocabulary is that of the training split: a chord of another split that training never
showed is read as the known chord nearest to it, and asks for no prediction.
(`training/validation.py` gives it its likelihood, from all 2^88 sets of notes.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lstm_music.arrays import NO_NOTES, Array
from lstm_music.corpus.batches import TokenSource, transposed_ids
from lstm_music.corpus.corpus import OUTSIDE, Corpus
from lstm_music.corpus.roll_files import read_rolls
from lstm_music.corpus.sources import Skipped
from lstm_music.corpus.splits import HELD_OUT, Gathered, common_fields
from lstm_music.errors import UserError
from lstm_music.midi.piece import Piece
from lstm_music.midi.roll import (
    LOWEST,
    NOTES,
    CommonKey,
    Frames,
    frames_of,
    pack,
    shift_range,
    ticks_per_step,
    to_common_key,
    transpose,
    unpack,
)
from lstm_music.network.recall import RecallRules
from lstm_music.network.recall_rules import frame_words
from lstm_music.tokenizers.chords import (
    SPECIALS,
    NearestChord,
    chord_words,
    frames_of_words,
    thin,
    transpose_word,
)
from lstm_music.tokenizers.messages import PIECE_END
from lstm_music.tokenizers.vocabulary import Vocabulary

PRIMER_FRAMES = 64


@dataclass(frozen=True)
class RollReading:
    """How to make frames.

    representation: "chord" or "note"; grid: frames a whole note; max_polyphony: where more notes
    sound, one fewer than that many stay, drawn by seed (0: all stay); common_key: "A" or "C"
    transposes each piece to C major, or to a minor of that tonic; augment: see Corpus.
    """

    representation: Literal["chord", "note"]
    grid: int
    max_polyphony: int = 0
    common_key: CommonKey | None = None
    augment: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            ticks_per_step(self.grid)
        except ValueError as error:
            raise UserError(f"{error}: use 8 for eighth notes, 16 for sixteenths") from error

    def to_text(self) -> str:
        """Return all of it, as a prepared corpus's key holds it."""
        settings = (f"{name}={value}" for name, value in sorted(asdict(self).items()))
        return f"1 rolls {HELD_OUT} {' '.join(settings)}"

    def in_key(self, frames: Frames) -> Frames:
        """Return frames in the common key, if there is to be one."""
        return to_common_key(frames, self.common_key)[0] if self.common_key else frames

    def prepared(self, frames: Frames, piece: int) -> Frames:
        """Return a piece's frames as they are to be learnt; piece is its number."""
        frames = self.in_key(frames)
        if self.max_polyphony:
            rng = np.random.default_rng([self.seed, piece])
            frames = thin(frames, self.max_polyphony, max(1, self.max_polyphony - 1), rng)
        return frames


class NoteSource:
    """Pieces of frames: packed (frames, 11) as `piano_roll.pack`, offsets (pieces + 1,) of frames.

    shifts: semitones by piece.
    """

    def __init__(self, packed: Array, offsets: Array, shifts: Sequence[int]) -> None:
        self.packed, self.offsets, self.shifts = packed, offsets, shifts

    def start(self, shape: tuple[int, int]) -> Array:
        """Return x (T, B, 89) uint8: no notes, and the start symbol."""
        x = np.zeros((*shape, NOTES + 1), np.uint8)
        x[..., NOTES] = 1
        return x

    def none(self, shape: tuple[int, int]) -> Array:
        """Return y (T, B, 88) uint8, NO_NOTES first everywhere."""
        y = np.zeros((*shape, NOTES), np.uint8)
        y[..., 0] = NO_NOTES
        return y

    def inputs(self, piece: int, first: int, stop: int) -> Array:
        """Return notes (n, 89) uint8, none of them the start symbol."""
        return np.pad(self.targets(piece, first, stop), ((0, 0), (0, 1)))

    def targets(self, piece: int, first: int, stop: int) -> Array:
        """Return notes (n, 88) uint8."""
        at = int(self.offsets[piece])
        frames = unpack(self.packed[at + first : at + stop])
        return transpose(frames, self.shifts[piece]) if self.shifts[piece] else frames

    def words(self, piece: int, rules: RecallRules) -> Array:
        """As Source.words."""
        length = int(self.offsets[piece + 1] - self.offsets[piece])
        return frame_words(self.targets(piece, 0, length))

    def asks(self, y: Array) -> Array:
        """As Source.asks."""
        asked: Array = y[..., 0] != NO_NOTES
        return asked


@dataclass(frozen=True)
class RollCorpus(Corpus):
    """Pieces as frames, and as ids where they are read as chords.

    packed (frames, 11) uint8: all pieces end to end, as `piano_roll.pack`; offsets (pieces + 1,)
    int64 of frames. ids (frames + pieces,) int32: each piece's chords, or the nearest known, and
    its end; unseen (frames + pieces,) bool: where a nearest one stands in. Both are empty for the
    representation "note".
    """

    reading: RollReading
    packed: Array
    offsets: Array
    ids: Array
    unseen: Array

    @property
    def lengths(self) -> list[int]:
        """What there is to predict in each piece: chords and the end symbol, or frames."""
        ends = self.reading.representation == "chord"
        return [int(n) + ends for n in np.diff(self.offsets)]

    def frames(self, piece: int) -> Frames:
        """Return the frames of a piece (n, 88) uint8."""
        return unpack(self.packed[int(self.offsets[piece]) : int(self.offsets[piece + 1])])

    def split_frames(self, split: str) -> list[Frames]:
        """Return the frames of each piece of a split."""
        return [self.frames(piece) for piece in self.splits[split]]

    def source(self, shifts: Sequence[int]) -> TokenSource | NoteSource:
        """As Corpus.source."""
        if self.reading.representation == "note":
            return NoteSource(self.packed, self.offsets, shifts)
        tables = transposed_ids(self.vocabulary.words, shifts, transpose_word)
        start, offsets = self.vocabulary.id(PIECE_END), self.id_offsets
        return TokenSource(self.ids, offsets, start, self.unseen, shifts, tables)

    @property
    def id_offsets(self) -> Array:
        """Where each piece's ids begin, (pieces + 1,)."""
        offsets: Array = self.offsets + np.arange(len(self.offsets))
        return offsets

    def tokenizer_json(self) -> dict[str, Any]:
        """As Corpus.tokenizer_json."""
        r = self.reading
        return {
            "name": r.representation,
            "grid": r.grid,
            "max_polyphony": r.max_polyphony,
            "common_key": r.common_key,
            "seed": r.seed,
        }

    def habits(self) -> dict[str, int]:
        """Return nothing: every sequence of frames is music."""
        return {}

    @property
    def primer_kind(self) -> str:
        """As Corpus.primer_kind."""
        return "ids" if self.reading.representation == "chord" else "frames"

    def primer(self, piece: int) -> list[Any]:
        """Return the first chords of a piece as ids, or its first frames as lists of pitches."""
        if self.reading.representation == "chord":
            first = int(self.id_offsets[piece])
            length = min(PRIMER_FRAMES, int(self.lengths[piece]) - 1)
            return [int(id) for id in self.ids[first : first + length]]
        return pitch_lists(self.frames(piece)[:PRIMER_FRAMES])

    def occurrences(self, pieces: Sequence[int]) -> Array:
        """As Corpus.occurrences; a token is a frame."""
        numbers = self._numbers
        counts = np.zeros(int(numbers.max(initial=-1)) + 1, np.int64)
        for p in pieces:
            first, stop = int(self.offsets[p]), int(self.offsets[p + 1])
            counts += np.bincount(numbers[first:stop], minlength=len(counts))
        return counts

    @cached_property
    def _numbers(self) -> Array:
        """A number for each frame (frames,), the same for the same notes."""
        numbers: Array = np.unique(self.packed, axis=0, return_inverse=True)[1].reshape(-1)
        return numbers


def notes_in(frames: Frames) -> int:
    """Return how many notes begin in frames (n, 88): those held from the frame before don't."""
    return int(np.count_nonzero(np.diff(frames, axis=0, prepend=0) == 1))


def pitch_lists(frames: Frames) -> list[list[int]]:
    """Return the MIDI pitches of each frame."""
    return [[int(p) + LOWEST for p in np.flatnonzero(frame)] for frame in frames]


def note_vocabulary() -> Vocabulary:
    """Return the 88 notes, by pitch, as words."""
    return Vocabulary([str(LOWEST + n) for n in range(NOTES)])


# Preparing --------------------------------------------------------------------------------------


def prepare_file(name: str, folder: Path, path: Path, reading: RollReading) -> dict[str, Any]:
    """Read one of Boulanger-Lewandowski's files, with its own splits; as `prepare_rolls`."""
    gathered = Gathered(name)
    pieces: list[Array] = []
    splits: dict[str, list[int]] = {}
    for split, rolls in read_rolls(path).items():
        splits[split] = list(range(len(pieces), len(pieces) + len(rolls)))
        for n, frames in enumerate(rolls):
            gather(gathered, pieces, f"{split}-{n + 1}", frames, reading)
    return assemble(folder, reading, gathered, pieces, splits, [])


def prepare_rolls(
    name: str, folder: Path, found: Iterable[Piece | Skipped], reading: RollReading
) -> dict[str, Any]:
    """Sample pieces; write arrays into a folder and return the rest in JSON.

    Raises UserError where no file can be used.
    """
    gathered = Gathered(name)
    pieces: list[Array] = []
    for piece in gathered.usable(found):
        frames, out_of_range = frames_of(piece, reading.grid)
        if not frames.any():
            notes = f" ({out_of_range} lie outside the piano's 88)" if out_of_range else ""
            reason = f"has no note that sounds on the grid{notes}"
            gathered.skipped.append(Skipped(piece.name, reason))
            continue
        gather(gathered, pieces, piece.name, frames, reading)
        if reading.common_key:  # which may move notes out of the piano
            out_of_range += notes_in(frames) - notes_in(reading.in_key(frames))
        if out_of_range:
            piece.repairs[OUTSIDE] = out_of_range
    splits, copies = gathered.splits()
    return assemble(folder, reading, gathered, pieces, splits, copies)


def gather(
    gathered: Gathered, pieces: list[Array], name: str, frames: Frames, reading: RollReading
) -> None:
    """Add a piece to those that are used, packed."""
    frames = reading.prepared(frames, len(pieces))
    pieces.append(pack(frames))
    content = pieces[-1].tobytes()
    gathered.add(name, len(frames), shift_range(frames), content, notes_in(frames))


def assemble(
    folder: Path,
    reading: RollReading,
    gathered: Gathered,
    pieces: list[Array],
    splits: dict[str, list[int]],
    copies: list[int],
) -> dict[str, Any]:
    """Number the chords, if chords are asked for, and write all pieces end to end."""
    vocabulary, ids, unseen = note_vocabulary(), np.zeros(0, np.int32), np.zeros(0, np.bool_)
    if reading.representation == "chord":
        words = (chord_words(unpack(pieces[p])) for p in splits["train"])
        vocabulary = chord_vocabulary(words, reading.augment)
        ids, unseen = chord_ids((chord_words(unpack(piece)) for piece in pieces), vocabulary)
    gathered.save(folder)
    for name, array in (("packed", np.concatenate(pieces)), ("ids", ids), ("unseen", unseen)):
        np.save(folder / f"{name}.npy", array)
    return gathered.to_json(vocabulary, splits, copies)


def chord_vocabulary(pieces: Iterable[list[str]], augment: int) -> Vocabulary:
    """Return the chords of some pieces, and what they become transposed by up to so much."""
    counts = Counter(word for words in pieces for word in words)
    for word in list(counts) if augment else ():
        for shift in range(-augment, augment + 1):
            counts[transpose_word(word, shift) or word] += 0
    return Vocabulary.from_counts(counts, SPECIALS)


def chord_ids(pieces: Iterable[list[str]], vocabulary: Vocabulary) -> tuple[Array, Array]:
    """Return ids and unseen, as RollCorpus has them."""
    index = {word: id for id, word in enumerate(vocabulary.words)}
    parts: list[Array] = []
    new: dict[str, int] = {}  # chords that aren't known, and a number below zero for each
    for words in pieces:
        numbers = (
            index[word] if word in index else new.setdefault(word, -1 - len(new))
            for word in (*words, PIECE_END)
        )
        parts.append(np.fromiter(numbers, np.int32))
    ids = np.concatenate(parts)
    unseen: Array = ids < 0
    if new:
        known = frames_of_words(vocabulary.words[len(SPECIALS) :])
        nearest = len(SPECIALS) + NearestChord(known).many(frames_of_words([*new]))
        ids[unseen] = nearest[-1 - ids[unseen]]
    return ids, unseen


# On disk ----------------------------------------------------------------------------------------


def rolls_from_disk(
    name: str,
    key: str,
    meta: Mapping[str, Any],
    arrays: Mapping[str, Array],
    reading: RollReading,
) -> RollCorpus:
    """Return the corpus that was kept. Raises KeyError, TypeError, UserError for anything else."""
    return RollCorpus(
        **common_fields(name, key, meta, arrays, reading.augment),
        reading=reading,
        packed=arrays["packed"],
        offsets=arrays["offsets"],
        ids=arrays["ids"],
        unseen=arrays["unseen"],
    )
