"""Piece -> MusicXML, laid out by music21: to be engraved, or to be opened by other programs."""

import re
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from typing import Any, NamedTuple

from lstm_music.errors import UserError, pip_install
from lstm_music.midi.bytes import Tempo
from lstm_music.midi.channels import Programs
from lstm_music.midi.piece import (
    LONGEST_SHOWN,
    TICKS_PER_QUARTER,
    Notes,
    Piece,
    is_named,
    notes_of,
    one_line,
    part_names,
)
from lstm_music.rendering.instruments import PLACES, with_instruments
from lstm_music.rendering.notation import (
    DRUMS_CLEF,
    Bar,
    Sound,
    Staff,
    Tone,
    are_chords,
    bars_of_piece,
    drum_staff,
    fifths_of,
    on_steps,
    quantised,
    sounds_in,
    spelled,
    staves_of,
    steps_of,
    voices_of,
    written,
)

CHOIR = re.compile(r"(soprano|alto|tenor|bass)( ?[0-9]+| i+)?", re.IGNORECASE)
NUMBER = re.compile(r" ?[0-9]+$| [IVXivx]+$")
DATE = re.compile(r"\s*<encoding-date>.*?</encoding-date>")  # the same piece gives the same file
ALL = 2**31  # bars
LABEL = 16  # letters that verovio has room for beside a system


class Played(NamedTuple):
    """How music sounds: its tempo, as Piece.tempo, and the program of each track, None of drums."""

    tempo: Tempo
    programs: Programs


class Setting(NamedTuple):
    """What all staves share: bars, whether they are all, sharps, and the ticks of fermatas."""

    bars: list[Bar]
    is_whole: bool
    fifths: int
    fermatas: frozenset[int]


def check_available() -> None:
    """Raise UserError where music21 is not installed."""
    if not find_spec("music21"):
        raise UserError(f"MusicXML needs music21: {pip_install('music21')}")


def musicxml(piece: Piece, most: int = ALL, played: Played | None = None) -> str:
    """Return at most so many bars of a piece as MusicXML; played: to be told too, if given.

    A piece of several parts has a staff each, or two for one that plays chords far apart; drums
    have one of percussion. A fermata stands over the notes that end with a phrase. The piece has
    notes.
    """
    from music21 import instrument, layout, metadata, stream
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    score = stream.Score()
    score.metadata = metadata.Metadata(title=one_line(piece.name), composer=" ")
    tracks, setting = set_out(piece, most)
    players, drums = [], {}
    for number, notes in enumerate(tracks):
        staves = staves_of_part(piece, number, notes, setting)
        kind = stream.PartStaff if len(staves) > 1 else stream.Part
        parts = [filled(kind(), staff, setting) for staff in staves]
        for part in parts:
            player = instrument.Instrument()
            player.partId, player.midiChannel = f"P{number + 1}", number  # else drawn, and few
            part.insert(0, player)
            score.insert(0, part)
        if len(parts) > 1:
            score.insert(0, layout.StaffGroup(parts, symbol="brace", barTogether=True))
        if staves[0].clef == DRUMS_CLEF:
            drums[number] = staves[0].notes
        players.append(parts)
    if is_named(piece):
        name_players(score, players, part_names(piece, LABEL if played is None else LONGEST_SHOWN))
    if played is not None:
        tell_tempo(players[0][0], setting.bars, played.tempo)
    xml = DATE.sub("", str(GeneralObjectExporter(score).parse(), "utf-8"))
    return xml if played is None else with_instruments(xml, piece, played.programs, drums)


def set_out(piece: Piece, most: int) -> tuple[list[Notes], Setting]:
    """Return the notes of each track on the steps of beats, and what their staves share."""
    raw = [notes_of(track) for track in piece.tracks]
    steps = steps_of(raw)
    tracks = [quantised(notes, steps) for notes in raw]
    bars = bars_of_piece(piece, max(int(notes[:, 1].max(initial=1)) for notes in tracks))
    phrases, _ = on_steps(piece.phrases, steps)
    fermatas = frozenset(phrases.tolist())
    return tracks, Setting(bars[:most], len(bars) <= most, fifths_of(piece), fermatas)


def staves_of_part(piece: Piece, number: int, notes: Notes, setting: Setting) -> list[Staff]:
    """Return the staves of a track's notes (n, 3)."""
    if piece.drums and piece.drums[number]:
        return [drum_staff(notes, setting.bars)]
    has_parts = bool(piece.parts) and len(piece.tracks) > 1
    return staves_of(notes, not has_parts or are_chords(notes))


def filled(part: Any, staff: Staff, setting: Setting) -> Any:
    """Return music21's part with what stands on a staff in it, a measure a bar."""
    from music21 import clef, key, meter, stream

    for n, bar in enumerate(setting.bars):
        measure = stream.Measure(number=bar.number)
        measure.paddingLeft = quarters(max(bar.full - bar.ticks, 0))  # or it is filled with rests
        if n == 0:
            measure.append(getattr(clef, staff.clef)())
            if staff.clef != DRUMS_CLEF:
                measure.append(key.KeySignature(setting.fifths))
        if bar.signature:
            measure.append(meter.TimeSignature(bar.signature))
        voices = voices_of(sounds_in(staff.notes, bar.first, bar.ticks))
        for number, voice in enumerate(voices):
            into = measure if len(voices) == 1 else stream.Voice(id=number + 1)
            for sound in written(voice, bar.ticks):
                one = hit(sound) if staff.clef == DRUMS_CLEF else element(sound, setting.fifths)
                if bar.first + sound.end in setting.fermatas:
                    add_fermata(one, sound, is_below=number > 0)
                if not sound.tones:
                    one.style.hideObjectOnPrint = number > 0
                into.insert(quarters(sound.start), one)
            if into is not measure:
                measure.insert(0, into)
        part.append(measure)
    if setting.is_whole:
        part.getElementsByClass(stream.Measure)[-1].rightBarline = "final"
    return part


def element(sound: Sound, fifths: int) -> Any:
    """Return a sound as music21's note, chord or rest."""
    from music21 import chord, note, pitch

    length = quarters(sound.end - sound.start)
    notes = []
    for tone in sound.tones:
        name, octave = spelled(tone.pitch, fifths)
        one = note.Note(pitch.Pitch(name, octave=octave), quarterLength=length)
        one.tie = tie_of(tone)
        notes.append(one)
    if not notes:
        return note.Rest(quarterLength=length)
    return notes[0] if len(notes) == 1 else chord.Chord(notes, quarterLength=length)


def hit(sound: Sound) -> Any:
    """Return a sound of drums as music21's note, chord or rest."""
    from music21 import note, percussion

    length = quarters(sound.end - sound.start)
    notes = []
    for tone in sound.tones:
        place = PLACES[tone.pitch]
        one = note.Unpitched(displayName=place.name, quarterLength=length)
        one.notehead = place.head
        notes.append(one)
    if not notes:
        return note.Rest(quarterLength=length)
    return notes[0] if len(notes) == 1 else percussion.PercussionChord(notes, quarterLength=length)


def add_fermata(one: Any, sound: Sound, is_below: bool) -> None:
    """Put a fermata over, or under, music21's note or chord, if any tone of it ends there."""
    from music21 import expressions

    if any(not tone.to_next for tone in sound.tones):
        fermata = expressions.Fermata()
        fermata.type = "inverted" if is_below else "upright"
        one.expressions.append(fermata)


def tie_of(tone: Tone) -> Any:
    """Return music21's tie of a tone, None without one."""
    from music21 import tie

    if not (tone.from_before or tone.to_next):
        return None
    both = tone.from_before and tone.to_next
    return tie.Tie("continue" if both else "start" if tone.to_next else "stop")


def quarters(ticks: int) -> Fraction:
    """Return ticks in quarter notes."""
    return Fraction(ticks, TICKS_PER_QUARTER)


# Parts ------------------------------------------------------------------------------------------


def name_players(score: Any, players: Sequence[Sequence[Any]], names: Sequence[str]) -> None:
    """Name the staves of each part of music21's score, and bracket the voices of a choir."""
    from music21 import layout

    for parts, name, short in zip(players, names, abbreviations(names), strict=True):
        parts[0].partName, parts[0].partAbbreviation = name, short
    choir: list[Any] = []
    for parts, name in [*zip(players, names, strict=True), ([], "")]:
        if CHOIR.fullmatch(name):
            choir += parts
            continue
        if len(choir) > 1:
            score.insert(0, layout.StaffGroup(choir, symbol="bracket", barTogether=True))
        choir = []


def abbreviations(names: Sequence[str]) -> list[str]:
    """Return shorter names of parts: of a choir's voices the initial, of others a few letters.

    A number at the end stays, and what could be mistaken for another is whole.
    """
    short = []
    for name in names:
        number = NUMBER.search(name)
        stem = name[: number.start()] if number else name
        letters = 1 if CHOIR.fullmatch(name) else 4 if len(stem) > 5 else len(stem)
        end = "." * (letters < len(stem)) + (number[0] if number else "")
        short.append(stem[:letters].strip() + end)
    return [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]


def tell_tempo(part: Any, bars: Sequence[Bar], tempo: Tempo) -> None:
    """Add to music21's first part how many quarter notes a minute has, wherever it changes."""
    from music21 import stream
    from music21 import tempo as marks

    measures = list(part.getElementsByClass(stream.Measure))
    for tick, length in tempo.tolist():
        for bar, measure in zip(bars, measures, strict=True):
            if bar.first <= tick < bar.first + bar.ticks:
                mark = marks.MetronomeMark(number=round(60e6 / length, 2))
                measure.insert(quarters(tick - bar.first), mark)
