"""Tunes to be harmonised: a note at a time, in a voice's range, in known bars, places and a key."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import Messages, Notes, Part, Piece, notes_of
from lstm_music.midi.repair import merge_tracks, sorted_messages, without_overlaps
from lstm_music.midi.timing import bars_of, end_of
from lstm_music.sampling.craft import OCTAVE
from lstm_music.sampling.excerpts import in_meter

LEGATO = 0.5  # of a note: so much of it at most may sound on into the next one
ENDINGS = (0, 4, 9)  # semitones above C on which tunes in C major or A minor end
FIFTHS = (0, 5, 7)  # keys that a tune's notes hardly tell apart


def tune_of(piece: Piece, part: str) -> tuple[Piece, list[str]]:
    """Return the tune of a piece, one note at a time, and what was left of it, in words.

    It is the track that has the part's name, else the only one, else the highest notes of all.
    """
    names = [player.name.strip().casefold() for player in piece.parts]
    said = []
    if part and part.casefold() in names:
        n = names.index(part.casefold())
        track, loud = piece.tracks[n], piece.velocities[n : n + 1]
    else:
        track = piece.tracks[0] if len(piece.tracks) == 1 else merge_tracks(piece)
        loud = piece.velocities if len(piece.tracks) == 1 else ()
        if len(piece.tracks) > 1:
            said.append(f"the highest notes of its {len(piece.tracks)} tracks are the tune")
    notes = notes_of(track)
    tune, kept = one_at_a_time(notes)
    if len(tune) < len(notes) and not said:
        left = len(notes) - len(tune)
        said.append(f"where several notes sound the highest is the tune: {left} are left out")
    return replace(
        piece, tracks=[sorted_messages(*tune.astype(np.int64).T)], parts=(Part(part),), drums=(),
        velocities=tuple(values[kept] for values in loud),
    ), said  # fmt: skip


def one_at_a_time(notes: Notes) -> tuple[Notes, list[int]]:
    """Return the highest notes (n, 3) of those that sound at once, and which they are.

    A note that sounds on a little into the next one, as played legato, ends where that begins.
    """
    kept: list[list[int]] = []
    which: list[int] = []
    order = np.lexsort((-notes[:, 2], notes[:, 0]))
    for n in order.tolist():
        start, end, pitch = notes[n].tolist()
        while kept and kept[-1][1] > start:
            last = kept[-1]
            overlap = min(last[1], end) - start
            legato = overlap <= LEGATO * min(last[1] - last[0], end - start)
            if last[0] == start or (last[2] >= pitch and not legato):
                break
            last[1] = start
        else:
            kept.append([start, end, pitch])
            which.append(n)
    return np.array(kept, np.int32).reshape(-1, 3), which


def in_range(tune: Piece, low: int, high: int) -> tuple[Piece, int]:
    """Return a tune moved by so many octaves that most of its notes lie in a range, and these."""
    pitches = notes_of(tune.tracks[0])[:, 2]
    middle = (low + high) / 2

    def misfit(octaves: int) -> tuple[int, float]:
        moved = pitches + OCTAVE * octaves
        outside = int(((moved < low) | (moved > high)).sum())
        return outside, abs(float(np.median(moved)) - middle)

    lowest, highest, octaves = int(pitches.min()), int(pitches.max()), 0
    if lowest < low or highest > high:
        there = range(-(lowest // OCTAVE), (127 - highest) // OCTAVE + 1)
        octaves = min(there, key=misfit)
    moved = tune.tracks[0] + np.array([0, 0, OCTAVE * octaves], np.int32)
    return replace(tune, tracks=[moved]), octaves


def sharps_of(tune: Piece, key: int) -> int:
    """Return the signature of a tune that has none. key: of its C, as estimated from its notes.

    A key a fifth away has all but one of the notes; the tune ends on C, E or A of its own. (Of 232
    chorales' sopranos without their signatures the estimate alone finds 163, this 209.)
    """
    last = int(notes_of(tune.tracks[0])[-1, 2])
    fits = [(key + n) % 12 for n in FIFTHS if (last - key - n) % 12 in ENDINGS]
    return (7 * (fits[0] if fits else key) + 5) % 12 - 5


def in_known_bars(piece: Piece, known: Sequence[int]) -> tuple[Piece, int]:
    """Return a piece whose bars all have a known length, and by how many ticks it is later.

    One of which any bar hasn't is of bars as long as its commonest, or the nearest known length; an
    upbeat of unknown length is the end of a whole bar.
    """
    lengths = bars_of(piece.meter, max(end_of(piece) - 1, 0))[1].tolist()
    if not {*lengths} - {*known} or not known:
        return piece, 0
    upbeat = lengths[0] if len(lengths) > 1 and lengths[0] < lengths[1] else 0
    usual = Counter(lengths[upbeat > 0 :]).most_common(1)[0][0]
    bar = min(known, key=lambda length: (abs(length - usual), length))
    if upbeat in known or not upbeat:
        return in_meter(piece, bar), 0
    later = bar - upbeat % bar
    tracks = [track + np.array([later, 0, 0], np.int32) for track in piece.tracks]
    moved = replace(piece, tracks=tracks, phrases=piece.phrases + np.int32(later))
    return replace(moved, meter=np.array([[0, bar]], np.int32)), later


def at_known_places(piece: Piece, known: Sequence[int]) -> tuple[Piece, Array]:
    """Return a piece whose notes begin and end at known places of its bars, and how it was played.

    That is where it has notes that begin, and its end, then where these were (n, 2), both
    ascending; none of a piece that was there. No note is shorter than to the next place. Of notes
    that fall together the longest is left, with those that began as it did: graces are dropped.
    """
    starts, lengths = bars_of(piece.meter, end_of(piece))
    points = np.add.outer(starts, np.array(known, np.int64))
    points = np.append(points[points < (starts + lengths)[:, None]], starts[-1] + lengths[-1])
    moved = [placed(notes_of(track).astype(np.int64), points) for track in piece.tracks]
    if all(not (new[:, :2] - old[:, :2]).any() for new, old in moved):
        return piece, np.zeros((0, 2), np.int64)
    times = np.concatenate([np.column_stack([new[:, 0], old[:, 0]]) for new, old in moved])
    times = times[np.lexsort((times[:, 1], times[:, 0]))]
    times = times[np.unique(times[:, 0], return_index=True)[1]]
    end = max(int(new[:, 1].max()) for new, _ in moved), end_of(piece)
    tracks: list[Messages] = [
        sorted_messages(*without_overlaps(new.astype(np.int32))) for new, _ in moved
    ]
    phrases = np.unique(nearest_of(piece.phrases.astype(np.int64), points)).astype(np.int32)
    heard = replace(piece, tracks=tracks, velocities=(), phrases=phrases)
    return heard, np.concatenate([times, [end]])


def placed(notes: Notes, points: Array) -> tuple[Notes, Notes]:
    """Return notes (n, 3) at the nearest of some points, ascending, and these notes as they were.

    See at_known_places.
    """
    begin = np.minimum(nearest_of(notes[:, 0], points), points[-2])
    after = points[np.searchsorted(points, begin, "right")]
    new = np.column_stack([begin, np.maximum(nearest_of(notes[:, 1], points), after), notes[:, 2]])
    order = np.lexsort((notes[:, 0] - notes[:, 1], begin))
    first = order[np.unique(begin[order], return_index=True)[1]]  # the longest at each point
    kept = notes[first[np.searchsorted(begin[first], begin)], 0] == notes[:, 0]
    return new[kept], notes[kept]


def nearest_of(ticks: Array, points: Array) -> Array:
    """Return the point nearest to each tick (n,), of two the earlier."""
    nearest: Array = points[np.searchsorted((points[1:] + points[:-1]) / 2, ticks)]
    return nearest


def as_played(track: Messages, times: Array) -> Messages:
    """Return a track of known places in the time of what was played; see at_known_places."""
    notes = notes_of(track).astype(np.int64)
    start, end = np.maximum(in_time_of(notes[:, :2], times), 0).T
    played = np.column_stack([start, np.maximum(end, start + 1), notes[:, 2]])
    return sorted_messages(*without_overlaps(played.astype(np.int32))) if len(times) else track


def in_time_of(ticks: Array, times: Array) -> Array:
    """Return when what stands at known places was played, between beginnings in proportion."""
    if not len(times):
        return ticks
    heard, played = times.T
    early = np.minimum(ticks - heard[0], 0)  # before the first: as much earlier
    when: Array = np.rint(np.interp(ticks, heard, played)).astype(np.int64) + early
    return when
