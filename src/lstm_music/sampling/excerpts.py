"""Parts of a piece from a bar line on: without silence, as many bars as fit, what is new in it."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import TICK, Messages, Piece, notes_of
from lstm_music.midi.repair import sorted_messages
from lstm_music.midi.timing import end_of
from lstm_music.tokenizers.events import bars_of

Key = tuple[int, int, int]  # a note: the number of its track, its start, its pitch


def since(piece: Piece, begin: int) -> Piece:
    """Return a piece from a bar line on, at a tick; what sounds over it begins there."""
    kept = [part_since(track, begin) for track in piece.tracks]
    left = [n for n, (track, _) in enumerate(kept) if len(track)]
    length = int(bars_of(piece.meter, begin)[1][-1])
    later = piece.meter[piece.meter[:, 0] > begin] - np.array([begin, 0], np.int32)
    at = max(int(np.searchsorted(piece.tempo[:, 0], begin, "right")) - 1, 0)
    tempo = np.maximum(piece.tempo[at:] - np.array([begin, 0], np.int32), 0)
    return replace(
        piece,
        tracks=[kept[n][0] for n in left],
        meter=np.concatenate([np.array([[0, length]], np.int32), later]),
        drums=tuple(piece.drums[n] for n in left if piece.drums),
        parts=tuple(piece.parts[n] for n in left if piece.parts),
        velocities=tuple(piece.velocities[n][kept[n][1]] for n in left if piece.velocities),
        tempo=tempo,
        phrases=piece.phrases[piece.phrases > begin] - np.int32(begin),
    )


def part_since(track: Messages, begin: int) -> tuple[Messages, Array]:
    """Return a track from a tick on, and which of its notes are left, in their order there."""
    notes = notes_of(track)
    kept = np.flatnonzero((notes[:, 0] >= begin) | (notes[:, 1] > begin))
    if len(kept) == len(notes) and (notes[:, 0] >= begin).all():
        return track - np.array([begin, 0, 0], np.int32), kept
    start = np.maximum(notes[kept, 0], begin) - begin
    end, pitch = notes[kept, 1] - begin, notes[kept, 2]
    messages = sorted_messages(*(a.astype(np.int64) for a in (start, end, pitch)))
    return messages, kept[np.lexsort((pitch, start))]


def without_silence(piece: Piece) -> tuple[Piece, int]:
    """Return a piece from the bar of its first note on, and how many bars were before that."""
    first = min((int(track[0, TICK]) for track in piece.tracks), default=0)
    starts = bars_of(piece.meter, first)[0]
    if len(starts) == 1:
        return piece, 0
    return since(piece, int(starts[-1])), len(starts) - 1


def last_bars(piece: Piece, most: int, size: Callable[[Piece], int]) -> Piece:
    """Return a piece's last bars, as many as have a size of at most so much, but one at least.

    A bar in which nothing begins or sounds isn't the first of them.
    """
    starts = bars_of(piece.meter, max(end_of(piece) - 1, 0))[0].tolist()[::-1]

    def is_too_long(begin: int) -> bool:
        return size(since(piece, begin)) > most

    more = 1  # a long piece is not to be measured as a whole
    while more < len(starts) and not is_too_long(starts[more]):
        more *= 2
    among = starts[more // 2 : more + 1]
    begin = among[max(bisect_left(among, True, key=is_too_long) - 1, 0)]
    return without_silence(since(piece, begin) if begin else piece)[0]


def in_meter(piece: Piece, bar: int) -> Piece:
    """Return a piece in bars of so many ticks; a first bar that is shorter stays an upbeat."""
    upbeat = int(piece.meter[1, 0]) if len(piece.meter) > 1 and not piece.meter[0, 0] else 0
    rows = [[0, upbeat], [upbeat, bar]] if 0 < upbeat < bar else [[0, bar]]
    return replace(piece, meter=np.array(rows, np.int32))


def line_of(piece: Piece, tick: int) -> int:
    """Return the first bar line of a piece at or after a tick."""
    starts, lengths = bars_of(piece.meter, tick)
    return int(starts[-1] if starts[-1] == tick else starts[-1] + lengths[-1])


def keys_of(piece: Piece) -> list[Key]:
    """Return the notes of a piece, track by track."""
    notes = (
        (n, *note) for n, track in enumerate(piece.tracks) for note in notes_of(track).tolist()
    )
    return [(n, start, pitch) for n, start, _, pitch in notes]


def without(piece: Piece, left_out: set[Key]) -> Piece:
    """Return a piece of plain tracks without some of its notes; tracks may be left empty."""
    tracks = []
    for n, track in enumerate(piece.tracks):
        notes = notes_of(track).astype(np.int64)
        kept = [(n, start, pitch) not in left_out for start, _, pitch in notes.tolist()]
        tracks.append(sorted_messages(*notes[kept].T))
    return replace(piece, tracks=tracks)


def joined(piece: Piece, end: int, other: Piece) -> Piece:
    """Return a piece that ends at a tick, and from its next bar line on another, track by track."""
    line = line_of(piece, max(end, end_of(piece)))
    tracks = [*piece.tracks]
    for n, track in enumerate(other.tracks):
        moved = track + np.array([line, 0, 0], np.int32)
        tracks[n : n + 1] = [np.concatenate([*tracks[n : n + 1], moved])]
    meter = other.meter[piece.meter[-1:, 1].tolist() == other.meter[:1, 1].tolist() :]
    meter = np.concatenate([piece.meter, meter + np.array([line, 0], np.int32)])
    phrases = np.concatenate([piece.phrases, other.phrases + np.int32(line)])
    drums = piece.drums + other.drums[len(piece.tracks) :]
    phrases = np.unique(phrases)
    return replace(piece, tracks=tracks, meter=meter, phrases=phrases, drums=drums)
