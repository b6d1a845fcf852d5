"""A piece put on a grid of the whole note, and what that moves."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lstm_music.midi.bytes import Meter
from lstm_music.midi.piece import LAST_TICK, WHOLE_NOTE, Piece, Velocities, notes_of
from lstm_music.midi.repair import sorted_messages, without_overlaps
from lstm_music.midi.roll import ticks_per_step

Ticks: TypeAlias = npt.NDArray[np.int64]
Grid: TypeAlias = int | str
"""Steps a whole note, divisors of 1920: 16, or "16,24" where a point of either is one."""


@dataclass
class Moved:
    """What putting pieces on a grid came to.

    notes: how many; ticks: by how much all their beginnings moved together; furthest: the most of
    one; lengthened: notes that would have ended as they began; joined: notes that fell together
    with another of their pitch where one is left, in a track or of all.
    """

    notes: int = 0
    ticks: int = 0
    furthest: int = 0
    lengthened: int = 0
    joined: int = 0


def grids_of(grid: Grid) -> tuple[int, ...]:
    """Return the steps a whole note of each grid. Raises ValueError for what is none."""
    numbers = [int(n) if n.removeprefix("-").isdecimal() else 0 for n in str(grid).split(",")]
    for number in numbers:
        ticks_per_step(number)
    return tuple(numbers)


def points_of(grid: Grid) -> Ticks:
    """Return the points of a grid in a whole note (n,), ascending, its end included."""
    steps = [np.arange(0, WHOLE_NOTE + 1, ticks_per_step(number)) for number in grids_of(grid)]
    return np.unique(np.concatenate(steps))


def on_grid(piece: Piece, grid: Grid, moved: Moved | None = None) -> Piece:
    """Return a piece whose notes, bars and phrases begin and end at the nearest points of a grid.

    No note is shorter than to the next point. Of two points as near it is the earlier. Of notes of
    a pitch that begin at once then one is left, as long and as loud as any. moved: is added to, but
    for what is joined: who has laid out tracks counts that.
    """
    points, moved = points_of(grid), Moved() if moved is None else moved
    tracks, velocities = [], []
    for number, track in enumerate(piece.tracks):
        notes = notes_of(track).astype(np.int64)
        begin = np.minimum(nearest(notes[:, 0], points), LAST_TICK - WHOLE_NOTE + points[-2])
        end, next_point = nearest(notes[:, 1], points), following(begin, points)
        placed = np.column_stack([begin, np.maximum(end, next_point), notes[:, 2]])
        tracks.append(sorted_messages(*without_overlaps(placed.astype(np.int32))))
        velocities.append(loudest(placed, piece.velocities[number] if piece.velocities else None))
        by = np.abs(begin - notes[:, 0])
        moved.notes += len(notes)
        moved.ticks += int(by.sum())
        moved.furthest = max(moved.furthest, int(by.max()))
        moved.lengthened += int(np.count_nonzero(end <= begin))
    return replace(
        piece,
        tracks=tracks,
        velocities=tuple(velocities) if piece.velocities else (),
        meter=meter_on(piece.meter, points),
        phrases=np.unique(nearest(piece.phrases.astype(np.int64), points)).astype(np.int32),
    )


def nearest(ticks: Ticks, points: Ticks) -> Ticks:
    """Return the point nearest to each tick (n,)."""
    within = ticks % WHOLE_NOTE
    between = (points[1:] + points[:-1]) / 2
    return ticks - within + points[np.searchsorted(between, within)]


def following(ticks: Ticks, points: Ticks) -> Ticks:
    """Return the first point after each tick (n,)."""
    within = ticks % WHOLE_NOTE
    return ticks - within + points[np.searchsorted(points, within, side="right")]


def loudest(notes: Ticks, velocities: Velocities | None) -> Velocities:
    """Return the highest velocity of the notes (n, 3) at each start and pitch, by these."""
    keys = notes[:, 0] * 128 + notes[:, 2]
    kinds, which = np.unique(keys, return_inverse=True)
    found: Velocities = np.zeros(len(kinds), np.int32)
    if velocities is not None:
        np.maximum.at(found, which, velocities)
    return found


def meter_on(meter: Meter, points: Ticks) -> Meter:
    """Return a meter whose changes lie on points; of several on one the last counts."""
    places = nearest(meter[:, 0].astype(np.int64), points)
    last = np.append(places[1:] != places[:-1], True)[: len(places)]
    kept: Meter = np.column_stack([places, meter[:, 1]])[last].astype(np.int32)
    return kept
