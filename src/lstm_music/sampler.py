"""Sampling: prime the network, draw token after token; `decoding.py` makes a piece of them.

Each piece draws from its own counter-based random numbers, and `ops.affine` computes each row alike
in any company, so that piece k of a seed is the same music whatever the number drawn beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from lstm_music.midi import NOTE_ON, TICKS_PER_QUARTER
from lstm_music.model import Model
from lstm_music.ops.numpy_ops import Array
from lstm_music.ops.philox import uniform
from lstm_music.tokenizers import grammar as grammars
from lstm_music.tokenizers.grammar import (
    BAR,
    SPECIAL,
    Grammar,
    GrammarState,
    Mask,
    MessageGrammar,
    Room,
)
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS

ROWS = 64  # pieces computed at once, at most
MANY, FEW = 4096, 256  # tokens from which sorting all is slow; tokens tried first for a share top_p
BLOCK = 256  # weights summed at once
DRAWS = 1024  # random numbers made at once


@dataclass(frozen=True)
class Options:
    """How to draw.

    length: exactly so many tokens, or None for a whole piece; limit: a length in ticks, or None.
    top_k 0 and top_p 1 keep every token. greedy takes the likeliest token instead of drawing.
    first: the number of the first piece of those asked for; a piece's number chooses its draws.
    bars: a length in bars, or None; beyond: a length counts what follows the primer. meter: of
    messages and piano rolls, which don't tell it, the ticks from which on bars have a length, and
    that length; 4/4 without any.
    """

    length: int | None = None
    limit: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0
    first: int = 0
    bars: int | None = None
    beyond: bool = False
    meter: tuple[tuple[int, int], ...] = ()

    @property
    def line_and_bar(self) -> tuple[int, int]:
        """A tick at which a bar begins, and the ticks of bars from there on."""
        return self.meter[-1] if self.meter else (0, BAR)


class Bounds(NamedTuple):
    """What binds a piece; None for what wasn't asked.

    start: the state in which it begins. tokens and bars of it, with its primer, and the tick at
    which it ends; most: tokens at most.
    """

    start: GrammarState
    tokens: int | None
    ticks: int | None
    bars: int | None
    most: int


def bounds_of(grammar: Grammar, options: Options, primer: Sequence[int]) -> Bounds:
    """Return what binds a piece that begins with a primer."""
    start, end, n = begun(grammar, options), begun(grammar, options), 0
    if options.beyond and len(primer):
        for id in primer:
            grammar.advance(end, id)
        n, start.primed = len(primer), (end.tracks, end.notes)
    tokens, ticks, bars = options.length, options.limit, options.bars
    asked = ticks if bars is None else (bars + options.beyond) * start.bar
    most = grammar.most(tokens, asked, start.bar) + n
    if n and (tokens, ticks, bars) == (None, None, None):
        start.least = end.now + grammars.SHORTEST
    return Bounds(
        start,
        None if tokens is None else tokens + n,
        None if ticks is None else ticks + end.now,
        None if bars is None else bars + grammar.bars_begun(end),
        most,
    )


def begun(grammar: Grammar, options: Options, after: bool = False) -> GrammarState:
    """Return the state in which a piece begins; after: others."""
    state = grammar.start()
    state.line, state.bar = options.line_and_bar
    if after:
        state.line = 0
    return state


class FreeGrammar(MessageGrammar):
    """The rules of `bin/sample --free`: any token may come at any time, and the decoder repairs.

    Only what was asked for binds: the first token begins a note, so that no piece is empty, and
    a length holds.
    """

    def allowed(self, state: GrammarState, limit: int | None, may_end: bool) -> Mask:
        """Return which of the V words may come next, (V,) bool; see MessageGrammar."""
        is_end = self.kind == SPECIAL
        is_piece_end = is_end & (self.pitch == SPECIALS.index(PIECE_END))
        if self.is_empty(state):
            mask = self.begins.copy()
        elif may_end:
            mask = np.ones(len(self.kind), np.bool_)
        else:
            mask = ~is_piece_end
        if self.layout == "merge":
            mask &= ~is_end | is_piece_end  # there is but one track
        elif self.is_early(state):
            mask &= ~is_end
        if limit is not None:
            left = limit - state.now
            if left > TICKS_PER_QUARTER and self.layout == "flatten":
                between_tracks = state.tracks > 0 and state.now == 0
                mask &= ~is_end | (is_piece_end & between_tracks)
            mask &= is_end | (self.delta <= left - (self.kind == NOTE_ON))
        return mask


class Draft:
    """Music in the making: its ids so far, without the end symbol.

    number chooses its random numbers; primer is how it begins; start is the id of the start
    symbol, which also ends a piece. Where a piece ends before the length that was asked for,
    another follows, as the network learnt to begin one: after the start symbol, remembering
    nothing. (Made to go on beyond a piece's end, it knows no music to write there.)
    """

    def __init__(
        self,
        number: int,
        primer: Sequence[int],
        grammar: Grammar,
        options: Options,
        start: int,
    ) -> None:
        self.number, self.primer, self.grammar = number, primer, grammar
        self.options, self.start = options, start
        self.bounds = bounds_of(grammar, options, primer)
        self.rules = self.bounds.start
        self.ids: list[int] = []
        self.ended = False
        self.before = self.bars_before = 0  # ticks and bars of the pieces before this one
        self._draws: Array = np.empty(0)

    @property
    def fresh(self) -> bool:
        """Whether a piece begins, so that the network is to remember nothing."""
        return not self.ids or self.ids[-1] == self.start

    @property
    def room(self) -> Room:
        """What is left of the length that was asked for."""
        _, tokens, ticks, bars, _ = self.bounds
        if bars is not None:
            ticks = self.grammar.end_of(self.rules, bars - self.bars_before)
        elif ticks is not None:
            ticks = max(ticks - self.before, 0)
        return Room(None if tokens is None else tokens - len(self.ids), ticks)

    def extend(self, logits: Array) -> None:
        """Take the primer's next id, or one by the logits (V,) where the primer is over."""
        n = len(self.ids)
        id = self.primer[n] if n < len(self.primer) else self._drawn(logits)
        if id != self.start:
            self.ids.append(id)
            self.grammar.advance(self.rules, id)
        elif self.grammar.leaves_room(self.rules, self.room):
            self.ids.append(id)
            self.before += self.grammar.next_bar(self.rules, self.rules.now)
            self.bars_before += self.grammar.bars_in(self.rules)
            self.rules = begun(self.grammar, self.options, after=True)
        else:
            self.ended = True
        full = self.grammar.is_full(self.rules, self.room)
        self.ended = self.ended or full or len(self.ids) == self.bounds.most

    def _drawn(self, logits: Array) -> int:
        """Draw an id among those that the rules allow; the end of the piece where they allow none.

        Where no note of the vocabulary fits the limit, the piece becomes too long rather than
        empty.
        """
        grammar, rules, room = self.grammar, self.rules, self.room
        may_end = grammar.may_end(rules, room)
        mask = grammar.allowed(rules, room.ticks, may_end)
        if grammar.is_empty(rules) and not mask[grammar.begins].any():
            mask = grammar.allowed(rules, None, may_end)
        allowed = np.flatnonzero(mask)
        if not len(allowed):
            return self.start
        return choose(logits, allowed, self._uniform(), self.options)

    def _uniform(self) -> float:
        """Return the random number of this piece and this position."""
        block, n = divmod(len(self.ids), DRAWS)
        if n == 0 or not len(self._draws):
            self._draws = uniform(self.options.seed, self.number, block, DRAWS)
        return float(self._draws[n])


def sample(
    model: Model,
    start: int,
    primers: Sequence[Sequence[int]],
    options: Options,
    grammar: Grammar,
    show: Callable[[int, int], None] = lambda done, most: None,
) -> list[list[int]]:
    """Draw one piece for each primer (which may be empty).

    start: the id of the start symbol, which also ends a piece. grammar: what may follow.
    show is called with the tokens drawn and the most there can be.
    Returns the ids of each, its primer included, without start and end symbols but where one
    piece ends and another follows.
    """
    pieces: list[list[int]] = []
    most = max(bounds_of(grammar, options, primer).most for primer in primers)
    for first in range(0, len(primers), ROWS):
        drafts = [
            Draft(options.first + first + k, primer, grammar, options, start)
            for k, primer in enumerate(primers[first : first + ROWS])
        ]
        for done in _write(model, drafts):
            show(first // ROWS * most + done, most * -(-len(primers) // ROWS))
        pieces += [draft.ids for draft in drafts]
    return pieces


def _write(model: Model, drafts: list[Draft]) -> Iterator[int]:
    """Extend up to ROWS drafts to their ends; yield the number of tokens after each step."""
    start, B = drafts[0].start, rows_for(model, len(drafts))
    following = np.full(B, start, np.int32)
    state = model.zero_state(B)
    for done in count(1):
        logits, state = model.step(model.ops.asarray(following, "int32"), state)
        rows = model.ops.to_numpy(logits)
        for k, draft in enumerate(drafts):
            if not draft.ended:
                draft.extend(rows[k])
                following[k] = start if draft.ended else draft.ids[-1]
                if draft.fresh:
                    state.h[:, k], state.c[:, k] = 0, 0
        yield done
        if all(draft.ended for draft in drafts):
            return


def rows_for(model: Model, pieces: int) -> int:
    """Return how many rows to compute for so many pieces.

    On a GPU always as many: cuBLAS may sum a row otherwise among fewer.
    """
    return ROWS if model.ops.name == "cupy" else pieces


def within(
    primer: Sequence[int], grammar: Grammar, length: int | None, limit: int | None
) -> list[int]:
    """Cut a primer to so many tokens, and where a track of it goes past a limit in ticks."""
    cut = list(primer[:length])
    state = grammar.start()
    for n, id in enumerate(cut):
        grammar.advance(state, id)
        if limit is not None and state.now > limit:
            return cut[:n]
    return cut


def choose(logits: Array, allowed: Array | None, u: float, options: Options) -> int:
    """Choose an id from logits (V,) by a uniform number u in [0, 1).

    allowed: ids to choose among, or None. The distribution is softmax(logits / temperature)
    over them, cut to the top_k likeliest and then to the fewest that hold a share of top_p.
    """
    ids = np.arange(len(logits)) if allowed is None else allowed
    x = logits[ids].astype(np.float64)
    if options.greedy:
        return int(ids[np.argmax(x)])
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        x = (x - x.max()) / options.temperature
    mass = None
    if options.top_k or options.top_p < 1:
        kept, mass = likeliest(x, options.top_k, options.top_p)
        ids, x = ids[kept], x[kept]
    if options.top_p == 1 and len(x) > MANY:
        return int(ids[find(np.exp(x), u)])
    total = np.cumsum(np.exp(x))
    if options.top_p < 1:
        share = options.top_p * (total[-1] if mass is None else mass)
        n = int(np.searchsorted(total, share)) + 1
        ids, total = ids[:n], total[:n]
    n = int(np.searchsorted(total, u * total[-1], side="right"))
    return int(ids[min(n, len(ids) - 1)])


def find(p: Array, u: float) -> int:
    """Return where a share u of the weights p (n,) lies before: first the block, then the place.

    A running sum is one long chain of additions; the blocks' sums are many short ones.
    """
    whole = len(p) - len(p) % BLOCK
    blocks = np.cumsum(np.append(p[:whole].reshape(-1, BLOCK).sum(axis=1), p[whole:].sum()))
    at = u * blocks[-1]
    block = min(int(np.searchsorted(blocks, at, side="right")), len(blocks) - 1)
    before = blocks[block - 1] if block else 0.0
    inside = np.cumsum(p[block * BLOCK : (block + 1) * BLOCK])
    n = int(np.searchsorted(inside, at - before, side="right"))
    return min(block * BLOCK + min(n, max(len(inside) - 1, 0)), len(p) - 1)


def likeliest(x: Array, top_k: int, top_p: float) -> tuple[Array, float | None]:
    """Return where the top_k likeliest of x (n,) are, or as many as top_p can need, in order.

    x: log-probabilities but for a constant; of equals the first comes first. Returns also the sum
    of exp(x) over all that top_p is a share of, or None where that is the sum over those returned.
    It sorts no more than it must: most of a share is in a few hundred of many thousand tokens.
    """
    if top_k == 0 and len(x) > MANY:
        mass, n = float(np.exp(x).sum()), FEW
        while n < len(x):
            among = np.flatnonzero(x >= np.partition(x, -n)[-n])
            if float(np.exp(x[among]).sum()) > mass * top_p:
                return among[np.argsort(-x[among], kind="stable")], mass
            n *= 8
    return np.argsort(-x, kind="stable")[: top_k or None], None
