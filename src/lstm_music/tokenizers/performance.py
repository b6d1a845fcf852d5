"""The performance representation: played music, its time in steps of 10 ms, with its dynamics.

`shift-37` goes on by 370 ms, `on-60` and `off-60` begin and end a note, and `velocity-20` says how
hard the notes from there on are struck, by bins of 4. A longer pause is several shifts, all but the
last of 1 s. At one time stand first the notes that end, then those that begin, each by ascending
pitch, and the first note begins the piece. Where several instruments play, `part-2` says whose the
words from there on are, velocities too; each part keeps its own, and at one time they come by
ascending part. Drums alone are told by their words, `on-38/5`, `velocity-30/5`: what transposes a
word must know them. Else all tracks are merged.

Source: Oore et al. 2018, "This time with feeling: learning expressive musical performance" (as
Performance RNN, Simon & Oore 2017).
"""

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from lstm_music.midi.piece import (
    KIND,
    LAST_TICK,
    NOTE_ON,
    PITCH,
    TICK,
    Messages,
    Piece,
    Velocities,
    notes_of,
)
from lstm_music.midi.playing import MILLISECONDS, milliseconds, played_tempo
from lstm_music.midi.repair import sorted_messages, velocities_of, without_overlaps
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

SHIFT, VELOCITY, PART = 2, 3, 4  # kinds of words, beside NOTE_OFF and NOTE_ON
KINDS = ("off", "on", "shift", "velocity", "part")
SPECIALS = (PIECE_END,)  # it gets id 0 and is the start symbol too
WORD = re.compile(f"({'|'.join(KINDS)})-{NUMBER}(?:/{NUMBER})?")
STEP, LONGEST_SHIFT = 10, 100  # milliseconds, and steps
BIN = 4  # velocities
LOWEST = (0, 0, 1, 0, 1)  # number of each kind
HIGHEST = (127, 127, LONGEST_SHIFT, 127 // BIN, MOST_PARTS)
BEATS = 60e6 / MILLISECONDS  # quarter notes a minute of what is decoded
USUAL = 80  # the velocity of a note where nothing tells of it


def spell(kind: int, number: int, part: int = 0) -> str:
    """Return the word of a kind: a pitch, steps of time, a bin of velocities, or a part.

    part: that of drums, from 1, of whose notes or velocities it is; 0 of others.
    """
    return f"{KINDS[kind]}-{number}" + f"/{part}" * (part > 0)


def parse(word: str) -> tuple[int, int, int] | None:
    """Return a word's kind, 0 to 4, its number and, of drums, its part; None for the piece's end.

    Else the part is 0. Raises ValueError for anything else.
    """
    if word == PIECE_END:
        return None
    match = WORD.fullmatch(word)
    if match is None:
        raise ValueError(f"not a word of a performance: {word!r}")
    kind, number, part = KINDS.index(match[1]), int(match[2]), int(match[3] or 0)
    most = 0 if kind in (SHIFT, PART) else MOST_PARTS
    if not LOWEST[kind] <= number <= HIGHEST[kind] or not (match[3] is not None) <= part <= most:
        raise ValueError(f"not a word of a performance: {word!r}")
    return kind, number, part


def steps_told(words: Iterable[str]) -> list[int]:
    """Return the steps by which each word goes on."""
    parsed = (parse(word) for word in words)
    return [event[1] if event and event[0] == SHIFT else 0 for event in parsed]


class PerformanceTokenizer(MessageTokenizer):
    """Turns a piece into a performance and any words of one into a piece; see MessageTokenizer.

    A piece's time is that of its tempo. What is decoded has a tick a millisecond, and its tempo
    says so. roster: who plays each part; none merges all tracks.
    """

    name: ClassVar[str] = "performance"
    specials: ClassVar[tuple[str, ...]] = SPECIALS

    def __init__(self, roster: Sequence[Player] = ()) -> None:
        super().__init__("merge")
        self.roster = tuple(roster)
        self.drums = np.array([False, *(player.drums for player in roster)])  # by part, from 1

    def tracks(self, piece: Piece) -> list[Messages]:
        """Return all tracks as one, as words tell of them; see `performed`."""
        return [performed(piece, self.roster)[0]]

    def codes(self, piece: Piece) -> Codes:
        """Return a piece's words as codes (n,): (part · 128 + number) · 5 + kind, the end -1."""
        track, velocities = performed(piece, self.roster)
        if not len(track):
            return np.array([-1], np.int64)
        part = track[:, PITCH].astype(np.int64) // PITCHES
        own = np.where(self.drums[part], part * PITCHES, 0)  # what words tell of the part
        notes = (own + track[:, PITCH] % PITCHES) * len(KINDS) + track[:, KIND]
        bins = np.zeros(len(track), np.int64)
        changed = np.zeros(len(track), np.bool_)
        ons = np.flatnonzero(track[:, KIND] == NOTE_ON)
        bins[ons] = part[ons] * PITCHES + velocities // BIN
        by_part = ons[np.argsort(part[ons], kind="stable")]
        changed[by_part] = np.diff(bins[by_part], prepend=-1) != 0
        bins = own + bins % PITCHES
        tells = np.zeros(len(track), np.bool_)
        others = np.unique(np.append(0, np.flatnonzero(own == 0)))  # and the first, whoever plays
        tells[others] = np.diff(part[others], prepend=0) != 0
        steps = np.diff(track[:, TICK] // STEP, prepend=0).astype(np.int64)
        shifts = -(-steps // LONGEST_SHIFT)
        ends = np.cumsum(shifts + tells + changed + 1)  # of a message's words, the last its own
        codes = np.full(ends[-1] + 1, LONGEST_SHIFT * len(KINDS) + SHIFT, np.int64)
        rest = (steps - 1) % LONGEST_SHIFT + 1
        last = (ends - 2 - changed - tells)[shifts > 0]
        codes[last] = rest[shifts > 0] * len(KINDS) + SHIFT
        codes[(ends - 2 - changed)[tells]] = part[tells] * len(KINDS) + PART
        codes[ends[changed] - 2] = bins[changed] * len(KINDS) + VELOCITY
        codes[ends - 1] = notes
        codes[-1] = -1
        return codes

    def spelled(self, code: int) -> str:
        """Return the word of a code."""
        if code < 0:
            return PIECE_END
        number, kind = divmod(code, len(KINDS))
        part, number = divmod(number, PITCHES)
        return spell(kind, number, part)

    def transpose(self, word: str, semitones: int) -> str | None:
        """Return a word with its pitch moved, if it has one; None where that leaves 0-127."""
        kind, number, part = parse(word) or (SHIFT, 0, 0)
        if kind > NOTE_ON or part:
            return word
        return spell(kind, number + semitones) if 0 <= number + semitones <= 127 else None

    def piece(self, words: Iterable[str], name: str, silent: bool = False) -> Piece:
        """Decode words, whatever their order, into a piece of repaired tracks, or none.

        A piece-end that comes first is the start symbol; the next one ends the piece. Time stops
        at LAST_TICK; a velocity is the middle of its bin, before any of its part the last one that
        was told, or USUAL. Before any part the first one plays, and nobody one that there isn't.
        silent: parts without a note have a track, too. Raises ValueError for what isn't a word of
        this representation.
        """
        rows: list[list[Row]] = [[] for _ in range(1 + len(self.roster))]
        struck: list[list[int]] = [[] for _ in rows]
        loud, usual = [0] * len(rows), USUAL
        now, current = 0, min(1, len(self.roster))
        for index, word in enumerate(words):
            event = parse(word)
            if event is None:
                if index > 0:
                    break
                continue
            kind, number, own = event
            part = own or current
            if kind == SHIFT:
                now = min(now + number * STEP, LAST_TICK)
            elif kind == PART:
                current = number
            elif part < len(rows) and kind == VELOCITY:
                loud[part] = usual = number * BIN + BIN // 2
            elif part < len(rows):
                rows[part].append((now, kind, number))
                struck[part] += [loud[part] or usual] * (kind == NOTE_ON)
        messages = [np.array(row, np.int32).reshape(-1, 3) for row in rows]
        tracks = tracks_of(messages, self.roster, silent)
        velocities = []
        for number, track in tracks.items():
            ons = messages[number][messages[number][:, KIND] == NOTE_ON]
            told = np.array(struck[number], np.int32)
            velocities.append(velocities_of(track, ons[:, [TICK, TICK, PITCH]], told))
        return Piece(
            name, [*tracks.values()], velocities=tuple(velocities), tempo=played_tempo(),
            **who_plays(tracks, self.roster),
        )  # fmt: skip


def performed(piece: Piece, roster: Sequence[Player] = ()) -> tuple[Messages, Velocities]:
    """Return a piece's tracks as one, in milliseconds from its first note, and its velocities.

    Notes begin and end at whole steps, each at the nearest, and last a step at least. One that is
    struck at once in several tracks is one note, as loud as the loudest; see merge_tracks. roster:
    the parts, if they are told apart: then a pitch is part · 128 + pitch, parts from 1.
    """
    parts = [part + 1 for part in parts_of(players_of(piece), roster)] if roster else []
    written = np.zeros((0, 3), np.int32)
    for track, part in zip(piece.tracks, parts or [0] * len(piece.tracks), strict=True):
        own = notes_of(track) + np.array([0, 0, part * PITCHES], np.int32)
        written = np.concatenate([written, own])
    heard = written[:, 0] < written[:, 1]
    loud = np.concatenate([*piece.velocities]) if piece.velocities else np.full(len(heard), USUAL)
    written, loud = written[heard], loud[heard]
    times = milliseconds(written[:, :2], piece.tempo)
    steps = np.floor((times - times.min(initial=np.inf)) / STEP + 0.5)
    last = LAST_TICK // STEP
    start = np.minimum(steps[:, 0], last - 1)
    end = np.clip(steps[:, 1], start + 1, last)
    notes = np.stack([start * STEP, end * STEP, written[:, 2]], axis=1).astype(np.int32)
    track = sorted_messages(*without_overlaps(notes))
    return track, velocities_of(track, notes, loud.astype(np.int32))
