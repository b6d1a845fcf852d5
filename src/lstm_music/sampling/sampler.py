"""Sampling: prime the network, draw token after token; `sampling/decoding.py` makes a piece of
them.

Each piece draws from its own counter-based random numbers, and `ops.affine` computes each row alike
in any company, so that piece k of a seed is the same music whatever the number drawn beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from lstm_music.arrays import Array
from lstm_music.midi.piece import TICKS_PER_QUARTER, WHOLE_NOTE
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.ops.philox import uniform
from lstm_music.sampling.automaton import Piece, advance, bars_in, begin, extend, longest_deltas
from lstm_music.sampling.copying import Copies, Past, copied, copies_of, ids_that
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import SHORTEST, SILENT, Rules

WHOLE_PIECE = 2000  # tokens at most where no length is asked for
WITHIN_LIMIT = 20_000  # messages at most where a length in ticks is, or
PER_QUARTER = 128  # so many for each quarter note of it
ROWS = 64  # pieces computed at once, at most
MANY, FEW = 4096, 256  # tokens from which sorting all is slow; tokens tried first for a share top_p
BLOCK = 256  # weights summed at once
DRAWS = 1024  # random numbers made at once


def new_piece(rules: Rules, options: Options, primer: Sequence[int] = ()) -> tuple[Piece, Array]:
    """Return a piece before its first word, bound to what was asked for.

    primer: how it begins. Returns also what sounds, (notes,): the tick at which a note began.
    """
    line, bar = options.line_and_bar
    piece, sounding = Piece(measure=bar), np.full(rules.notes, SILENT, np.int64)
    begin(rules, piece, sounding)
    piece.line = line
    end, n = replace(piece), 0
    if options.beyond and len(primer):
        for id in primer:
            advance(rules, end, sounding, id)
        n, piece.primed_tracks, piece.primed_notes = len(primer), end.tracks, end.notes
        sounding[:] = SILENT
    tokens, ticks, bars = options.length, options.limit, options.bars
    asked = ticks if bars is None else (bars + options.beyond) * bar
    piece.most = most_tokens(rules, tokens, asked, bar) + n
    if n and (tokens, ticks, bars) == (None, None, None):
        piece.least = end.now + SHORTEST
    # Bars of events have begun where something was in them.
    bars_so_far = end.bars + (end.now > end.begin) if rules.events else bars_in(end)
    piece.asked_tokens = -1 if tokens is None or rules.frame_ticks else tokens + n
    piece.asked_ticks = -1 if ticks is None else ticks + end.now
    piece.asked_bars = -1 if bars is None else bars + bars_so_far
    return piece, sounding


def most_of(rules: Rules, options: Options, primers: Sequence[Sequence[int]]) -> int:
    """Return the most tokens there can be in any of the pieces that begin so."""
    return max(new_piece(rules, options, primer)[0].most for primer in primers)


def most_tokens(rules: Rules, length: int | None, limit: int | None, bar: int = WHOLE_NOTE) -> int:
    """Return the largest number of tokens in a length in tokens, in ticks, or in neither.

    Of chords a token a frame, and one for each bar line at which a piece ends. Time passes with few
    messages or events, so there is a bound. bar: ticks of a bar.
    """
    if rules.frame_ticks and limit is not None:
        return limit // rules.frame_ticks + limit // bar
    if length is not None and not rules.frame_ticks:
        return length
    if limit is None:
        return WHOLE_PIECE
    return max(WITHIN_LIMIT, limit * PER_QUARTER // TICKS_PER_QUARTER)


class Draft:
    """Music in the making: its ids so far, without the end symbol.

    number chooses its random numbers; primer is how it begins. Where a piece ends before the length
    that was asked for, another follows, as the network learnt to begin one: after the start symbol,
    remembering nothing. (Made to go on beyond a piece's end, it knows no music to write there.)
    """

    def __init__(
        self, number: int, primer: Sequence[int], rules: Rules, options: Options,
        copies: Copies | None = None,
    ) -> None:  # fmt: skip
        self.number, self.primer, self.rules, self.options = number, primer, rules, options
        self.piece, self.sounding = new_piece(rules, options, primer)
        self.ids: list[int] = []
        self._longest = np.empty(len(rules.shortest), np.int64)
        self._draws: Array = np.empty(0)
        self._allowed, self._u = np.empty(0, np.intp), 0.0  # by which `drawn` is to draw
        self._past = Past(copies) if copies else None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return bool(self.piece.ended)

    @property
    def fresh(self) -> bool:
        """Whether a piece begins, so that the network is to remember nothing."""
        return not self.ids or self.ids[-1] == self.rules.start

    @property
    def allowed(self) -> Array:
        """The ids that may come next."""
        longest_deltas(self.rules, self.piece, self.sounding, self._longest)
        return np.flatnonzero(self.rules.deltas <= self._longest[self.rules.classes])

    def told(self, scores: Array | None) -> int | None:
        """Return the next id if it takes no logits, else None. scores (K,): of a copy gate."""
        n = len(self.ids)
        if n < len(self.primer):
            return self.primer[n]
        self._allowed = self.allowed
        if not len(self._allowed):
            return self.rules.start
        self._u, id = self._uniform(), None
        if self._past is not None and scores is not None:
            found = ids_that(self._past.candidates(scores), self._past.copies.ids, self._may)
            id, self._u = copied(found, self._u, self.options)
        return id

    def drawn(self, logits: Array) -> int:
        """Draw the next id by the network's logits (V,)."""
        return choose(logits, self._allowed, self._u, self.options, self.rules.exact)

    def take(self, id: int) -> None:
        """Take an id, whether it might come or not."""
        if extend(self.rules, self.piece, self.sounding, id):
            self.ids.append(id)
        if self._past is not None and not self.ended:
            if id == self.rules.start:
                self._past.forget()
            else:
                self._past.take(self._past.copies.words[id])

    def _may(self, id: int) -> bool:
        """Return whether an id may come next, once `allowed` was asked for."""
        return bool(self.rules.deltas[id] <= self._longest[self.rules.classes[id]])

    def _uniform(self) -> float:
        """Return the random number of this piece and this position."""
        block, n = divmod(len(self.ids), DRAWS)
        if n == 0 or not len(self._draws):
            self._draws = uniform(self.options.seed, self.number, block, DRAWS)
        return float(self._draws[n])


def sample(
    model: Model,
    primers: Sequence[Sequence[int]],
    options: Options,
    rules: Rules,
    show: Callable[[int, int], None] = lambda done, most: None,
    recall: RecallRules | None = None,
) -> list[list[int]]:
    """Draw one piece for each primer (which may be empty).

    rules: what may follow; recall: how a copy gate compares words. show is called with the tokens
    drawn and the most there can be. Returns the ids of each, its primer included, without start and
    end symbols but where one piece ends and another follows.
    """
    pieces: list[list[int]] = []
    most, copies = most_of(rules, options, primers), copies_of(model, recall, options)
    for first in range(0, len(primers), ROWS):
        drafts = [
            Draft(options.first + first + k, primer, rules, options, copies)
            for k, primer in enumerate(primers[first : first + ROWS])
        ]
        for done in _write(model, drafts):
            show(first // ROWS * most + done, most * -(-len(primers) // ROWS))
        pieces += [draft.ids for draft in drafts]
    return pieces


def _write(model: Model, drafts: list[Draft]) -> Iterator[int]:
    """Extend up to ROWS drafts to their ends; yield the number of tokens after each step."""
    start, B = drafts[0].rules.start, rows_for(model, len(drafts))
    following = np.full(B, start, np.int32)
    state = model.zero_state(B)
    for done in count(1):
        state = model.read(model.ops.asarray(following, "int32"), state)
        for k, id in enumerate(_next_ids(model, state, drafts)):
            draft = drafts[k]
            if id is not None:
                draft.take(id)
                following[k] = start if draft.ended else draft.ids[-1]
                if draft.fresh:
                    state.h[:, k], state.c[:, k] = 0, 0
        yield done
        if all(draft.ended for draft in drafts):
            return


def _next_ids(model: Model, state: State, drafts: list[Draft]) -> list[int | None]:
    """Return the next id of each draft after a step to a state, None of an ended one."""
    scores = None if model.gate is None else model.ops.to_numpy(model.copy_scores(state))
    ids = [
        None if d.ended else d.told(None if scores is None else scores[k])
        for k, d in enumerate(drafts)
    ]
    asked = [k for k, d in enumerate(drafts) if ids[k] is None and not d.ended]
    if asked:
        rows = [*range(rows_for(model, 0))] or asked
        logits = model.ops.to_numpy(model.logits(state.h[-1][rows]))
        for k in asked:
            ids[k] = drafts[k].drawn(logits[rows.index(k)])
    return ids


def rows_for(model: Model, pieces: int) -> int:
    """Return how many rows to compute for so many pieces.

    On a GPU always as many: cuBLAS may sum a row otherwise among fewer.
    """
    return ROWS if model.ops.name == "cupy" else pieces


def within(primer: Sequence[int], rules: Rules, length: int | None, limit: int | None) -> list[int]:
    """Cut a primer to so many tokens, and where a track of it goes past a limit in ticks."""
    cut = list(primer[:length])
    for n, now in enumerate(ticks_of(cut, rules)):
        if limit is not None and now > limit:
            return cut[:n]
    return cut


def ticks_of(ids: Sequence[int], rules: Rules) -> list[int]:
    """Return the tick of its track to which each of a piece's ids leads."""
    piece, sounding = new_piece(rules, Options())
    ticks = []
    for id in ids:
        advance(rules, piece, sounding, id)
        ticks.append(piece.now)
    return ticks


# One token ---------------------------------------------------------------------------------------


def choose(
    logits: Array, allowed: Array | None, u: float, options: Options, exact: int = -1
) -> int:
    """Choose an id from logits (V,) by a uniform number u in [0, 1).

    allowed: ids to choose among, or None. The distribution is softmax(logits / temperature)
    over them, cut to the top_k likeliest and then to the fewest that hold a share of top_p; the id
    exact keeps its probability, and the others are cut among themselves.
    """
    ids = np.arange(len(logits)) if allowed is None else allowed
    x = logits[ids].astype(np.float64)
    if options.greedy:
        return int(ids[np.argmax(x)])
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        x = (x - x.max()) / options.temperature
    mass = None
    if options.top_k or options.top_p < 1:
        (place,) = np.nonzero(ids == exact)
        if len(place):
            p = np.exp(x)
            share = float(p[place[0]] / p.sum())
            if u < share:
                return exact
            u, ids, x = (u - share) / (1 - share), np.delete(ids, place), np.delete(x, place)
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
