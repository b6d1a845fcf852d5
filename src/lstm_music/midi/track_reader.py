"""The bytes of a track to its messages, which mido parses.

It reads them in short segments, so that damage costs no more than what follows it in its track, and
what a hostile file can cost is bounded by counts.
"""

import io
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeAlias

from lstm_music.errors import UserError

MOST_EVENT_BYTES = 2**20  # of a file that mido reads, some of them twice; 0.4 µs each at worst
MOST_MESSAGES = 250_000  # of a file that mido reads; 4 to 8 µs each. A real one holds 143,566
SEGMENT = 1536  # bytes that mido reads at a time, about 512 messages
SEGMENT_COST = 8  # messages that would take as long as to begin a segment
LONGEST_NAME = 128  # characters of a track's name that are kept
TOLD = (
    "time_signature", "key_signature", "set_tempo", "track_name", "program_change", "marker",
    "control_change",
)  # fmt: skip
PHRASE = "phrase"  # the marker that stands where a phrase ends

SUSTAIN, DOWN = 64, 64  # a controller: the sustain pedal, and from which value on it is down

HEADER, TRACK = b"MThd", b"MTrk"
SEGMENT_HEADER = HEADER + struct.pack(">LHHH", 6, 0, 1, 480) + TRACK + struct.pack(">L", 1)
TEXT = 0x01  # a meta event that may hold anything
EMPTY_TEXT = bytes([0, 0xFF, TEXT, 0])

Ending: TypeAlias = Literal["ended", "no end", "cut off", "damaged"]


class MidiError(UserError):
    """This MIDI file can't be used; the message is the reason, in one line."""


class TrackReader:
    """Has mido read the tracks of a file within bounds on all of them together.

    last_tick: of the file's own ticks, past which no note message may lie. track: the number of
    the one at hand. signatures: tick, numerator and denominator of the time signatures so far.
    tempos: tick and microseconds a quarter note. keys: tick and sharps. phrases: where one ends, by
    a marker that says PHRASE. pedals: channel, tick and whether the sustain pedal is down from
    there on, track by track. names, programs: as MidiFile's.
    """

    def __init__(self, data: bytes, last_tick: int, repairs: Counter[str]) -> None:
        self.data, self.repairs = data, repairs
        self._body, self.last_tick = io.BytesIO(data), last_tick
        self._messages_left, self._bytes_left = MOST_MESSAGES, MOST_EVENT_BYTES
        self.track = 0
        self.signatures: list[tuple[int, int, int]] = []
        self.tempos: list[tuple[int, int]] = []
        self.keys: list[tuple[int, int]] = []
        self.phrases: list[int] = []
        self.pedals: list[tuple[int, int, bool]] = []
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
        elif kind == "key_signature":
            self.keys.append((now, sharps_of(message.key)))
        elif kind == "marker":
            self.phrases += [now] * (message.text == PHRASE)
        elif kind == "control_change":
            if message.control == SUSTAIN:
                self.pedals.append((message.channel, now, message.value >= DOWN))
        elif kind == "track_name":
            self.names.setdefault(self.track, text_of(message.name)[:LONGEST_NAME])
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
        segment = Segment(self._body, stop, status)
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


def text_of(text: str) -> str:
    """Return what mido reads as Latin-1 as the UTF-8 that it may be."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return text


def sharps_of(key: str) -> int:
    """Return the sharps of a key by its name, as `Ebm`; flats are < 0."""
    fifths = "FCGDAEB".index(key[0]) - 1 - 3 * key.endswith("m")
    return fifths + 7 * (key.count("#") - key.count("b"))


def key_of_sharps(sharps: int) -> str:
    """Return the name of a major key of some sharps, -7 to 7."""
    accidentals, letter = divmod(sharps + 1, 7)
    return "FCGDAEB"[letter] + ("#" * accidentals or "b" * -accidentals)


class Segment:
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
