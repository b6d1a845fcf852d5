"""Sampling wholly on a GPU: rules, step, draw and feedback of a token are one CUDA graph.

The host launches a replay for each token and copies nothing until the end, but for a look, now and
then, at whether all pieces have ended. A seed gives the ids that lstm_music.sampling.sampler draws,
with the same rules, primers and lengths, but for ties within rounding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import RecallRules
from lstm_music.ops.cuda.capture import captured
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import Allocator
from lstm_music.ops.cuda.layout import apart
from lstm_music.ops.cuda.structs import packed
from lstm_music.ops.philox import split_seed
from lstm_music.sampling.automaton import FIELDS, Piece
from lstm_music.sampling.device_recall import DeviceRecall
from lstm_music.sampling.options import Options
from lstm_music.sampling.rules import NOTES, NUMBERS, SILENT, Rules
from lstm_music.sampling.sampler import ROWS, most_of, new_piece
from lstm_music.tokenizers.messages import PITCHES

STATIC_SHARED = 8 << 10  # bytes that sample.cu declares itself, and some
MOST = 2**31 - 1  # that a number of a piece may be there
# As kernels/rules_table.cuh declares them, written by tools/rules_table.py from the same names.
PIECE, RULES = (np.dtype([(name, np.int32) for name in names]) for names in (FIELDS, NUMBERS))
LOOK_EVERY = 256  # tokens, between looks at whether all pieces have ended


def sample_on_device(
    model: Model,
    primers: Sequence[Sequence[int]],
    options: Options,
    rules: Rules,
    show: Callable[[int, int], None] = lambda done, most: None,
    recall: RecallRules | None = None,
) -> list[list[int]]:
    """As sampler.sample, with a model on the cupy backend."""
    pieces: list[list[int]] = []
    most = most_of(rules, options, primers)
    all_most = most * -(-len(primers) // ROWS)
    for first in range(0, len(primers), ROWS):
        some = primers[first : first + ROWS]
        # Always as many rows: cuBLAS may sum a row otherwise among fewer.
        sampler = DeviceSampler(model, ROWS, options, rules.start, options.first + first)
        sampler.keep_to(rules, some, recall)
        before = first // ROWS * most
        pieces += sampler.run(most, partial(shown, show, before, all_most))[: len(some)]
    return pieces


def shown(show: Callable[[int, int], None], before: int, most: int, t: int) -> None:
    """Show t tokens more than those before."""
    show(before + t, most)


def packed_pieces(pieces: Sequence[Piece]) -> Array:
    """Return pieces as kernels/rules.cu has them, structs PIECE end to end, in bytes."""
    return packed(PIECE, [{k: min(n, MOST) for k, n in vars(piece).items()} for piece in pieces])


class DeviceRules:
    """What may follow in each of N pieces, kept and decided by kernels/rules.cu.

    primers: how the first of the pieces begin; the others have ended before they begin.
    """

    def __init__(
        self,
        ops: CupyOps,
        N: int,
        options: Options,
        rules: Rules,
        primers: Sequence[Sequence[int]],
    ) -> None:
        self.ops, self.N, self.V = ops, N, len(rules.classes)
        primed = np.zeros(N, np.int32)
        primed[: len(primers)] = [len(primer) for primer in primers]
        primer_ids = np.zeros((N, max(1, primed.max())), np.int32)
        for row, primer in zip(primer_ids, primers, strict=False):
            row[: len(primer)] = primer
        pieces = [new_piece(rules, options, primer)[0] for primer in primers]
        pieces += [Piece(ended=1)] * (N - len(primers))
        sounding = np.full((N, rules.notes), SILENT)
        self.ended = np.arange(N) >= len(primers)
        numbers = {name: getattr(rules, name) for name in NUMBERS}
        words = (rules.kinds, rules.numbers, rules.steps, rules.classes, rules.deltas)
        self.words = (
            ops.asarray(packed(RULES, [numbers]), np.uint8),
            *(ops.asarray(a, np.int32) for a in (*words, rules.shortest)),
            ops.asarray(rules.places, np.int32) if len(rules.places) else None,
            np.int32(self.V), np.int32(len(rules.places)),
        )  # fmt: skip
        self.primers, self.primed, self.sounding = (
            ops.asarray(a, np.int32) for a in (primer_ids, primed, sounding)
        )
        self.pieces = ops.asarray(packed_pieces(pieces), np.uint8)
        self.allowed = ops.xp.zeros((N, self.V), np.uint8)
        self.classes = NOTES + 3 * rules.notes + 2  # for all places two numbers do

    def mask(self) -> None:
        """Write the words that may follow to allowed (N, V)."""
        self.ops.launch(
            "rules", "rules_forward", (self.N,), (PITCHES,),
            *self.words, self.pieces, self.sounding, self.allowed, shared=self.classes * 4,
        )  # fmt: skip

    def advance(
        self, position: Array, following: Array, out: Array, done: Array, state: State
    ) -> None:
        """Take the words drawn, or the primers' next."""
        L, _, H = state.h.shape
        self.ops.launch(
            "rules", "rules_advance", (self.N,), (PITCHES,),
            *self.words, self.pieces, self.sounding,
            self.primers, self.primed, np.int32(self.primers.shape[1]), position,
            following, out, done, state.h, state.c, np.int32(L), np.int32(H),
        )  # fmt: skip


class DeviceSampler:
    """Draws for N pieces at once with a model on the cupy backend.

    first: the number of the first piece, which chooses its random numbers. allowed: bytes (V,),
    the ids that may be drawn, or None. Pieces have no rules and end at their first start symbol,
    until `keep_to` says otherwise.
    """

    def __init__(
        self,
        model: Model,
        N: int,
        options: Options,
        start: int,
        first: int = 0,
        allowed: Array | None = None,
    ) -> None:
        assert isinstance(model.ops, CupyOps)
        self.ops: CupyOps = model.ops
        self.model, self.N, self.options, self.start, self.first = model, N, options, start, first
        xp, V = self.ops.xp, model.config.vocabulary
        self.allowed = None if allowed is None else self.ops.asarray(allowed, np.uint8)
        self.next = self.ops.asarray(np.full(N, start), np.int32)
        self.done = xp.zeros(N, np.int32)
        self.position = xp.zeros(1, np.int32)
        # A word's share of the probability has the size of a logit. Shared memory, or what else.
        size = V * self.ops.dtype.itemsize
        self.shared = size if size + STATIC_SHARED <= self.ops.shared_bytes else 0
        kind = np.uint32 if self.ops.dtype == np.float32 else np.uint64
        self.shares = None if self.shared else xp.empty((N, V), kind)
        # A token reads one and writes the other, so that neither has to be copied.
        self.states = model.zero_state(N), model.zero_state(N)
        self.rules: DeviceRules | None = None
        self.exact = -1  # the id that keeps its probability
        self.recall: DeviceRecall | None = None
        self.stream = xp.cuda.Stream(non_blocking=False)
        self.pool = xp.cuda.MemoryPool()

    def keep_to(
        self, rules: Rules, primers: Sequence[Sequence[int]], recall: RecallRules | None = None
    ) -> None:
        """Keep to rules from here on; one piece for each primer is drawn.

        recall: how a copy gate compares words; a model with a gate copies from here on.
        """
        self.rules = DeviceRules(self.ops, self.N, self.options, rules, primers)
        self.exact = rules.exact
        if self.model.gate is not None:
            assert recall is not None
            most = most_of(rules, self.options, primers)
            self.recall = DeviceRecall(self.model, self.N, recall, most + 1, self.options)
        self.done = self.ops.asarray(self.rules.ended, np.int32)

    def run(self, most: int, show: Callable[[int], None] = lambda t: None) -> list[list[int]]:
        """Draw at most so many tokens a piece; return each piece's ids, without the end symbol.

        show is called now and then with the tokens drawn.
        """
        out = self.ops.asarray(np.full((most, self.N), -1), np.int32)
        # Memory of its own: what the captured step frees, nobody else may get.
        with self.stream, self.ops.xp.cuda.using_allocator(Allocator(self.ops.xp, self.pool)):
            # Once outside the graph, so that everything is compiled and allocated.
            self._token(out, 0)
            graphs: list[Any] = []
            for t in range(1, most):
                if t % LOOK_EVERY == 0:
                    if self.ops.to_numpy(self.done).all():
                        break
                    show(t)
                if len(graphs) < 2:
                    token = partial(self._token, out, t % 2)
                    graphs.append(captured(self.ops.xp, self.stream, token))
                graphs[(t - 1) % 2].launch(self.stream)
            ids = self.ops.to_numpy(out)
        return [[int(id) for id in column if id >= 0] for column in ids.T]

    def _token(self, out: Array, turn: int) -> None:
        """Read the last token of each piece, draw the next; turn: which state is there."""
        logits, state = self.model.step(self.next, self.states[turn], self.states[1 - turn])
        if self.rules is not None:
            self.rules.mask()
            if self.recall is not None:
                self.recall.choose(state, self.rules.allowed, self.position, self.first)
        self.draw(logits, out)
        if self.rules is not None:
            self.rules.advance(self.position, self.next, out, self.done, state)
            if self.recall is not None:
                self.recall.advance(self.next, self.done, self.start)
        self.ops.launch("sample", "sample_advance", (1,), (1,), self.position)

    def draw(self, logits: Array, out: Array, draws: Array | None = None) -> None:
        """Draw from logits (N, V); draws (N,) float64 replace the seed's numbers, for tests."""
        o, (k0, k1) = self.options, split_seed(self.options.seed)
        V = logits.shape[1]
        allowed, stride, copied = self.allowed, 0, None
        if self.rules is not None:
            allowed, stride = self.rules.allowed, V
        if self.recall is not None:
            copied, draws = self.recall.copied, self.recall.draws
        self.ops.launch(
            "sample", "sample_forward", (self.N,), (draw_threads(V),),
            logits, np.int32(apart(logits)), None, allowed, np.int32(stride), self.shares,
            np.int32(V),
            np.float64(o.temperature), np.int32(min(o.top_k, V)), np.float64(o.top_p),
            np.int32(o.greedy), np.int32(self.exact), np.uint32(k0), np.uint32(k1),
            np.uint32(self.first), self.position, draws, copied,
            np.int32(self.start), self.next, out, self.done,
            shared=self.shared,
        )  # fmt: skip


def draw_threads(V: int) -> int:
    """Return the threads of the block that draws a piece's word from V."""
    return 128 if V <= 1024 else 1024
