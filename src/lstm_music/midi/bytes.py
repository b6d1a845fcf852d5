"""The bytes of a MIDI file to the note messages of its tracks, whatever state the file is in.

This finds the tracks where lengths and counts are wrong; `track_reader.py` reads each.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi.track_reader import HEADER, TRACK, MidiError, TrackReader
from lstm_music.untrusted import open_plain

MOST_BYTES = 2**23  # of a file; the biggest of 3,871 real ones holds 487,212
MOST_TRACKS_READ = 2**12  # real files hold up to 140
MOST_QUARTERS = 100_000  # a file lasts in quarter notes: 14 hours at 120 a minute
TOO_LONG = f"lasts longer than {MOST_QUARTERS:,} quarter notes"
LONGEST_NUMBER = 2**14  # bytes: mido's time for a number grows as the square of them
SHORTEST_BAR, LONGEST_BAR = 16, 64  # a 16th of a quarter note, and quarter notes: no meter else
QUARTER = 500_000  # microseconds, until a file says another tempo (Standard MIDI Files 1.0)
FRAME_RATES = {24: 24.0, 25: 25.0, 29: 30 / 1.001, 30: 30.0}  # a second, by SMPTE's names

HIGH = bytes(byte > 127 for byte in range(256))  # a table for bytes.translate

REPAIRS = {
    "wrapped file": "there were other bytes before its header (RIFF, MacBinary): passed over",
    "SMPTE time": "its time counts film frames: read at 120 quarter notes a minute",
    "sequences end to end": "of MIDI type 2: one after the other, each from a whole note on",
    "channels made tracks": "all its channels lay in one track: each became a track",
    "tracks cut off": "the file ends in the middle of a track: what there is was kept",
    "damaged tracks": "a track can't be read on from some place: what comes before it was kept",
    "tracks missing": "its header counts more tracks than there are",
    "uncounted tracks": "its header counts fewer tracks than follow one another: all were read",
    "tracks left out": "tracks behind the last one, of another file or an older one: not read",
    "wrong track lengths": "a track isn't as long as it says: read to its end",
    "bad meta events": "an event beside the notes, such as a tempo, makes no sense: ignored",
    "drum notes left out": "a note of the drum channel: left out, unless drums are wanted",
    "orphan note-offs": "the end of a note that doesn't sound: dropped",
    "hanging notes": "a note without an end: ended with its track",
    "notes struck while sounding": "a pitch struck again before its end: one note ends, one begins",
    "notes struck on two channels": "one pitch of a track sounds on two channels: joined",
    "drum hits of length zero": "a drum hit that ends as it begins: kept, a sixteenth long",
    "notes outside the piano": "of piano rolls: notes that its 88 keys lack, left out",
    "notes of length zero": "a note that ends as it begins, or is struck twice at once: dropped",
}
"""What is mended in files and their notes, as Piece.repairs counts it: what was done."""

Events: TypeAlias = npt.NDArray[np.int64]
"""(n, 5) int64: tick of the file, 1 note-on or 0 note-off, pitch, channel 0-15, velocity 0-127."""

Rows: TypeAlias = npt.NDArray[np.int32]
"""(n, 6) int32: tick, 1 note-on or 0 note-off, pitch, channel, velocity, number of the track.

One track stands after the other, each in file order.
"""

Meter: TypeAlias = npt.NDArray[np.int32]
"""(n, 2) int32: the ticks from which on bars have another length, ascending, and that length."""

Tempo: TypeAlias = npt.NDArray[np.int32]
"""(n, 2) int32: the ticks from which on a quarter note has another length, ascending, and that
length in microseconds."""

Phrases: TypeAlias = npt.NDArray[np.int32]
"""(n,) int32: the ticks at which phrases end, ascending."""

Pedals: TypeAlias = npt.NDArray[np.int64]
"""(n, 3) int64: a channel, the tick from which on its sustain pedal is down or up, and 1 or 0.

By channel, then tick; the first of a channel is 1, and they alternate.
"""


class MidiFile(NamedTuple):
    """The note messages of a MIDI file, and what had to be mended to read them.

    kind: its type, 0, 1 or 2. tracks: how many it has, numbered from 0, with those without notes.
    meter, tempo, phrases: by its time signatures, tempos and markers, of whichever track. names: of
    the tracks that have one. sharps: of its first key signature. programs: the first one of a
    track's channel. repairs: kind of repair in REPAIRS -> how often. beats, says_tempo: as Piece's.
    pedals: of its channels. ticks_per_quarter: of all ticks here.
    """

    kind: int
    tracks: int
    rows: Rows
    meter: Meter
    tempo: Tempo
    phrases: Phrases
    sharps: int | None
    names: dict[int, str]
    programs: dict[tuple[int, int], int]
    repairs: Counter[str]
    beats: dict[int, int]
    says_tempo: bool
    pedals: Pedals
    ticks_per_quarter: float


def read_file(source: Path | bytes, ticks: int | None) -> MidiFile:
    """Read a MIDI file, given by its path or its content, at so many ticks per quarter note.

    The time between two note messages of a track is scaled and rounded, half to even; ticks None
    leaves the file's own, and all times exact. Where a file counts film frames, a minute has 120
    quarter notes. Raises MidiError where it can't be used.
    """
    data = _with_short_numbers(_bytes_of(source))
    repairs: Counter[str] = Counter()
    start = data.find(HEADER)
    if start < 0:
        raise MidiError("is no MIDI file: it has no MThd header" if data else "is empty")
    if len(data) < start + 14:
        raise MidiError("is cut off in its header")
    kind, declared, division = struct.unpack_from(">HHH", data, start + 8)
    if kind > 2:
        raise MidiError(f"is of an unknown MIDI type, {kind}")
    own = _ticks_per_quarter(division)
    ticks_per_quarter = own if ticks is None else ticks
    repairs["wrapped file"] += start > 0
    repairs["SMPTE time"] += division >= 0x8000
    reader = TrackReader(data, int(MOST_QUARTERS * own), repairs)
    tracks = list(_tracks(reader, start + 14, declared))
    if division >= 0x8000:
        reader.tempos.clear()  # seconds are counted without them
    if not tracks:
        raise MidiError("has no tracks")
    rows = _rows(tracks, ticks_per_quarter, own)
    meter, tempo, phrases = (
        tell(reader, ticks_per_quarter, own) for tell in (_meter, _tempo, _phrases)
    )
    sharps = min(reader.keys, default=(0, None))[1]
    names, programs = reader.names, reader.programs
    said = meter, tempo, phrases, sharps, names, programs
    beats, pedals = _beats(reader, ticks_per_quarter), _pedals(reader, ticks_per_quarter, own)
    of_file = +repairs, beats, bool(reader.tempos), pedals, ticks_per_quarter
    return MidiFile(kind, len(tracks), rows, *said, *of_file)


def _meter(reader: TrackReader, ticks_per_quarter: float, own: float) -> Meter:
    """Return the meter by the time signatures that a reader met; the last of a tick counts."""
    bars: dict[int, int] = {}
    for tick, numerator, denominator in reader.signatures:
        quarters = 4 * numerator / denominator
        if tick <= reader.last_tick and 1 / SHORTEST_BAR <= quarters <= LONGEST_BAR:
            bars[round(tick * ticks_per_quarter / own)] = round(quarters * ticks_per_quarter)
    return np.array(sorted(bars.items()), np.int32).reshape(-1, 2)


def _beats(reader: TrackReader, ticks_per_quarter: float) -> dict[int, int]:
    """Return of each length of bars the denominator of the first time signature that has it."""
    return {
        round(4 * numerator / denominator * ticks_per_quarter): denominator
        for _, numerator, denominator in reversed(reader.signatures)
    }


def _tempo(reader: TrackReader, ticks_per_quarter: float, own: float) -> Tempo:
    """Return the tempo by the messages that a reader met; the last of a tick counts."""
    quarters = {0: QUARTER} | {
        round(tick * ticks_per_quarter / own): length
        for tick, length in reader.tempos
        if tick <= reader.last_tick and length > 0
    }
    return np.array(sorted(quarters.items()), np.int32).reshape(-1, 2)


def _phrases(reader: TrackReader, ticks_per_quarter: float, own: float) -> Phrases:
    """Return where phrases end, by the markers that a reader met."""
    ticks = {t * ticks_per_quarter / own for t in reader.phrases if 0 < t <= reader.last_tick}
    return np.array(sorted(map(round, ticks)), np.int32)


def _pedals(reader: TrackReader, ticks_per_quarter: float, own: float) -> Pedals:
    """Return when pedals go down and up, by the control changes that a reader met."""
    rows = np.array(reader.pedals, np.int64).reshape(-1, 3)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    rows[:, 1] = np.rint(rows[:, 1] * ticks_per_quarter / own)
    same_channel = np.diff(rows[:, 0], prepend=-1) == 0
    changes = np.where(same_channel, np.diff(rows[:, 2], prepend=0) != 0, rows[:, 2] == 1)
    pedals: Pedals = rows[changes]
    return pedals


def _rows(tracks: list[Events], ticks_per_quarter: float, own: float) -> Rows:
    """Return the messages of all tracks, each time between two of a track scaled.

    own: the ticks per quarter note that the tracks have now.
    """
    sizes = [len(track) for track in tracks]
    events = np.concatenate(tracks)
    track = np.repeat(np.arange(len(sizes)), sizes)
    deltas = np.diff(events[:, 0], prepend=0)
    first = np.flatnonzero(np.diff(track, prepend=-1))
    deltas[first] = events[first, 0]
    scaled = np.rint(deltas * ticks_per_quarter / own)
    ticks = np.cumsum(scaled)
    before = np.zeros(len(sizes))  # a track: all that lies in the tracks before
    before[track[first]] = ticks[first] - scaled[first]
    most = min(MOST_QUARTERS * ticks_per_quarter, 2**31 - 1)
    ticks = np.minimum(ticks - before[track], most)  # after rounding
    return np.column_stack([ticks, events[:, 1:], track]).astype(np.int32)


def _bytes_of(source: Path | bytes) -> bytes:
    try:
        if not isinstance(source, bytes):
            with open_plain(source) as file:
                source = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte, a pipe
        raise MidiError(f"can't be read: {' '.join(str(error).split())}") from error
    if len(source) > MOST_BYTES:
        raise MidiError(f"is larger than {MOST_BYTES:,} bytes")
    return source


def _with_short_numbers(data: bytes) -> bytes:
    """Return a file's bytes with no number in them, a time or a length, longer than LONGEST_NUMBER.

    A number goes on as long as its bytes are above 127. Music knows up to four of them.
    """
    long = b"\1" * LONGEST_NUMBER
    high = data.translate(HIGH)
    shorter = bytearray()
    at = 0
    while (found := high.find(long, at)) >= 0:
        at, begin = found + LONGEST_NUMBER, len(shorter)
        shorter += data[begin : at - 1] + b"\x7f"
    return bytes(shorter) + data[at:] if shorter else data


def _ticks_per_quarter(division: int) -> float:
    """Return the ticks of a quarter note from what the header says. Raises MidiError."""
    if division < 0x8000:
        if division == 0:
            raise MidiError("has zero ticks per quarter note")
        return division
    frames, ticks = 256 - (division >> 8), division & 0xFF
    if frames not in FRAME_RATES or ticks == 0:
        raise MidiError(f"counts SMPTE frames of no film: {frames} a second, of {ticks} ticks")
    return FRAME_RATES[frames] * ticks / 2


# Tracks -----------------------------------------------------------------------------------------


def _tracks(reader: TrackReader, at: int, declared: int) -> Iterator[Events]:
    """Yield the tracks that the header declares, and more of them where they follow right on."""
    data, repairs = reader.data, reader.repairs
    stop = data.find(HEADER, at)  # where another file begins
    stop = len(data) if stop < 0 else stop
    count = 0
    while (begin := data.find(TRACK, at, stop)) >= 0:
        if count >= declared and begin > at:  # often the end of an older file, overwritten
            break
        if count == MOST_TRACKS_READ:
            raise MidiError(f"has more than {MOST_TRACKS_READ:,} tracks")
        reader.track = count
        events, at = _track(reader, begin)
        yield events
        count += 1
    repairs["tracks missing"] += max(0, declared - count)
    repairs["uncounted tracks"] += max(0, count - declared)
    repairs["tracks left out"] += data.count(TRACK, at)


def _track(reader: TrackReader, begin: int) -> tuple[Events, int]:
    """Read the track whose chunk begins there; also return where what was read of it ends."""
    data, repairs = reader.data, reader.repairs
    first = begin + 8
    declared = first + int.from_bytes(data[begin + 4 : first], "big")
    trusted = declared == len(data) or _is_chunk(data, declared)
    following = data.find(TRACK, first)
    end = declared if trusted else following if following >= 0 else len(data)
    rows, stop, ending = reader.read(first, end)
    if ending in ("no end", "cut off") and end == len(data) < declared:
        repairs["tracks cut off"] += 1
    elif ending in ("cut off", "damaged"):
        repairs["damaged tracks"] += 1
    elif stop != declared and not trusted:
        repairs["wrong track lengths"] += 1
    if rows and rows[-5] > reader.last_tick:
        raise MidiError(TOO_LONG)
    events = np.array(rows, np.int64).reshape(-1, 5)
    events[:, 1] *= events[:, 4] > 0  # a note-on of velocity 0 is a note-off
    return events, stop


def _is_chunk(data: bytes, at: int) -> bool:
    """Return whether a chunk seems to begin there."""
    name = data[at : at + 4]
    size = int.from_bytes(data[at + 4 : at + 8], "big")
    whole = at + 8 + size <= len(data) and name.isascii() and name.decode("ascii").isprintable()
    return name == TRACK or (len(name) == 4 and whole)
