"""Heads: from the last layer's output to a loss, its gradients, and what may come next.

Here that of tokens; of words in two parts: `factored.py`; of notes: `notes.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.network.embedding import Shapes
from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.workspace import rows_as


@dataclass(frozen=True)
class SoftmaxHead:
    """One of V tokens: logits = h·W + b, softmax, cross-entropy in nats.

    Parameters: "W" (H, V), "b" (V,). wide: those with a column a word, whose rows a backend aligns.
    """

    wide: ClassVar[tuple[str, ...]] = ("W",)
    H: int
    V: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"W": (self.H, self.V), "b": (self.V,)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: weights uniform in ±1/√H, biases 0."""
        return uniform_parameters(ops, rng, self.shapes())

    @staticmethod
    def targets(y: Array) -> Array:
        """Return ids (N,) as the losses take them."""
        return y

    @staticmethod
    def logits(ops: NumpyOps, p: Mapping[str, Array], h: Array) -> Array:
        """Return the unnormalised log-probabilities (B, V) of outputs h (B, H)."""
        return affine(ops, h, p["W"], p["b"])

    @staticmethod
    def losses(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Array, work: Workspace
    ) -> Array:
        """Return the nats of each target. h (N, H), targets (N,) with -1 for none -> (N,)."""
        losses = work.array("losses", targets.shape)
        ops.linear_softmax_nll(h, p["W"], p["b"], targets, losses, work)
        return losses

    @staticmethod
    def losses_and_grads(
        ops: NumpyOps,
        p: Mapping[str, Array],
        h: Array,
        targets: Array,
        scale: float,
        work: Workspace,
        mix: Mixture | None = None,
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return losses (N,), dh (N, H) and {"W", "b"}; the gradients are of scale · Σ losses."""
        losses = work.array("losses", targets.shape)
        dh = work.array("dh_head", h.shape)
        dW, db = work.like("dW", p["W"]), work.array("db", p["b"].shape)
        ops.linear_softmax_xent(h, p["W"], p["b"], targets, scale, losses, dh, dW, db, work, mix)
        return losses, dh, {"W": dW, "b": db}


def uniform_parameters(ops: NumpyOps, rng: np.random.Generator, shapes: Shapes) -> dict[str, Array]:
    """Return matrices (K, N) uniform in ±1/√K, and vectors of 0."""
    p = {}
    for name, shape in shapes.items():
        bound = 1 / np.sqrt(shape[0])
        value = rng.uniform(-bound, bound, shape) if len(shape) == 2 else np.zeros(shape)
        p[name] = ops.asarray(value)
    return p


def affine(ops: NumpyOps, h: Array, W: Array, b: Array | None) -> Array:
    """Return h·W + b as sampling needs it, see `ops.affine`. h (B, H), W (H, N), b (N,) or None."""
    out = rows_as(ops.xp.empty, W, len(h))
    ops.affine(h, W, b, out)
    return out


def linear(ops: NumpyOps, h: Array, W: Array, b: Array, work: Workspace, name: str) -> Array:
    """Return h·W + b in scratch of that name. h (N, H), W (H, K), b (K,)."""
    out = work.array(name, (len(h), len(b)))
    ops.matmul(h, W, out)
    out += b
    return out


def linear_grads(
    ops: NumpyOps,
    p: Mapping[str, Array],
    h: Array,
    d: Array,
    work: Workspace,
    weight: str,
    bias: str,
) -> dict[str, Array]:
    """Return the gradients of a linear map's weight and bias, by name. h (N, H), d (N, K)."""
    dW, db = work.like("d" + weight, p[weight]), work.array("d" + bias, p[bias].shape)
    ops.matmul(h.T, d, dW)
    ops.xp.sum(d, axis=0, out=db)
    return {weight: dW, bias: db}
