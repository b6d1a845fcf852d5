"""MIDI files as tokens, of messages, events or performances: pieces -> words -> ids."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from lstm_music.arrays import Array
from lstm_music.corpus.batches import TokenSource, transposed_ids
from lstm_music.corpus.corpus import Corpus
from lstm_music.corpus.counting import Tally
from lstm_music.corpus.disk import write_array
from lstm_music.corpus.sources import Skipped
from lstm_music.corpus.splits import HELD_OUT, Gathered, common_fields
from lstm_music.midi.grid import Grid, Moved, on_grid
from lstm_music.midi.piece import KIND, NOTE_ON, PITCH, TICK, Piece
from lstm_music.midi.repair import merge_tracks
from lstm_music.midi.roll import CommonKey
from lstm_music.tokenizers.events import EventTokenizer
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, Layout, MessageTokenizer, parse
from lstm_music.tokenizers.nearest import NearestWord
from lstm_music.tokenizers.parts import Player, of_one_piano, roster_of
from lstm_music.tokenizers.performance import PerformanceTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary

NOTE_LENGTHS_KEPT, VOICES_KEPT = 0.999, 0.99  # of notes: the rest are slips or rare effects
PIECE_LENGTHS_KEPT = 0.95
PRIMER_IDS = 64
HIGHEST = 127  # MIDI pitch
BLOCK = 2**20  # tokens in memory at a time
CODE = np.dtype(np.int64)


@dataclass(frozen=True)
class MessageReading:
    """How to make messages, events or performances.

    layout: merge of the last two; augment: see Corpus; min_count: a message that the training split
    holds fewer times becomes the nearest one of the same kind and pitch that it holds as often;
    common_key: as EventTokenizer's; grid: where notes are put, None for where they are; parts: tell
    them apart, where the corpus has any, of performances more than a piano's hands.
    """

    layout: Layout
    augment: int = 0
    min_count: int = 0
    representation: Literal["message", "event", "performance"] = "message"
    common_key: CommonKey | None = None
    grid: Grid | None = None
    parts: bool = False

    def tokenizer(self, roster: Sequence[Player] = ()) -> MessageTokenizer:
        """Return what makes tokens of pieces; roster: their parts."""
        if self.representation == "event":
            return EventTokenizer(self.common_key, roster)
        if self.representation == "performance":
            return PerformanceTokenizer(roster)
        return MessageTokenizer(self.layout)

    def to_text(self) -> str:
        """Return all of it, as a prepared corpus's key holds it."""
        given = {
            "augment": self.augment, "min-count": self.min_count, "common-key": self.common_key,
            "parts": self.parts,
            "grid": self.grid,
        }  # fmt: skip
        changed = "".join(f" {name} {value}" for name, value in given.items() if value)
        return f"{self.representation} {self.layout} {HELD_OUT}{changed}"


@dataclass(frozen=True)
class MessageCorpus(Corpus):
    """Pieces as ids.

    ids (tokens,) int32, all pieces end to end; offsets (pieces + 1,) int64; longest_note in
    ticks, most_notes at once in a track, max_tracks of a piece, longest_piece in ticks: the habits
    that --strict sampling keeps; merged_words, merged_tokens: how many rare ones became others;
    grid: as in MessageReading; moved: what that came to; longest_pause: of performances, the ticks
    between two messages at most, which they keep too.
    """

    tokenizer: MessageTokenizer
    ids: Array
    offsets: Array
    longest_note: int
    most_notes: int
    max_tracks: int
    longest_piece: int
    merged_words: int
    merged_tokens: int
    grid: Grid | None
    moved: Moved
    longest_pause: int

    @property
    def lengths(self) -> list[int]:
        """Ids of each piece, its end symbol included."""
        return [int(n) for n in np.diff(self.offsets)]

    def piece_ids(self, piece: int) -> Array:
        """Return the ids of one piece (n,) int32."""
        return self.ids[int(self.offsets[piece]) : int(self.offsets[piece + 1])]

    def decoded(self, piece: int) -> Piece:
        """Return a piece as its ids tell it."""
        words = map(self.vocabulary.word, self.piece_ids(piece).tolist())
        return self.tokenizer.piece(words, self.pieces[piece])

    def source(self, shifts: Sequence[int]) -> TokenSource:
        """As Corpus.source."""
        tables = transposed_ids(self.vocabulary.words, shifts, self.tokenizer.transpose)
        start = self.vocabulary.id(PIECE_END)
        return TokenSource(self.ids, self.offsets, start, shifts=shifts, tables=tables)

    def tokenizer_json(self) -> dict[str, Any]:
        """As Corpus.tokenizer_json."""
        told: dict[str, Any] = {"name": self.tokenizer.name, "layout": self.tokenizer.layout}
        key, roster = self.tokenizer.common_key, self.tokenizer.roster
        told |= {"common_key": key} if key else {}
        told |= {"grid": self.grid} if self.grid else {}
        return told | ({"parts": [list(player) for player in roster]} if roster else {})

    def habits(self) -> dict[str, int]:
        """As Corpus.habits."""
        pause = {"longest_pause": self.longest_pause}
        return {
            "longest_note": self.longest_note,
            "most_notes": self.most_notes,
            "max_tracks": self.max_tracks,
            "longest_piece": self.longest_piece,
            **(pause if self.tokenizer.name == "performance" else {}),
        }

    def primer(self, piece: int) -> list[Any]:
        """Return the first ids of a piece; a primer doesn't end it."""
        return [int(id) for id in self.piece_ids(piece)[:-1][:PRIMER_IDS]]

    def occurrences(self, pieces: Sequence[int]) -> Array:
        """As Corpus.occurrences, by id."""
        counts = np.zeros(len(self.vocabulary), np.int64)
        for ids in self._blocks(pieces):
            counts += np.bincount(ids, minlength=len(counts))
        counts[[self.vocabulary.id(word) for word in self.tokenizer.specials]] = 0
        return counts

    def _blocks(self, pieces: Iterable[int]) -> Iterator[Array]:
        """Yield the ids of some pieces, many pieces at a time."""
        waiting: list[Array] = []
        for piece in pieces:
            waiting.append(self.piece_ids(piece))
            if sum(map(len, waiting)) >= BLOCK:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)


# Preparing --------------------------------------------------------------------------------------


def prepare_messages(
    name: str,
    folder: Path,
    found: Callable[[], Iterable[Piece | Skipped]],
    reading: MessageReading,
) -> dict[str, Any]:
    """Tokenize and split pieces; write arrays into a folder and return the rest in JSON.

    Raises UserError where no file can be used.
    """
    roster = roster_of(p for p in found() if isinstance(p, Piece)) if reading.parts else ()
    if reading.representation == "performance" and of_one_piano(roster):
        roster = ()
    tokenizer = reading.tokenizer(roster)
    gathered, habits, moves = Gathered(name), Habits(), Moved()
    counts = Tally()
    with (folder / "codes").open("w+b") as file:
        for read in gathered.usable(found()):
            piece = on_grid(read, reading.grid, moves) if reading.grid else read
            codes = tokenizer.codes(piece)
            if codes.max() < 0:
                gathered.skipped.append(Skipped(piece.name, "has only notes of length zero"))
                continue
            file.write(codes.tobytes())
            counts.add(codes)
            notes = len(merge_tracks(read)) // 2
            gathered.add(piece.name, len(codes), pitch_range(piece), codes.tobytes(), notes)
            tracks = tokenizer.tracks(piece)
            habits.add(tracks, len(piece.tracks))
            if read is not piece:
                moves.joined += notes_in(tokenizer.tracks(read)) - notes_in(tracks)
        splits, copies = gathered.splits()
        offsets = np.cumsum([0, *gathered.lengths])
        trained = Tally()
        for p in splits["train"] if reading.augment or reading.min_count else ():
            trained.add(codes_at(file, int(offsets[p]), gathered.lengths[p]))
        all_counts, train_counts = (by_word(tally, tokenizer) for tally in (counts, trained))
        merged = merged_words(all_counts, train_counts, reading.min_count)
        vocabulary = vocabulary_of(tokenizer, all_counts, train_counts, merged, reading.augment)
        word_ids = [vocabulary.id(merged.get(word, word)) for word in all_counts]
        blocks = numbered(file, int(offsets[-1]), counts.values, np.array(word_ids))
        write_array(folder / "ids.npy", blocks, int(offsets[-1]), np.int32)
    (folder / "codes").unlink()
    gathered.save(folder)
    moved = {
        "merged_words": len(merged),
        "merged_tokens": sum(all_counts[word] for word in merged),
        "parts": roster,
        "moved": asdict(moves),
    }
    return gathered.to_json(vocabulary, splits, copies) | habits.to_json() | moved


class Habits:
    """What is usual in a corpus: lengths of notes and pieces, how many notes at once and tracks.

    longest_pause: the longest time between two messages of a track.
    """

    def __init__(self) -> None:
        self.lengths, self.voices, self.pieces, self.max_tracks = Tally(), Tally(), Tally(), 1
        self.longest_pause = 0

    def add(self, tracks: Sequence[Array], parts: int) -> None:
        """Count the notes of a piece: its tracks as laid out, and how many parts it has."""
        for track in tracks:
            self.lengths.add(note_lengths(track))
            self.voices.add(voices_at_onsets(track))
            self.longest_pause = max(self.longest_pause, int(np.diff(track[:, TICK]).max()))
        self.pieces.add(np.array([max(int(track[-1, TICK]) for track in tracks)]))
        self.max_tracks = max(self.max_tracks, parts)

    def to_json(self) -> dict[str, int]:
        """Return MessageCorpus's fields of these names."""
        return {
            "longest_note": self.lengths.share_below(NOTE_LENGTHS_KEPT),
            "most_notes": self.voices.share_below(VOICES_KEPT),
            "max_tracks": self.max_tracks,
            "longest_piece": self.pieces.share_below(PIECE_LENGTHS_KEPT),
            "longest_pause": self.longest_pause,
        }


def notes_in(tracks: Sequence[Array]) -> int:
    """Return how many notes some repaired tracks have."""
    return sum(map(len, tracks)) // 2


def note_lengths(track: Array) -> Array:
    """Return the length of each note of a repaired track (n,), in ticks, by pitch and start."""
    by_pitch = np.argsort(track[:, PITCH].astype(np.uint16), kind="stable")  # two bytes sort fast
    ticks = track[by_pitch, TICK]
    lengths: Array = ticks[1::2] - ticks[0::2]  # a repaired track alternates within a pitch
    return lengths


def voices_at_onsets(track: Array) -> Array:
    """Return how many notes sound after each note-on of a track (n,)."""
    on = track[:, KIND] == NOTE_ON
    voices: Array = np.cumsum(np.where(on, 1, -1))[on]
    return voices


def pitch_range(piece: Piece) -> tuple[int, int]:
    """Return by how many semitones a piece may move, at least and at most."""
    pitches = [track[:, PITCH] for track in piece.tracks]
    lowest, highest = min(p.min() for p in pitches), max(p.max() for p in pitches)
    return -int(lowest), HIGHEST - int(highest)


def codes_at(file: BinaryIO, first: int, n: int) -> Array:
    """Return some codes (n,) of a file of them."""
    file.seek(first * CODE.itemsize)
    return np.frombuffer(file.read(n * CODE.itemsize), CODE)


def by_word(counts: Tally, tokenizer: MessageTokenizer) -> dict[str, int]:
    """Return how often each word came, by ascending code."""
    words = map(tokenizer.spelled, counts.values.tolist())
    return dict(zip(words, counts.counts.tolist(), strict=True))


def merged_words(
    counts: Mapping[str, int], trained: Mapping[str, int], min_count: int
) -> dict[str, str]:
    """Return what each word becomes that training holds fewer than min_count times.

    Where it holds no word of some kind and pitch so often, the most frequent one stays.
    """
    if not min_count:
        return {}
    kept = [word for word in counts if word in SPECIALS or trained.get(word, 0) >= min_count]
    has_kept = {message[:2] for message in map(parse, kept) if message}
    best: dict[tuple[int, int], str] = {}
    for word in sorted(counts, key=lambda word: (-trained.get(word, 0), -counts[word])):
        message = parse(word)
        if message is not None and message[:2] not in has_kept:
            best.setdefault(message[:2], word)
    known = {*kept, *best.values()}
    nearest = NearestWord(Vocabulary([*known]))
    return {word: nearest(word) or word for word in counts if word not in known}


def vocabulary_of(
    tokenizer: MessageTokenizer,
    counts: Mapping[str, int],
    trained: Mapping[str, int],
    merged: Mapping[str, str],
    augment: int,
) -> Vocabulary:
    """Number the words by falling count, and then what training words become when transposed."""
    total: dict[str, int] = {}
    for word, count in counts.items():
        stays = merged.get(word, word)
        total[stays] = total.get(stays, 0) + count
    for word in tokenizer.always:
        total.setdefault(word, 0)
    for word in {merged.get(word, word) for word in trained} if augment else ():
        for shift in range(-augment, augment + 1):
            total.setdefault(tokenizer.transpose(word, shift) or word, 0)
    return Vocabulary.from_counts(total, tokenizer.specials)


def numbered(file: BinaryIO, n: int, known: Array, ids: Array) -> Iterator[Array]:
    """Yield the ids of a file of n codes, block by block; ids: those of the ascending known."""
    for first in range(0, n, BLOCK):
        yield ids[np.searchsorted(known, codes_at(file, first, min(BLOCK, n - first)))]


def messages_from_disk(
    name: str,
    key: str,
    meta: Mapping[str, Any],
    arrays: Mapping[str, Array],
    reading: MessageReading,
) -> MessageCorpus:
    """Return the corpus that was kept. Raises KeyError, TypeError, UserError for anything else."""
    return MessageCorpus(
        **common_fields(name, key, meta, arrays, reading.augment),
        tokenizer=reading.tokenizer([Player(*player) for player in meta["parts"]]),
        ids=arrays["ids"],
        offsets=arrays["offsets"],
        longest_note=meta["longest_note"],
        most_notes=meta["most_notes"],
        max_tracks=meta["max_tracks"],
        longest_piece=meta["longest_piece"],
        merged_words=meta["merged_words"],
        merged_tokens=meta["merged_tokens"],
        grid=reading.grid,
        moved=Moved(**meta["moved"]),
        longest_pause=meta.get("longest_pause", 0),  # of an older version, and no performances
    )
