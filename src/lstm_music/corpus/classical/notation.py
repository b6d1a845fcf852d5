"""Scores that music21 reads -> MIDI files: meters and tempi, then one track a part.

Repeats are played out, ties joined, grace notes and chord symbols dropped, transposing instruments
written as they sound, and parts kept in step. music21's own MIDI export is not used: it plays chord
symbols, joins ties to notes of other pitches and misses those between voices, cuts unisons short,
and leaves a clarinet at its written pitch.
"""

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import mido

from lstm_music.midi.piece import CHANNELS, TICKS_PER_QUARTER
from lstm_music.midi.track_reader import PHRASE

VELOCITY = 80
FINEST = 64  # the denominator of a meter, at most
# Tonics a fifth apart, Fb to B#. Each sharp in the key signature is one step to the right.
FIFTHS = [letter + accidental for accidental in ("b", "", "#") for letter in "FCGDAEB"]


class Note(NamedTuple):
    """One sounding note: where it starts and ends, in ticks, and its MIDI pitch."""

    start: int
    end: int
    pitch: int


class Measure(NamedTuple):
    """One written measure: where it starts and how long it is, in quarters, and its meter."""

    start: Fraction
    length: Fraction
    meter: tuple[int, int]


class MeterChange(NamedTuple):
    """A time signature and the tick from which it holds."""

    tick: int
    numerator: int
    denominator: int


def midi_of(path: Path, told: bool = False) -> bytes:
    """Return a score's file as the bytes of a MIDI file; music21 raises whatever it likes.

    told: with its key, where phrases end and its parts' names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = read_score(path)
        sound_as_heard(score)
        measures = align_measures(score)
        parts = [(part, read_part(part)) for part in score.parts]
    tracks = [conductor_track(score.parts[0], measures)]
    if told:
        tracks.append(
            track_of(told_of(score, max((n.end for _, ns in parts for n in ns), default=0)))
        )
    for channel, (part, notes) in zip(CHANNELS * len(parts), parts, strict=False):
        if notes:
            program = part.getInstrument().midiProgram or 0
            opening = mido.Message("program_change", channel=channel, program=program)
            track = part_track(opening, notes, channel)
            if told:
                track.insert(0, mido.MetaMessage("track_name", name=latin(part.partName or "")))
            tracks.append(track)
    if len(tracks) == 1:
        raise ValueError("has no notes")
    return file_of(tracks)


def told_of(score: Any, last: int) -> list[tuple[int, Any]]:
    """Return the key of a score and where its phrases end, as messages, each with its tick."""
    key = find_key(score)
    rows = [(0, mido.MetaMessage("key_signature", key=key))] if key else []
    return rows + [
        (tick, mido.MetaMessage("marker", text=PHRASE)) for tick in phrase_ends(score, last)
    ]


def latin(text: str) -> str:
    """Return a text in one line of letters that a MIDI file may hold."""
    return " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")


def read_score(path: Path) -> Any:
    """Return what music21 reads, its repeats played out, or as written where badly formed."""
    from music21 import converter, repeat

    score: Any = converter.parse(path, forceSource=True)  # no cache of an older music21
    if "Opus" in score.classes:  # a part each, in ABC
        score = score.mergeScores()
    with suppress(repeat.ExpanderException):
        score = score.expandRepeats()
    return score


def file_of(tracks: Sequence[mido.MidiTrack]) -> bytes:
    """Return tracks as the bytes of a MIDI file."""
    file = io.BytesIO()
    mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, tracks=tracks).save(file=file)
    return file.getvalue()


def sound_as_heard(score: Any) -> None:
    """Move the notes of transposing instruments to where they sound.

    Not by whole octaves: those are a clef's (a tenor's treble clef), and the scores hold such notes
    as they sound already.
    """
    for part in score.parts:
        interval = part.getInstrument().transposition
        if interval is not None and interval.semitones % 12:
            part.toSoundingPitch(inPlace=True)


def to_ticks(quarters: float | Fraction) -> int:
    """Round a time in quarters to the tick grid."""
    return round(Fraction(quarters) * TICKS_PER_QUARTER)


def align_measures(score: Any) -> list[Measure]:
    """Find where each measure starts, moving measures that the parts do not agree on.

    Where a part's measure is longer or shorter than the others' (a rest too many, a voice not
    filled up), all that follows would sound early or late in it. Such a measure lasts as long as in
    most of the parts that have notes there (of lengths as frequent, as the meter says, else as in
    the shortest), and no longer than the meter says.
    """
    grids = [list(part.getElementsByClass("Measure")) for part in score.parts]
    measures: list[Measure] = []
    start, meter = Fraction(0), (4, 4)
    for column in zip_longest(*grids):
        present = [measure for measure in column if measure is not None]
        signature = present[0].timeSignature
        if signature is not None:
            meter = (signature.numerator, signature.denominator)
        bar = Fraction(4 * meter[0], meter[1])
        lengths = lengths_of(present)
        length = next(iter(lengths))
        if len(lengths) > 1:
            lengths = lengths_of([m for m in present if m.recurse().notes]) or lengths
            length = min(bar, max(lengths, key=lambda n: (lengths[n], n == bar, -n)))
        for part, measure in zip(score.parts, column, strict=True):
            if measure is not None and Fraction(measure.offset) != start:
                part.setElementOffset(measure, start)
        measures.append(Measure(start, length, meter))
        start += length
    return measures


def lengths_of(measures: Iterable[Any]) -> Counter[Fraction]:
    """Count measures by length, in quarters."""
    return Counter(Fraction(measure.duration.quarterLength) for measure in measures)


def read_part(part: Any) -> list[Note]:
    """Collect the notes of one part, ties joined, by start and pitch.

    Grace notes, chord symbols and unpitched percussion are left out.
    """
    from music21 import chord, harmony, note

    notes: list[Note] = []
    tied: set[Note] = set()
    for element in part.flatten().getElementsByClass((note.Note, chord.Chord)):
        if element.duration.isGrace or isinstance(element, harmony.Harmony):
            continue
        start = to_ticks(element.offset)
        end = to_ticks(Fraction(element.offset) + Fraction(element.quarterLength))
        for single in element.notes if element.isChord else [element]:
            sounding = Note(start, end, single.pitch.midi)
            notes.append(sounding)
            if single.tie is not None and single.tie.type in ("start", "continue"):
                tied.add(sounding)
    return separate_notes(join_ties(notes, tied))


def join_ties(notes: Iterable[Note], tied: set[Note]) -> list[Note]:
    """Join each note that is tied onwards with the note of its pitch that starts as it ends.

    music21's own `stripTies` looks within one voice and joins chords only whole, so it would miss
    a tie into another voice of the staff and a tie of one note of a chord.
    """
    joined: list[Note] = []
    waiting: dict[tuple[int, int], int] = {}  # (pitch, end) of a tied note: its place in joined
    for note in sorted(notes):
        place = waiting.pop((note.pitch, note.start), len(joined))
        if place == len(joined):
            joined.append(note)
        else:
            joined[place] = joined[place]._replace(end=note.end)
        if note in tied:
            waiting[note.pitch, note.end] = place
    return joined


def separate_notes(notes: Iterable[Note]) -> list[Note]:
    """Let no pitch overlap itself: a note ends where the same pitch is struck again.

    A MIDI note-off names only a pitch, so overlapping notes of one pitch could not be told apart.
    Two that start together, as in a unison of two voices on one staff, become one: the longer.
    """
    longest: dict[tuple[int, int], int] = {}
    for start, end, pitch in notes:
        longest[start, pitch] = max(end, longest.get((start, pitch), start))
    separate: list[Note] = []
    # From the last note to the first, so that the next strike of each pitch is known.
    next_strike: dict[int, int] = {}
    for (start, pitch), end in sorted(longest.items(), reverse=True):
        if end > start:
            separate.append(Note(start, min(end, next_strike.get(pitch, end)), pitch))
            next_strike[pitch] = start
    return separate[::-1]


def meter_changes(measures: Sequence[Measure]) -> list[MeterChange]:
    """Give each bar a time signature as long as the bar, so that bar lines fall where written.

    A pickup of one beat becomes a bar of 1/4 before the 4/4: else every bar line of the file
    would stand one beat early. A measure cut in two by a repeat or a double bar counts as one
    bar, and the last bar keeps the meter, since no bar line follows it.
    """
    bars = join_bars(measures)
    changes: list[MeterChange] = []
    for bar in bars:
        meter = bar.meter if bar is bars[-1] else bar_meter(bar)
        if not changes or changes[-1][1:] != meter:
            changes.append(MeterChange(to_ticks(bar.start), *meter))
    return changes


def join_bars(measures: Sequence[Measure]) -> list[Measure]:
    """Join neighbouring measures that make up one bar between them; the pickup stays alone."""
    bars: list[Measure] = []
    for measure in measures:
        full = Fraction(4 * measure.meter[0], measure.meter[1])
        if len(bars) > 1 and measure.length < full and bars[-1].length + measure.length <= full:
            bars[-1] = bars[-1]._replace(length=bars[-1].length + measure.length)
        else:
            bars.append(measure)
    return bars


def bar_meter(bar: Measure) -> tuple[int, int]:
    """Write the length of a bar as a meter, with the denominator in force or a finer one."""
    denominator = bar.meter[1]
    while (bar.length * denominator / 4).denominator != 1 and denominator < FINEST:
        denominator *= 2
    numerator = bar.length * denominator / 4
    return (int(numerator), denominator) if numerator.denominator == 1 else bar.meter


def conductor_track(part: Any, measures: Sequence[Measure]) -> mido.MidiTrack:
    """Return the track of meters and tempi, which hold for all parts; tempi stand in the first."""
    events = meter_messages(measures)
    for mark in part.flatten().getElementsByClass("MetronomeMark"):
        tempo = mark.getQuarterBPM()
        if tempo:
            message = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))
            events.append((to_ticks(mark.offset), message))
    return track_of(sorted(events, key=lambda event: event[0]))


def meter_messages(measures: Sequence[Measure]) -> list[tuple[int, Any]]:
    """Return the time signatures of a score, each with its tick."""
    return [
        (tick, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator))
        for tick, numerator, denominator in meter_changes(measures)
    ]


def phrase_ends(score: Any, last: int) -> list[int]:
    """Return the ticks at which phrases end: the notes with a fermata, and the last one there.

    They are those of the part that has most of them: the others' are often left out. None where
    there is no fermata.
    """
    from music21 import expressions

    def ends(part: Any) -> set[int]:
        return {
            to_ticks(Fraction(note.offset) + Fraction(note.quarterLength))
            for note in part.flatten().notes
            if any(isinstance(mark, expressions.Fermata) for mark in note.expressions)
        }

    most = max(map(ends, score.parts), key=len)
    return sorted(most | {last}) if most else []


def find_key(score: Any) -> str | None:
    """Return the key of a score, such as `Em`; None where no part has a signature.

    Sharps and flats are those most parts agree on. The mode is the first part's, where the scores
    keep it; where that part disagrees or states no mode, the last bass note decides.
    """
    from music21 import key

    found = (part.recurse().getElementsByClass(key.KeySignature).last() for part in score.parts)
    signatures = [signature for signature in found if signature is not None]
    if not signatures:
        return None
    sharps = Counter(signature.sharps for signature in signatures).most_common(1)[0][0]
    mode = getattr(signatures[0], "mode", None)
    if signatures[0].sharps != sharps or mode is None:
        last_bass = score.parts[-1].recurse().notes.last().pitches[0].pitchClass
        minor_tonic = (7 * sharps + 9) % 12  # each sharp moves the tonic up a fifth, from A
        mode = "minor" if last_bass == minor_tonic else "major"
    tonic: int = sharps + FIFTHS.index("A" if mode == "minor" else "C")
    return FIFTHS[tonic] + ("m" if mode == "minor" else "")


def part_track(opening: Any, notes: Iterable[Note], channel: int = 0) -> mido.MidiTrack:
    """Return a first message and the notes of one part as a track."""
    # Tuples sort as wanted: by tick, then note-off (0) before note-on (1), then pitch.
    ends = sorted(
        end for start, stop, pitch in notes for end in ((start, 1, pitch), (stop, 0, pitch))
    )
    kinds = ("note_off", 0), ("note_on", VELOCITY)
    events = [(0, opening)]
    for tick, is_on, pitch in ends:
        kind, velocity = kinds[is_on]
        message = mido.Message(kind, channel=channel, note=pitch, velocity=velocity)
        events.append((tick, message))
    return track_of(events)


def track_of(events: Iterable[tuple[int, Any]]) -> mido.MidiTrack:
    """Return messages, each with its tick, as a track, whose times are from one to the next."""
    track = mido.MidiTrack()
    now = 0
    for tick, message in events:
        track.append(message.copy(time=tick - now))
        now = tick
    return track
