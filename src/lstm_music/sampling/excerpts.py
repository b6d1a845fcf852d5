"""Parts of a piece from a bar line on: without silence, as many bars as fit, what is new in it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import TICK, Messages, Part, Piece, notes_of
from lstm_music.midi.repair import sorted_messages
from lstm_music.midi.timing import bars_of, end_of

Key = tuple[Hashable, int, int]  # a note: who plays it, its start, its pitch


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


def players_in(piece: Piece) -> list[Hashable]:
    """Return who plays each track, the same in any piece of a model: by part, else by number."""
    counts: Counter[Part] = Counter(piece.parts)
    players: list[Hashable] = []
    for n in range(len(piece.tracks)):
        part = piece.parts[n] if piece.parts else Part()
        counts[part] -= 1
        players.append((part, counts[part]) if piece.parts else n)
    return players


def keys_of(piece: Piece) -> list[Key]:
    """Return the notes of a piece, track by track."""
    tracks = zip(players_in(piece), map(notes_of, piece.tracks), strict=True)
    return [
        (player, start, pitch) for player, track in tracks for start, _, pitch in track.tolist()
    ]


def without(piece: Piece, left_out: set[Key]) -> Piece:
    """Return a piece without some of its notes; tracks may be left empty."""
    tracks, loud = [], []
    for n, (player, track) in enumerate(zip(players_in(piece), piece.tracks, strict=True)):
        notes = notes_of(track).astype(np.int64)
        kept = [(player, start, pitch) not in left_out for start, _, pitch in notes.tolist()]
        tracks.append(sorted_messages(*notes[kept].T))
        loud += [piece.velocities[n][kept]] if piece.velocities else []
    return replace(piece, tracks=tracks, velocities=tuple(loud))


def joined(piece: Piece, end: int, other: Piece) -> Piece:
    """Return a piece that ends at a tick, and from its next bar line on another, part by part."""
    line = line_of(piece, max(end, end_of(piece)))
    places = {player: n for n, player in enumerate(players_in(piece))}
    tracks, loud, added = [*piece.tracks], [*piece.velocities], []
    for n, (player, track) in enumerate(zip(players_in(other), other.tracks, strict=True)):
        at, moved = places.get(player, len(tracks)), track + np.array([line, 0, 0], np.int32)
        tracks[at : at + 1] = [np.concatenate([*tracks[at : at + 1], moved])]
        if other.velocities:
            loud[at : at + 1] = [np.concatenate([*loud[at : at + 1], other.velocities[n]])]
        added += [n] if player not in places else []
    meter = other.meter[piece.meter[-1:, 1].tolist() == other.meter[:1, 1].tolist() :]
    meter = np.concatenate([piece.meter, meter + np.array([line, 0], np.int32)])
    drums = [*(piece.drums or (False,) * len(piece.tracks))]
    drums += [bool(other.drums) and other.drums[n] for n in added]
    return replace(
        piece,
        tracks=tracks,
        velocities=tuple(loud),
        meter=meter,
        phrases=np.unique(np.concatenate([piece.phrases, other.phrases + np.int32(line)])),
        drums=tuple(drums) if any(drums) else (),
        parts=piece.parts + tuple(other.parts[n] for n in added if other.parts),
    )
