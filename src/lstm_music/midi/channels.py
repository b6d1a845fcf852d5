"""Which channel of a MIDI file each track of a piece plays on, of fifteen for any number."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lstm_music.midi.piece import CHANNELS, DRUMS, Messages, Notes, notes_of

PITCH_BITS = 32  # a pitch stands above so many bits of a tick

Programs = Sequence[int | None]
"""The program of each track, None for drums."""


def channels_of(tracks: Sequence[Messages], programs: Programs) -> list[int]:
    """Return the channel of each track (n, 3): drums alone are on theirs.

    Each has its own while there are any. Where they don't suffice, each program has one first. The
    tracks left over go where they cut off the fewest notes, if they can to a channel of their
    program, and of such to the one with the fewest notes.
    """
    players = [n for n, program in enumerate(programs) if program is not None]
    firsts = sorted({programs[n]: n for n in reversed(players)}.values())
    in_order = [*firsts, *(n for n in players if n not in {*firsts})]
    alone, sharing = sorted(in_order[: len(CHANNELS)]), sorted(in_order[len(CHANNELS) :])
    if not sharing:
        alone = players
    channels = [DRUMS] * len(tracks)
    heard = {}
    for channel, n in zip(CHANNELS, alone, strict=False):
        channels[n] = channel
        heard[channel] = Heard([programs[n]], notes_of(tracks[n]) if sharing else None)
    for n in sharing:
        notes = notes_of(tracks[n])
        channels[n] = min(CHANNELS, key=lambda channel: heard[channel].cost(notes, programs[n]))
        heard[channels[n]].add(notes, programs[n])
    return channels


def mixed(channels: Sequence[int], programs: Programs) -> list[bool]:
    """Return for each track whether another program than its own shares its channel."""
    used = Counter(channel for channel, _ in {*zip(channels, programs, strict=True)})
    return [used[channel] > 1 for channel in channels]


class Heard:
    """The programs and the notes of the tracks that are on a channel."""

    def __init__(self, programs: list[int | None], notes: Notes | None) -> None:
        self.programs = programs
        self._starts = self._latest = np.zeros(0, np.int64)
        if notes is not None:
            self._set(*_keys(notes))

    def _set(self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        order = np.argsort(starts, kind="stable")
        self._starts, self._latest = starts[order], np.maximum.accumulate(ends[order])

    def add(self, notes: Notes, program: int | None) -> None:
        """Add a track's notes (n, 3) and its program."""
        starts, ends = _keys(notes)
        self.programs.append(program)
        self._set(np.append(self._starts, starts), np.append(self._latest, ends))

    def cost(self, notes: Notes, program: int | None) -> tuple[int, bool, int]:
        """Return how many notes (n, 3) meet one of their pitch here, and what then decides.

        Notes that touch do: the end of one may come after the beginning of the other.
        """
        starts, ends = _keys(notes)
        before = np.searchsorted(self._starts, ends, side="right")
        meets = (before > 0) & (np.append(self._latest, -1)[before - 1] >= starts)
        return int(meets.sum()), program not in self.programs, len(self._starts)


def _keys(notes: Notes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the starts and ends (n,) of notes, which those of another pitch never reach."""
    start, end, pitch = notes.astype(np.int64).T
    above = pitch << PITCH_BITS
    return above + start, above + end
