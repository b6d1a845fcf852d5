"""network/recall.py compiled by Numba: the same functions, as they are."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network import recall
from lstm_music.network.recall import RecallRules, new_recall
from lstm_music.ops.cpu.jit import njit_module

COMPILED = njit_module(recall, leave=("new_recall",))


def recalled(rules: RecallRules, words: Array) -> tuple[Array, Array]:
    """Return what each word of a piece could be copied from, (n, K) uint8, and the codes of that.

    words (n, FIELDS).
    """
    out = np.empty((len(words), rules.candidates), np.uint8)
    codes = np.empty(out.shape, np.int64)
    COMPILED["remembered"](rules, new_recall(rules, len(words)), words, out, codes)
    return out, codes
