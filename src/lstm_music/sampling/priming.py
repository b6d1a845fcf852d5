"""A primer that ends its piece: whether the network ends it there, or goes on."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.sampling.copying import copies_of
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import TRACK_END, Rules
from lstm_music.sampling.sampler import Draft, rows_for

ENDS, ENDS_TOO = 1 << 31, 3 << 30  # added to a piece's number: not the random numbers of its music


def ends_at_once(
    model: Model,
    primer: Sequence[int],
    options: Options,
    rules: Rules,
    recall: RecallRules | None,
    num: int,
) -> list[bool]:
    """Draw for each of so many pieces that begin alike whether it ends where the primer does.

    The rules of sampling let no piece end with its primer, and so does what is composed if the
    network doesn't end it here: together they draw what it says. Of tracks one after the other, it
    may end the track and then the piece.
    """
    whole = replace(options, length=None, limit=None, bars=None, beyond=False)
    draft = Draft(0, primer, rules, whole, copies_of(model, recall, whole))
    draft.piece.least, draft.piece.most = 0, len(primer) + 2
    state = read(model, [rules.start, *primer], model.zero_state(rows_for(model, 1)))
    for id in primer:
        draft.take(id)
    numbers = range(options.first, options.first + num)
    ended = [drawn(model, state, draft, ENDS + n) for n in numbers]
    ends = np.flatnonzero(rules.kinds == TRACK_END).tolist()
    if not rules.merged and {*ends} & {*ended}:
        state = read(model, ends, state)
        draft.take(ends[0])
        again = [drawn(model, state, draft, ENDS_TOO + n) for n in numbers]
        ended = np.where(np.isin(ended, ends), again, ended).tolist()
    return [id == rules.start for id in ended]


def read(model: Model, ids: Sequence[int], state: State) -> State:
    """Return a state after more ids, the same in each of its rows."""
    for id in ids:
        alike = np.full(state.h.shape[1], id, np.int32)
        state = model.read(model.ops.asarray(alike, "int32"), state)
    return state


def drawn(model: Model, state: State, draft: Draft, number: int) -> int:
    """Draw a draft's next id by the random numbers of a number; the draft stays as it is."""
    one = copy(draft)
    one.number = number
    scores: Array | None = None
    if model.gate is not None:
        scores = model.ops.to_numpy(model.copy_scores(state))[0]
    id = one.told(scores)
    return one.drawn(model.ops.to_numpy(model.logits(state.h[-1]))[0]) if id is None else id
