"""The automaton of the sampling rules, compiled by Numba: the same functions, as they are."""

from collections.abc import Sequence
from dataclasses import astuple
from inspect import isfunction
from types import FunctionType
from typing import Any

import numpy as np

from lstm_music import sampling_automaton
from lstm_music.ops.jit import njit
from lstm_music.sampling_automaton import FIELDS, Piece

RECORD = np.dtype([(name, np.int64) for name in FIELDS])  # a Piece in compiled code


def compiled() -> dict[str, Any]:
    """Return the automaton's names, with compiled functions that call one another."""
    names = dict(vars(sampling_automaton))
    for name, function in vars(sampling_automaton).items():
        if isfunction(function) and function.__module__ == sampling_automaton.__name__:
            same: Any = FunctionType(function.__code__, names, name, function.__defaults__)
            names[name] = njit(cache=True)(same)
    return names


def records(pieces: Sequence[Piece]) -> Any:
    """Return pieces as records (B,), whose fields compiled code reads and changes."""
    return np.array([astuple(piece) for piece in pieces], RECORD).view(np.recarray)


AUTOMATON = compiled()
extend, longest_deltas = AUTOMATON["extend"], AUTOMATON["longest_deltas"]
