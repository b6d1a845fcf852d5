"""Streams of whole pieces, from their starts: what validation reads."""

from collections.abc import Mapping, Sequence

import numpy as np

from lstm_music.corpus.batches import Segment


def openings(lengths: Sequence[int], pieces: Sequence[int], most: int, B: int) -> dict[int, int]:
    """Return how much of which pieces to read, from their starts, to read at most that many ids.

    Pieces come in an order drawn once and for all, so that runs compare. None fills more than a
    B-th of what is read: B streams are then of similar length.
    """
    share, left = max(1, most // B), most
    chosen: dict[int, int] = {}
    for piece in np.random.default_rng(0).permutation(np.asarray(pieces)).tolist():
        n = min(lengths[piece], share, left)
        if n > 0:
            chosen[piece] = n
        left -= n
    return chosen


def whole_streams(
    lengths: Sequence[int] | Mapping[int, int], pieces: Sequence[int], B: int
) -> list[list[Segment]]:
    """Deal whole pieces to B streams of similar length, the longest first.

    Used for validation: each token is judged with its piece's whole past.
    """
    streams: list[list[Segment]] = [[] for _ in range(B)]
    filled = [0] * B
    for piece in sorted(pieces, key=lambda p: (-lengths[p], p)):
        stream = filled.index(min(filled))
        streams[stream].append(Segment(piece, 0, lengths[piece]))
        filled[stream] += lengths[piece]
    return streams
