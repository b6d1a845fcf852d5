"""The network: embedding -> L LSTM layers -> head, with dropout between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lstm_music.arrays import Array, Batch
from lstm_music.network.biaxial import BiaxialHead
from lstm_music.network.config import Config, Gradients, Parameters, Ready, State, ignore
from lstm_music.network.copying import mean_of_rows
from lstm_music.network.factored import Parts
from lstm_music.network.lstm import lstm_backward, lstm_forward, lstm_init, lstm_step
from lstm_music.network.notes import NadeHead, SigmoidHead
from lstm_music.network.sampled import Draws
from lstm_music.ops import NumpyOps


class Model:
    """A model's parameters, and the maths that orders the layers.

    words: of a factored head, the classes (V,) and deltas (V,) of its words, from 0, and -1 as the
    delta of a word that has none. draws: the words that training predicts among, None for all.
    """

    def __init__(
        self,
        config: Config,
        ops: NumpyOps,
        seed: int = 0,
        parameters: Parameters | None = None,
        words: tuple[Array, Array] | None = None,
    ) -> None:
        self.config, self.ops, self.words = config, ops, words
        assert (words is not None) == (config.head == "factored")
        parts = Parts.by_id(ops, *words) if words else None
        self.embedding, self.head = config.make_embedding(parts), config.make_head(parts)
        self.gate = config.make_gate()
        self.draws: Draws | None = None
        given = init_parameters(config, ops, seed) if parameters is None else parameters
        wide = {f"head.{name}" for name in self.head.wide}
        self.parameters = {k: ops.aligned(p) if k in wide else p for k, p in given.items()}
        self._work = [ops.workspace() for _ in range(config.layers)]
        self._head_work = ops.workspace()
        self._embedding_work = ops.workspace()

    def with_parameters(self, parameters: Parameters) -> "Model":
        """Return the same network with other parameters and scratch of its own."""
        return Model(self.config, self.ops, parameters=parameters, words=self.words)

    def zero_state(self, B: int) -> State:
        """Return the state before the first token of B pieces."""
        shape = (self.config.layers, B, self.config.rows * self.config.hidden)
        return State(
            self.ops.xp.zeros(shape, self.ops.dtype), self.ops.xp.zeros(shape, self.ops.dtype)
        )

    def loss_and_grads(
        self, batch: Batch, state: State, seed: int = 0, step: int = 0, ready: Ready = ignore
    ) -> tuple[float, Gradients, State]:
        """Return the mean nats per target, every gradient, and the state after the window.

        (seed, step) choose dropout masks and draws. The gradients live until the next call. ready
        is called with some of them as soon as they are there, the head's first. Of a shared window,
        loss and gradients are this process's part of the sums.
        """
        losses, grads, final = self.losses_and_grads(batch, state, seed, step, ready)
        return float(losses.sum(dtype="float64")) / max(batch.targets, 1), grads, final

    def losses_and_grads(
        self,
        batch: Batch,
        state: State,
        seed: int = 0,
        step: int = 0,
        ready: Ready = ignore,
        final: State | None = None,
    ) -> tuple[Array, Gradients, State]:
        """As `loss_and_grads`, with the nats of each target (T·B,), nothing read from a device.

        final: where to write the state after the window, which may be the state before it.
        """
        ops, p = self.ops, self.parameters
        y, caches, final = self._forward(batch, state, seed, step, train=True, final=final)
        T, B, W = y.shape
        losses, dy, grads = self._head_backward(y.reshape(T * B, W), batch, seed, step)
        ready(grads)
        d = dy.reshape(T, B * self.config.rows, -1)
        for layer in reversed(range(self.config.layers)):
            self._dropout(d, seed, layer + 1, step, batch)
            d, _, found = lstm_backward(
                ops, part(p, f"lstm.{layer}"), d, None, None, caches[layer], self._work[layer]
            )
            layer_grads: Gradients = {f"lstm.{layer}.{name}": g for name, g in found.items()}
            ready(layer_grads)
            grads |= layer_grads
        self._dropout(d, seed, 0, step, batch)
        own, x, dx = part(p, "embedding"), rows_of(batch.x), d.reshape(T * B, -1)
        embedding = self.embedding.backward(ops, own, x, dx, self._embedding_work)
        last: Gradients = {f"embedding.{name}": g for name, g in embedding.items()}
        ready(last)
        grads |= last
        return losses, grads, final

    def _head_backward(
        self, h: Array, batch: Batch, seed: int, step: int
    ) -> tuple[Array, Array, Gradients]:
        """Return the losses (N,), dh and the gradients of the head, and of the copy gate."""
        ops, work, scale = self.ops, self._head_work, 1 / max(batch.targets, 1)
        own, targets = part(self.parameters, "head"), self.targets(batch.y)
        trained = self.draws.head(seed, step) if self.draws else self.head
        if self.gate is None:
            losses, dh, head = trained.losses_and_grads(ops, own, h, targets, scale, work)
            return losses, dh, {f"head.{name}": g for name, g in head.items()}
        recall, p = self._recalled(batch), part(self.parameters, "copy")
        shares, mix = self.gate.shares(ops, p, h, recall, work)
        losses, dh, head = trained.losses_and_grads(ops, own, h, targets, scale, work, mix)
        gate = self.gate.backward(ops, p, h, recall, shares, losses, scale, dh, work)
        named = [(f"head.{name}", g) for name, g in head.items()]
        return losses, dh, dict([*named, *((f"copy.{name}", g) for name, g in gate.items())])

    def _recalled(self, batch: Batch) -> Array:
        """Return what a window's words could be copied from, (N, K)."""
        assert batch.recall is not None
        return rows_of(batch.recall)

    def losses(self, batch: Batch, state: State) -> tuple[Array, State]:
        """Return the nats of each target (T, B), 0 where there is none, and the next state."""
        y, _, final = self._forward(batch, state, 0, 0, train=False)
        T, B, H = y.shape
        own, h, work = part(self.parameters, "head"), y.reshape(T * B, H), self._head_work
        losses = self.head.losses(self.ops, own, h, self.targets(batch.y), work)
        if self.gate is not None:
            p = part(self.parameters, "copy")
            _, mix = self.gate.shares(self.ops, p, h, self._recalled(batch), work)
            self.ops.mix_losses(losses, mix)
            if not self.config.reads_notes:
                losses *= rows_of(batch.y) >= 0  # a mixture may have shares though nothing is asked
        return losses.reshape(T, B), final

    def outputs(self, batch: Batch, state: State) -> tuple[Array, State]:
        """Return the last layer's outputs (T, B, H), which live until the next call, and state."""
        y, _, final = self._forward(batch, state, 0, 0, train=False)
        return y, final

    def step(self, x: Array, state: State, after: State | None = None) -> tuple[Array, State]:
        """Read one token or note vector of each piece, and say what may come next.

        x (B,) ids or (B, D + 1) notes -> logits (B, V) of tokens or (B, D) of notes, next state.
        after: where to write the next state, another than state.
        Of a NADE, whose notes have no logits before those below are known, ask `step_and_draw`.
        """
        out, after = self._step(x, state, after)
        return self.logits(out), after

    def read(self, x: Array, state: State) -> State:
        """As `step`, without saying what may come next: the next state, whose h[-1] can tell."""
        return self._step(x, state)[1]

    def logits(self, h: Array) -> Array:
        """Return what may come next (N, V) by the last layer's outputs h (N, H); see `step`."""
        assert not isinstance(self.head, NadeHead | BiaxialHead)
        return self.head.logits(self.ops, part(self.parameters, "head"), h)

    def copy_scores(self, state: State) -> Array:
        """Return a copy gate's scores (B, K) after a step to a state, but for what runs add."""
        h, G = mean_of_rows(state.h[-1], self.config.hidden), self.parameters["copy.G"]
        scores: Array = self.ops.xp.empty((len(h), G.shape[1]), self.ops.dtype)
        self.ops.affine(h, G, None, scores)
        scores /= self.ops.real(h.shape[1])
        return scores

    def step_and_draw(
        self, x: Array, state: State, draws: Array, temperature: float
    ) -> tuple[Array, State]:
        """Read one note vector of each piece and draw the next; see the heads' `draw`.

        x (B, D + 1) and draws (B, D) -> notes (B, D) uint8, next state.
        """
        out, after = self._step(x, state)
        return self.draw(out, draws, temperature), after

    def draw(self, h: Array, draws: Array, temperature: float) -> Array:
        """Draw notes (N, D) uint8 for outputs h (N, H) by uniform numbers draws (N, D)."""
        assert isinstance(self.head, SigmoidHead | NadeHead | BiaxialHead)
        return self.head.draw(self.ops, part(self.parameters, "head"), h, draws, temperature)

    def _step(self, x: Array, state: State, after: State | None = None) -> tuple[Array, State]:
        """Return the last layer's output (B, H) after one input, and the next state."""
        ops, p = self.ops, self.parameters
        rows = len(x) * self.config.rows
        out = ops.xp.empty((rows, self.config.embedding), ops.dtype)
        read = out.reshape(len(x), -1)
        self.embedding.step(ops, part(p, "embedding"), x, read, self._embedding_work)
        after = after or State(ops.xp.empty_like(state.h), ops.xp.empty_like(state.c))
        for layer in range(self.config.layers):
            own = part(p, f"lstm.{layer}")
            h, c, *to = (a[layer].reshape(rows, -1) for a in (*state, *after))
            out, _ = lstm_step(ops, own, out, h, c, (to[0], to[1]))
        return out.reshape(len(x), -1), after

    def _forward(
        self,
        batch: Batch,
        state: State,
        seed: int,
        step: int,
        train: bool,
        final: State | None = None,
    ) -> tuple[Array, list[Any], State]:
        """Run embedding and layers; return outputs (T, B, H), caches, and the final state."""
        ops, p = self.ops, self.parameters
        T, B = batch.x.shape[:2]
        work, rows = self._embedding_work, self.config.rows
        x = work.array("x", (T, B * rows, self.config.embedding))
        read = rows_of(batch.x), x.reshape(T * B, -1)
        self.embedding.forward(ops, part(p, "embedding"), *read, work)
        keep = batch.keep
        if keep is not None and rows > 1:
            of_rows = work.array("keep", (T, B, rows))
            of_rows[...] = keep[:, :, None]
            keep = of_rows.reshape(T, B * rows)
        if train:
            self._dropout(x, seed, 0, step, batch)
        final = final or State(ops.xp.empty_like(state.h), ops.xp.empty_like(state.c))
        caches = []
        for layer, work in enumerate(self._work):
            h, c, *to = (a[layer].reshape(B * rows, -1) for a in (*state, *final))
            own = part(p, f"lstm.{layer}")
            y, _, cache = lstm_forward(ops, own, x, h, c, keep, work, (to[0], to[1]))
            caches.append(cache)
            x = y
            if train and self.config.dropout_after(layer + 1):
                # The layer's own backward pass needs its outputs undropped.
                x = work.array("dropped", y.shape)
                self._dropout(y, seed, layer + 1, step, batch, x)
        return x.reshape(T, B, -1), caches, final

    def targets(self, y: Array) -> Any:
        """Return a window's y as the head takes it: ids (N,) or their parts, or notes (N, D)."""
        return self.head.targets(rows_of(y))

    def _dropout(
        self, x: Array, seed: int, layer: int, step: int, batch: Batch, out: Array | None = None
    ) -> None:
        rate = self.config.dropout_after(layer)
        if rate:
            rows = self.config.rows
            whole = batch.whole and batch.whole * rows
            self.ops.dropout(x, rate, seed, layer, step, batch.first * rows, whole, out)


def rows_of(a: Array) -> Array:
    """Return a window's ids (T, B) as (N,), or its note vectors (T, B, D) as (N, D)."""
    return a.reshape(-1, *a.shape[2:])


def init_parameters(config: Config, ops: NumpyOps, seed: int) -> Parameters:
    """Return the parameters of a new model, in reading order, from a seed."""
    rng = np.random.default_rng(seed)
    tables = config.make_embedding().init(ops, rng)
    p: Parameters = {f"embedding.{name}": value for name, value in tables.items()}
    width = config.embedding
    for layer in range(config.layers):
        for name, value in lstm_init(ops, rng, width, config.hidden).items():
            p[f"lstm.{layer}.{name}"] = value
        width = config.hidden
    for name, value in config.make_head().init(ops, rng).items():
        p[f"head.{name}"] = value
    gate = config.make_gate()
    return p | {f"copy.{name}": value for name, value in (gate.init(ops) if gate else {}).items()}


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter of a model."""
    E, H = config.embedding, config.hidden
    tables = config.make_embedding().shapes()
    shapes = {f"embedding.{name}": shape for name, shape in tables.items()}
    for layer in range(config.layers):
        width = E if layer == 0 else H
        shapes[f"lstm.{layer}.Wx"] = (width, 4 * H)
        shapes[f"lstm.{layer}.Wh"] = (H, 4 * H)
        shapes[f"lstm.{layer}.b"] = (4 * H,)
    head = config.make_head().shapes()
    shapes |= {f"head.{name}": shape for name, shape in head.items()}
    gate = config.make_gate()
    return shapes | {f"copy.{name}": s for name, s in (gate.shapes() if gate else {}).items()}


def part(p: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the parameters "prefix.name" as {name: value}."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in p.items() if name.startswith(start)}
