"""Piece -> what stands on its staves: bars, voices, values that notes can have, clefs, spelling."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE, Notes, Piece, no_meter
from lstm_music.midi.repair import without_overlaps
from lstm_music.midi.roll import estimate_key, frames_of
from lstm_music.midi.timing import bars_of, signature_of

SIXTEENTH, TRIPLET = TICKS_PER_QUARTER // 4, TICKS_PER_QUARTER // 3
VALUES = {SIXTEENTH * n for n in (1, 2, 3, 4, 6, 8, 12, 16)} | {TRIPLET, 2 * TRIPLET}
MIDDLE_C = 60
ONE_HAND = 0.1  # share of notes on the other side of middle C that needs a staff of its own
ONE_STAFF = 24  # semitones that fit on one
CLEFS = (  # of a staff by its median pitch, from so high; Treble8vb is the tenors'
    (85, "Treble8vaClef"), (60, "TrebleClef"), (55, "Treble8vbClef"), (36, "BassClef"),
    (0, "Bass8vbClef"),
)  # fmt: skip
DRUMS_CLEF = "PercussionClef"
Ticks: TypeAlias = npt.NDArray[np.int64]


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


def bars_of_piece(piece: Piece, end: int) -> list[Bar]:
    """Return a piece's bars up to a tick, as its meter says; of 4/4 where it can't be written.

    A bar of another length than those beside it gets no signature: it is a pickup, or what a
    repeated phrase leaves for one; but a longer one, which would hold too much, does. A first bar
    that is shorter than the second has number 0.
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
        changes = n == 0 or length > shown or (length != shown and stays)
        shown = length if length > shown or (n and changes) else shown
        signature = "/".join(map(str, signature_of(shown, piece.beats))) if changes else ""
        bars.append(Bar(first, length, n + 1 - pickup, signature, shown))
    return bars


def steps_of(tracks: Sequence[Notes]) -> Ticks:
    """Return the step of each beat (n,): sixteenths or, where they are nearer, triplets."""
    ticks = np.concatenate([track[:, :2].ravel() for track in tracks])
    beats = ticks // TICKS_PER_QUARTER
    off = {step: np.abs(ticks - nearest(ticks, step)) for step in (SIXTEENTH, TRIPLET)}
    sums = {step: np.bincount(beats, miss) for step, miss in off.items()}
    return np.where(sums[TRIPLET] < sums[SIXTEENTH], TRIPLET, SIXTEENTH)


def on_steps(ticks: Any, steps: Ticks) -> tuple[Any, Any]:
    """Return ticks, up to the last beat's, on the steps of their beats, and those steps."""
    step = steps[np.minimum(ticks // TICKS_PER_QUARTER, len(steps) - 1)]
    return nearest(ticks, step), step


def quantised(notes: Notes, steps: Ticks) -> Notes:
    """Return a track's notes (n, 3), which begin and end on the steps of all its beats.

    No note is shorter than a step; of notes of a pitch, none sounds when the next one begins.
    """
    snapped = notes.astype(np.int64)
    snapped[:, :2], step = on_steps(notes[:, :2], steps)
    snapped[:, 1] = np.maximum(snapped[:, 1], snapped[:, 0] + step[:, 0])
    start, end, pitch = without_overlaps(snapped.astype(np.int32))
    return np.stack([start, end, pitch], axis=1).astype(np.int32)


def nearest(ticks: Any, step: Any) -> Any:
    """Return the multiples of step nearest to ticks."""
    return (2 * ticks + step) // (2 * step) * step


def staves_of(notes: Notes, plays_chords: bool = True) -> list[Staff]:
    """Return a staff for a track's notes, or two where they are far apart around middle C.

    plays_chords: whether they are of one who can play on two.
    """
    pitches = notes[:, 2]
    above = pitches >= MIDDLE_C
    wide = np.ptp(pitches) > ONE_STAFF and ONE_HAND < above.mean() < 1 - ONE_HAND
    if wide and plays_chords:
        return [Staff(notes[above], "TrebleClef"), Staff(notes[~above], "BassClef")]
    middle = float(np.median(pitches))
    return [Staff(notes, next(clef for lowest, clef in CLEFS if middle >= lowest))]


def are_chords(notes: Notes) -> bool:
    """Return whether notes (n, 3) often begin while others sound."""
    by_start = notes[np.argsort(notes[:, 0], kind="stable")]
    meets = by_start[1:, 0] < np.maximum.accumulate(by_start[:-1, 1])
    return bool(meets.sum() > ONE_HAND * len(notes))


def drum_staff(notes: Notes, bars: Sequence[Bar]) -> Staff:
    """Return a staff for the drums of bars: a hit lasts to the next of any, or its beat's end."""
    beats = np.arange(0, notes[:, 1].max() + 2 * TICKS_PER_QUARTER, TICKS_PER_QUARTER)
    cuts = np.unique(np.concatenate([notes[:, 0], beats, [bar.first for bar in bars]]))
    lasting = notes[notes[:, 0] < bars[-1].first + bars[-1].ticks]
    lasting[:, 1] = cuts[np.searchsorted(cuts, lasting[:, 0], side="right")]
    return Staff(lasting[np.lexsort((lasting[:, 2], lasting[:, 0]))], DRUMS_CLEF)


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


# Keys -------------------------------------------------------------------------------------------


def fifths_of(piece: Piece) -> int:
    """Return the sharps (above 0) or flats of a piece's key: what it says, else an estimate."""
    if piece.sharps is not None:
        return piece.sharps
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
