"""The performance representation: played music, its time in steps of 10 ms, with its dynamics.

`shift-37` goes on by 370 ms, `on-60` and `off-60` begin and end a note, and `velocity-20` says how
hard the notes from there on are struck, by bins of 4. A longer pause is several shifts, all but the
last of 1 s. At one time stand first the notes that end, then those that begin, each by ascending
pitch. All tracks are merged, and the first note begins the piece.

Source: Oore et al. 2018, "This time with feeling: learning expressive musical performance" (as
Performance RNN, Simon & Oore 2017).
"""

import re
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from lstm_music.midi.piece import (
    KIND,
    LAST_TICK,
    NOTE_OFF,
    NOTE_ON,
    PITCH,
    TICK,
    Messages,
    Notes,
    Piece,
    Velocities,
    notes_of,
)
from lstm_music.midi.playing import MILLISECONDS, milliseconds, played_tempo
from lstm_music.midi.repair import (
    repaired_tracks,
    sorted_messages,
    velocities_of,
    without_overlaps,
)
from lstm_music.tokenizers.messages import NUMBER, PIECE_END, Codes, MessageTokenizer, Row

SHIFT, VELOCITY = 2, 3  # kinds of words, beside NOTE_OFF and NOTE_ON
KINDS = ("off", "on", "shift", "velocity")
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}")
STEP, LONGEST_SHIFT = 10, 100  # milliseconds, and steps
BIN = 4  # velocities
LOWEST, HIGHEST = (0, 0, 1, 0), (127, 127, LONGEST_SHIFT, 127 // BIN)  # number of each kind
BEATS = 60e6 / MILLISECONDS  # quarter notes a minute of what is decoded
USUAL = 80  # the velocity of a note where nothing tells of it


def spell(kind: int, number: int) -> str:
    """Return the word of a kind: a pitch, steps of time, or a bin of velocities."""
    return f"{KINDS[kind]}-{number}"


def parse(word: str) -> tuple[int, int] | None:
    """Return a word's kind, 0 to 3, and its number; None for the piece's end.

    Raises ValueError for anything else.
    """
    if word == PIECE_END:
        return None
    match = WORD.fullmatch(word)
    kind, number = (KINDS.index(match[1]), int(match[2])) if match else (NOTE_OFF, -1)
    if not LOWEST[kind] <= number <= HIGHEST[kind]:
        raise ValueError(f"not a word of a performance: {word!r}")
    return kind, number


def steps_told(words: Iterable[str]) -> list[int]:
    """Return the steps by which each word goes on."""
    parsed = (parse(word) for word in words)
    return [event[1] if event and event[0] == SHIFT else 0 for event in parsed]


class PerformanceTokenizer(MessageTokenizer):
    """Turns a piece into a performance and any words of one into a piece; see MessageTokenizer.

    A piece's time is that of its tempo. What is decoded has a tick a millisecond, and its tempo
    says so.
    """

    name: ClassVar[str] = "performance"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self) -> None:
        super().__init__("merge")

    def tracks(self, piece: Piece) -> list[Messages]:
        """Return all tracks merged, as words tell of them: in milliseconds, a whole step each."""
        return [performed(piece)[0]]

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,): number · 4 + kind, the piece's end -1."""
        track, velocities = performed(piece)
        if not len(track):
            return np.array([-1], np.int64)
        notes = track[:, PITCH].astype(np.int64) * len(KINDS) + track[:, KIND]
        bins = np.zeros(len(track), np.int64)
        changed = np.zeros(len(track), np.bool_)
        ons = np.flatnonzero(track[:, KIND] == NOTE_ON)
        bins[ons] = velocities // BIN
        changed[ons] = np.diff(bins[ons], prepend=-1) != 0
        steps = np.diff(track[:, TICK] // STEP, prepend=0).astype(np.int64)
        shifts = -(-steps // LONGEST_SHIFT)
        ends = np.cumsum(shifts + changed + 1)  # of the words of each message, the last its own
        codes = np.full(ends[-1] + 1, LONGEST_SHIFT * len(KINDS) + SHIFT, np.int64)
        rest = (steps - 1) % LONGEST_SHIFT + 1
        last = (ends - 2 - changed)[shifts > 0]
        codes[last] = rest[shifts > 0] * len(KINDS) + SHIFT
        codes[ends[changed] - 2] = bins[changed] * len(KINDS) + VELOCITY
        codes[ends - 1] = notes
        codes[-1] = -1
        return codes

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        return PIECE_END if code < 0 else spell(code % len(KINDS), code // len(KINDS))

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word with its pitch moved, if it has one; None where that leaves 0-127."""
        kind, number = parse(word) or (SHIFT, 0)
        if kind > NOTE_ON:
            return word
        return spell(kind, number + semitones) if 0 <= number + semitones <= 127 else None

    def piece(self, words: Iterable[str], name: str, silent: bool = False) -> Piece:
        """Decode words, whatever their order, into a piece of one repaired track, or none.

        A piece-end that comes first is the start symbol; the next one ends the piece. Time stops
        at LAST_TICK; a velocity is the middle of its bin, and USUAL before any. Raises ValueError
        for what isn't a word of this representation.
        """
        rows: list[Row] = []
        struck: list[int] = []
        now, velocity = 0, USUAL
        for index, word in enumerate(words):
            event = parse(word)
            if event is None:
                if index > 0:
                    break
                continue
            kind, number = event
            if kind == SHIFT:
                now = min(now + number * STEP, LAST_TICK)
            elif kind == VELOCITY:
                velocity = number * BIN + BIN // 2
            else:
                rows.append((now, kind, number))
                struck += [velocity] * (kind == NOTE_ON)
        messages = np.array(rows, np.int32).reshape(-1, 3)
        ons = messages[messages[:, KIND] == NOTE_ON]
        notes, loud = ons[:, [TICK, TICK, PITCH]], np.array(struck, np.int32)
        tracks = repaired_tracks([messages])
        velocities = tuple(velocities_of(track, notes, loud) for track in tracks)
        return Piece(name, tracks, velocities=velocities, tempo=played_tempo())


def performed(piece: Piece) -> tuple[Messages, Velocities]:
    """Return a piece's tracks merged, in milliseconds from its first note, and its velocities.

    Notes begin and end at whole steps, each at the nearest, and last a step at least. One that is
    struck at once in several tracks is one note, as loud as the loudest; see merge_tracks.
    """
    written = np.concatenate([np.zeros((0, 3), np.int32), *map(notes_of, piece.tracks)])
    heard = written[:, 0] < written[:, 1]
    loud = np.concatenate([*piece.velocities]) if piece.velocities else np.full(len(heard), USUAL)
    written, loud = written[heard], loud[heard]
    times = milliseconds(written[:, :2], piece.tempo)
    steps = np.floor((times - times.min(initial=np.inf)) / STEP + 0.5)
    last = LAST_TICK // STEP
    start = np.minimum(steps[:, 0], last - 1)
    end = np.clip(steps[:, 1], start + 1, last)
    notes: Notes = np.stack([start * STEP, end * STEP, written[:, 2]], axis=1).astype(np.int32)
    track = sorted_messages(*without_overlaps(notes))
    return track, velocities_of(track, notes, loud.astype(np.int32))
