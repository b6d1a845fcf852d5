"""The maths of networks that read and predict notes, as `maths.py` has that of tokens.

D notes, K hidden units of a NADE; N = T·B rows.
"""

import numpy as np

from lstm_music.arrays import NO_NOTES, Array, Mixture
from lstm_music.ops.reference.copying import mixed
from lstm_music.ops.reference.maths import sigmoid
from lstm_music.ops.workspace import Workspace


def note_embedding_forward(W: Array, x: Array, out: Array) -> None:
    """Write the sum of the rows of W that sound. W (D, E); x (N, D) uint8 0/1; out (N, E)."""
    np.matmul(x.astype(W.dtype), W, out=out)


def note_embedding_backward(x: Array, dx: Array, dW: Array) -> None:
    """Write each row's gradient: the sum of dx where it sounds.

    x (N, D) uint8 0/1; dx (N, E); dW (D, E), overwritten.
    """
    np.matmul(x.T.astype(dW.dtype), dx, out=dW)


def sigmoid_xent(
    logits: Array, targets: Array, losses: Array, scale: float, mix: Mixture | None = None
) -> None:
    """Compute the cross-entropy of D independent notes, and its gradient.

    logits (N, D): overwritten with scale · (sigmoid - target). targets (N, D) uint8 0/1; a row
    that begins with NO_NOTES asks for no loss and no gradient. losses (N,): nats summed over
    the notes, overwritten. mix: as in `softmax_xent`.
    """
    used = targets[:, 0] != NO_NOTES
    y = np.where(used[:, None], targets, 0).astype(logits.dtype)
    # log(1 + e^x) - y·x without overflow.
    nats = np.maximum(logits, 0) - logits * y + np.log1p(np.exp(-np.abs(logits)))
    losses[...] = np.where(used, nats.sum(axis=1), 0)
    scales = np.where(used, logits.dtype.type(scale), 0) * mixed(losses, mix)
    losses *= used
    logits[...] = (sigmoid(logits) - y) * scales[:, None]


def nade_xent(
    visible: Array,
    hidden: Array,
    targets: Array,
    W: Array,
    U: Array,
    scale: float,
    losses: Array,
    dW: Array,
    dU: Array,
    work: Workspace,
    mix: Mixture | None = None,
) -> None:
    """Compute the cross-entropy of notes under a NADE with conditional biases, and gradients.

    Note d is on with probability sigmoid(visible[d] + U[d]·sigmoid(a)), where a is hidden plus
    W[k] for each note k < d that is on (Larochelle & Murray 2011, equations 3 and 4).
    visible (N, D), hidden (N, K): biases, overwritten with scale times their gradients.
    targets (N, D) uint8 as in `sigmoid_xent`. W, U (D, K). Overwrites losses (N,): nats summed
    over the notes, and dW, dU (D, K). mix: as in `softmax_xent`.
    """
    used = targets[:, 0] != NO_NOTES
    x = np.where(used[:, None], targets, 0).astype(W.dtype)
    a = hidden.copy()
    for d in range(len(U)):
        visible[:, d] += sigmoid(a) @ U[d]
        a += x[:, d, None] * W[d]
    sigmoid_xent(visible, targets, losses, scale, mix)
    hidden[...] = 0
    for d in reversed(range(len(U))):
        np.dot(x[:, d], hidden, out=dW[d])
        a -= x[:, d, None] * W[d]
        s, dz = sigmoid(a), visible[:, d]
        np.dot(dz, s, out=dU[d])
        hidden += dz[:, None] * U[d] * s * (1 - s)


def nade_nll(
    visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
) -> None:
    """Compute the losses of `nade_xent` alone; visible and hidden are overwritten."""
    used = targets[:, 0] != NO_NOTES
    x = np.where(used[:, None], targets, 0).astype(W.dtype)
    for d in range(len(U)):
        visible[:, d] += sigmoid(hidden) @ U[d]
        hidden += x[:, d, None] * W[d]
    sigmoid_xent(visible, targets, losses, 1.0)


def nade_sample(
    visible: Array,
    hidden: Array,
    W: Array,
    U: Array,
    draws: Array,
    temperature: float,
    out: Array,
) -> None:
    """Draw notes from a NADE, from the lowest up, each given those before it: an exact sample.

    draws (N, D) uniform in 0 … 1, in float64 or the ops' type; the logit of a note is divided
    by temperature, and the note is on where its draw is below its probability. Overwrites
    visible (N, D), hidden (N, K) and out (N, D) uint8.
    """
    inverse = W.dtype.type(1 / temperature)
    for d in range(len(U)):
        z = visible[:, d] + (sigmoid(hidden) * U[d]).sum(axis=1)
        out[:, d] = draws[:, d] < sigmoid(z * inverse)
        hidden += out[:, d, None] * W[d]
