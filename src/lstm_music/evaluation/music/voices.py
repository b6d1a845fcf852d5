"""The craft of four-part writing: what textbooks forbid, counted from chord to chord.

A chord is a point at which any of four voices begins a note and all of them sound; two chords
follow each other where no other note of a voice begins between them. Counts are of semitones: a
diminished fifth is none of 7. Of the faults (what harmony books call them, as in Robert Frank's
"Theory on the Web", Part Writing, 2000):

- fifths, octaves: two voices move in the same direction, 7 (or 0) semitones apart, octaves left
  out, before and after. So repeated notes make none, nor does contrary motion, fifth to twelfth.
- hidden: soprano and bass move in the same direction into a fifth or octave from another interval,
  the soprano by more than a whole tone.
- crossed: neighbouring voices of which the lower sounds above the other, each chord anew.
- overlaps: neighbours that aren't crossed, of which one moves past where the other just was.
- range: notes that begin outside RANGES, as a choir's glossary has them
  (domisol.app/glossary/satb), the alto's up to D5, as for part writing (fiveable.me, Four-part
  writing basics). Alone of all it changes where music is transposed.
- spacing: soprano and alto, or alto and tenor, more than an octave apart, each chord anew.
- leading: two voices sound the leading note, one of them beginning it, in a chord of no other
  pitch classes than V7 has (so of V and vii°). The key is the piece's, as `roll.key_of` tells it:
  where music is in another for a while, that one's leading note isn't looked for.
- unresolved: two voices begin to sound a second or seventh, octaves left out, and neither leaves
  its note by a step, whenever it does. A voice that goes to a rest doesn't step; where none goes
  to a note, as at the end, nothing is known. Which of the two dissonates isn't asked, nor whether
  the step is down.

"The leading tone is NEVER to be doubled" (jeanwjoseph.com, Dominant 7ths and chorale
harmonization), "all chordal sevenths should resolve by a descending step" (fiveable.me, Voice
leading with seventh chords); suspensions do, and passing notes and neighbours leave by step too.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lstm_music.evaluation.music.judgement import mean_interval, without_nan
from lstm_music.evaluation.music.nearness import Interval
from lstm_music.midi.bytes import Phrases
from lstm_music.midi.piece import Notes, Piece, notes_of
from lstm_music.midi.repair import merge_tracks
from lstm_music.midi.roll import key_of
from lstm_music.sampling.craft import DISSONANCES, FIFTH, OCTAVE, RANGES, STEP, VOICES

FAULTS = (
    "fifths", "octaves", "hidden", "crossed", "overlaps", "range", "spacing", "leading",
    "unresolved",
)  # fmt: skip
NAME, TRACK, PITCH = WAYS = ("name", "track", "pitch")
LEADING, DOMINANT = 11, (2, 5, 7, 11)  # semitones above the tonic
TRIADS = ((3, 7), (4, 7))  # the third and fifth, above the root

Ints = npt.NDArray[np.int64]


class Chords(NamedTuple):
    """All points at which a voice begins a note: ticks (n,), ascending; pitches (n, 4).

    pitches: of soprano, alto, tenor, bass, -1 of one that is silent; begins (n, 4): whether the
    voice's note begins here; tonic: of the piece's key, 0 (C) to 11.
    """

    ticks: Ints
    pitches: Ints
    begins: npt.NDArray[np.bool_]
    tonic: int

    @property
    def full(self) -> npt.NDArray[np.bool_]:
        """Which points are chords, (n,): all voices sound."""
        sound: npt.NDArray[np.bool_] = self.pitches.min(axis=1) >= 0
        return sound


class Craft(NamedTuple):
    """How well a set of pieces is written.

    pieces: by how their voices were told, of WAYS; chords, phrases: how many; faults: by name of
    FAULTS, per 100 chords; rooted: the share of phrases that end on a triad in root position.
    Intervals are a bootstrap's, over pieces; NaN of what can't be known.
    """

    name: str
    pieces: dict[str, int]
    chords: int
    phrases: int
    faults: dict[str, Interval]
    rooted: Interval


# Voices -----------------------------------------------------------------------------------------


def way_of(piece: Piece) -> str:
    """Return how a piece's voices are told: by their names, its four tracks, or by pitch."""
    names = Counter(part.name.strip().lower() for part in piece.parts)
    if all(names[voice] == 1 for voice in VOICES):
        return NAME
    return TRACK if len(piece.tracks) == len(VOICES) and not any(piece.drums) else PITCH


def chorales(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces whose voices have tracks, or all where none's have."""
    return [piece for piece in pieces if way_of(piece) != PITCH] or [*pieces]


def chords_of(piece: Piece, by_pitch: bool = False) -> Chords:
    """Return the chords of a piece's voices, told as way_of says, or by pitch alone."""
    way = PITCH if by_pitch else way_of(piece)
    tonic = key_of(piece).tonic
    if way == PITCH:
        return by_pitch_alone(notes_of(merge_tracks(piece)), tonic)
    tracks = piece.tracks
    if way == NAME:
        names = [part.name.strip().lower() for part in piece.parts]
        tracks = [tracks[names.index(voice)] for voice in VOICES]
    voices = [notes_of(track) for track in tracks]
    return by_voice([notes[notes[:, 0] < notes[:, 1]] for notes in voices], tonic)


def by_voice(voices: Sequence[Notes], tonic: int) -> Chords:
    """Return the chords of four voices; of several notes of one the last begun counts."""
    ticks = np.unique(np.concatenate([notes[:, 0] for notes in voices])).astype(np.int64)
    pitches = np.full((len(ticks), len(voices)), -1, np.int64)
    begins = np.zeros(pitches.shape, np.bool_)
    for voice, notes in enumerate(voices):
        # Of several notes the last row stays.
        rows, points = sounding(notes, ticks)
        pitches[points, voice] = notes[rows, 2]
        begins[np.searchsorted(ticks, notes[:, 0]), voice] = True
    return Chords(ticks, pitches, begins, tonic)


def by_pitch_alone(notes: Notes, tonic: int) -> Chords:
    """Return the chords of merged notes (n, 3): where just four sound, the highest is soprano's.

    So a unison of two voices is no chord, and voices never cross.
    """
    ticks = np.unique(notes[:, 0]).astype(np.int64)
    rows, points = sounding(notes, ticks)
    pitches = np.full((len(ticks), len(VOICES)), -1, np.int64)
    begins = np.zeros(pitches.shape, np.bool_)
    four = np.bincount(points, minlength=len(ticks)) == len(VOICES)
    rows, points = rows[four[points]], points[four[points]]
    rows = rows[np.lexsort((-notes[rows, 2], points))].reshape(-1, len(VOICES))
    pitches[four], begins[four] = notes[rows, 2], notes[rows, 0] == ticks[four, None]
    return Chords(ticks, pitches, begins, tonic)


def sounding(notes: Notes, ticks: Ints) -> tuple[Ints, Ints]:
    """Return which notes sound at which of the ticks: their rows and the ticks', in pairs (m,)."""
    first, after = (np.searchsorted(ticks, notes[:, column]) for column in (0, 1))
    spans = after - first
    rows = np.repeat(np.arange(len(notes)), spans)
    points = np.arange(len(rows)) - np.repeat(np.cumsum(spans) - spans - first, spans)
    return rows, points


# What is counted --------------------------------------------------------------------------------


def faults_of(chords: Chords) -> dict[str, int]:
    """Return how often each of FAULTS is in a piece."""
    full, pitches = chords.full, chords.pitches
    together = full[:-1] & full[1:]
    before, after = pitches[:-1][together], pitches[1:][together]
    low, high = np.array(RANGES).T
    wrong = chords.begins & ((pitches < low) | (pitches > high))
    found = Counter(overlaps=overlaps(before, after), range=int(wrong[full].sum()))
    found.update(leading=doubled_leading(chords), unresolved=unresolved(chords))
    found["crossed"] = int((pitches[full, :-1] < pitches[full, 1:]).sum())
    found["spacing"] = int((pitches[full, :2] - pitches[full, 1:3] > OCTAVE).sum())
    moved = np.sign(after - before)
    for a, b in combinations(range(len(VOICES)), 2):
        similar = (moved[:, a] == moved[:, b]) & (moved[:, a] != 0)
        was, now = (np.abs(x[:, a] - x[:, b]) % OCTAVE for x in (before, after))
        found["fifths"] += int((similar & (was == FIFTH) & (now == FIFTH)).sum())
        found["octaves"] += int((similar & (was == 0) & (now == 0)).sum())
        if (a, b) == (0, len(VOICES) - 1):
            leaps = np.abs(after[:, a] - before[:, a]) > STEP
            perfect = (now == FIFTH) | (now == 0)
            found["hidden"] += int((similar & leaps & perfect & (was != now)).sum())
    return {name: found[name] for name in FAULTS}


def overlaps(before: Ints, after: Ints) -> int:
    """Return how often a voice moves past where its neighbour was, from chords to the next (m, 4).

    Where the two are crossed, before or after, they are none.
    """
    crossed = (before[:, :-1] < before[:, 1:]) | (after[:, :-1] < after[:, 1:])
    past = (after[:, 1:] > before[:, :-1]) | (after[:, :-1] < before[:, 1:])
    return int((past & ~crossed).sum())


def doubled_leading(chords: Chords) -> int:
    """Return in how many chords the leading note is doubled, anew, where the dominant sounds."""
    above = (chords.pitches - chords.tonic) % OCTAVE
    leading = above == LEADING
    dominant = chords.full & np.isin(above, DOMINANT).all(axis=1)
    anew = (leading & chords.begins).any(axis=1)
    return int((dominant & anew & (leading.sum(axis=1) > 1)).sum())


def unresolved(chords: Chords) -> int:
    """Return how many seconds and sevenths of two voices are left by no step."""
    pitches, full = chords.pitches, chords.full
    end = len(pitches)
    where = np.where(pitches[1:] != pitches[:-1], np.arange(1, end)[:, None], end)
    where = np.minimum.accumulate(where[::-1], axis=0)[::-1]  # the chord to which each moves next
    to = np.take_along_axis(np.pad(pitches, ((0, 1), (0, 0)), constant_values=-1), where, axis=0)
    moves, steps = to >= 0, (to >= 0) & (np.abs(to - pitches[:-1]) <= STEP)
    count = 0
    for pair in combinations(range(pitches.shape[1]), 2):
        own = pitches[:, pair]
        old = np.append(False, full[:-1] & (own[1:] == own[:-1]).all(axis=1))
        dissonant = full & ~old & np.isin(np.abs(own[:, 0] - own[:, 1]) % OCTAVE, DISSONANCES)
        left = dissonant[:-1] & moves[:, pair].any(axis=1)
        count += int((left & ~steps[:, pair].any(axis=1)).sum())
    return count


def cadences(chords: Chords, phrases: Phrases) -> npt.NDArray[np.bool_]:
    """Return whether each phrase (n,) ends on a triad in root position.

    That is a root in the lowest voice, its major or minor third, and its fifth or none, in the
    last chord that begins before the end. Phrases that end without four voices are left out.
    """
    last = np.searchsorted(chords.ticks, phrases) - 1
    last = last[last >= 0]
    ends = chords.pitches[last][chords.full[last]]
    above = (ends - ends.min(axis=1, keepdims=True)) % OCTAVE
    rooted = np.zeros(len(ends), np.bool_)
    for third, fifth in TRIADS:
        rooted |= np.isin(above, (0, third, fifth)).all(axis=1) & (above == third).any(axis=1)
    return rooted


# Sets of pieces ---------------------------------------------------------------------------------


def craft_of(name: str, pieces: Sequence[Piece], seed: int = 0, by_pitch: bool = False) -> Craft:
    """Return how well pieces are written; by_pitch: as if their voices had no tracks."""
    written = [chords_of(piece, by_pitch) for piece in pieces]
    ways = [PITCH if by_pitch else way_of(piece) for piece in pieces]
    told = np.array([way != PITCH for way in ways], np.bool_)
    chords = np.array([one.full.sum() for one in written], np.float64)
    table = [faults_of(one) for one in written]
    ends = [cadences(one, piece.phrases) for one, piece in zip(written, pieces, strict=True)]
    phrases = np.array([len(some) for some in ends], np.float64)

    def rate(found: Sequence[int], of: npt.NDArray[np.float64], scale: float) -> Interval:
        # A mean weighted by chords is that of all chords; 0 of 0 is unknown, and left out.
        shares = np.divide(found, of, out=np.full(len(of), math.nan), where=of > 0)
        return mean_interval(scale * shares, seed, of)

    faults = {fault: rate([row[fault] for row in table], chords, 100) for fault in FAULTS}
    crossing = rate([row["crossed"] for row in table], chords * told, 100)
    return Craft(
        name,
        {way: ways.count(way) for way in WAYS if way in ways},
        int(chords.sum()),
        int(phrases.sum()),
        faults | {"crossed": crossing},
        rate([int(some.sum()) for some in ends], phrases, 1),
    )


def craft_json(one: Craft) -> dict[str, Any]:
    """Return a set's figures as an object for JSON; what isn't known is null."""
    intervals = {name: found._asdict() for name, found in one.faults.items()}
    made = one._asdict() | {"faults": intervals, "rooted": one.rooted._asdict()}
    cleaned: dict[str, Any] = without_nan(made)
    return cleaned
