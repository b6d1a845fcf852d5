"""Free sampling wholly on a GPU: the step, the draw and the feedback of a token are one CUDA graph.

The host launches a replay for each token and copies nothing until the end; a seed gives the ids
that lstm_music.sampler draws without rules, but for ties within rounding. Rules (`--strict`) live
on the CPU: an unchanging mask of allowed ids is all that this loop knows.
"""

from typing import Any

import numpy as np

from lstm_music.model import Model
from lstm_music.ops.cupy_ops import Allocator, CupyOps
from lstm_music.ops.numpy_ops import Array
from lstm_music.ops.philox import split_seed
from lstm_music.sampler import Options

THREADS = 512  # of the block that draws for a piece
LOOK_EVERY = 256  # tokens, between looks at whether all pieces have ended


class DeviceSampler:
    """Draws for N pieces at once with a model on the cupy backend.

    first: the number of the first piece, which chooses its random numbers. allowed: bytes (V,),
    the ids that may be drawn, or None.
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
        self.shares = xp.empty((N, V), np.uint64)
        self.state = model.zero_state(N)
        self.stream = xp.cuda.Stream(non_blocking=False)
        self.pool = xp.cuda.MemoryPool()

    def run(self, most: int) -> list[list[int]]:
        """Draw at most so many tokens a piece; return each piece's ids, without the end symbol."""
        out = self.ops.asarray(np.full((most, self.N), -1), np.int32)
        # Memory of its own: what the captured step frees, nobody else may get.
        with self.stream, self.ops.xp.cuda.using_allocator(Allocator(self.ops.xp, self.pool)):
            # Once outside the graph, so that everything is compiled and allocated.
            self._token(out)
            graph: Any = None
            for t in range(1, most):
                if t % LOOK_EVERY == 0 and self.ops.to_numpy(self.done).all():
                    break
                if graph is None:
                    self.stream.begin_capture(self.ops.xp.cuda.runtime.streamCaptureModeRelaxed)
                    self._token(out)
                    graph = self.stream.end_capture()
                graph.launch(self.stream)
            ids = self.ops.to_numpy(out)
        return [[int(id) for id in column if id >= 0] for column in ids.T]

    def _token(self, out: Array) -> None:
        """Read the last token of each piece, draw the next."""
        logits, state = self.model.step(self.next, self.state)
        self.state.h[...] = state.h
        self.state.c[...] = state.c
        self.draw(logits, out)
        self.ops.launch("sample", "sample_advance", (1,), (1,), self.position)

    def draw(self, logits: Array, out: Array, draws: Array | None = None) -> None:
        """Draw from logits (N, V); draws (N,) float64 replace the seed's numbers, for tests."""
        o, (k0, k1) = self.options, split_seed(self.options.seed)
        V = logits.shape[1]
        self.ops.launch(
            "sample", "sample_forward", (self.N,), (THREADS,),
            logits, None, self.allowed, np.int32(0), self.shares, np.int32(V),
            np.float64(o.temperature), np.int32(min(o.top_k, V)), np.float64(o.top_p),
            np.int32(o.greedy), np.uint32(k0), np.uint32(k1), np.uint32(self.first),
            self.position, draws, np.int32(self.start), self.next, out, self.done,
        )  # fmt: skip
