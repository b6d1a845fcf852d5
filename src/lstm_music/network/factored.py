"""Words in two parts, a class and a delta: their embedding, and the head that predicts them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from lstm_music.arrays import Array, Mixture, RowGradient
from lstm_music.network.embedding import Shapes, normal_parameters
from lstm_music.network.heads import affine, uniform_parameters
from lstm_music.ops import NumpyOps, Workspace

TINY = 1e-30  # in place of a share of 0, whose log is not finite


class Parts(NamedTuple):
    """Words in two parts: classes (N,), -1 for no word, and deltas (N,), -1 where there is none."""

    classes: Array
    deltas: Array

    @classmethod
    def by_id(cls, ops: NumpyOps, classes: Array, deltas: Array) -> "Parts":
        """Return the parts of V words (V + 1,) on a backend, the last those of the id -1: none."""
        return cls(*(ops.asarray([*part, -1], np.int32) for part in (classes, deltas)))

    def of(self, ids: Array) -> "Parts":
        """Return the parts of the words with these ids (N,); an id of -1 takes the last ones."""
        return Parts(self.classes[ids], self.deltas[ids])


@dataclass(frozen=True)
class FactoredEmbedding:
    """The sum of two rows, one of C classes' and one of D deltas', for a word in two parts.

    Parameters: "Wc" (C, E), "Wd" (D, E). Inputs x are (N,) ids of words; a word without a delta
    takes the first row: its class says all.
    """

    C: int
    D: int
    E: int
    words: Parts | None = field(default=None, compare=False)

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"Wc": (self.C, self.E), "Wd": (self.D, self.E)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: normal, of variance 1."""
        return normal_parameters(ops, rng, self.shapes())

    def forward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, out: Array, work: Workspace
    ) -> None:
        """Write the embeddings of x to out (N, E)."""
        classes, deltas = self._rows_of(ops, x)
        rows = work.array("rows", out.shape)
        ops.embedding_forward(p["Wc"], classes, out)
        ops.embedding_forward(p["Wd"], deltas, rows)
        out += rows

    step = forward

    def backward(
        self, ops: NumpyOps, p: Mapping[str, Array], x: Array, dx: Array, work: Workspace
    ) -> dict[str, Array | RowGradient]:
        """Return {"Wc", "Wd"}; dx (N, E)."""
        classes, deltas = self._rows_of(ops, x)
        dWc, dWd = (work.array(f"d{name}", p[name].shape) for name in ("Wc", "Wd"))
        ops.embedding_backward_dense(classes, dx, dWc)
        ops.embedding_backward_dense(deltas, dx, dWd)
        return {"Wc": dWc, "Wd": dWd}

    def _rows_of(self, ops: NumpyOps, x: Array) -> tuple[Array, Array]:
        """Return the rows of both tables (N,) that words take."""
        assert self.words is not None
        parts = self.words.of(x)
        return parts.classes, ops.xp.maximum(parts.deltas, 0)


@dataclass(frozen=True)
class FactoredHead:
    """One of C·D words in two steps, its class and then its delta; some classes have no deltas.

        p(word) = p(class | h) · p(delta | h, class)
        p(class | h) = softmax(h·Wc + bc),  p(delta | h, class) = softmax(z·Wd + bd)
        z = tanh(h·A + U[class])

    Two softmaxes of C and D in place of one of V, and a word that training never showed shares
    what its class and its delta learnt. Source: classes of words, Goodman 2001, "Classes for fast
    maximum entropy training"; z lets a delta's likelihood depend on the class.
    Parameters: "Wc" (H, C), "bc" (C,), "A" (H, H), "U" (C, H), "Wd" (H, D), "bd" (D,).
    words: the parts of the vocabulary, `Parts.by_id`, which logits and targets need.
    """

    wide: ClassVar[tuple[str, ...]] = ("Wc", "Wd")
    H: int
    C: int
    D: int
    words: Parts | None = field(default=None, compare=False)

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        H, C, D = self.H, self.C, self.D
        return {"Wc": (H, C), "bc": (C,), "A": (H, H), "U": (C, H), "Wd": (H, D), "bd": (D,)}

    def init(self, ops: NumpyOps, rng: np.random.Generator) -> dict[str, Array]:
        """Return new parameters: weights uniform in ±1/√H, biases 0."""
        p, bound = uniform_parameters(ops, rng, self.shapes()), 1 / np.sqrt(self.H)
        return p | {"U": ops.asarray(rng.uniform(-bound, bound, (self.C, self.H)))}

    def targets(self, y: Array) -> Parts:
        """Return ids (N,), -1 for none, as the losses take them."""
        assert self.words is not None
        return self.words.of(y)

    def logits(self, ops: NumpyOps, p: Mapping[str, Array], h: Array) -> Array:
        """Return the log-probabilities (B, V) of the words, but for a constant a row.

        h (B, H). Each row goes through every class by itself, so that its bits don't depend on
        the others.
        """
        assert self.words is not None
        words = Parts(*(part[:-1] for part in self.words))
        xp, (C, D) = ops.xp, (len(p["bc"]), len(p["bd"]))
        classes, contexts = affine(ops, h, p["Wc"], p["bc"]), affine(ops, h, p["A"], None)
        out: Array = xp.empty((len(h), len(words.classes)), ops.dtype)
        z, logits = xp.empty_like(p["U"]), xp.empty((C, D), ops.dtype)
        has_delta = words.deltas >= 0
        at = words.classes * D + xp.maximum(words.deltas, 0)
        for b in range(len(h)):
            xp.tanh(p["U"] + contexts[b], out=z)
            ops.matmul(z, p["Wd"], logits)
            logits += p["bd"]
            logits -= logits.max(axis=1, keepdims=True)
            logits -= xp.log(xp.exp(logits).sum(axis=1))[:, None]
            out[b] = classes[b][words.classes] + logits.reshape(-1)[at] * has_delta
        return out

    @staticmethod
    def losses(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, targets: Parts, work: Workspace
    ) -> Array:
        """Return the nats of each target. h (N, H), targets (N,) -> (N,)."""
        losses, more = (work.array(name, (len(h),)) for name in ("losses", "delta_losses"))
        ops.linear_softmax_nll(h, p["Wc"], p["bc"], targets.classes, losses, work)
        z = context(ops, p, h, targets.classes, work)
        deltas = work.part("deltas")
        ops.linear_softmax_nll(z, p["Wd"], p["bd"], targets.deltas, more, deltas)
        losses += more
        return losses

    @staticmethod
    def losses_and_grads(
        ops: NumpyOps,
        p: Mapping[str, Array],
        h: Array,
        targets: Parts,
        scale: float,
        work: Workspace,
        mix: Mixture | None = None,
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return losses (N,), dh (N, H) and each gradient, of scale · Σ losses.

        With da = dz · (1 - z²), the gradient of what tanh takes: dA = hᵀ·da, dU[class] = Σ da of
        its rows, and dh gets da·Aᵀ besides what the classes' softmax gives. Of a mixture, what
        the classes' nats leave to be mixed with is known once the deltas' are.
        """
        grads = {name: work.like(f"d{name}", a) for name, a in p.items()}
        losses, more = (work.array(name, (len(h),)) for name in ("losses", "delta_losses"))
        dh, dz = work.array("dh_head", h.shape), work.array("dz", h.shape)
        first = mix
        if mix is not None:
            ops.linear_softmax_nll(h, p["Wc"], p["bc"], targets.classes, losses, work)
            mix = Mixture(mix.own - losses, mix.copied)
        z = context(ops, p, h, targets.classes, work)
        ops.linear_softmax_xent(
            z, p["Wd"], p["bd"], targets.deltas, scale, more, dz, grads["Wd"], grads["bd"],
            work.part("deltas"), mix,
        )  # fmt: skip
        if mix is not None:
            alone = (targets.deltas < 0) & (targets.classes >= 0)
            more[...] = ops.xp.where(alone, -ops.xp.logaddexp(*mix), more)
            first = Mixture(own_share(ops, more, mix.copied) - more + losses, mix.copied)
        ops.linear_softmax_xent(
            h, p["Wc"], p["bc"], targets.classes, scale, losses, dh, grads["Wc"], grads["bc"],
            work, first,
        )  # fmt: skip
        if mix is None:
            losses += more
        z *= z
        dz -= dz * z
        ops.matmul(h.T, dz, grads["A"])
        ops.embedding_backward_dense(ops.xp.maximum(targets.classes, 0), dz, grads["U"])
        ops.matmul_add(dz, p["A"].T, dh)
        return losses, dh, grads


def own_share(ops: NumpyOps, losses: Array, copied: Array) -> Array:
    """Return the log of the network's share (N,) in the probabilities of a mixture's targets."""
    share: Array = ops.xp.log(ops.xp.maximum(-ops.xp.expm1(copied + losses), TINY))
    return share


def context(
    ops: NumpyOps, p: Mapping[str, Array], h: Array, classes: Array, work: Workspace
) -> Array:
    """Return tanh(h·A + U[class]), from which a factored head predicts deltas. h (N, H) -> (N, H).

    A row of class -1 takes any: it has no delta to predict.
    """
    z, rows = work.array("z", h.shape), work.array("rows", h.shape)
    ops.matmul(h, p["A"], z)
    ops.embedding_forward(p["U"], classes, rows)
    z += rows
    ops.xp.tanh(z, out=z)
    return z
