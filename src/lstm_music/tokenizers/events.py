"""The event representation: bars, places in the bar, and what begins and ends at each of them.

`bar-1920` opens a bar of so many ticks and `bar` one as long as the last, `at-480` goes to a place
in it, and there stand first the notes that end, `off-60`, then those that begin, `on-64`, each by
ascending pitch, of all tracks merged. In parts, each has its turn: part 2 moves to a note,
`to-64/2`, which ends what it sounds; other notes end, `off-60/2`, before it or begin, `on-67/2`,
after it. A pickup is a short bar, `bar-480`. Where a piece tells of its phrases, `cadence` stands
at the last place of each, before its notes. In a common key a piece begins with `key-7`: what is
written in C sounds in G.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import Phrases
from lstm_music.midi.piece import (
    KIND,
    LAST_TICK,
    NOTE_OFF,
    NOTE_ON,
    PITCH,
    TICK,
    WHOLE_NOTE,
    Messages,
    Piece,
    no_phrases,
)
from lstm_music.midi.repair import merge_tracks
from lstm_music.midi.roll import CommonKey, key_of, without_drums
from lstm_music.midi.timing import bars_of, meter_of
from lstm_music.tokenizers.messages import (
    NUMBER,
    PIECE_END,
    PITCHES,
    Codes,
    MessageTokenizer,
    Row,
)
from lstm_music.tokenizers.parts import (
    MOST_PARTS,
    Player,
    parts_of,
    players_of,
    tracks_of,
    who_plays,
)

AT, BAR_LINE, CADENCE, KEY, MOVE = range(2, 7)  # kinds of words, beside NOTE_OFF and NOTE_ON
KINDS = ("off", "on", "at", "bar", "cadence", "key", "to")
OF_NOTES = (NOTE_OFF, MOVE, NOTE_ON)  # in the order in which a part has them at a place
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
SAME = 0  # in place of a bar's length: that of the last
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}(?:/{NUMBER})?")
HIGHEST = (127, 127, LAST_TICK, LAST_TICK, 0, 11, 127)  # number of each kind


def spell(kind: int, number: int, part: int = 0) -> str:
    """Return the word of a kind: a pitch, a place in a bar or a bar's length in ticks, or a key.

    part: whose note it is, from 1; 0 of merged ones.
    """
    alone = kind == CADENCE or (kind, number) == (BAR_LINE, SAME)
    return KINDS[kind] if alone else f"{KINDS[kind]}-{number}" + f"/{part}" * (part > 0)


def parse(word: str) -> tuple[int, int, int] | None:
    """Return a word's kind, 0 to 6, its number and its part, 0 for none; None for the piece's end.

    Raises ValueError for anything else.
    """
    if word == PIECE_END:
        return None
    if word in ("bar", "cadence"):
        return KINDS.index(word), SAME, 0
    match = WORD.fullmatch(word)
    if match is None:
        raise ValueError(f"not an event: {word!r}")
    kind, number, part = KINDS.index(match[1]), int(match[2]), int(match[3] or 0)
    fits = (kind == BAR_LINE) <= number <= HIGHEST[kind] and kind != CADENCE
    least = match[3] is not None or kind == MOVE
    most = MOST_PARTS if kind in OF_NOTES else 0
    if not fits or not least <= part <= most:
        raise ValueError(f"not an event: {word!r}")
    return kind, number, part


class EventTokenizer(MessageTokenizer):
    """Turns a piece into events and any events into a piece; see MessageTokenizer.

    common_key: A to write pieces in C major and A minor, None as they sound; a piece's key is
    roll.key_of's. roster: who plays each part; none merges all tracks.
    """

    name: ClassVar[str] = "event"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self, common_key: CommonKey | None = None, roster: Sequence[Player] = ()) -> None:
        super().__init__("merge")
        self.common_key, self.roster = common_key, tuple(roster)
        self.always = [spell(KEY, key) for key in range(12)] if common_key else []

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,): (part · 128 + number) · 7 + kind, the end -1.

        Of what isn't a note, number · 7 + kind.
        """
        (track,) = self.tracks(piece)
        if not len(track):
            return np.array([-1], np.int64)
        key = self.key_of(piece)
        said_first = np.array([] if key is None else [key * len(KINDS) + KEY], np.int64)
        notes = self.part_notes(piece, track, sounding_above(key or 0))
        starts, lengths = bars_of(piece.meter, int(notes[-1, 0]))
        ticks = np.unique(notes[:, 0])
        places = ticks - starts[np.searchsorted(starts, ticks, side="right") - 1]
        said = np.where(np.diff(lengths, prepend=SAME), lengths, SAME)
        last = np.searchsorted(ticks, np.minimum(piece.phrases, ticks[-1]))
        closing = ticks[np.unique(last[last > 0]) - 1]
        cadences = np.full(len(closing), CADENCE)
        codes = [said * len(KINDS) + BAR_LINE, places * len(KINDS) + AT, cadences, notes[:, 1]]
        when = np.concatenate([starts, ticks, closing, notes[:, 0]])
        rank = np.repeat(np.arange(len(codes)), [len(part) for part in codes])
        in_order: Codes = np.concatenate(codes)[np.lexsort((rank, when))]
        return np.concatenate([said_first, in_order, [-1]])

    def part_notes(self, piece: Piece, merged: Messages, above: int) -> npt.NDArray[np.int64]:
        """Return when, and the codes of, the words of notes (n, 2), in order.

        merged: the messages of all tracks; above: semitones by which they sound above what is
        written.
        """
        if not self.roster:
            codes = (merged[:, PITCH].astype(np.int64) - above) * len(KINDS) + merged[:, KIND]
            return np.stack([merged[:, TICK].astype(np.int64), codes], axis=1)
        rows = []
        numbers = parts_of(players_of(piece), self.roster)
        for part in sorted({*numbers}):
            own = [t for t, number in zip(piece.tracks, numbers, strict=True) if number == part]
            high = 0 if self.roster[part].drums else above
            for tick, order, kind, pitch in moves_of(merge_tracks(Piece("", own))):
                note = (part + 1) * PITCHES + pitch - high
                rows.append((tick, part, order, pitch, note * len(KINDS) + kind))
        return np.array([(tick, code) for tick, *_, code in sorted(rows)], np.int64).reshape(-1, 2)

    def key_of(self, piece: Piece) -> int | None:
        """Return the key to which C is written, 0 (C) to 11; None without a common one.

        A piece that would leave the pitches of MIDI is written as it sounds.
        """
        if self.common_key is None:
            return None
        key = key_of(piece).major
        pitches = merge_tracks(without_drums(piece))[:, PITCH] - sounding_above(key)
        fits = not len(pitches) or (pitches.min() >= 0 and pitches.max() <= 127)
        return key if fits else 0

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        if code < 0:
            return PIECE_END
        number, kind = divmod(code, len(KINDS))
        part, pitch = divmod(number, PITCHES)
        return spell(kind, pitch, part) if kind in OF_NOTES else spell(kind, number)

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word with its pitch moved, if it has one; None where that leaves 0-127."""
        kind, number, part = parse(word) or (AT, 0, 0)
        drums = part > 0 and self.roster[part - 1].drums
        if kind not in OF_NOTES or drums:  # a piece in a common key leaves it
            return word
        return spell(kind, number + semitones, part) if 0 <= number + semitones <= 127 else None

    def piece(self, words: Iterable[str], name: str, silent: bool = False) -> Piece:
        """Decode words, whatever their order, into a piece of repaired tracks, or none.

        A piece-end that comes first is the start symbol; the next one ends the piece. What lies
        before where the piece stands already happens there, and a bar begins no earlier; time
        stops at LAST_TICK. A bar as long as the last is of 4/4 where there was none. A phrase ends
        at the place after its cadence, or with the piece. A note that a key would move out of 0-127
        is left out. silent: parts without a note have a track, too. Raises ValueError for what
        isn't a word of this representation.
        """
        rows: list[list[Row]] = [[] for _ in range(1 + len(self.roster))]
        sounding: list[set[int]] = [set() for _ in rows]
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
            kind, number, part = event
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
            elif part < len(rows):
                high = 0 if part and self.roster[part - 1].drums else above
                add_note(rows[part], sounding[part], now, kind, number + high)
        return self.piece_of(rows, name, bars, closing, sharps, silent)

    def piece_of(
        self, rows: Sequence[list[Row]], name: str, bars: Sequence[tuple[int, int]],
        closing: Sequence[int], sharps: int | None, silent: bool,
    ) -> Piece:  # fmt: skip
        """Return a piece of what words told of each part (1 + parts), the first of no part."""
        messages = [np.array(row, np.int32).reshape(-1, 3) for row in rows]
        tracks = tracks_of(messages, self.roster, silent)
        ticks = np.unique(np.concatenate([no_phrases(), *(t[:, TICK] for t in tracks.values())]))
        phrases = phrases_of(ticks, closing) if len(ticks) else no_phrases()
        return Piece(
            name, [*tracks.values()], meter=meter_of(bars), phrases=phrases, sharps=sharps,
            **who_plays(tracks, self.roster),
        )  # fmt: skip


def moves_of(track: Messages) -> list[tuple[int, int, int, int]]:
    """Return the words of a part's notes: tick, order at a place, kind, pitch; in order.

    track: with no notes of length zero.
    """
    rows: list[tuple[int, int, int, int]] = []
    sounding: set[int] = set()
    for tick, group in groupby(track.tolist(), key=lambda row: row[TICK]):
        ends: set[int] = set()
        begins: set[int] = set()
        for _, kind, pitch in group:
            (begins if kind == NOTE_ON else ends).add(pitch)
        stays = sounding - ends
        moves = bool(begins) and not stays
        told = [] if moves else [(NOTE_OFF, pitch) for pitch in sorted(ends & sounding)]
        told += [(NOTE_ON, pitch) for pitch in sorted(begins)]
        if moves:
            told[0] = (MOVE, told[0][1])
        rows += [(tick, OF_NOTES.index(kind), kind, pitch) for kind, pitch in told]
        sounding = stays | begins
    return rows


def add_note(rows: list[Row], sounding: set[int], now: int, kind: int, pitch: int) -> None:
    """Add what a word of a note tells to a part's messages; sounding: its pitches before and after.

    A pitch out of 0-127 is left out.
    """
    ends = sounding if kind == MOVE else {pitch} if kind == NOTE_OFF else set()
    rows += [(now, NOTE_OFF, ended) for ended in sorted(ends)]
    sounding -= {*ends}
    if kind != NOTE_OFF and 0 <= pitch <= 127:
        rows.append((now, NOTE_ON, pitch))
        sounding.add(pitch)


def sounding_above(key: int) -> int:
    """Return how many semitones above what is written a piece sounds, -6 to 5."""
    return (key + 6) % 12 - 6


def phrases_of(ticks: npt.NDArray[np.int32], closing: Sequence[int]) -> Phrases:
    """Return where phrases end: at the next tick (n,) after a cadence, or with the last one."""
    after = np.searchsorted(ticks, np.array(closing, np.int64), side="right")
    return np.unique(ticks[np.minimum(after, len(ticks) - 1)])
