"""Batches for stateful truncated back-propagation: windows (T, B) over B parallel streams.

A piece of ids k0 … kn (kn = piece-end) is the sequence of inputs piece-end, k0 … k(n-1) and
targets k0 … kn: the end symbol is also the start symbol, and the state is reset where a piece
starts, so that no loss crosses from one piece to the next.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from lstm_music.model import Batch
from lstm_music.ops import NumpyOps
from lstm_music.ops.numpy_ops import Array

NO_TARGET = -1


class Segment(NamedTuple):
    """The ids start … stop-1 of a piece."""

    piece: int
    start: int
    stop: int


def cut_streams(lengths: Sequence[int], order: Sequence[int], B: int) -> list[list[Segment]]:
    """Put pieces end to end in the given order and cut the line into B equal streams.

    lengths: ids of each piece. Used in training: no stream waits for another, at the price of
    one piece a stream that starts in its middle with an empty state.
    """
    total = sum(lengths[piece] for piece in order)
    share = -(-total // B)
    streams: list[list[Segment]] = [[] for _ in range(B)]
    position = 0
    for piece in order:
        start = 0
        while start < lengths[piece]:
            stream = position // share
            stop = min(lengths[piece], start + (stream + 1) * share - position)
            streams[stream].append(Segment(piece, start, stop))
            position += stop - start
            start = stop
    return streams


def whole_streams(lengths: Sequence[int], pieces: Sequence[int], B: int) -> list[list[Segment]]:
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


class Batches:
    """The windows of some streams, by number, so that a run can go on from any of them.

    ids (tokens,) int32 and offsets (pieces + 1,) say where each piece lies; start is the id of
    the start symbol; T the window's length. `len()` is the number of windows.
    """

    def __init__(
        self, ids: Array, offsets: Array, streams: list[list[Segment]], T: int, start: int
    ) -> None:
        self.ids, self.offsets, self.streams, self.T, self.start = ids, offsets, streams, T, start
        self._ends = [list(accumulate(s.stop - s.start for s in stream)) for stream in streams]
        longest = max((ends[-1] for ends in self._ends if ends), default=0)
        self.windows = -(-longest // T)

    def __len__(self) -> int:
        return self.windows

    def __getitem__(self, window: int) -> Batch:
        """Return a window: x, y (T, B) int32, keep (T, B) float32 or None."""
        if not 0 <= window < self.windows:
            raise IndexError(window)
        shape = (self.T, len(self.streams))
        x = np.full(shape, self.start, np.int32)
        y = np.full(shape, NO_TARGET, np.int32)
        keep = np.ones(shape, np.float32)
        for b in range(shape[1]):
            self._fill(b, window * self.T, x[:, b], y[:, b], keep[:, b])
        count = int(np.count_nonzero(y != NO_TARGET))
        return Batch(x, y, None if keep.all() else keep, count)

    def __iter__(self) -> Iterator[Batch]:
        for window in range(self.windows):
            yield self[window]

    def _fill(self, b: int, position: int, x: Array, y: Array, keep: Array) -> None:
        """Fill column b, which begins at a position of its stream."""
        segments, ends = self.streams[b], self._ends[b]
        k = int(np.searchsorted(ends, position, side="right"))
        t = 0
        while t < self.T and k < len(segments):
            piece, start, stop = segments[k]
            first = stop - (ends[k] - position - t)
            n = min(self.T - t, stop - first)
            at = int(self.offsets[piece]) + first
            y[t : t + n] = self.ids[at : at + n]
            x[t + 1 : t + n] = y[t : t + n - 1]
            if first == 0:
                keep[t] = 0
            else:
                x[t] = self.ids[at - 1]
                if first == start:
                    keep[t] = 0  # a piece cut by cut_streams: its first half is another stream's
            t += n
            k += 1


def on_device(ops: NumpyOps, batch: Batch) -> Batch:
    """Return a batch's arrays on a backend."""
    return Batch(
        ops.asarray(batch.x, "int32"),
        ops.asarray(batch.y, "int32"),
        None if batch.keep is None else ops.asarray(batch.keep),
        batch.targets,
    )
