"""Heads: from the last layer's output to a loss, its gradients, and what may come next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.network.embedding import Parts, Shapes
from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.workspace import rows_as

TINY = 1e-30  # in place of a share of 0, whose log is not finite


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


Head: TypeAlias = SoftmaxHead | FactoredHead | SigmoidHead | NadeHead
NoteHead: TypeAlias = SigmoidHead | NadeHead


def make_head(
    kind: str, H: int, V: int, K: int, C: int = 0, D: int = 0, words: Parts | None = None
) -> Head:
    """Return a head by its name: H outputs to V tokens or notes.

    K: hidden units of a NADE; C, D, words: classes and deltas of a factored head, and its words.
    """
    if kind == "softmax":
        return SoftmaxHead(H, V)
    if kind == "factored":
        return FactoredHead(H, C, D, words)
    return SigmoidHead(H, V) if kind == "sigmoid" else NadeHead(H, V, K)


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
