"""The event representation: bars, places in the bar, and what begins and ends at each of them.

`bar-1920` opens a bar of so many ticks and `bar` one as long as the last, `at-480` goes to a place
in it, and there stand first the notes that end, `off-60`, then those that begin, `on-64`, each by
ascending pitch. All tracks are merged. A pickup is a short bar, `bar-480`. Where a piece tells of
its phrases, `cadence` stands at the last place of each, before its notes. In a common key a piece
begins with `key-7`: what is written in C sounds in G.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import Meter, Phrases
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
    no_phrases,
)
from lstm_music.midi.repair import repaired_tracks
from lstm_music.midi.roll import CommonKey, estimate_key, frames_of
from lstm_music.tokenizers.messages import NUMBER, PIECE_END, Codes, MessageTokenizer, Row

AT, BAR_LINE, CADENCE, KEY = 2, 3, 4, 5  # kinds of words, beside NOTE_OFF and NOTE_ON
KINDS = ("off", "on", "at", "bar", "cadence", "key")
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
SAME = 0  # in place of a bar's length: that of the last
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}")
HIGHEST = (127, 127, LAST_TICK, LAST_TICK, 0, 11)  # number of each kind
COMMON_GRID = 16  # frames a whole note, by which a key is estimated


def spell(kind: int, number: int) -> str:
    """Return the word of a kind: a pitch, a place in a bar or a bar's length in ticks, or a key."""
    alone = kind == CADENCE or (kind, number) == (BAR_LINE, SAME)
    return KINDS[kind] if alone else f"{KINDS[kind]}-{number}"


def parse(word: str) -> tuple[int, int] | None:
    """Return a word's kind, 0 to 5, and its number; None for the piece's end.

    Raises ValueError for anything else.
    """
    if word == PIECE_END:
        return None
    if word in KINDS[BAR_LINE:KEY]:
        return KINDS.index(word), SAME
    match = WORD.fullmatch(word)
    kind, number = (KINDS.index(match[1]), int(match[2])) if match else (AT, -1)
    if number < (kind == BAR_LINE) or kind == CADENCE or number > HIGHEST[kind]:
        raise ValueError(f"not an event: {word!r}")
    return kind, number


class EventTokenizer(MessageTokenizer):
    """Turns a piece into events and any events into a piece; see MessageTokenizer.

    common_key: A to write pieces in C major and A minor, None as they sound. A piece's key is that
    of its signature; where it has none, or one that is more than a fifth from the estimated key (so
    many files say C), that.
    """

    name: ClassVar[str] = "event"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self, common_key: CommonKey | None = None) -> None:
        super().__init__("merge")
        self.common_key = common_key
        self.always = [spell(KEY, key) for key in range(12)] if common_key else []

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,): number · 6 + kind, the piece's end -1."""
        (track,) = self.tracks(piece)
        if not len(track):
            return np.array([-1], np.int64)
        key = self.key_of(piece)
        said_first = np.array([] if key is None else [key * len(KINDS) + KEY], np.int64)
        starts, lengths = bars_of(piece.meter, int(track[-1, TICK]))
        ticks = np.unique(track[:, TICK]).astype(np.int64)
        places = ticks - starts[np.searchsorted(starts, ticks, side="right") - 1]
        pitches = track[:, PITCH].astype(np.int64) - sounding_above(key or 0)
        notes = pitches * len(KINDS) + track[:, KIND]
        said = np.where(np.diff(lengths, prepend=SAME), lengths, SAME)
        last = np.searchsorted(ticks, piece.phrases)
        closing = ticks[np.unique(last[last > 0]) - 1]
        cadences = np.full(len(closing), CADENCE)
        codes = [said * len(KINDS) + BAR_LINE, places * len(KINDS) + AT, cadences, notes]
        when = np.concatenate([starts, ticks, closing, track[:, TICK]])
        rank = np.repeat(np.arange(len(codes)), [len(part) for part in codes])
        in_order: Codes = np.concatenate(codes)[np.lexsort((rank, when))]
        return np.concatenate([said_first, in_order, [-1]])

    def key_of(self, piece: Piece) -> int | None:
        """Return the key to which C is written, 0 (C) to 11; None without a common one.

        A piece that would leave the pitches of MIDI is written as it sounds.
        """
        if self.common_key is None:
            return None
        tonic, mode = estimate_key(frames_of(piece, COMMON_GRID)[0])
        key = (tonic + 3 * (mode == "minor")) % 12
        if piece.sharps is not None and (7 * piece.sharps - key) % 12 in (0, 5, 7):
            key = 7 * piece.sharps % 12
        pitches = np.concatenate([track[:, PITCH] for track in piece.tracks]) - sounding_above(key)
        return key if pitches.min() >= 0 and pitches.max() <= 127 else 0

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        return PIECE_END if code < 0 else spell(code % len(KINDS), code // len(KINDS))

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word with its pitch moved, if it has one; None where that leaves 0-127."""
        kind, number = parse(word) or (AT, 0)
        if kind > NOTE_ON:  # a piece in a common key leaves it
            return word
        return spell(kind, number + semitones) if 0 <= number + semitones <= 127 else None

    def piece(self, words: Iterable[str], name: str) -> Piece:
        """Decode words, whatever their order, into a piece of one repaired track, or none.

        A piece-end that comes first is the start symbol; the next one ends the piece. What lies
        before where the piece stands already happens there, and a bar begins no earlier; time
        stops at LAST_TICK. A bar as long as the last is of 4/4 where there was none. A phrase ends
        at the place after its cadence, or with the piece. A note that a key would move out of 0-127
        is left out. Raises ValueError for what isn't a word of this representation.
        """
        rows: list[Row] = []
        above, sharps = 0, None
        closing: list[int] = []
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
            elif kind == CADENCE:
                closing.append(now)
            elif kind == KEY:
                above, sharps = sounding_above(number), (7 * number + 5) % 12 - 5
            elif kind == AT:
                now = min(max(begin + number, now), LAST_TICK)
            elif 0 <= number + above <= 127:
                rows.append((now, kind, number + above))
        tracks = repaired_tracks([np.array(rows, np.int32).reshape(-1, 3)])
        phrases = phrases_of(tracks[0][:, TICK], closing) if tracks else no_phrases()
        return Piece(name, tracks, meter=meter_of(bars), phrases=phrases, sharps=sharps)


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


def sounding_above(key: int) -> int:
    """Return how many semitones above what is written a piece sounds, -6 to 5."""
    return (key + 6) % 12 - 6


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


def phrases_of(ticks: npt.NDArray[np.int32], closing: Sequence[int]) -> Phrases:
    """Return where phrases end: at the next tick (n,) after a cadence, or with the last one."""
    after = np.searchsorted(ticks, np.array(closing, np.int64), side="right")
    return np.unique(ticks[np.minimum(after, len(ticks) - 1)])


def meter_of(bars: Sequence[tuple[int, int]]) -> Meter:
    """Return the meter of bars that follow one another, given by where they begin and how long."""
    changes, expected = [], (0, 0)
    for begin, length in bars:
        if (begin, length) != expected:
            changes.append((begin, length))
        expected = begin + length, length
    return np.array(changes, np.int32) if changes else no_meter()
