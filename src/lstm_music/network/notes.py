"""Note vectors, of piano rolls: their embedding, and the heads that predict them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lstm_music.arrays import Array, Mixture, RowGradient
from lstm_music.network.embedding import Shapes, normal_parameters
from lstm_music.network.heads import affine, linear, linear_grads, uniform_parameters
from lstm_music.ops import NumpyOps, Workspace


@dataclass(frozen=True)
class NoteEmbedding:
    """The sum of the rows of the notes that sound. Parameters: "W" (D + 1, E).

    Inputs x are (N, D + 1) uint8 0/1, the last of them the start symbol.
    """

    D: int
    E: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"W": (self.D + 1, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: normal, of variance 1."""
        return normal_parameters(ops, rng, self.shapes())

    @staticmethod
    def forward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write the embeddings of x to out (N, E)."""
        ops.note_embedding_forward(p["W"], x, out)

    @staticmethod
    def step(ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace) -> None:
        """As forward, for sampling: a row's bits don't depend on the others."""
        ops.affine(ops.asarray(x), p["W"], None, out)

    @staticmethod
    def backward(
        ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"W"}; dx (N, E)."""
        dW = work.array("dW", p["W"].shape)
        ops.note_embedding_backward(x, dx, dW)
        return {"W": dW}


@dataclass(frozen=True)
class SigmoidHead:
    """D independent notes: logits = h·W + b, sigmoid, cross-entropy in nats summed over notes.

    Parameters: "W" (H, D), "b" (D,). Targets are (N, D) uint8 0/1; a row that begins with NO_NOTES
    has none.
    """

    wide: ClassVar[tuple[str, ...]] = ()
    H: int
    D: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"W": (self.H, self.D), "b": (self.D,)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: weights uniform in ±1/√H, biases 0."""
        return uniform_parameters(ops, rng, self.shapes())

    @staticmethod
    def targets(y: Array) -> Array:
        """Return notes (N, D) as the losses take them."""
        return y

    @staticmethod
    def losses(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Array, work: Workspace
    ) -> Array:
        """Return the nats of each row of notes. h (N, H), targets (N, D) -> (N,)."""
        losses = work.array("losses", (len(h),))
        ops.sigmoid_nll(linear(ops, h, p["W"], p["b"], work, "logits"), targets, losses)
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
        losses, dh = work.array("losses", (len(h),)), work.array("dh_head", h.shape)
        logits = linear(ops, h, p["W"], p["b"], work, "logits")
        ops.sigmoid_xent(logits, targets, losses, scale, mix)
        ops.matmul(logits, p["W"].T, dh)
        return losses, dh, linear_grads(ops, p, h, logits, work, "W", "b")

    @staticmethod
    def logits(ops: NumpyOps, p: Mapping[str, Array], h: Array) -> Array:
        """Return the log-odds (B, D) of each note, from outputs h (B, H)."""
        return affine(ops, h, p["W"], p["b"])

    @staticmethod
    def draw(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, draws: Array, temperature: float
    ) -> Array:
        """Return notes (B, D) uint8 drawn by uniform numbers draws (B, D); 0.5 takes the likelier.

        A note's log-odds are divided by temperature.
        """
        z = affine(ops, h, p["W"], p["b"]) / temperature
        notes: Array = (draws < ops.xp.tanh(z / 2) / 2 + 0.5).astype(np.uint8)
        return notes


@dataclass(frozen=True)
class NadeHead:
    """D notes, each given the output and the notes below it: RNN-NADE.

    The biases of a NADE (Larochelle & Murray 2011) are linear in the output h, as in
    Boulanger-Lewandowski et al. 2012, section 5: visible h·Wv + bv, hidden h·Wh + bh.
    Parameters: "Wv" (H, D), "bv" (D,), "Wh" (H, K), "bh" (K,), "W" and "U" (D, K), from notes to
    hidden units and back. Targets as for SigmoidHead.
    """

    wide: ClassVar[tuple[str, ...]] = ()
    H: int
    D: int
    K: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        H, D, K = self.H, self.D, self.K
        return {"Wv": (H, D), "bv": (D,), "Wh": (H, K), "bh": (K,), "W": (D, K), "U": (D, K)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: biases 0, weights uniform in ±1/√(what they are summed over)."""
        p = uniform_parameters(ops, rng, {k: s for k, s in self.shapes().items() if k[0] != "U"})
        bound = 1 / np.sqrt(self.K)
        return p | {"U": ops.asarray(rng.uniform(-bound, bound, (self.D, self.K)))}

    @staticmethod
    def targets(y: Array) -> Array:
        """Return notes (N, D) as the losses take them."""
        return y

    @staticmethod
    def losses(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Array, work: Workspace
    ) -> Array:
        """Return the nats of each row of notes. h (N, H), targets (N, D) -> (N,)."""
        losses = work.array("losses", (len(h),))
        visible = linear(ops, h, p["Wv"], p["bv"], work, "visible")
        hidden = linear(ops, h, p["Wh"], p["bh"], work, "hidden")
        ops.nade_nll(visible, hidden, targets, p["W"], p["U"], losses)
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
        """Return losses (N,), dh (N, H) and each gradient, of scale · Σ losses."""
        losses, dh = work.array("losses", (len(h),)), work.array("dh_head", h.shape)
        visible = linear(ops, h, p["Wv"], p["bv"], work, "visible")
        hidden = linear(ops, h, p["Wh"], p["bh"], work, "hidden")
        dW, dU = work.array("dW", p["W"].shape), work.array("dU", p["U"].shape)
        ops.nade_xent(visible, hidden, targets, p["W"], p["U"], scale, losses, dW, dU, work, mix)
        ops.matmul(visible, p["Wv"].T, dh)
        ops.matmul_add(hidden, p["Wh"].T, dh)
        return (
            losses,
            dh,
            linear_grads(ops, p, h, visible, work, "Wv", "bv")
            | linear_grads(ops, p, h, hidden, work, "Wh", "bh")
            | {"W": dW, "U": dU},
        )

    @staticmethod
    def draw(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, draws: Array, temperature: float
    ) -> Array:
        """Return notes (B, D) uint8 drawn by uniform numbers draws (B, D); 0.5 takes the likelier.

        Each note's log-odds, given those below it, are divided by temperature.
        """
        notes: Array = ops.xp.empty(draws.shape, np.uint8)
        visible = affine(ops, h, p["Wv"], p["bv"])
        hidden = affine(ops, h, p["Wh"], p["bh"])
        ops.nade_sample(visible, hidden, p["W"], p["U"], draws, temperature, notes)
        return notes
