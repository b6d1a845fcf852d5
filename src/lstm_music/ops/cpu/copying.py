"""A mixture with copies compiled by Numba, in one visit of each row."""

import math

from numba import get_num_threads

from lstm_music.arrays import Array, Mixture
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.numpy_ops import NumpyOps
from lstm_music.ops.reference.copying import HIT, NOTHING


@njit(cache=True, parallel=True, error_model="numpy")
def _copy_shares(scores, recall, R, own, copied, parts):  # type: ignore[no-untyped-def]
    N, K = scores.shape
    for part in prange(parts):
        for n in range(part * N // parts, (part + 1) * N // parts):
            s, codes = scores[n], recall[n]
            top = s.dtype.type(0)
            for k in range(K):
                if codes[k] != NOTHING:
                    s[k] += R[k, codes[k] % HIT]
                    top = max(top, s[k])
            total, right = math.exp(-top), s.dtype.type(0)
            for k in range(K):
                if codes[k] == NOTHING:
                    s[k] = 0
                    continue
                s[k] = math.exp(s[k] - top)
                total += s[k]
                if codes[k] >= HIT:
                    right += s[k]
            for k in range(K):
                s[k] /= total
            own[n], copied[n] = -(top + math.log(total)), math.log(right / total)


@njit(cache=True, error_model="numpy")
def _copy_backward(shares, recall, losses, scale, dR):  # type: ignore[no-untyped-def]
    N, K = shares.shape
    dR[:] = 0
    for n in range(N):
        s, codes = shares[n], recall[n]
        # Of what is the target alone: its share bounds the row's loss, where others' may overflow.
        wrong = 1 - math.exp(losses[n])
        for k in range(K):
            if codes[k] == NOTHING:
                continue
            s[k] *= scale * (wrong if codes[k] >= HIT else 1)
            dR[k, codes[k] % HIT] += s[k]


def copy_shares(ops: NumpyOps, scores: Array, recall: Array, R: Array, mix: Mixture) -> None:
    """As NumpyOps.copy_shares, each thread with its own rows."""
    _copy_shares(scores, recall, R, mix.own, mix.copied, get_num_threads())


def copy_backward(
    ops: NumpyOps, shares: Array, recall: Array, losses: Array, scale: float, dR: Array
) -> None:
    """As NumpyOps.copy_backward, in one pass."""
    _copy_backward(shares, recall, losses, ops.real(scale), dR)
