"""The event representation: bars, places in the bar, and what begins and ends at each of them.

`bar-1920` opens a bar of so many ticks and `bar` one as long as the last, `at-480` goes to a place
in it, and there stand first the notes that end, `off-60`, then those that begin, `on-64`, each by
ascending pitch. All tracks are merged. A pickup is a short bar, `bar-480`.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import Meter
from lstm_music.midi.piece import (
    KIND,
    LAST_TICK,
    NOTE_OFF,
    NOTE_ON,
    PITCH,
    TICK,
    WHOLE_NOTE,
    Piece,
    no_meter,
)
from lstm_music.midi.repair import repaired_tracks
from lstm_music.tokenizers.messages import NUMBER, PIECE_END, Codes, MessageTokenizer, Row

AT, BAR_LINE = 2, 3  # kinds of words, beside NOTE_OFF and NOTE_ON
KINDS = ("off", "on", "at", "bar")
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
SAME = 0  # in place of a bar's length: that of the last
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}")


def spell(kind: int, number: int) -> str:
    """Return the word of a kind: a pitch 0-127, a place in a bar, or a bar's length, in ticks."""
    return KINDS[kind] if (kind, number) == (BAR_LINE, SAME) else f"{KINDS[kind]}-{number}"


def parse(word: str) -> tuple[int, int] | None:
    """Return a word's kind, 0 to 3, and its number; None for the piece's end.

    Raises ValueError for anything else.
    """
    if word == PIECE_END:
        return None
    if word == KINDS[BAR_LINE]:
        return BAR_LINE, SAME
    match = WORD.fullmatch(word)
    kind, number = (KINDS.index(match[1]), int(match[2])) if match else (AT, -1)
    if number < (kind == BAR_LINE) or number > (127 if kind <= NOTE_ON else LAST_TICK):
        raise ValueError(f"not an event: {word!r}")
    return kind, number


class EventTokenizer(MessageTokenizer):
    """Turns a piece into events and any events into a piece; see MessageTokenizer."""

    name: ClassVar[str] = "event"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self) -> None:
        super().__init__("merge")

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,): number · 4 + kind, the piece's end -1."""
        (track,) = self.tracks(piece)
        if not len(track):
            return np.array([-1], np.int64)
        starts, lengths = bars_of(piece.meter, int(track[-1, TICK]))
        ticks = np.unique(track[:, TICK]).astype(np.int64)
        places = ticks - starts[np.searchsorted(starts, ticks, side="right") - 1]
        notes = track[:, PITCH].astype(np.int64) * len(KINDS) + track[:, KIND]
        said = np.where(np.diff(lengths, prepend=SAME), lengths, SAME)
        codes = [said * len(KINDS) + BAR_LINE, places * len(KINDS) + AT, notes]
        when = np.concatenate([starts, ticks, track[:, TICK]])
        rank = np.repeat(np.arange(3), [len(part) for part in codes])
        in_order: Codes = np.concatenate(codes)[np.lexsort((rank, when))]
        return np.append(in_order, -1)

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        return PIECE_END if code < 0 else spell(code % len(KINDS), code // len(KINDS))

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word with its pitch moved, if it has one; None where that leaves 0-127."""
        kind, number = parse(word) or (AT, 0)
        if kind > NOTE_ON:
            return word
        return spell(kind, number + semitones) if 0 <= number + semitones <= 127 else None

    def piece(self, words: Iterable[str], name: str) -> Piece:
        """Decode words, whatever their order, into a piece of one repaired track, or none.

        A piece-end that comes first is the start symbol; the next one ends the piece. What lies
        before where the piece stands already happens there, and a bar begins no earlier; time
        stops at LAST_TICK. A bar as long as the last is of 4/4 where there was none. Raises
        ValueError for what isn't a word of this representation.
        """
        rows: list[Row] = []
        bars: list[tuple[int, int]] = []
        now = begin = length = 0
        for index, word in enumerate(words):
            event = parse(word)
            if event is None:
                if index > 0:
                    break
                continue
            kind, number = event
            if kind == BAR_LINE:
                begin = now = min(max(begin + length, now), LAST_TICK)
                length = number or length or WHOLE_NOTE
                bars.append((begin, length))
            elif kind == AT:
                now = min(max(begin + number, now), LAST_TICK)
            else:
                rows.append((now, kind, number))
        track = np.array(rows, np.int32).reshape(-1, 3)
        return Piece(name, repaired_tracks([track]), meter=meter_of(bars))


class NearestEvent:
    """Finds the vocabulary's word of the same kind with the nearest time; a pitch is itself."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._known = {*vocabulary}
        events = [event for event in map(parse, vocabulary) if event is not None]
        self._times = {
            AT: sorted(number for kind, number in events if kind == AT),
            BAR_LINE: sorted(number for kind, number in events if kind == BAR_LINE and number),
        }

    def __call__(self, word: str) -> str | None:
        """Return the nearest word, of two the shorter time, or None where there is none."""
        kind, number = parse(word) or (NOTE_OFF, 0)
        if (kind == AT or (kind == BAR_LINE and number != SAME)) and self._times[kind]:
            return spell(kind, min(self._times[kind], key=lambda time: abs(time - number)))
        return word if word in self._known else None


def bars_of(meter: Meter, tick: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where each bar begins up to the one that holds a tick, and each one's length, (n,).

    A bar in which the meter changes ends there. Before the meter says anything there is 4/4.
    """
    rows = [(0, WHOLE_NOTE), *meter.tolist(), (2 * LAST_TICK, 0)]
    starts: list[npt.NDArray[np.int64]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for (first, length), (stop, _) in pairwise(rows):
        starts.append(np.arange(first, min(stop, tick + 1), length, dtype=np.int64))
        lengths.append(np.minimum(length, stop - starts[-1]))
    return np.concatenate(starts), np.concatenate(lengths)


def meter_of(bars: Sequence[tuple[int, int]]) -> Meter:
    """Return the meter of bars that follow one another, given by where they begin and how long."""
    changes, expected = [], (0, 0)
    for begin, length in bars:
        if (begin, length) != expected:
            changes.append((begin, length))
        expected = begin + length, length
    return np.array(changes, np.int32) if changes else no_meter()
