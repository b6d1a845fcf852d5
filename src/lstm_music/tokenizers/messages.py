"""The message representation: a word for each note message, with the time since the last."""

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi.piece import KIND, LAST_TICK, MOST_TRACKS, PITCH, TICK, Messages, Piece
from lstm_music.midi.repair import merge_tracks, repaired_tracks
from lstm_music.midi.roll import CommonKey
from lstm_music.tokenizers.parts import Player
from lstm_music.tokenizers.vocabulary import Vocabulary

Layout: TypeAlias = Literal["flatten", "merge"]
Row: TypeAlias = tuple[int, int, int]
Codes: TypeAlias = npt.NDArray[np.int64]
"""Words as numbers: ((delta · 2) + kind) · 128 + pitch, specials below zero."""
Ticks: TypeAlias = npt.NDArray[np.int32]

PIECE_END = "piece-end"
TRACK_END = "track-end"
SPECIALS = (PIECE_END, TRACK_END)  # piece-end gets id 0 and is the start symbol too

KINDS = ("note-off", "note-on")  # by the value of KIND in Messages
PITCHES = 128
SPECIAL = len(KINDS)  # the kind of the special words
NUMBER = "(0|[1-9][0-9]*)"
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}-{NUMBER}")


def spell(kind: int, pitch: int, delta: int) -> str:
    """Return the word for a message: kind 1 on or 0 off, pitch 0-127, delta in ticks."""
    return f"{KINDS[kind]}-{pitch}-{delta}"


def parse(word: str) -> tuple[int, int, int] | None:
    """Return a word's kind (1 on, 0 off), pitch 0-127 and delta in ticks; None for a special.

    Raises ValueError for anything else.
    """
    if word in SPECIALS:
        return None
    match = WORD.fullmatch(word)
    if match is None or int(match[2]) > 127:
        raise ValueError(f"not a message: {word!r}")
    return KINDS.index(match[1]), int(match[2]), int(match[3])


def word_parts(vocabulary: Vocabulary) -> tuple[Ticks, Ticks]:
    """Return the class and the delta of each word, (V,) each, as a factored head takes them.

    Classes are numbered from 0 in the order of kind and pitch, deltas from the shortest; a special
    word has none, -1. Raises ValueError for words that are no messages.
    """
    table = [parse(word) or (SPECIAL, SPECIALS.index(word), 0) for word in vocabulary.words]
    kinds, pitches, deltas = np.array(table, np.int64).T
    deltas = np.minimum(deltas, LAST_TICK)
    classes = np.unique(kinds * PITCHES + pitches, return_inverse=True)[1]
    known = np.unique(deltas[kinds != SPECIAL])
    numbers = np.where(kinds == SPECIAL, -1, np.searchsorted(known, deltas))
    return classes.astype(np.int32), numbers.astype(np.int32)


def transpose_word(word: str, semitones: int) -> str | None:
    """Return a word with its pitch moved, a special as it is; None where that leaves 0-127."""
    message = parse(word)
    if message is None:
        return word
    kind, pitch, delta = message
    return spell(kind, pitch + semitones, delta) if 0 <= pitch + semitones <= 127 else None


def track_words(messages: Messages) -> list[str]:
    """Return a word for each message of a track; the first counts its time from tick 0."""
    return [spelled(code) for code in track_codes(messages).tolist()]


def track_codes(messages: Messages) -> Codes:
    """Return a code (n,) for each message of a track: what `spelled` makes a word of."""
    codes: Codes = messages[:, TICK].astype(np.int64)
    codes[1:] -= messages[:-1, TICK]
    codes = (codes * len(KINDS) + messages[:, KIND]) * PITCHES + messages[:, PITCH]
    return codes


def spelled(code: int) -> str:
    """Return the word of a code; -2 and -1 are the specials, in their order."""
    if code < 0:
        return SPECIALS[code]
    delta_and_kind, pitch = divmod(code, PITCHES)
    delta, kind = divmod(delta_and_kind, len(KINDS))
    return spell(kind, pitch, delta)


class MessageTokenizer:
    """Turns a piece into words and any words into a piece.

    The layout flatten puts track after track; merge puts all tracks on one time line.
    common_key: of events; roster: of performances too. always: words that a vocabulary has though
    no piece did.
    """

    common_key: CommonKey | None = None
    roster: tuple[Player, ...] = ()
    always: Sequence[str] = ()
    name: ClassVar[str] = "message"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def words(self, piece: Piece) -> list[str]:
        """Return a piece's words, which end with piece-end; flatten ends tracks with track-end."""
        return [self.spelled(code) for code in self.codes(piece).tolist()]

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        return spelled(code)

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word some semitones higher, None where that is no word; a special stays."""
        return transpose_word(word, semitones)

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,), which corpora count and number."""
        end = [SPECIALS.index(TRACK_END) - len(SPECIALS)] if self.layout == "flatten" else []
        tracks = [part for track in self.tracks(piece) for part in (track_codes(track), end)]
        return np.concatenate([*tracks, [SPECIALS.index(PIECE_END) - len(SPECIALS)]]).astype(
            np.int64
        )

    def tracks(self, piece: Piece) -> list[Messages]:
        """Return the tracks that the layout lays out: the piece's own, or all of them merged."""
        return [merge_tracks(piece)] if self.layout == "merge" else piece.tracks

    def piece(self, words: Iterable[str], name: str, silent: bool = False) -> Piece:
        """Decode words, whatever their order, into a piece of repaired tracks, perhaps none.

        silent: tracks that have no note stay, of a representation that tells whose they are.

        A piece-end that comes first is the start symbol; the next one ends the piece. Time stops
        at LAST_TICK, and what follows MOST_TRACKS tracks is left out, so that the piece fits a
        MIDI file. Raises ValueError for what isn't a word of this representation.
        """
        tracks = repaired_tracks(_messages(rows) for rows in _rows_by_track(words))
        return Piece(name, tracks[:MOST_TRACKS])


def _rows_by_track(words: Iterable[str]) -> list[list[Row]]:
    """Return (tick, kind, pitch) for every word up to the piece's end, track by track."""
    tracks: list[list[Row]] = [[]]
    now = 0
    for index, word in enumerate(words):
        message = parse(word)
        if message is not None:
            kind, pitch, delta = message
            now = min(now + delta, LAST_TICK)
            tracks[-1].append((now, kind, pitch))
        elif word == TRACK_END:
            tracks.append([])
            now = 0
        elif index > 0:
            break
    return tracks


def _messages(rows: list[Row]) -> Messages:
    return np.array(rows, dtype=np.int32).reshape(-1, 3)
