"""A piece of music: its tracks as messages and notes, and the units that all count in."""

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi import bytes as midi_file
from lstm_music.midi import track_reader
from lstm_music.midi.bytes import Meter, Phrases, Tempo
from lstm_music.untrusted import printable

TICKS_PER_QUARTER = 480
WHOLE_NOTE = 4 * TICKS_PER_QUARTER
BAR = WHOLE_NOTE  # where nothing says another meter
TEMPO = 90.0  # quarter notes a minute, where nothing says another
LAST_TICK = midi_file.MOST_QUARTERS * TICKS_PER_QUARTER  # nothing lies later
MOST_TRACKS = 2**15 - 2  # a MIDI file counts its tracks in 15 bits; one holds the tempo
MOST_BYTES, REPAIRS = midi_file.MOST_BYTES, midi_file.REPAIRS

TICK, KIND, PITCH = range(3)  # the columns of Messages
CHANNEL, VELOCITY, TRACK = 3, 4, 5  # more columns of Rows
NOTE_OFF, NOTE_ON = range(2)  # the values of KIND

DRUMS = 9  # a channel
LONGEST_SHOWN = 32  # characters of a part's name
CHANNELS = tuple(channel for channel in range(16) if channel != DRUMS)

Messages: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: absolute tick at 480 per quarter note, 1 note-on or 0 note-off, pitch 0-127.

Rows are in file order, so ticks never decrease.
"""

Notes: TypeAlias = npt.NDArray[np.int32]
"""(n, 3) int32: start tick, end tick, pitch 0-127, sorted by start, then pitch."""

MidiError = track_reader.MidiError


def no_meter() -> Meter:
    """Return the meter of a piece that says nothing of it: 4/4 from its beginning."""
    return np.zeros((0, 2), np.int32)


def no_tempo() -> Tempo:
    """Return the tempo of a piece that says nothing of it."""
    return np.zeros((0, 2), np.int32)


def no_phrases() -> Phrases:
    """Return where phrases end in a piece that says nothing of it."""
    return np.zeros(0, np.int32)


class Part(NamedTuple):
    """Who plays a track. program: 0-127, as General MIDI numbers them.

    name: as its file has it; it may hold any characters, of which `part_names` shows some.
    """

    name: str = ""
    program: int = 0


NOTE = np.dtype([(name, np.int32) for name in ("start", "end", "pitch", "velocity", "part")])
"""A note: start and end in ticks, pitch 0-127, velocity 1-127, and the number of its track."""

Velocities: TypeAlias = npt.NDArray[np.int32]
"""(n,) int32: the velocities, 1-127, of a track's notes, as notes_of orders them."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of music: its tracks play together, and each holds at least one note.

    meter: its bars, of 4/4 where it says nothing else. repairs: what was mended as it was read,
    kind of repair -> how often; the kinds are in REPAIRS. drums: which tracks are drums; none is
    where it is empty. parts, velocities: of each track, none where they aren't known, as of music
    that is composed. tempo: of its quarter notes, phrases: where they end, sharps: of its key
    signature (flats are < 0); where it says so. pedals: messages of the sustain pedal in its file.
    beats: a bar's ticks -> the denominator of its time signature, where that is told: 3/4 and 6/8
    are as long. says_tempo: else it is MIDI's own, 120.
    """

    name: str
    tracks: list[Messages]
    repairs: dict[str, int] = field(default_factory=dict)
    meter: Meter = field(default_factory=no_meter)
    drums: tuple[bool, ...] = ()
    parts: tuple[Part, ...] = ()
    velocities: tuple[Velocities, ...] = ()
    tempo: Tempo = field(default_factory=no_tempo)
    phrases: Phrases = field(default_factory=no_phrases)
    sharps: int | None = None
    pedals: int = 0
    beats: dict[int, int] = field(default_factory=dict)
    says_tempo: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))

    @property
    def notes(self) -> npt.NDArray[np.void]:
        """All notes (n,) of NOTE, by start, pitch and part; of velocity 0 where it isn't known."""
        notes = np.zeros(sum(len(track) // 2 for track in self.tracks), NOTE)
        at = 0
        for part, track in enumerate(self.tracks):
            rows = notes[at : at + len(track) // 2]
            rows["start"], rows["end"], rows["pitch"] = notes_of(track).T
            rows["velocity"] = self.velocities[part] if self.velocities else 0
            rows["part"] = part
            at += len(rows)
        return np.sort(notes, order=("start", "pitch", "part"), kind="stable")


def one_line(name: str) -> str:
    """Return what can be shown of a name: no controls, which XML too refuses."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())


def part_names(piece: Piece, most: int = LONGEST_SHOWN) -> list[str]:
    """Return a name for each track, to be shown: in one line of so many letters, or its number."""
    shown = [one_line(part.name) for part in piece.parts or [Part()] * len(piece.tracks)]
    short = [name if len(name) <= most else f"{name[: most - 1]}…" for name in shown]
    return [name or f"part {number + 1}" for number, name in enumerate(short)]


def is_named(piece: Piece) -> bool:
    """Return whether a piece has several parts, of which any has a name."""
    return len(piece.tracks) > 1 and any(part.name.strip() for part in piece.parts)


# Repair -----------------------------------------------------------------------------------------


def notes_of(track: Messages) -> Notes:
    """Return a repaired track's notes (n, 3): start tick, end tick, pitch, by start and pitch."""
    by_pitch = track[np.argsort(track[:, PITCH], kind="stable")]
    ons, offs = by_pitch[0::2], by_pitch[1::2]  # a repaired track alternates within a pitch
    notes = np.stack([ons[:, TICK], offs[:, TICK], ons[:, PITCH]], axis=1)
    return notes[np.lexsort((notes[:, 2], notes[:, 0]))]
