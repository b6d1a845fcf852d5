"""The maths of a network of tokens, forward and backward, in plain NumPy: what `NumpyOps` runs.

Each function is an op: signature and docstring are the contract of every backend, and the docstring
says which arguments are overwritten. Names: T time steps, B batch, E embedding, H hidden, V
vocabulary, N = T·B rows. Arrays are time-major and C-contiguous; gates are four contiguous blocks
in the order i, f, g, o.
"""

import math
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array, Mixture, RowGradient
from lstm_music.ops.philox import dropout_threshold, random_bits
from lstm_music.ops.reference.copying import mixed
from lstm_music.ops.workspace import Workspace, logit_chunks

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, as Kingma & Ba 2015 advise


# Embedding ---------------------------------------------------------------------------------------


def embedding_forward(W: Array, ids: Array, out: Array) -> None:
    """Write the rows W[ids] to out. W (V, E); ids (...) integers; out (..., E)."""
    np.take(W, ids, axis=0, out=out, mode="clip")


def embedding_backward(ids: Array, dx: Array) -> RowGradient:
    """Return the gradient of the rows that occur, summed in a fixed order.

    ids (N,) integers; dx (N, E).
    """
    order = np.argsort(ids, kind="stable")
    rows, starts = np.unique(ids[order], return_index=True)
    return RowGradient(rows, np.add.reduceat(dx[order], starts, axis=0))


# LSTM --------------------------------------------------------------------------------------------


def lstm_cell_forward(
    gates: Array, recurrent: Array, keep: Array | None, c_prev: Array, c: Array, h: Array
) -> None:
    """Take one time step of an LSTM layer (Hochreiter & Schmidhuber 1997, Gers et al. 2000).

    gates (B, 4H): x·Wx + b, overwritten with the activations i, f, g, o.
    recurrent (B, 4H): h_prev·Wh. keep (B,): 0 where the state is reset before this step.
    c_prev (B, H). Writes c = f·c_prev + i·g and h = o·tanh(c), both (B, H).
    """
    H = c.shape[-1]
    if keep is None:
        gates += recurrent
        kept = c_prev
    else:
        gates += recurrent * keep[:, None]
        kept = c_prev * keep[:, None]
    gates[:, : 2 * H] = sigmoid(gates[:, : 2 * H])
    gates[:, 2 * H : 3 * H] = np.tanh(gates[:, 2 * H : 3 * H])
    gates[:, 3 * H :] = sigmoid(gates[:, 3 * H :])
    i, f, g, o = np.split(gates, 4, axis=1)
    np.add(f * kept, i * g, out=c)
    np.multiply(o, np.tanh(c), out=h)


def lstm_cell_backward(
    gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
) -> None:
    """Go back over one time step.

    gates (B, 4H): activations, overwritten with the gradient of the pre-activations.
    dh (B, H): gradient of h. dc (B, H): gradient of c from later steps, overwritten with
    the gradient of c_prev.
    """
    i, f, g, o = (a.copy() for a in np.split(gates, 4, axis=1))
    di, df, dg, do = np.split(gates, 4, axis=1)
    kept = c_prev if keep is None else c_prev * keep[:, None]
    tanh_c = np.tanh(c)
    dc += dh * o * (1 - tanh_c * tanh_c)
    do[...] = dh * tanh_c * o * (1 - o)
    di[...] = dc * g * i * (1 - i)
    df[...] = dc * kept * f * (1 - f)
    dg[...] = dc * i * (1 - g * g)
    dc *= f if keep is None else f * keep[:, None]


def lstm_sequence_forward(
    gates: Array,
    Wh: Array,
    b: Array,
    keep: Array | None,
    h0: Array,
    c0: Array,
    c: Array,
    h: Array,
    hT: Array,
    cT: Array,
    work: Workspace,
) -> None:
    """Take T time steps.

    gates (T, B, 4H): x·Wx, overwritten with activations. Wh (H, 4H). b (4H,). keep (T, B)
    or None. h0, c0 (B, H): the initial state. Overwrites c, h (T+1, B, H), whose slot 0 is
    the initial state, and hT, cT (B, H), the final one; these may be h0, c0 themselves.
    """
    T, B, H4 = gates.shape
    h[0], c[0] = h0, c0
    gates += b
    recurrent = work.array("recurrent", (B, H4))
    for t in range(T):
        np.matmul(h[t], Wh, out=recurrent)
        lstm_cell_forward(gates[t], recurrent, row(keep, t), c[t], c[t + 1], h[t + 1])
    hT[...], cT[...] = h[T], c[T]


def lstm_sequence_backward(
    gates: Array,
    Wh: Array,
    keep: Array | None,
    c: Array,
    h: Array,
    dy: Array,
    dhT: Array | None,
    dcT: Array | None,
    dh: Array,
    dc: Array,
    db: Array,
    work: Workspace,
) -> None:
    """Go back over T time steps.

    gates (T, B, 4H): activations, overwritten with the gradient of the pre-activations.
    h (T+1, B, H): each step's state before it, h[t], is multiplied by keep[t], as the
    gradient of Wh wants it. dy (T, B, H): gradient of the outputs. dhT, dcT (B, H): of the
    final state, None for zero. Overwrites dh, dc (B, H): of the initial state; db (4H,): of
    the bias.
    """
    T, B, H = dy.shape
    dh[...] = 0 if dhT is None else dhT
    dc[...] = 0 if dcT is None else dcT
    dh_step = work.array("dh_step", (B, H))
    Wh_T = Wh.T
    for t in reversed(range(T)):
        np.add(dy[t], dh, out=dh_step)
        lstm_cell_backward(gates[t], row(keep, t), c[t], c[t + 1], dh_step, dc)
        np.matmul(gates[t], Wh_T, out=dh)
        if keep is not None:
            dh *= keep[t][:, None]
            h[t] *= keep[t][:, None]
    np.sum(gates.reshape(T * B, 4 * H), axis=0, out=db)


def row(keep: Array | None, t: int) -> Array | None:
    """Return keep[t], or None where nothing is reset."""
    return None if keep is None else keep[t]


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) in the form that can't overflow: tanh(x/2)/2 + 1/2."""
    return np.tanh(x * 0.5) * 0.5 + 0.5


# Dropout -----------------------------------------------------------------------------------------


def dropout(
    x: Array,
    p: float,
    seed: int,
    stream: int,
    step: int,
    first: int = 0,
    whole: int | None = None,
    out: Array | None = None,
) -> None:
    """Zero each element of x with probability p and scale the rest by 1/(1-p).

    In place, or written to out, contiguous and of x's shape, where that is given.

    The mask depends on (seed, stream, step) alone, so the same call on the gradient of the
    output gives the gradient of the input. Where whole is given, x (T, B, …) is the columns
    first … first+B-1 of a (T, whole, …), and takes its part of the mask of that.
    Source: Srivastava et al. 2014.
    """
    shape = x.shape if whole is None else (len(x), whole, *x.shape[2:])
    bits = random_bits(seed, stream, step, math.prod(shape)).reshape(shape)
    if whole is not None:
        bits = bits[:, first : first + x.shape[1]]
    factors = (bits >= dropout_threshold(p)) * x.dtype.type(1 / (1 - p))
    np.multiply(x, factors, out=x if out is None else out)


# Softmax -----------------------------------------------------------------------------------------


def softmax_xent(
    logits: Array, targets: Array, losses: Array, scale: float, mix: Mixture | None = None
) -> None:
    """Compute softmax cross-entropy and its gradient.

    logits (N, V): overwritten with scale · (softmax - one_hot(target)).
    targets (N,): ids; -1 asks for no loss and no gradient. losses (N,): nats, overwritten. mix: of
    a copy gate, whose mixture the losses are of then.
    """
    used = targets >= 0
    safe = np.where(used, targets, 0)
    n = np.arange(len(targets))
    logits -= logits.max(axis=1, keepdims=True)
    at_target = logits[n, safe]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    losses[...] = np.where(used, np.log(total) - at_target, 0)
    scales = np.where(used, scale, 0) * mixed(losses, mix)
    losses *= used
    logits *= (scales / total)[:, None]
    logits[n, safe] -= scales


def linear_softmax_xent(
    h: Array,
    W: Array,
    b: Array,
    targets: Array,
    scale: float,
    losses: Array,
    dh: Array,
    dW: Array,
    db: Array,
    work: Workspace,
    mix: Mixture | None = None,
) -> None:
    """Compute the softmax cross-entropy of h·W + b, and every gradient, in chunks of rows.

    The (N, V) logits never exist as a whole. h (N, H), W (H, V), b (V,), targets (N,) with
    -1 for none. scale multiplies the gradients. mix: of a copy gate (N,), whose mixture the losses
    are of then. Overwrites losses (N,), dh (N, H), dW, db.
    """
    dW[...] = 0
    db[...] = 0
    for rows, logits in logit_chunks(len(h), len(b), work):
        np.matmul(h[rows], W, out=logits)
        logits += b
        softmax_xent(logits, targets[rows], losses[rows], scale, mix and mix.rows(rows))
        np.matmul(logits, W.T, out=dh[rows])
        dW += h[rows].T @ logits
        db += logits.sum(axis=0)


def linear_softmax_nll(
    h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
) -> None:
    """As `linear_softmax_nll`, where every row has a target."""
    for rows, logits in logit_chunks(len(h), len(b), work):
        np.matmul(h[rows], W, out=logits)
        logits += b
        softmax_xent(logits, targets[rows], losses[rows], 1.0)


# Optimiser ---------------------------------------------------------------------------------------


class Adam(NamedTuple):
    """A step of Adam: step t = 1, 2, … with a gradient's multiple by scale; decay: of the weights.

    beta1, beta2: what the moments keep of themselves; eps: added to the root of the second one.
    """

    lr: float
    t: int
    scale: float = 1.0
    decay: float = 0.0
    beta1: float = BETA1
    beta2: float = BETA2
    eps: float = EPS

    @property
    def corrections(self) -> tuple[float, float]:
        """What the moments, which begin at 0, are multiplied by."""
        return 1 / (1 - self.beta1**self.t), 1 / (1 - self.beta2**self.t)


def sum_squares(g: Array) -> float:
    """Return the sum of the squares of g."""
    flat = g.reshape(-1)
    return float(flat @ flat)


def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    how: Adam,
) -> None:
    """Take a step of Adam with gradient scale·g (Kingma & Ba 2015, algorithm 1).

    p first shrinks by lr · decay of itself (Loshchilov & Hutter 2019, algorithm 2).
    Overwrites p and the moments m, v; all of one shape.
    """
    lr, t, scale, decay, beta1, beta2, eps = how
    g = g * g.dtype.type(scale)
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    if decay:
        p *= 1 - lr * decay
    p -= (lr / (1 - beta1**t)) * m / (np.sqrt(v / (1 - beta2**t)) + eps)


def adam_step_rows(
    p: Array,
    g: RowGradient,
    m: Array,
    v: Array,
    how: Adam,
) -> None:
    """Take the very step of `adam_step` where most rows of the gradient are zero.

    p, m, v (V, E). Rows that don't occur still move by their decaying moments: this is
    dense Adam, not the "lazy" kind.
    """
    dense = np.zeros_like(p)
    dense[g.rows] = g.values
    adam_step(p, dense, m, v, how)


def average_step(p: Array, mean: Array, rate: float) -> None:
    """Move mean towards p by a share of their difference, in place; both of one shape."""
    mean += rate * (p - mean)
