"""The network: embedding -> L LSTM layers -> head, with dropout between them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_music.errors import UserError
from lstm_music.heads import SoftmaxHead
from lstm_music.lstm import lstm_backward, lstm_forward, lstm_init, lstm_step
from lstm_music.ops import NumpyOps
from lstm_music.ops.numpy_ops import Array, RowGradient

Parameters = dict[str, Array]
Gradients = dict[str, Array | RowGradient]


@dataclass(frozen=True)
class Config:
    """The shape of a model; defaults are the paper's (Huang & Wu 2016, section 4)."""

    vocabulary: int
    embedding: int = 128
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "embedding", "hidden", "layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value}: use a whole number of at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}: use a number from 0 to below 1")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary that JSON can hold."""
        return asdict(self)


class Batch(NamedTuple):
    """One window of B streams.

    x (T, B) ids in; y (T, B) ids to predict, -1 for none; keep (T, B), 0 where a piece starts,
    None where none does; targets, how many there are to predict.
    """

    x: Array
    y: Array
    keep: Array | None
    targets: int


class State(NamedTuple):
    """What the network remembers: h, c (L, B, H)."""

    h: Array
    c: Array


class Model:
    """A model's parameters, and the maths that orders the layers."""

    def __init__(
        self, config: Config, ops: NumpyOps, seed: int = 0, parameters: Parameters | None = None
    ) -> None:
        self.config, self.ops = config, ops
        self.parameters = init_parameters(config, ops, seed) if parameters is None else parameters
        self._work = [ops.workspace() for _ in range(config.layers)]
        self._head_work = ops.workspace()
        self._embedding_work = ops.workspace()

    def zero_state(self, B: int) -> State:
        """Return the state before the first token of B pieces."""
        shape = (self.config.layers, B, self.config.hidden)
        return State(
            self.ops.xp.zeros(shape, self.ops.dtype), self.ops.xp.zeros(shape, self.ops.dtype)
        )

    def loss_and_grads(
        self, batch: Batch, state: State, seed: int = 0, step: int = 0
    ) -> tuple[float, Gradients, State]:
        """Return the mean nats per target, every gradient, and the state after the window.

        (seed, step) choose the dropout masks. The gradients live until the next call.
        """
        losses, grads, final = self.losses_and_grads(batch, state, seed, step)
        return float(losses.sum(dtype="float64")) / max(batch.targets, 1), grads, final

    def losses_and_grads(
        self, batch: Batch, state: State, seed: int = 0, step: int = 0
    ) -> tuple[Array, Gradients, State]:
        """As `loss_and_grads`, with the nats of each target (T·B,), nothing read from a device."""
        ops, p = self.ops, self.parameters
        y, caches, final = self._forward(batch, state, seed, step, train=True)
        T, B, H = y.shape
        losses, dy, head = SoftmaxHead.losses_and_grads(
            ops,
            part(p, "head"),
            y.reshape(T * B, H),
            batch.y.reshape(-1),
            1 / max(batch.targets, 1),
            self._head_work,
        )
        grads: Gradients = {f"head.{name}": g for name, g in head.items()}
        d = dy.reshape(T, B, H)
        for layer in reversed(range(self.config.layers)):
            self._dropout(d, seed, layer + 1, step)
            d, _, layer_grads = lstm_backward(
                ops, part(p, f"lstm.{layer}"), d, None, None, caches[layer], self._work[layer]
            )
            grads |= {f"lstm.{layer}.{name}": g for name, g in layer_grads.items()}
        self._dropout(d, seed, 0, step)
        grads["embedding.W"] = ops.embedding_backward(
            batch.x.reshape(-1), d.reshape(T * B, self.config.embedding)
        )
        return losses, grads, final

    def losses(self, batch: Batch, state: State) -> tuple[Array, State]:
        """Return the nats of each target (T, B), 0 where there is none, and the next state."""
        y, _, final = self._forward(batch, state, 0, 0, train=False)
        T, B, H = y.shape
        losses = SoftmaxHead.losses(
            self.ops,
            part(self.parameters, "head"),
            y.reshape(T * B, H),
            batch.y.reshape(-1),
            self._head_work,
        )
        return losses.reshape(T, B), final

    def step(self, x: Array, state: State) -> tuple[Array, State]:
        """Read one token of each piece: x (B,) ids -> next-token logits (B, V), next state."""
        ops, p = self.ops, self.parameters
        out = p["embedding.W"][x]
        h, c = ops.xp.empty_like(state.h), ops.xp.empty_like(state.c)
        for layer in range(self.config.layers):
            h[layer], c[layer] = lstm_step(
                ops, part(p, f"lstm.{layer}"), out, state.h[layer], state.c[layer]
            )
            out = h[layer]
        return SoftmaxHead.logits(ops, part(p, "head"), out), State(h, c)

    def _forward(
        self, batch: Batch, state: State, seed: int, step: int, train: bool
    ) -> tuple[Array, list[Any], State]:
        """Run embedding and layers; return outputs (T, B, H), caches, and the final state."""
        ops, p = self.ops, self.parameters
        T, B = batch.x.shape
        x = self._embedding_work.array("x", (T, B, self.config.embedding))
        ops.embedding_forward(p["embedding.W"], batch.x, x)
        if train:
            self._dropout(x, seed, 0, step)
        final = State(ops.xp.empty_like(state.h), ops.xp.empty_like(state.c))
        caches = []
        for layer, work in enumerate(self._work):
            y, (hT, cT), cache = lstm_forward(
                ops,
                part(p, f"lstm.{layer}"),
                x,
                state.h[layer],
                state.c[layer],
                batch.keep,
                work,
            )
            final.h[layer], final.c[layer] = hT, cT
            caches.append(cache)
            x = y
            if train and self.config.dropout:
                # The layer's own backward pass needs its outputs undropped.
                x = work.array("dropped", y.shape)
                x[...] = y
                self._dropout(x, seed, layer + 1, step)
        return x, caches, final

    def _dropout(self, x: Array, seed: int, site: int, step: int) -> None:
        if self.config.dropout:
            self.ops.dropout(x, self.config.dropout, seed, site, step)


def init_parameters(config: Config, ops: NumpyOps, seed: int) -> Parameters:
    """Return the parameters of a new model, in reading order, from a seed."""
    rng = np.random.default_rng(seed)
    p: Parameters = {
        "embedding.W": ops.asarray(rng.normal(0, 1.0, (config.vocabulary, config.embedding)))
    }
    width = config.embedding
    for layer in range(config.layers):
        for name, value in lstm_init(ops, rng, width, config.hidden).items():
            p[f"lstm.{layer}.{name}"] = value
        width = config.hidden
    for name, value in SoftmaxHead.init(ops, rng, config.hidden, config.vocabulary).items():
        p[f"head.{name}"] = value
    return p


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every parameter of a model."""
    V, E, H = config.vocabulary, config.embedding, config.hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.W": (V, E)}
    for layer in range(config.layers):
        width = E if layer == 0 else H
        shapes[f"lstm.{layer}.Wx"] = (width, 4 * H)
        shapes[f"lstm.{layer}.Wh"] = (H, 4 * H)
        shapes[f"lstm.{layer}.b"] = (4 * H,)
    return shapes | {"head.W": (H, V), "head.b": (V,)}


def part(p: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the parameters "prefix.name" as {name: value}."""
    start = prefix + "."
    return {name[len(start) :]: value for name, value in p.items() if name.startswith(start)}
