"""The automaton of the sampling rules, compiled by Numba: the same functions, as they are."""

from collections.abc import Sequence

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops.cpu.jit import njit, njit_module
from lstm_music.sampling import automaton
from lstm_music.sampling.automaton import FIELDS, Piece

RECORD = np.dtype([(name, np.int64) for name in FIELDS])  # a Piece in compiled code


@njit(cache=True)
def may_sound(sounding):  # type: ignore[no-untyped-def]
    """As automaton.may_sound, without an array: a loop over all is faster."""
    return range(len(sounding))


@njit(cache=True)
def any_within(rules, longest, first, stop):  # type: ignore[no-untyped-def]
    """As automaton.any_within, which ends at the first one."""
    n = first
    while n < stop and rules.shortest[n] > longest[n]:
        n += 1
    return n < stop


def records(pieces: Sequence[Piece]) -> Array:
    """Return pieces as records (B,), whose fields compiled code reads and changes."""
    return np.array([tuple(vars(piece).values()) for piece in pieces], RECORD)


LOOPS = {"may_sound": may_sound, "any_within": any_within}  # no rules: ways through an array
AUTOMATON = njit_module(automaton, LOOPS)
extend, longest_deltas = AUTOMATON["extend"], AUTOMATON["longest_deltas"]
