"""Counting whole numbers as they come, in memory that only the distinct ones fill."""

import numpy as np

from lstm_music.arrays import Array

WAITING = 2**20  # numbers that wait to be counted together: a sort of many beats many sorts


class Tally:
    """How often each whole number came: values (n,) int64 ascending, counts (n,) int64."""

    def __init__(self) -> None:
        self._values, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._waiting: list[Array] = []
        self._size = 0

    def add(self, values: Array) -> None:
        """Count some numbers (n,)."""
        self._waiting.append(values)
        self._size += len(values)
        if self._size >= WAITING:
            self._settle()

    @property
    def values(self) -> Array:
        """The distinct numbers, ascending."""
        self._settle()
        return self._values

    @property
    def counts(self) -> Array:
        """How often each of `values` came."""
        self._settle()
        return self._counts

    def _settle(self) -> None:
        if not self._waiting:
            return
        values, counts = np.unique(np.concatenate(self._waiting), return_counts=True)
        both, where = np.unique(np.concatenate([self._values, values]), return_inverse=True)
        total = np.zeros(len(both), np.int64)
        np.add.at(total, where, np.concatenate([self._counts, counts]))
        self._values, self._counts = both, total
        self._waiting, self._size = [], 0

    def share_below(self, share: float) -> int:
        """Return the smallest value that at least a share of what was counted doesn't exceed.

        That is 1 where nothing was counted.
        """
        if not len(self.values):
            return 1
        upto = np.cumsum(self.counts)
        return int(self.values[np.searchsorted(upto, np.ceil(share * upto[-1]))])
