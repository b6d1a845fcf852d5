"""Heads: from the last layer's output to a loss, its gradients, and next-token logits."""

from collections.abc import Mapping

import numpy as np

from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.numpy_ops import Array


class SoftmaxHead:
    """One of V tokens: logits = h·W + b, softmax, cross-entropy in nats.

    Parameters: "W" (H, V), "b" (V,).
    """

    @staticmethod
    def init(ops: NumpyOps, rng: np.random.Generator, H: int, V: int) -> dict[str, Array]:
        """Return new parameters: weights uniform in ±1/√H, biases 0."""
        bound = 1 / np.sqrt(H)
        return {
            "W": ops.asarray(rng.uniform(-bound, bound, (H, V))),
            "b": ops.asarray(np.zeros(V)),
        }

    @staticmethod
    def logits(ops: NumpyOps, p: Mapping[str, Array], h: Array) -> Array:
        """Return the unnormalised log-probabilities (B, V) of outputs h (B, H)."""
        logits: Array = ops.xp.empty((len(h), len(p["b"])), ops.dtype)
        ops.affine(h, p["W"], p["b"], logits)
        return logits

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
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return losses (N,), dh (N, H) and {"W", "b"}; the gradients are of scale · Σ losses."""
        losses = work.array("losses", targets.shape)
        dh = work.array("dh_head", h.shape)
        dW, db = work.array("dW", p["W"].shape), work.array("db", p["b"].shape)
        ops.linear_softmax_xent(h, p["W"], p["b"], targets, scale, losses, dh, dW, db, work)
        return losses, dh, {"W": dW, "b": db}
