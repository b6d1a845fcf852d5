"""The craft of part writing, counted as music is drawn: the faults that a voice's next note makes.

As evaluation/music/voices.py counts them afterwards, where all voices sound: a note's faults are
those with the voices above it, and what a voice that holds its note has with others is counted once
all words of a place are there. sampling/compiled_particles.py compiles these functions as they are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstm_music.sampling.rules import KEY, NOTE_OFF, NOTE_ON, Rules
from lstm_music.tokenizers.messages import PITCHES
from lstm_music.tokenizers.parts import Player

OCTAVE, FIFTH, TRITONE, STEP = 12, 7, 6, 2  # semitones; larger than a step is a leap
DISSONANCES = (1, 2, 10, 11)  # seconds and sevenths
VOICES = ("soprano", "alto", "tenor", "bass")
RANGES = ((60, 81), (55, 74), (48, 69), (40, 64))  # C4-A5, G3-D5, C3-A4, E2-E4
REST = NONE = -1  # in place of a pitch, and of a voice


class Voices(NamedTuple):
    """The four voices of pieces: by part, the voice or -1 (parts,); what sounds in them.

    before (R, 4): pitches in the last chord, now (R, 4): in this one, begun (R, 4): whether the
    voice's note began here. above (R,): semitones by which they sound above what is written. Arrays
    where compiled code reads them, lists where Python does.
    """

    of_part: Any
    before: Any
    now: Any
    begun: Any
    above: Any


def new_voices(of_part: Sequence[int], R: int) -> Voices:
    """Return the voices of so many pieces before their first word."""
    before, now, begun = (np.full((R, len(VOICES)), n, np.int64) for n in (REST, REST, 0))
    return Voices(np.array(of_part, np.int64), before, now, begun, np.zeros(R, np.int64))


def voices_of(roster: Sequence[Player]) -> list[int]:
    """Return the voice of each part, -1 of one that is no voice: none is one where the roster
    has not all four, by their names.
    """
    names = [player.name.strip().lower() for player in roster]
    if any(names.count(voice) != 1 for voice in VOICES):
        return [NONE] * len(roster)
    return [VOICES.index(name) if name in VOICES else NONE for name in names]


def sings(roster: Sequence[Player]) -> bool:
    """Return whether the four voices are in a roster."""
    return any(voice != NONE for voice in voices_of(roster))


def direction(before: int, after: int) -> int:
    """Return 1 of a voice that rises, -1 of one that falls, else 0."""
    return int(after > before) - int(after < before)


def interval_faults(a0: int, a1: int, b0: int, b1: int, outer: bool) -> int:
    """Return the parallel and hidden fifths and octaves of two voices that move: a above b."""
    motion = direction(a0, a1)
    if a0 < 0 or b0 < 0 or motion == 0 or motion != direction(b0, b1):
        return 0
    was, now = abs(a0 - b0) % OCTAVE, abs(a1 - b1) % OCTAVE
    if now not in (0, FIFTH):
        return 0
    return int(was == now or (outer and abs(a1 - a0) > STEP))


def dissonance_fault(a0: int, a1: int, b0: int, b1: int) -> int:
    """Return whether two voices leave a second or seventh, and neither by a step.

    voices.py waits until both have moved; here the first that leaps counts, which is told at once.
    """
    if a0 < 0 or b0 < 0 or abs(a0 - b0) % OCTAVE not in DISSONANCES:
        return 0
    steps = 0 < abs(a1 - a0) <= STEP or 0 < abs(b1 - b0) <= STEP
    return int((a0 != a1 or b0 != b1) and not steps)


def neighbour_faults(a0: int, a1: int, b0: int, b1: int, inner: bool) -> int:
    """Return whether neighbours cross, overlap, or stand too far apart: a above b."""
    if a1 < b1:
        return 1
    overlap = 0 <= b0 <= a0 and (b1 > a0 or a1 < b0)
    return int(overlap) + int(inner and a1 - b1 > OCTAVE)


def note_faults(voices: Voices, r: int, voice: int, pitch: int) -> int:
    """Return the faults that a voice's note at a pitch has with the voices above it."""
    last, faults, before = len(VOICES) - 1, 0, voices.before[r][voice]
    for a in range(voice):
        was, now = voices.before[r][a], voices.now[r][a]
        if now < 0:
            continue
        faults += interval_faults(was, now, before, pitch, a == 0 and voice == last)
        faults += dissonance_fault(was, now, before, pitch)
        if a == voice - 1:
            faults += neighbour_faults(was, now, before, pitch, voice < last)
    return faults


def out_of_range(voice: int, pitch: int) -> bool:
    """Return whether a pitch, as it sounds, is outside a voice's range."""
    return not RANGES[voice][0] <= pitch <= RANGES[voice][1]


def begin_note(voices: Voices, r: int, voice: int, pitch: int) -> None:
    """Begin a voice's note."""
    voices.now[r][voice] = pitch
    voices.begun[r][voice] = 1


def is_chord(voices: Voices, r: int) -> bool:
    """Return whether a voice's note began here."""
    begun = 0
    for voice in range(len(VOICES)):
        begun += voices.begun[r][voice]
    return begun > 0


def held_faults(voices: Voices, r: int) -> int:
    """Return the faults that voices which hold their notes have in this chord, if it is one."""
    faults = 0
    if is_chord(voices, r):
        for voice in range(1, len(VOICES)):
            if not voices.begun[r][voice] and voices.now[r][voice] >= 0:
                faults += note_faults(voices, r, voice, voices.now[r][voice])
    return faults


def next_place(voices: Voices, r: int) -> None:
    """Go on from a place, whose chord is the last one from now on."""
    if is_chord(voices, r):
        for voice in range(len(VOICES)):
            voices.before[r][voice] = voices.now[r][voice]
            voices.begun[r][voice] = 0


# Words ------------------------------------------------------------------------------------------


def faults_of(kind: int, number: int, voices: Voices, r: int) -> int:
    """Return the faults that piece r has with a next word: as it leaves a place, those held."""
    if kind in (NOTE_OFF, KEY):
        return 0
    if kind > NOTE_ON:
        return held_faults(voices, r)
    voice = voices.of_part[number // PITCHES]
    if voice < 0:
        return 0
    pitch = number % PITCHES + voices.above[r]
    return note_faults(voices, r, voice, pitch) + out_of_range(voice, pitch)


def sing(rules: Rules, voices: Voices, r: int, id: int) -> None:
    """Have the voices of piece r take a word; the start symbol begins another piece."""
    kind, number = rules.kinds[id], rules.numbers[id]
    if id == rules.start:
        for voice in range(len(VOICES)):
            voices.before[r][voice] = voices.now[r][voice] = REST
            voices.begun[r][voice] = 0
    elif kind == KEY:
        voices.above[r] = (number + TRITONE) % OCTAVE - TRITONE  # as events.sounding_above
    elif kind > NOTE_ON:
        next_place(voices, r)
    else:
        voice = voices.of_part[number // PITCHES]
        if voice >= 0 and kind == NOTE_OFF:
            voices.now[r][voice] = REST
        elif voice >= 0:
            begin_note(voices, r, voice, number % PITCHES + voices.above[r])
