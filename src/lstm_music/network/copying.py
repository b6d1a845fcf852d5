"""The copy gate: how likely the next word is one of those that the piece has said before.

    a = h·G / H + R[bucket of each run],  s = softmax(0, a1, …, aK)

s0 is the network's own share. Divided by H, a step of Adam moves a score by no more through h than
through R: without that, the gate pulls the network about before it knows anything
(docs/results.md). What is copied is found by recall.py; the mixture is
ops/reference/copying.py.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array, Mixture
from lstm_music.network.embedding import Shapes
from lstm_music.ops import NumpyOps, Workspace
from lstm_music.ops.reference.copying import BUCKETS, LONG

DOUBT, TRUST = -4.5, 1.2  # a new gate's score of what never told right, and more for each bucket


class CopyGate(NamedTuple):
    """A gate over K candidates, from outputs of size H.

    Parameters: "G" (H, K), "R" (K, BUCKETS).
    """

    H: int
    K: int

    def shapes(self) -> Shapes:
        """Return the shape of each parameter."""
        return {"G": (self.H, self.K), "R": (self.K, BUCKETS)}

    def init(self, ops: NumpyOps) -> dict[str, Array]:
        """Return new parameters: of a gate that reads runs alone."""
        table = np.tile(DOUBT + TRUST * np.arange(BUCKETS), (self.K, 1))
        table[:, LONG:] = DOUBT
        return {"G": ops.asarray(np.zeros((self.H, self.K))), "R": ops.asarray(table)}

    @staticmethod
    def shares(
        ops: NumpyOps, p: Mapping[str, Array], h: Array, recall: Array, work: Workspace
    ) -> tuple[Array, Mixture]:
        """Return the candidates' shares (N, K) and the mixture.

        h (N, H), or (N, n·H) of a network with n rows a stream, whose mean is read. recall (N, K)
        uint8.
        """
        h, scores = mean_of_rows(h, len(p["G"])), work.array("copy_scores", recall.shape)
        mix = Mixture(work.array("copy_own", (len(h),)), work.array("copy_copied", (len(h),)))
        ops.matmul(h, p["G"], scores)
        scores /= ops.real(h.shape[1])
        ops.copy_shares(scores, recall, p["R"], mix)
        return scores, mix

    @staticmethod
    def backward(
        ops: NumpyOps,
        p: Mapping[str, Array],
        h: Array,
        recall: Array,
        shares: Array,
        losses: Array,
        scale: float,
        dh: Array,
        work: Workspace,
    ) -> dict[str, Array]:
        """Return the gradients of scale · Σ losses, and add that of h to dh, of h's shape.

        shares (N, K) are overwritten; losses (N,) are the mixture's.
        """
        dG, dR = (work.array(f"copy_d{name}", p[name].shape) for name in "GR")
        ops.copy_backward(shares, recall, losses, scale, dR)
        mean = mean_of_rows(h, len(dG))
        shares /= ops.real(len(dG))
        ops.matmul(mean.T, shares, dG)
        if mean is h:
            ops.matmul_add(shares, p["G"].T, dh)
            return {"G": dG, "R": dR}
        dmean = work.array("copy_dmean", mean.shape)
        ops.matmul(shares, p["G"].T, dmean)
        rows = dh.reshape(len(dh), -1, len(dG))
        rows += (dmean / ops.real(rows.shape[1]))[:, None]
        return {"G": dG, "R": dR}


def mean_of_rows(h: Array, H: int) -> Array:
    """Return outputs (N, n·H) of n rows each as a gate reads them, (N, H): their mean."""
    if h.shape[1] == H:
        return h
    mean: Array = h.reshape(len(h), -1, H).sum(axis=1)
    mean /= mean.dtype.type(h.shape[1] // H)
    return mean
