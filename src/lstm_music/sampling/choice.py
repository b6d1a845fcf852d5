"""One token drawn from its logits: temperature, top-k, top-p."""

import numpy as np

from lstm_music.arrays import Array
from lstm_music.sampling.options import Options

MANY, FEW = 4096, 256  # tokens from which sorting all is slow; tokens tried first for a share top_p
BLOCK = 256  # weights summed at once
DRAWS = 1024  # random numbers made at once


def choose(logits: Array, allowed: Array | None, u: float, options: Options) -> int:
    """Choose an id from logits (V,) by a uniform number u in [0, 1).

    allowed: ids to choose among, or None. The distribution is softmax(logits / temperature)
    over them, cut to the top_k likeliest and then to the fewest that hold a share of top_p.
    """
    ids = np.arange(len(logits)) if allowed is None else allowed
    x = logits[ids].astype(np.float64)
    if options.greedy:
        return int(ids[np.argmax(x)])
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the likeliest alone
        x = (x - x.max()) / options.temperature
    mass = None
    if options.top_k or options.top_p < 1:
        kept, mass = likeliest(x, options.top_k, options.top_p)
        ids, x = ids[kept], x[kept]
    if options.top_p == 1 and len(x) > MANY:
        return int(ids[find(np.exp(x), u)])
    total = np.cumsum(np.exp(x))
    if options.top_p < 1:
        share = options.top_p * (total[-1] if mass is None else mass)
        n = int(np.searchsorted(total, share)) + 1
        ids, total = ids[:n], total[:n]
    n = int(np.searchsorted(total, u * total[-1], side="right"))
    return int(ids[min(n, len(ids) - 1)])


def find(p: Array, u: float) -> int:
    """Return where a share u of the weights p (n,) lies before: first the block, then the place.

    A running sum is one long chain of additions; the blocks' sums are many short ones.
    """
    whole = len(p) - len(p) % BLOCK
    blocks = np.cumsum(np.append(p[:whole].reshape(-1, BLOCK).sum(axis=1), p[whole:].sum()))
    at = u * blocks[-1]
    block = min(int(np.searchsorted(blocks, at, side="right")), len(blocks) - 1)
    before = blocks[block - 1] if block else 0.0
    inside = np.cumsum(p[block * BLOCK : (block + 1) * BLOCK])
    n = int(np.searchsorted(inside, at - before, side="right"))
    return min(block * BLOCK + min(n, max(len(inside) - 1, 0)), len(p) - 1)


def likeliest(x: Array, top_k: int, top_p: float) -> tuple[Array, float | None]:
    """Return where the top_k likeliest of x (n,) are, or as many as top_p can need, in order.

    x: log-probabilities but for a constant; of equals the first comes first. Returns also the sum
    of exp(x) over all that top_p is a share of, or None where that is the sum over those returned.
    It sorts no more than it must: most of a share is in a few hundred of many thousand tokens.
    """
    if top_k == 0 and len(x) > MANY:
        mass, n = float(np.exp(x).sum()), FEW
        while n < len(x):
            among = np.flatnonzero(x >= np.partition(x, -n)[-n])
            if float(np.exp(x[among]).sum()) > mass * top_p:
                return among[np.argsort(-x[among], kind="stable")], mass
            n *= 8
    return np.argsort(-x, kind="stable")[: top_k or None], None
