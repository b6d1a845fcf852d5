"""Sampling: prime the network, draw token after token, decode to a piece.

Each piece draws from its own counter-based random numbers, and `ops.affine` computes each row alike
in any company, so that piece k of a seed is the same music whatever the number drawn beside it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import numpy as np

from lstm_music.midi import (
    KIND,
    NOTE_OFF,
    NOTE_ON,
    TICK,
    TICKS_PER_QUARTER,
    Messages,
    Piece,
    no_meter,
    repaired_tracks,
    tidy_track,
)
from lstm_music.model import Model
from lstm_music.ops.numpy_ops import Array
from lstm_music.ops.philox import uniform
from lstm_music.piano_roll import Frames, piece_of_frames, ticks_per_step
from lstm_music.tokenizers.chords import frames_of_words
from lstm_music.tokenizers.grammar import (
    SPECIAL,
    ChordGrammar,
    Grammar,
    GrammarState,
    Mask,
    MessageGrammar,
    Room,
    TokenGrammar,
    to_next_bar,
)
from lstm_music.tokenizers.messages import PIECE_END, SPECIALS, MessageTokenizer
from lstm_music.tokenizers.vocabulary import Vocabulary

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
    """

    length: int | None = None
    limit: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False
    seed: int = 0
    first: int = 0


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
        self.most = grammar.most(options.length, options.limit)
        self.rules = grammar.start()
        self.ids: list[int] = []
        self.ended = False
        self.before = 0  # ticks of the pieces before this one
        self._draws: Array = np.empty(0)

    @property
    def fresh(self) -> bool:
        """Whether a piece begins, so that the network is to remember nothing."""
        return not self.ids or self.ids[-1] == self.start

    @property
    def room(self) -> Room:
        """What is left of the length that was asked for."""
        length, limit = self.options.length, self.options.limit
        return Room(
            None if length is None else length - len(self.ids),
            None if limit is None else limit - self.before,
        )

    def extend(self, logits: Array) -> None:
        """Take the primer's next id, or one by the logits (V,) where the primer is over."""
        n = len(self.ids)
        id = self.primer[n] if n < len(self.primer) else self._drawn(logits)
        if id != self.start:
            self.ids.append(id)
            self.grammar.advance(self.rules, id)
        elif self.grammar.leaves_room(self.rules, self.room):
            self.ids.append(id)
            self.before += to_next_bar(self.rules.now)
            self.rules = self.grammar.start()
        else:
            self.ended = True
        full = self.grammar.is_full(self.rules, self.room)
        self.ended = self.ended or full or len(self.ids) == self.most

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
    most = grammar.most(options.length, options.limit)
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


def decode(
    ids: Sequence[int],
    vocabulary: Vocabulary,
    tokenizer: MessageTokenizer,
    grammar: TokenGrammar,
    name: str,
) -> Piece:
    """Turn what `sample` returned into one piece, tidied to the habits that the grammar keeps.

    Pieces that follow one another begin at bar lines, their tracks in the same order.
    """
    start = vocabulary.id(PIECE_END)
    tracks: list[list[Messages]] = []
    meters = [no_meter()]
    offset = 0
    for begins, group in groupby(ids, lambda id: id == start):
        if begins:
            continue
        piece = tokenizer.piece([vocabulary.word(id) for id in group], name)
        end = 0
        for number, track in enumerate(piece.tracks):
            tidied = tidy_track(track, grammar.longest_note, grammar.most_notes)
            end = max(end, int(tidied[-1, TICK]))
            if number == len(tracks):
                tracks.append([])
            tracks[number].append(tidied + np.array([offset, 0, 0], np.int32))
        meters.append(piece.meter + np.array([offset, 0], np.int32))
        offset += to_next_bar(end)
    whole = [np.concatenate(parts) for parts in tracks]
    return Piece(name, whole, meter=np.concatenate(meters))


def decode_chords(
    ids: Sequence[int], vocabulary: Vocabulary, grid: int, name: str, restrike: bool = False
) -> Piece:
    """Turn what `sample` returned of chords into one piece of one track, or none of silence.

    Pieces that follow one another begin at bar lines. grid: chords a whole note; restrike: held
    notes are struck anew with each chord.
    """
    parts: list[Messages] = []
    offset = 0
    for frames in chord_frames(ids, vocabulary):
        piece = piece_of_frames(frames, grid, name, restrike)
        parts += [track + np.array([offset, 0, 0], np.int32) for track in piece.tracks]
        offset += to_next_bar(len(frames) * ticks_per_step(grid))
    return Piece(name, [np.concatenate(parts)] if parts else [])


def chord_frames(ids: Sequence[int], vocabulary: Vocabulary) -> list[Frames]:
    """Return the frames (n, 88) of each of the pieces that follow one another in sampled chords."""
    start = vocabulary.id(PIECE_END)
    groups = groupby(ids, lambda id: id == start)
    return [
        frames_of_words([vocabulary.word(id) for id in group])
        for begins, group in groups
        if not begins
    ]


def length_in_frames(ids: Sequence[int], grammar: ChordGrammar) -> int:
    """Return how many frames sampled chords last, with the rests before bar lines."""
    state, before = grammar.start(), 0
    for id in ids:
        if id == grammar.end:
            before += to_next_bar(state.now)
            state = grammar.start()
        else:
            grammar.advance(state, id)
    return (before + state.now) // grammar.frame_ticks


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


def clipped(piece: Piece, limit: int) -> Piece:
    """End a piece at a limit in ticks, past which a note rings on that no token could end sooner.

    A piece that begins only then stays as it is: better too long than empty.
    """
    shorter = []
    for track in piece.tracks:
        kept = track[(track[:, KIND] == NOTE_OFF) | (track[:, TICK] < limit)]
        kept[:, TICK] = np.minimum(kept[:, TICK], limit)
        shorter.append(kept)
    tracks = repaired_tracks(shorter)
    return Piece(piece.name, tracks, meter=piece.meter) if tracks else piece


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
