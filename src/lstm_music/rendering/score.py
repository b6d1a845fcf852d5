"""Piece -> staff notation: quantised, laid out by music21 as MusicXML, engraved by verovio as SVG.

Both are the optional extra `score`; they are loaded only when something is engraved.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lstm_music.errors import UserError, pip_install
from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE, Notes, Piece, no_meter, notes_of
from lstm_music.midi.repair import without_overlaps
from lstm_music.midi.roll import estimate_key, frames_of
from lstm_music.midi.timing import signature_of
from lstm_music.tokenizers.events import bars_of

SIXTEENTH, TRIPLET = TICKS_PER_QUARTER // 4, TICKS_PER_QUARTER // 3
VALUES = {SIXTEENTH * n for n in (1, 2, 3, 4, 6, 8, 12, 16)} | {TRIPLET, 2 * TRIPLET}
MIDDLE_C = 60
ONE_HAND = 0.1  # share of notes on the other side of middle C that needs a staff of its own
ONE_STAFF = 24  # semitones that fit on one
CLEFS = (  # of a staff by its median pitch, from so high; Treble8vb is the tenors'
    (85, "Treble8vaClef"), (60, "TrebleClef"), (55, "Treble8vbClef"), (36, "BassClef"),
    (0, "Bass8vbClef"),
)  # fmt: skip
PAGES = 2
BARS_A_PAGE = 64  # more never fit
OPTIONS = {
    "pageWidth": 2100,  # tenths of a millimetre: A4
    "pageHeight": 2970,
    "adjustPageHeight": True,  # a last page ends with its music
    "scale": 40,
    "footer": "none",
    "staffLineWidth": 0.2,  # visible on a small screen
    "svgViewBox": True,  # so that it fits the width it is given
    "xmlIdSeed": 1,  # the same piece gives the same file
}


class Tone(NamedTuple):
    """A pitch of a Sound, and whether it is tied to what comes before and after."""

    pitch: int
    from_before: bool
    to_next: bool


class Sound(NamedTuple):
    """What is struck at once in a voice: ticks within the bar, and tones, none for a rest."""

    start: int
    end: int
    tones: tuple[Tone, ...]


Voice: TypeAlias = list[Sound]


class Bar(NamedTuple):
    """A bar: its first tick, its ticks, its number, and the time signature to print, if any.

    full: the ticks of a bar by the signature that holds.
    """

    first: int
    ticks: int
    number: int
    signature: str
    full: int


class Staff(NamedTuple):
    """The notes of a staff, and the name of music21's clef for them."""

    notes: Notes
    clef: str


# SVG --------------------------------------------------------------------------------------------


def is_available() -> bool:
    """Return whether the extra `score` is installed."""
    return bool(find_spec("music21") and find_spec("verovio"))


def check_available() -> None:
    """Raise UserError where the extra `score` is not installed."""
    if not is_available():
        raise UserError(f"a score needs music21 and verovio: {pip_install('music21', 'verovio')}")


def draw_score(piece: Piece, path: Path, pages: int = PAGES) -> None:
    """Engrave the first pages of a piece one below the other; write an SVG file."""
    path.write_text(stacked(engrave(piece, pages)), "utf-8")


def engrave(piece: Piece, pages: int = PAGES) -> list[str]:
    """Return the first pages of a piece as SVG, black on nothing.

    Raises UserError where the extra `score` is not installed or the piece has no notes.
    """
    check_available()
    if not piece.tracks:
        raise UserError(f"'{piece.name}' has no notes to engrave: leave --svg out")
    import verovio

    verovio.enableLog(verovio.LOG_OFF)
    engraver = verovio.toolkit()
    engraver.setOptions(OPTIONS)
    engraver.loadData(musicxml(piece, pages * BARS_A_PAGE))
    most = min(pages, engraver.getPageCount())
    return [engraver.renderToSVG(page + 1) for page in range(most)]


def stacked(pages: Sequence[str]) -> str:
    """Return pages as one SVG on white paper, one below the other."""
    parts, width, height = [], 0, 0
    for page in pages:
        found = re.search(r'<svg viewBox="0 0 (\d+) (\d+)"', page)
        assert found is not None  # verovio writes it with OPTIONS
        width, tall = int(found[1]), int(found[2])
        place = f'<svg x="0" y="{height}" width="{width}" height="{tall}" {found[0][5:]}'
        parts.append(place + page[found.end() :])
        height += tall
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{"".join(parts)}</svg>\n'
    )


# Notation ---------------------------------------------------------------------------------------


def musicxml(piece: Piece, bars: int) -> str:
    """Return at most so many bars of a piece as MusicXML."""
    from music21 import layout, metadata, stream
    from music21.musicxml.m21ToXml import GeneralObjectExporter

    fifths = fifths_of(piece)
    score = stream.Score()
    score.metadata = metadata.Metadata(title=piece.name, composer=" ")
    tracks = quantised([notes_of(track) for track in piece.tracks])
    written_bars = bars_of_piece(piece, max(int(track[:, 1].max(initial=1)) for track in tracks))
    for track in tracks:
        parts = [part_of(staff, written_bars[:bars], fifths) for staff in staves_of(track)]
        for part in parts:
            if len(written_bars) <= bars:
                part.getElementsByClass(stream.Measure)[-1].rightBarline = "final"
            score.insert(0, part)
        if len(parts) > 1:
            score.insert(0, layout.StaffGroup(parts, symbol="brace", barTogether=True))
    return str(GeneralObjectExporter(score).parse(), "utf-8")


def bars_of_piece(piece: Piece, end: int) -> list[Bar]:
    """Return a piece's bars up to a tick, as its meter says; of 4/4 where it can't be written.

    A bar of another length than those beside it gets no signature: it is a pickup, or what a
    repeated phrase leaves for one. A first bar that is shorter than the second has number 0.
    """
    starts, lengths = bars_of(piece.meter, max(end - 1, 0))
    if (lengths % SIXTEENTH).any():
        starts, lengths = bars_of(no_meter(), max(end - 1, 0))
    ticks = lengths.tolist()
    pickup = len(ticks) > 1 and ticks[0] < ticks[1]
    shown = next((now for now, after in pairwise(ticks) if now == after), WHOLE_NOTE)
    bars = []
    for n, (first, length) in enumerate(zip(starts.tolist(), ticks, strict=True)):
        stays = ticks[n + 1 : n + 2] == [length]
        changes = n == 0 or (length != shown and stays)
        shown = length if n and changes else shown
        signature = "/".join(map(str, signature_of(shown, piece.beats))) if changes else ""
        bars.append(Bar(first, length, n + 1 - pickup, signature, shown))
    return bars


def quantised(tracks: Sequence[Notes]) -> list[Notes]:
    """Return tracks whose notes begin and end on sixteenths or, beat by beat, on triplets.

    A beat of all tracks is in triplets where they are nearer to its ticks. No note is shorter than
    a step; of notes of a pitch, none sounds when the next one of its track begins.
    """
    ticks = np.concatenate([track[:, :2].ravel() for track in tracks])
    beats = ticks // TICKS_PER_QUARTER
    off = {step: np.abs(ticks - nearest(ticks, step)) for step in (SIXTEENTH, TRIPLET)}
    sums = {step: np.bincount(beats, miss) for step, miss in off.items()}
    step_of = np.where(sums[TRIPLET] < sums[SIXTEENTH], TRIPLET, SIXTEENTH)
    snapped = []
    for track in tracks:
        notes = track.astype(np.int64)
        steps = step_of[track[:, :2] // TICKS_PER_QUARTER]
        notes[:, :2] = nearest(track[:, :2], steps)
        notes[:, 1] = np.maximum(notes[:, 1], notes[:, 0] + steps[:, 0])
        start, end, pitch = without_overlaps(notes.astype(np.int32))
        snapped.append(np.stack([start, end, pitch], axis=1).astype(np.int32))
    return snapped


def nearest(ticks: Any, step: Any) -> Any:
    """Return the multiples of step nearest to ticks."""
    return (2 * ticks + step) // (2 * step) * step


def staves_of(notes: Notes) -> list[Staff]:
    """Return a staff for a track's notes, or two where they are far apart around middle C."""
    pitches = notes[:, 2]
    above = pitches >= MIDDLE_C
    if np.ptp(pitches) > ONE_STAFF and ONE_HAND < above.mean() < 1 - ONE_HAND:
        return [Staff(notes[above], "TrebleClef"), Staff(notes[~above], "BassClef")]
    middle = float(np.median(pitches))
    return [Staff(notes, next(clef for lowest, clef in CLEFS if middle >= lowest))]


def part_of(staff: Staff, bars: Sequence[Bar], fifths: int) -> Any:
    """Return a staff as music21's part, a measure a bar."""
    from music21 import clef, key, meter, stream

    part = stream.PartStaff()
    for n, bar in enumerate(bars):
        measure = stream.Measure(number=bar.number)
        measure.paddingLeft = quarters(max(bar.full - bar.ticks, 0))  # or it is filled with rests
        if n == 0:
            measure.append(getattr(clef, staff.clef)())
            measure.append(key.KeySignature(fifths))
        if bar.signature:
            measure.append(meter.TimeSignature(bar.signature))
        voices = voices_of(sounds_in(staff.notes, bar.first, bar.ticks))
        for number, voice in enumerate(voices):
            into = measure if len(voices) == 1 else stream.Voice(id=number + 1)
            for sound in written(voice, bar.ticks):
                into.insert(quarters(sound.start), element(sound, fifths, hidden=number > 0))
            if into is not measure:
                measure.insert(0, into)
        part.append(measure)
    return part


def sounds_in(notes: Notes, first: int, ticks: int) -> list[Sound]:
    """Return what sounds in a bar of so many ticks: chords of notes alike in time.

    They are in the order of their start, and from the highest.
    """
    after = first + ticks
    chords: dict[tuple[int, int], list[Tone]] = {}
    for start, end, pitch in notes[(notes[:, 0] < after) & (notes[:, 1] > first)].tolist():
        times = max(start - first, 0), min(end - first, ticks)
        chords.setdefault(times, []).append(Tone(pitch, start < first, end > after))
    sounds = [Sound(*times, tuple(sorted(tones))) for times, tones in chords.items()]
    return sorted(sounds, key=lambda sound: (sound.start, -sound.tones[-1].pitch))


def voices_of(sounds: Sequence[Sound]) -> list[Voice]:
    """Return one or two voices, of which the first is the higher where both move at once.

    Where two aren't enough, one voice is cut at each change, its longer notes tied.
    """
    voices: list[Voice] = [[], []]
    for sound in sounds:
        free = [voice for voice in voices if not voice or voice[-1].end <= sound.start]
        if not free:
            return [slices(sounds)]
        if len(free) == 2 and _meets_higher(sound, sounds):
            free.reverse()
        free[0].append(sound)
    return voices if voices[1] else voices[:1]


def _meets_higher(sound: Sound, sounds: Iterable[Sound]) -> bool:
    """Return whether a higher sound begins while this one lasts."""
    return any(
        sound.start < other.start < sound.end and other.tones[-1].pitch > sound.tones[-1].pitch
        for other in sounds
    )


def slices(sounds: Sequence[Sound]) -> Voice:
    """Return sounds as one voice of chords, cut wherever a note begins or ends."""
    cuts = sorted({time for sound in sounds for time in sound[:2]})
    voice = []
    for start, end in pairwise(cuts):
        tones = [
            Tone(pitch, before or sound.start < start, after or sound.end > end)
            for sound in sounds
            if sound.start < end and sound.end > start
            for pitch, before, after in sound.tones
        ]
        if tones:
            voice.append(Sound(start, end, tuple(sorted(tones))))
    return voice


def written(voice: Voice, ticks: int) -> Voice:
    """Return a voice with rests between its sounds, to fill a bar of so many ticks.

    All are cut to values that notes can have.
    """
    full: Voice = []
    now = 0
    for sound in [*voice, Sound(ticks, ticks, ())]:
        if sound.start > now:
            full += in_values(Sound(now, sound.start, ()))
        full += in_values(sound)
        now = sound.end
    return full


def in_values(sound: Sound) -> list[Sound]:
    """Cut a sound at beats into values that a note, perhaps dotted, or of a triplet, can have."""
    if sound.start == sound.end:
        return []
    length = sound.end - sound.start
    clear = length < TICKS_PER_QUARTER or sound.start % (2 * SIXTEENTH) == 0
    beat = (sound.start // TICKS_PER_QUARTER + 1) * TICKS_PER_QUARTER
    crosses = sound.end > beat and sound.start % SIXTEENTH + sound.end % SIXTEENTH > 0
    if (length in VALUES and clear and not crosses) or sound.end <= beat:
        return [sound]
    tied = tuple(Tone(tone.pitch, tone.from_before, True) for tone in sound.tones)
    rest = tuple(Tone(tone.pitch, True, tone.to_next) for tone in sound.tones)
    return [
        *in_values(Sound(sound.start, beat, tied)),
        *in_values(Sound(beat, sound.end, rest)),
    ]


def element(sound: Sound, fifths: int, hidden: bool) -> Any:
    """Return a sound as music21's note, chord or rest, which a second voice doesn't show."""
    from music21 import chord, note, pitch

    length = quarters(sound.end - sound.start)
    if not sound.tones:
        rest = note.Rest(quarterLength=length)
        rest.style.hideObjectOnPrint = hidden
        return rest
    notes = []
    for tone in sound.tones:
        name, octave = spelled(tone.pitch, fifths)
        one = note.Note(pitch.Pitch(name, octave=octave), quarterLength=length)
        one.tie = tie_of(tone)
        notes.append(one)
    return notes[0] if len(notes) == 1 else chord.Chord(notes, quarterLength=length)


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


# Keys -------------------------------------------------------------------------------------------


def fifths_of(piece: Piece) -> int:
    """Return the sharps (above 0) or flats of a piece's estimated key, -5 to 6."""
    tonic, mode = estimate_key(frames_of(piece, 16)[0])
    major = tonic if mode == "major" else tonic + 3
    return (major * 7 + 5) % 12 - 5


def spelled(pitch: int, fifths: int) -> tuple[str, int]:
    """Return a MIDI pitch's name and octave for music21, B- and 3, in a key of so many sharps.

    Of the names of a pitch class, it is the one from 3 fifths below the key's tonic to 8 above.
    """
    place = (pitch * 7 - fifths + 3) % 12 + fifths - 3
    letter, alter = "FCGDAEB"[(place + 1) % 7], (place + 1) // 7
    return f"{letter}{'#' * alter or '-' * -alter}", (pitch - alter) // 12 - 1
