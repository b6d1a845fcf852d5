"""A mixture of the network and of copies from a piece's past: shares, losses, gradients.

    p(y) = s0 · p(y | network) + Σk sk · [candidate k is y],  s = softmax(0, a1, …, aK)

Source: Merity et al. 2016, "Pointer sentinel mixture models", equation 2, with a sentinel that is
the network's own softmax.
"""

import numpy as np

from lstm_music.arrays import Array, Mixture

LONG = 10  # buckets of runs that have not come round; the rest are of those that have
BUCKETS = LONG + 3
HIT, NOTHING = 16, 255  # added to the bucket of a candidate that is the target; no candidate


def copy_shares(scores: Array, recall: Array, R: Array, mix: Mixture) -> None:
    """Turn scores into the shares of candidates.

    scores (N, K): overwritten with s1 … sK, 0 where there is no candidate. recall (N, K) uint8:
    the bucket of each candidate's run, with HIT added where it is the target, NOTHING where there
    is none. R (K, BUCKETS): what is added to a score for its bucket. Overwrites mix.own, log s0,
    and mix.copied, the log of what the candidates give the target.
    """
    there, hit, buckets = parts_of(recall)
    scores += R[np.arange(len(R)), buckets]
    scores[~there] = -np.inf
    top = np.maximum(scores.max(axis=1), 0)
    np.exp(scores - top[:, None], out=scores)
    total = np.exp(-top) + scores.sum(axis=1)
    scores /= total[:, None]
    np.negative(top + np.log(total), out=mix.own)
    with np.errstate(divide="ignore"):
        mix.copied[...] = np.log((scores * hit).sum(axis=1))


def copy_backward(shares: Array, recall: Array, losses: Array, scale: float, dR: Array) -> None:
    """Go back from a mixture's losses to the scores.

    shares (N, K): of `copy_shares`, overwritten with scale times the gradient of the scores.
    losses (N,): nats of the mixture. dR (K, BUCKETS): overwritten.
    """
    there, hit, buckets = parts_of(recall)
    # Of what is the target alone: its share bounds the row's loss, where others' may overflow.
    right = np.exp(np.where(hit, losses[:, None], -np.inf))
    shares *= (1 - right) * shares.dtype.type(scale)
    dR[...] = 0
    for k in range(shares.shape[1]):
        np.add.at(dR[k], buckets[there[:, k], k], shares[there[:, k], k])


def parts_of(recall: Array) -> tuple[Array, Array, Array]:
    """Return of candidates (N, K) whether they are there, and the target, and their buckets."""
    there = recall != NOTHING
    return there, there & (recall >= HIT), np.where(there, recall % HIT, 0)


def mix_losses(losses: Array, mix: Mixture) -> None:
    """Turn the network's nats (N,) into those of the mixture, in place."""
    mixed(losses, mix)


def mixed(losses: Array, mix: Mixture | None) -> Array | float:
    """Turn the network's nats (N,) into those of the mixture, in place.

    Returns its share of each target's probability, by which its gradients are multiplied; 1 where
    nothing is copied.
    """
    if mix is None:
        return 1.0
    own = mix.own - losses
    np.negative(np.logaddexp(own, mix.copied), out=losses)
    share: Array = np.exp(own + losses)
    return share
