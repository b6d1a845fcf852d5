"""Answers to what is played: phrases are heard, gone on with, and sent in time.

There are no ports here and no clock: messages come and go with the seconds at which they do.
"""

import io
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import mido
import numpy as np

from lstm_music.errors import Warn
from lstm_music.midi.beats import in_time
from lstm_music.midi.files import read_midi
from lstm_music.midi.grid import on_grid
from lstm_music.midi.piece import TICKS_PER_QUARTER, Piece, notes_of
from lstm_music.midi.timing import bars_of, end_of
from lstm_music.midi.writing import as_midi
from lstm_music.sampling.composer import Composer, Opening, Primer
from lstm_music.sampling.continuing import compose_after, finished
from lstm_music.sampling.decoding import clipped
from lstm_music.sampling.excerpts import in_meter, joined, line_of
from lstm_music.sampling.harmonising import harmonise
from lstm_music.sampling.options import Options
from lstm_music.sampling.tasks import tune_task
from lstm_music.sampling.token_composers import EventComposer, TokenComposer

Event: TypeAlias = tuple[float, mido.Message]
"""A message and when it comes, in seconds."""
Reply: TypeAlias = Callable[[Sequence[Event]], Sequence[Event]]
"""What answers a phrase: its events to others, from 0 on."""

PEDAL, ALL_OFF = 64, 123  # controllers
GRID = 16  # steps a whole note, where a model has no grid of its own: hands are no nearer
DRAFTS = 16  # of what accompanies a phrase
PRIMER = 256  # tokens or frames at most that a phrase is gone on from
TRIES = 4
RINGS = (
    TICKS_PER_QUARTER  # that a phrase's last notes may sound past its last bar line and end there
)


# Listening --------------------------------------------------------------------------------------


def strikes(message: mido.Message) -> bool:
    """Return whether a message begins a note."""
    return bool(message.type == "note_on" and message.velocity > 0)


class Listener:
    """Hears phrases. pause: the seconds of silence that end one, once all its keys are up."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.heard: list[Event] = []
        self.down: set[tuple[int, int]] = set()
        self.pedals: dict[int, mido.Message] = {}

    def hear(self, at: float, message: mido.Message) -> None:
        """Hear a message; what is neither note nor pedal says nothing."""
        begins = strikes(message)
        if message.type in ("note_on", "note_off"):
            key = message.channel, message.note
            (self.down.add if begins else self.down.discard)(key)
        elif message.is_cc(PEDAL):
            self.pedals[message.channel] = message
        else:
            return
        if begins and not self.heard:
            self.heard = [(at, pedal) for pedal in self.pedals.values()]
        if begins or self.heard:
            self.heard.append((at, message))

    def phrase(self, now: float) -> list[Event]:
        """Return the phrase that is over by now, and forget it; nothing while there is none."""
        if not self.heard or self.down or now - self.heard[-1][0] < self.pause:
            return []
        phrase, self.heard = self.heard, []
        return phrase


class Conversation:
    """Two in turn: who plays is heard, and each phrase answered, until somebody plays again.

    said: all messages so far, when they were heard or sent, and whether they were sent.
    """

    def __init__(self, pause: float, reply: Reply) -> None:
        self.listener, self.reply = Listener(pause), reply
        self.said: list[tuple[float, mido.Message, bool]] = []
        self._left: deque[Event] = deque()
        self._begun: float | None = None
        self._sounding: dict[tuple[int, int], None] = {}

    def hear(self, now: float, message: mido.Message) -> list[mido.Message]:
        """Hear a message; return what is to be sent at once: a note ends the answer."""
        ends = self.silence(now) if self._left and strikes(message) else []
        if hasattr(message, "channel"):  # no clock, which a file can't hold
            self.said.append((now, message, False))
        self.listener.hear(now, message)
        return ends

    def due(self, now: float) -> list[mido.Message]:
        """Return what is to be sent by now. A phrase that is over is answered from the next on.

        So the time that composing takes is none of the music's.
        """
        if not self._left:
            if phrase := self.listener.phrase(now):
                self._left, self._begun = deque(self.reply(phrase)), None
            return []
        self._begun = now if self._begun is None else self._begun
        sent = []
        while self._left and self._begun + self._left[0][0] <= now:
            sent.append(self._left.popleft()[1])
        return self._sent(now, sent)

    def silence(self, now: float) -> list[mido.Message]:
        """Give an answer up; return what ends all that sounds of it."""
        self._left.clear()
        ends = [mido.Message("note_off", channel=c, note=n) for c, n in self._sounding]
        return self._sent(now, ends)

    def end(self, now: float) -> list[mido.Message]:
        """Return what leaves nothing sounding, whatever of what was due never was sent."""
        channels = sorted({message.channel for _, message, ours in self.said if ours})
        off = [mido.Message("control_change", channel=c, control=ALL_OFF) for c in channels]
        return self.silence(now) + self._sent(now, off)

    def _sent(self, now: float, messages: list[mido.Message]) -> list[mido.Message]:
        for message in messages:
            if strikes(message):
                self._sounding[message.channel, message.note] = None
            elif message.type in ("note_on", "note_off"):
                self._sounding.pop((message.channel, message.note), None)
        self.said += [(now, message, True) for message in messages]
        return messages


# What is composed -------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What answers a phrase, and both as one piece."""

    alone: Piece
    whole: Piece


def answer(composer: Composer[Any], phrase: Piece, options: Options, warn: Warn) -> Answer:
    """Return how a composer goes on from a phrase: as long as that where options say no length.

    phrase: as `heard` returns it, or `written` of music that isn't played. Raises UnknownNotes
    where the composer knows none of it.
    """
    options = composer.fitted(as_long(phrase, options, composer.played))
    opening = composer.opening_in(phrase, Primer(Path(phrase.name), PRIMER), warn)
    if options.limit is not None and not composer.played:  # an answer begins at a bar line
        end = composer.ticks(opening.music)
        options = replace(options, limit=options.limit + line_of(phrase, end) - end)
    music = unbroken(composer, opening, options)
    tempo = np.array(opening.tempo, np.int32)
    alone = finished(composer, music, opening, False, options, tempo, phrase.name, False).piece
    return Answer(alone, after(phrase, alone))


def accompanied(composer: EventComposer, phrase: Piece, options: Options, warn: Warn) -> Answer:
    """Return a phrase with the voices that it lacks, to be played once more; see `answer`."""
    task, _ = tune_task(composer, phrase)
    drafts = replace(options, particles=max(options.particles, DRAFTS))
    ((piece, _),) = harmonise(composer, task.piece, task.asked, drafts, 1, warn=warn)
    return Answer(piece, after(phrase, piece))


def after(phrase: Piece, alone: Piece) -> Piece:
    """Return a phrase and, from its last bar line on, its answer; both tell what both know."""
    parts, velocities = alone.parts and phrase.parts, alone.velocities and phrase.velocities
    first = replace(phrase, parts=parts, velocities=velocities, sharps=alone.sharps)
    return joined(first, end_of(phrase), alone)


def unbroken(composer: Composer[Any], opening: Opening, options: Options) -> Any:
    """Return music after an opening, of TRIES the first that isn't over before its length.

    What follows the end of a piece is another one, in a key of its own: that is no answer.
    """
    for n in range(TRIES):
        own = replace(options, first=options.first * TRIES + n)
        (music,) = compose_after(composer, [opening], [False], own, lambda *_: None)
        if not (isinstance(composer, TokenComposer) and composer.rules.start in music):
            break
    return music


def as_long(phrase: Piece, options: Options, played: bool) -> Options:
    """Return options with a length: where they have none, a phrase's, in whole bars if written."""
    if options.bars is not None or options.limit is not None:
        return options
    end = end_of(phrase)
    if played:
        return replace(options, limit=end)
    return replace(options, bars=len(bars_of(phrase.meter, end - 1)[0]))


# Messages and music -----------------------------------------------------------------------------


def heard(phrase: Sequence[Event], name: str, tempo: float, composer: Composer[Any]) -> Piece:
    """Return a phrase as it was played, from its first note on, in ticks at a tempo.

    Of a composer of performances that must be its own. Raises MidiError where it has no note that
    the composer can read.
    """
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    begin, last = next(at for at, message in phrase if strikes(message)), 0
    struck: dict[tuple[int, int], int] = {}
    for at, message in phrase:
        tick = max(round((at - begin) * tempo / 60 * TICKS_PER_QUARTER), last)
        if strikes(message):
            struck[message.channel, message.note] = tick
        elif not message.is_cc():  # however short, a note lasts
            tick = max(tick, 1 + struck.get((message.channel, message.note), -1))
        track.append(message.copy(time=tick - last))
        last = tick
    midi = mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_QUARTER)
    midi.tracks.append(track)
    content = io.BytesIO()
    midi.save(file=content)
    return read_midi(content.getvalue(), name, composer.drums is not None, composer.played)


def written(piece: Piece, composer: Composer[Any], bar: int | None) -> Piece:
    """Return what was heard as it would be written: on the model's grid, a bar at its first note.

    Its tempo is then that of the player. bar: the ticks of its bars, None for 4/4. A last note held
    a little past a bar line ends there.
    """
    grid = composer.primer_grid or GRID
    piece = on_grid(in_time(piece, grid), grid)
    piece = piece if bar is None else in_meter(piece, bar)
    last = max(int(notes_of(track)[-1, 0]) for track in piece.tracks)
    line = line_of(piece, last + 1)
    return clipped(piece, line) if line < end_of(piece) < line + RINGS else piece


def timed(midi: mido.MidiFile, programs: bool) -> list[Event]:
    """Return the messages of a file, its first note at 0 s; programs: whether those are sent."""
    now, events = 0.0, []
    for message in midi:
        now += message.time
        if not message.is_meta and (programs or message.type != "program_change"):
            events.append((now, message))
    first = next((at for at, message in events if strikes(message)), 0.0)
    return [(max(at - first, 0.0), message) for at, message in events]


def mean_velocity(piece: Piece) -> int:
    """Return how loud a piece's notes are in the mean."""
    return round(float(np.concatenate(piece.velocities).mean()))


def as_loud(piece: Piece, mean: int) -> Piece:
    """Return a piece whose velocities, where it has any, have another mean."""
    if not piece.velocities:
        return piece
    more = mean - mean_velocity(piece)
    louder = (np.clip(own + more, 1, 127).astype(np.int32) for own in piece.velocities)
    return replace(piece, velocities=tuple(louder))


def sent(piece: Piece, mean: int, programs: Sequence[int] | None) -> list[Event]:
    """Return the messages of an answer; mean: their velocity, in the mean.

    programs: as of write_midi; where neither these nor parts are told, none is sent, and what the
    instrument plays with stays.
    """
    midi = as_midi(as_loud(piece, mean), None, programs, None if piece.velocities else mean)
    return timed(midi, bool(piece.parts) or programs is not None)


def session(said: Sequence[tuple[float, mido.Message, bool]], tempo: float) -> mido.MidiFile:
    """Return all that was played and answered as a file of two tracks, in the time that it took."""
    midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    midi.add_track().append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)))
    begin = said[0][0] if said else 0.0
    for name, ours in (("Played", False), ("Answered", True)):
        track, last = midi.add_track(name), 0
        for at, message, was_sent in said:
            if was_sent == ours:
                tick = round((at - begin) * tempo / 60 * TICKS_PER_QUARTER)
                track.append(message.copy(time=tick - last))
                last = tick
    return midi
