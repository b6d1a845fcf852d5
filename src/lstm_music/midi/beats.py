"""Beats found in what was played without a metronome, near a tempo that is expected."""

from dataclasses import replace

import numpy as np

from lstm_music.midi.grid import Grid, nearest, points_of
from lstm_music.midi.piece import KIND, TICK, TICKS_PER_QUARTER, Piece

FURTHEST, STEPS = (
    0.16,
    257,
)  # by how much a tempo is faster or slower, as logarithms; of those tried
TEMPO_DEVIATION = 0.05  # of players from the tempo expected, as a logarithm
DEVIATION = 19.0  # ticks of a note from its place, 25 ms at 96 quarter notes a minute
SURPRISE = 1.0  # nats that an eighth between beats costs, and again what is between these


def in_time(piece: Piece, grid: Grid) -> Piece:
    """Return a piece of one tempo at the likeliest tempo near that, its notes nearest to a grid.

    Notes are as likely as normal deviations from the nearest point, less where it is off the beat,
    and the tempo's deviation is normal, too. All move by the median of what they are off, for the
    first note may be early or late as any other.
    """
    starts, points = piece.notes["start"].astype(np.float64), points_of(grid)
    tried = np.linspace(-FURTHEST, FURTHEST, STEPS)
    ticks = np.exp(tried)[:, None] * starts
    late = np.median(ticks - nearest(np.rint(ticks).astype(np.int64), points), axis=1)
    moved = np.rint(ticks - late[:, None]).astype(np.int64)
    places = nearest(moved, points)
    levels = (places % TICKS_PER_QUARTER != 0) + 1 * (places % (TICKS_PER_QUARTER // 2) != 0)
    costs = ((moved - places) ** 2 / (2 * DEVIATION**2) + SURPRISE * levels).sum(axis=1)
    best = int(np.argmin(costs + tried**2 / (2 * TEMPO_DEVIATION**2)))
    faster = float(np.exp(tried[best]))
    tempo = piece.tempo.copy()
    tempo[:, 1] = np.rint(tempo[:, 1] / faster)
    tracks = []
    for track in piece.tracks:
        own = np.maximum(np.rint(track[:, TICK] * faster - late[best]), 0)
        tracks.append(np.column_stack([own.astype(np.int32), track[:, KIND:]]))
    return replace(piece, tempo=tempo, tracks=tracks)
