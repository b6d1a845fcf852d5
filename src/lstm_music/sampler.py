"""Sampling: prime the network, draw token after token, decode to a piece.

Each piece draws from its own counter-based random numbers, so that piece k of a seed is the
same music whatever the number of pieces drawn beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lstm_music.model import Model
from lstm_music.ops.numpy_ops import Array
from lstm_music.ops.philox import uniform
from lstm_music.tokenizers.grammar import GrammarState, MessageGrammar

DRAWS = 1024  # random numbers made at once
WHOLE_PIECE = 2000  # tokens at most where no length is asked for
WITHIN_LIMIT = 20_000  # tokens at most where a length in bars or seconds is


@dataclass(frozen=True)
class Options:
    """How to draw.

    length: exactly so many tokens, or None for a whole piece; limit: a length in ticks, or None.
    top_k 0 and top_p 1 keep every token. greedy takes the likeliest token instead of drawing.
    """

    length: int | None = None
    limit: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0

    @property
    def most(self) -> int:
        """Return the largest number of tokens that a piece may have."""
        if self.length is not None:
            return self.length
        return WHOLE_PIECE if self.limit is None else WITHIN_LIMIT


def sample(
    model: Model,
    start: int,
    primers: Sequence[Sequence[int]],
    options: Options,
    grammar: MessageGrammar | None,
    show: Callable[[int, int], None] = lambda done, most: None,
) -> list[list[int]]:
    """Draw one piece for each primer (which may be empty), all in one batch.

    start: the id of the start symbol, which also ends a piece. grammar: what may follow, or None
    for no rules. show is called with the tokens drawn and the most there can be.
    Returns the ids of each piece, its primer included, without start and end symbols.
    """
    N = len(primers)
    pieces: list[list[int]] = [[] for _ in range(N)]
    rules = [grammar.start() if grammar else None for _ in range(N)]
    draws = np.empty((N, 0))
    x = model.ops.asarray(np.full(N, start), "int32")
    state = model.zero_state(N)
    alive = set(range(N))
    for t in range(options.most):
        if t % DRAWS == 0:
            draws = np.stack([uniform(options.seed, k, t // DRAWS, DRAWS) for k in range(N)])
        logits, state = model.step(x, state)
        rows = model.ops.to_numpy(logits)
        following = np.full(N, start, np.int32)
        for k in sorted(alive):
            if t < len(primers[k]):
                id = primers[k][t]
            else:
                allowed = allowed_ids(grammar, rules[k], options, start)
                id = choose(rows[k], allowed, float(draws[k, t % DRAWS]), options)
            if id == start:
                alive.discard(k)
                continue
            if grammar is not None:
                grammar.advance(rules[k], id)  # type: ignore[arg-type]
            pieces[k].append(id)
            following[k] = id
        if not alive:
            break
        x = model.ops.asarray(following, "int32")
        show(t + 1, options.most)
    return pieces


def allowed_ids(
    grammar: MessageGrammar | None, rules: GrammarState | None, options: Options, start: int
) -> Array | None:
    """Return the ids that may come next, None for all of them.

    A piece of a given number of tokens may not end before; without rules, neither may an empty one.
    """
    if grammar is None or rules is None:
        return None
    mask = grammar.allowed(rules, options.limit, may_end=options.length is None)
    ids = np.flatnonzero(mask)
    return ids if len(ids) else np.array([start])


def choose(logits: Array, allowed: Array | None, u: float, options: Options) -> int:
    """Choose an id from logits (V,) by a uniform number u in [0, 1).

    allowed: ids to choose among, or None. The distribution is softmax(logits / temperature)
    over them, cut to the top_k likeliest and then to the fewest that hold a share of top_p.
    """
    ids = np.arange(len(logits)) if allowed is None else allowed
    x = logits[ids].astype(np.float64)
    if options.greedy:
        return int(ids[np.argmax(x)])
    x = (x - x.max()) / options.temperature
    order = np.argsort(-x, kind="stable") if options.top_k or options.top_p < 1 else None
    if order is not None:
        ids, x = ids[order], x[order]
        if options.top_k:
            ids, x = ids[: options.top_k], x[: options.top_k]
    p = np.exp(x)
    total = np.cumsum(p)
    if options.top_p < 1:
        n = int(np.searchsorted(total, options.top_p * total[-1])) + 1
        ids, total = ids[:n], total[:n]
    n = int(np.searchsorted(total, u * total[-1], side="right"))
    return int(ids[min(n, len(ids) - 1)])
