"""Copying while sampling on a GPU: kernels/recall.cu does what sampling/copying.py does."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.network.config import State
from lstm_music.network.model import Model
from lstm_music.network.recall import NONE, NUMBERS, SLOTS, RecallRules, new_recall
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.launch import blocks
from lstm_music.ops.philox import split_seed
from lstm_music.sampling.copying import table_of
from lstm_music.sampling.options import Options

THREADS = 64  # of a block that chooses, a thread a piece; four warps keep a piece's past


class DeviceRecall:
    """The pasts of N pieces of at most so many words, and what each copies.

    After `choose`, copied (N,) is the id that a piece copies or -1, and draws (N,) the number by
    which its word is to be drawn else.
    """

    def __init__(
        self, model: Model, N: int, rules: RecallRules, words: int, options: Options
    ) -> None:
        assert isinstance(model.ops, CupyOps)
        ops = self.ops = model.ops
        self.model, self.N, self.K, self.room = model, N, rules.candidates, words
        self.options, self.table = options, ops.asarray(table_of(model, options), np.float64)
        start = new_recall(rules, 1)
        self.words, self.ids = (ops.asarray(a, np.int32) for a in (rules.words, rules.ids))
        self.lags = ops.asarray(rules.lags, np.int64)
        how = *rules.orders, rules.line, rules.phrases, rules.same
        self.how = tuple(map(np.int32, how))
        shapes = {"codes": (words,), "moved": (words,), "before": (3, words)}
        empty = {k: ops.xp.zeros((N, *shape), np.int32) for k, shape in shapes.items()}
        K = (N, self.K)
        self.heads = ops.asarray(np.full((N, 3, SLOTS), NONE), np.int32)
        self.pointers, self.candidates, self.runs = (
            ops.asarray(np.broadcast_to(a, K), np.int32)
            for a in (start.pointers, start.candidates, start.runs)
        )
        self.numbers = ops.asarray(np.broadcast_to(start.numbers, (N, NUMBERS)), np.int64)
        times = ops.xp.zeros((N, words), np.int64)
        self.past = (
            empty["codes"], empty["moved"], times, self.heads, empty["before"], self.pointers,
            self.candidates, self.runs, self.numbers,
        )  # fmt: skip
        self.copied, self.draws = ops.xp.zeros(N, np.int32), ops.xp.zeros(N, np.float64)

    def choose(self, state: State, allowed: Array, position: Array, first: int) -> None:
        """Choose what each piece copies after a step to a state, among what is allowed (N, V).

        position, first: of the random numbers, as DeviceSampler has them.
        """
        o, (k0, k1) = self.options, split_seed(self.options.seed)
        self.ops.launch(
            "recall", "recall_choose", (blocks(self.N, THREADS),), (THREADS,),
            self.model.copy_scores(state), self.table, self.candidates,
            self.runs, self.pointers, self.numbers, self.ids, np.int32(len(self.ids)),
            allowed, np.int32(allowed.shape[1]),
            np.float64(o.temperature), np.float64(o.top_p), np.int32(o.greedy),
            np.uint32(k0), np.uint32(k1), np.uint32(first), position, self.copied, self.draws,
            np.int32(self.N), np.int32(self.K),
        )  # fmt: skip

    def advance(self, following: Array, done: Array, start: int) -> None:
        """Take each piece's next word (N,), where it isn't done; after `start` all is forgotten."""
        self.ops.launch(
            "recall", "recall_advance", (self.N,), (128,),
            self.words, self.lags, *self.how, np.int32(self.K), np.int32(self.room), *self.past,
            following, done, np.int32(start),
        )  # fmt: skip
