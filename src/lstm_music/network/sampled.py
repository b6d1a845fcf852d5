"""A softmax over part of a large vocabulary, to train with: an estimate, not the exact loss.

In a window the words that count are its targets Y and some drawn ones D, each word w with a chance
q[w] in which the network has no part:

    Z ≈ Σ_{w in Y} exp(z[w]) + Σ_{w in D, not in Y} exp(z[w]) / q[w]

Given the window its targets are there for certain, so the mean of this over draws is Z; that of its
log is below log Z, by less the more are drawn. Sources: Jean et al. 2015, "On using very large
target vocabulary for neural machine translation"; logits less log q: Bengio & Senécal 2008,
"Adaptive importance sampling to accelerate training of a neural probabilistic language model".
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.philox import uniform

STREAM = 1 << 16  # of random numbers; dropout's are the layers


class DrawnHead(NamedTuple):
    """A `SoftmaxHead` as a step trains it, over a window's targets and drawn words.

    drawn (n,): ids, which may occur twice; chances (V,): of each word to be drawn.
    """

    drawn: Array
    chances: Array

    def losses_and_grads(
        self,
        ops: NumpyOps,
        p: Mapping[str, Array],
        h: Array,
        targets: Array,
        scale: float,
        work: Workspace,
        mix: Mixture | None = None,
    ) -> tuple[Array, Array, dict[str, Array]]:
        """As `SoftmaxHead.losses_and_grads`, of estimates; 0 for words that don't count."""
        asked = np.zeros(len(self.chances), np.bool_)
        asked[targets[targets >= 0]] = True
        counted = asked.copy()
        counted[self.drawn] = True
        words = np.flatnonzero(counted)
        places = np.where(targets < 0, targets, np.searchsorted(words, targets))
        W, b = p["W"].take(words, axis=1), p["b"][words]  # by rows, which indexing would not give
        b -= np.log(np.where(asked, 1, self.chances)[words]).astype(b.dtype)
        losses, dh = work.array("losses", targets.shape), work.array("dh_head", h.shape)
        few, grads = {"W": np.empty_like(W), "b": np.empty_like(b)}, dict[str, Array]()
        ops.linear_softmax_xent(
            h, W, b, places.astype(targets.dtype), scale, losses, dh, few["W"], few["b"],
            work.part("sampled"), mix,
        )  # fmt: skip
        for name, g in few.items():
            grads[name] = work.like(f"d{name}", p[name])
            grads[name][...] = 0
            grads[name][..., words] = g
        return losses, dh, grads


class Draws:
    """How a step draws about N of V words, each with a chance of its own.

    weights (V,): what the chances are in proportion to, where that makes none above 1. Words lie
    end to end, each as long as its chance; a point is drawn in each interval of length 1. Who lies
    in two intervals may be drawn twice, counts once, and has the chance of either.
    """

    def __init__(self, weights: Array, N: int) -> None:
        self.chances = capped(weights, N)
        self._sure = np.flatnonzero(self.chances == 1)
        self._others = np.flatnonzero(self.chances < 1)
        ends = np.cumsum(self.chances[self._others])
        self._points = round(float(ends[-1])) if len(ends) else 0
        ends[-1:] = self._points
        starts = ends - self.chances[self._others]
        border = np.floor(starts) + 1
        here, beyond = np.minimum(ends, border) - starts, np.maximum(ends - border, 0)
        self.chances[self._others] = here + beyond - here * beyond
        self._ends = ends

    def head(self, seed: int, step: int) -> DrawnHead:
        """Return the head of a step: (seed, step) choose its words."""
        points = np.arange(self._points) + uniform(seed, STREAM, step, self._points)
        found = self._others[np.searchsorted(self._ends, points, side="right")]
        return DrawnHead(np.concatenate([self._sure, found]), self.chances)


def capped(weights: Array, N: int) -> Array:
    """Return chances (V,) of sum N in proportion to weights (V,), those that would exceed 1 as 1.

    All are 1 where N is V or more.
    """
    sure = np.full(len(weights), len(weights) <= N)
    while not sure.all():
        rest = np.where(sure, 0, weights)
        chances: Array = np.where(sure, 1, rest * ((N - sure.sum()) / rest.sum()))
        if np.array_equal(chances >= 1, sure):
            return chances
        sure = chances >= 1
    return sure.astype(np.float64)


def draws_of(config: Config, N: int, ops: NumpyOps) -> Draws | None:
    """Return how a network's training draws N words a step, None for N = 0: its exact softmax.

    Ids are by falling count, so that a word's share of them is about log(1 + 1 / (1 + id)) (Zipf).
    Raises UserError for another head, and on a GPU.
    """
    if not N:
        return None
    check_draws(config.head)
    if ops.name == "cupy":
        raise UserError(
            "on a GPU a training step is over the whole vocabulary: leave --sampled-softmax out "
            "or use --backend numba"
        )
    return Draws(np.log1p(1 / np.arange(1.0, config.vocabulary + 1)), N)


def check_draws(head: str) -> None:
    """Raise UserError for a head that predicts no words among which to draw."""
    if head != "softmax":
        raise UserError(
            f"--sampled-softmax is for --head softmax, and this network's is {head}: "
            "leave --sampled-softmax out"
        )
