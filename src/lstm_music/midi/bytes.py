"""The bytes of a MIDI file to the note messages of its tracks, whatever state the file is in.

mido parses. This finds the tracks where lengths and counts are wrong, has mido read each in short
segments, so that damage costs no more than what follows it in its track, and bounds what a hostile
file can cost, by counts.
"""

import io
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.errors import UserError
from lstm_music.untrusted import open_plain

MOST_BYTES = 2**23  # of a file; the biggest of 3,871 real ones holds 487,212
MOST_EVENT_BYTES = 2**20  # of a file that mido reads, some of them twice; 0.4 µs each at worst
MOST_MESSAGES = 250_000  # of a file that mido reads; 4 to 8 µs each. A real one holds 143,566
MOST_TRACKS_READ = 2**12  # real files hold up to 140
MOST_QUARTERS = 100_000  # a file lasts in quarter notes: 14 hours at 120 a minute
TOO_LONG = f"lasts longer than {MOST_QUARTERS:,} quarter notes"
LONGEST_NUMBER = 2**14  # bytes: mido's time for a number grows as the square of them
SEGMENT = 1536  # bytes that mido reads at a time, about 512 messages
SHORTEST_BAR, LONGEST_BAR = 16, 64  # a 16th of a quarter note, and quarter notes: no meter else
SEGMENT_COST = 8  # messages that would take as long as to begin a segment
QUARTER = 500_000  # microseconds, until a file says another tempo (Standard MIDI Files 1.0)
LONGEST_NAME = 128  # characters of a track's name that are kept
TOLD = ("time_signature", "set_tempo", "track_name", "program_change")
FRAME_RATES = {24: 24.0, 25: 25.0, 29: 30 / 1.001, 30: 30.0}  # a second, by SMPTE's names

HEADER, TRACK = b"MThd", b"MTrk"
SEGMENT_HEADER = HEADER + struct.pack(">LHHH", 6, 0, 1, 480) + TRACK + struct.pack(">L", 1)
TEXT = 0x01  # a meta event that may hold anything
EMPTY_TEXT = bytes([0, 0xFF, TEXT, 0])
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
    "drum hits of length zero": "a drum hit that ends as it begins: kept, a 32nd note long",
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

Ending: TypeAlias = Literal["ended", "no end", "cut off", "damaged"]


class MidiError(UserError):
    """This MIDI file can't be used; the message is the reason, in one line."""


class MidiFile(NamedTuple):
    """The note messages of a MIDI file, and what had to be mended to read them.

    kind: its type, 0, 1 or 2. tracks: how many it has, numbered from 0, with those without notes.
    meter, tempo: by its time signatures and tempos, of whichever track. names: of the tracks that
    have one. programs: the first one of a track's channel. repairs: kind of repair in REPAIRS ->
    how often.
    """

    kind: int
    tracks: int
    rows: Rows
    meter: Meter
    tempo: Tempo
    names: dict[int, str]
    programs: dict[tuple[int, int], int]
    repairs: Counter[str]


def read_file(source: Path | bytes, ticks_per_quarter: int) -> MidiFile:
    """Read a MIDI file, given by its path or its content, at so many ticks per quarter note.

    The time between two note messages of a track is scaled and rounded, half to even. Where a file
    counts film frames, a minute has 120 quarter notes. Raises MidiError where it can't be used.
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
    repairs["wrapped file"] += start > 0
    repairs["SMPTE time"] += division >= 0x8000
    reader = _Reader(data, int(MOST_QUARTERS * own), repairs)
    tracks = list(_tracks(reader, start + 14, declared))
    if division >= 0x8000:
        reader.tempos.clear()  # seconds are counted without them
    if not tracks:
        raise MidiError("has no tracks")
    rows = _rows(tracks, ticks_per_quarter, own)
    meter, tempo = (form(reader, ticks_per_quarter, own) for form in (_meter, _tempo))
    return MidiFile(kind, len(tracks), rows, meter, tempo, reader.names, reader.programs, +repairs)


def _meter(reader: "_Reader", ticks_per_quarter: int, own: float) -> Meter:
    """Return the meter by the time signatures that a reader met; the last of a tick counts."""
    bars: dict[int, int] = {}
    for tick, numerator, denominator in reader.signatures:
        quarters = 4 * numerator / denominator
        if tick <= reader.last_tick and 1 / SHORTEST_BAR <= quarters <= LONGEST_BAR:
            bars[round(tick * ticks_per_quarter / own)] = round(quarters * ticks_per_quarter)
    return np.array(sorted(bars.items()), np.int32).reshape(-1, 2)


def _tempo(reader: "_Reader", ticks_per_quarter: int, own: float) -> Tempo:
    """Return the tempo by the messages that a reader met; the last of a tick counts."""
    quarters = {0: QUARTER} | {
        round(tick * ticks_per_quarter / own): length
        for tick, length in reader.tempos
        if tick <= reader.last_tick and length > 0
    }
    return np.array(sorted(quarters.items()), np.int32).reshape(-1, 2)


def _rows(tracks: list[Events], ticks_per_quarter: int, own: float) -> Rows:
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
    ticks = np.minimum(ticks - before[track], MOST_QUARTERS * ticks_per_quarter)  # after rounding
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


def _tracks(reader: "_Reader", at: int, declared: int) -> Iterator[Events]:
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


def _track(reader: "_Reader", begin: int) -> tuple[Events, int]:
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


# Messages ---------------------------------------------------------------------------------------


class _Reader:
    """Has mido read the tracks of a file within bounds on all of them together.

    last_tick: of the file's own ticks, past which no note message may lie. track: the number of
    the one at hand. signatures: tick, numerator and denominator of the time signatures so far.
    tempos: tick and microseconds a quarter note. names, programs: as MidiFile's.
    """

    def __init__(self, data: bytes, last_tick: int, repairs: Counter[str]) -> None:
        self.data, self.repairs = data, repairs
        self._body, self.last_tick = io.BytesIO(data), last_tick
        self._messages_left, self._bytes_left = MOST_MESSAGES, MOST_EVENT_BYTES
        self.track = 0
        self.signatures: list[tuple[int, int, int]] = []
        self.tempos: list[tuple[int, int]] = []
        self.names: dict[int, str] = {}
        self.programs: dict[tuple[int, int], int] = {}

    def read(self, at: int, end: int) -> tuple[list[int], int, Ending]:
        """Return the note messages of a track, where its last message ends, and how it ends.

        at, end: where its first message begins, and where it should end at the latest. The rows of
        Events stand one after the other.
        """
        rows: list[int] = []
        now, status, stop, mended = 0, EMPTY_TEXT, at + SEGMENT, -1
        while at < end:
            messages, starts, failed = self._segment(at, min(stop, end), end, status)
            if failed and len(starts) > 1:
                stop = starts[-1]  # up to there all is well: read it alone
                continue
            if failed:
                if at == mended or not self._make_text(at, end):
                    return rows, at, failed
                mended = at
                continue
            self.repairs["bad meta events"] += at == mended
            for message, start in zip(messages, starts, strict=False):
                kind = message.type
                now += message.time
                if kind == "note_on" or kind == "note_off":  # noqa: PLR1714, twice as fast
                    pitch = message.note
                    if pitch == 127 and self._clipped(start, starts):
                        return rows, start, "damaged"
                    rows += (now, kind == "note_on", pitch, message.channel, message.velocity)
                elif kind in TOLD:
                    self._note(kind, message, now)
                elif kind == "end_of_track":
                    return rows, starts[starts.index(start) + 1], "ended"
                elif kind == "unknown_meta":
                    now += _number(self.data, start)[0] - message.time  # mido forgets its time
                elif kind == "sysex" and self.data[_number(self.data, start)[1]] < 0x80:
                    # It has no status byte, and mido took up the one of a system exclusive before.
                    now -= message.time
                    starts = starts[: starts.index(start) + 1]
                    messages = messages[: len(starts) - 1]
                    break
            at, status = starts[-1], _running(messages, status)
            stop = at + SEGMENT
        return rows, at, "no end"

    def _note(self, kind: str, message: Any, now: int) -> None:
        """Note what a message beside the notes tells; now: its tick."""
        if kind == "time_signature":
            self.signatures.append((now, message.numerator, message.denominator))
        elif kind == "set_tempo":
            self.tempos.append((now, message.tempo))
        elif kind == "track_name":
            self.names.setdefault(self.track, message.name[:LONGEST_NAME])
        else:
            self.programs.setdefault((self.track, message.channel), message.program)

    def _clipped(self, start: int, starts: list[int]) -> bool:
        """Return whether the pitch of the note message there is above 127; mido makes it that."""
        return self.data[starts[starts.index(start) + 1] - 2] > 127

    def _segment(
        self, at: int, stop: int, end: int, status: bytes
    ) -> tuple[list[Any], list[int], Ending | None]:
        """Have mido read messages from there on: them, where they begin, and how it failed.

        stop, end: where the last one ends, or is the first to go past; past which none may go.
        status: a message with the running status. The last place is that where the last message
        ends, or that of the message that can't be read; then there are no messages.
        """
        if self._messages_left <= 0:
            self._refuse(f"{MOST_MESSAGES:,} messages")
        if self._bytes_left <= 0:
            self._refuse(f"{MOST_EVENT_BYTES:,} bytes of events")
        import mido  # only here: what reads no file needs none

        self._body.seek(at)
        segment = _Segment(self._body, stop, status)
        failed: Ending | None = None
        messages: list[Any] = []
        try:
            messages = mido.MidiFile(file=segment, clip=True).tracks[0][1:]
        except EOFError:
            failed = "cut off"
        except Exception:  # mido raises whatever the rubbish leads it to
            failed = "damaged"
        starts = segment.starts
        self._messages_left -= len(starts) + SEGMENT_COST
        self._bytes_left -= self._body.tell() - at
        if starts[-1] > end:
            starts.pop()
            return [], starts, "damaged"
        return messages, starts, failed

    def _refuse(self, bound: str) -> NoReturn:
        raise MidiError(f"holds more than {bound}, or too many that are damaged")

    def _make_text(self, at: int, end: int) -> bool:
        """Turn the meta event there into a text of the same length; return whether it is one."""
        while at < end and self.data[at] > 127:  # the time before it
            at += 1
        is_meta = at + 2 < end and self.data[at + 1] == 0xFF
        if is_meta:
            with self._body.getbuffer() as view:
                view[at + 2] = TEXT
        return is_meta


class _Segment:
    """A file of one track and a few messages, as mido reads it: a header, then a part of a body.

    mido asks tell() where the track begins, and then before each message. The first message is one
    of our own, which carries the running status on; where the answer is 1, the track is at its end.
    starts: where in the body each of the other messages begins, and where the last one ends.
    """

    def __init__(self, body: io.BytesIO, stop: int, status: bytes) -> None:
        self.read = io.BytesIO(SEGMENT_HEADER + status).read
        self.starts: list[int] = []
        self.tell: Callable[[], int] = self._begin
        self._body, self._stop = body, stop
        self._asked = 0

    def _begin(self) -> int:
        self._asked += 1
        if self._asked < 3:
            return 0
        self.read = self._body.read
        place, note, stop = self._body.tell, self.starts.append, self._stop

        def tell() -> int:  # this is called for every message
            at = place()
            note(at)
            return at >= stop

        self.tell = tell
        return tell()


def _running(messages: list[Any], status: bytes) -> bytes:
    """Return a message of the last channel message's kind, or the one given where there is none."""
    for message in reversed(messages):
        if not message.is_meta and hasattr(message, "channel"):
            return bytes([0, *message.bytes()])
    return status


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of variable length that begins there, and where it ends."""
    number = 0
    while data[at] > 127:
        number, at = number << 7 | data[at] & 127, at + 1
    return number << 7 | data[at], at + 1
