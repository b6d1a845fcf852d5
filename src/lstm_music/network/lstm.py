"""One LSTM layer: forward, backward, step.

For each time step t, with gates in the order i, f, g, o:

    i, f, o = sigmoid(x·Wx + h_prev·Wh + b)     g = tanh(x·Wx + h_prev·Wh + b)
    c = f·c_prev + i·g                          h = o·tanh(c)

Source: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, no peepholes;
the same layer as torch.nn.LSTM with its two biases added.
Parameters p: "Wx" (E, 4H), "Wh" (H, 4H), "b" (4H,).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.ops import NumpyOps, Workspace

FORGET_BIAS = 1.0  # a new network remembers; Jozefowicz et al. 2015


class LSTMCache(NamedTuple):
    """What the backward pass needs. Single use: the backward pass overwrites it."""

    x: Array
    keep: Array | None
    gates: Array
    c: Array
    h: Array


def lstm_init(ops: NumpyOps, rng: np.random.Generator, E: int, H: int) -> dict[str, Array]:
    """Return new parameters: weights uniform in ±1/√H, biases 0 but for the forget gate's 1."""
    bound = 1 / np.sqrt(H)
    b = np.zeros(4 * H)
    b[H : 2 * H] = FORGET_BIAS
    return {
        "Wx": ops.asarray(rng.uniform(-bound, bound, (E, 4 * H))),
        "Wh": ops.asarray(rng.uniform(-bound, bound, (H, 4 * H))),
        "b": ops.asarray(b),
    }


def lstm_forward(
    ops: NumpyOps,
    p: Mapping[str, Array],
    x: Array,
    h0: Array,
    c0: Array,
    keep: Array | None = None,
    work: Workspace | None = None,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, tuple[Array, Array], LSTMCache]:
    """Run a layer over a sequence.

    x (T, B, E); h0, c0 (B, H) the state before step 0; keep (T, B), 0 where the state is
    reset before that step, else 1, or None. Scratch comes from work.
    Returns y (T, B, H), the final state (hT, cT), and the cache. All of them lie in work and
    live until its next use, but for the final state where out is given: it is written there,
    which may be where the initial one is.
    """
    work = work or ops.workspace()
    T, B, E = x.shape
    H = h0.shape[-1]
    gates = work.array("gates", (T, B, 4 * H))
    h = work.array("h", (T + 1, B, H))
    c = work.array("c", (T + 1, B, H))
    hT, cT = out or (work.array("hT", (B, H)), work.array("cT", (B, H)))
    ops.matmul(x.reshape(T * B, E), p["Wx"], gates.reshape(T * B, 4 * H))
    ops.lstm_sequence_forward(gates, p["Wh"], p["b"], keep, h0, c0, c, h, hT, cT, work)
    return h[1:], (hT, cT), LSTMCache(x, keep, gates, c, h)


def lstm_backward(
    ops: NumpyOps,
    p: Mapping[str, Array],
    dy: Array,
    dhT: Array | None,
    dcT: Array | None,
    cache: LSTMCache,
    work: Workspace | None = None,
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """Go back over a sequence (back-propagation through time; Werbos 1990).

    dy (T, B, H); dhT, dcT (B, H) gradients of the final state, None for zero. What forward
    returned is overwritten: y is 0 before a reset.
    Returns dx (T, B, E), (dh0, dc0), and the gradients {"Wx", "Wh", "b"}.
    """
    work = work or ops.workspace()
    x, keep, gates, c, h = cache
    T, B, H = dy.shape
    E = x.shape[-1]
    dh = work.array("dh", (B, H))
    dc = work.array("dc", (B, H))
    grads = {name: work.array("d" + name, p[name].shape) for name in ("Wx", "Wh", "b")}
    ops.lstm_sequence_backward(gates, p["Wh"], keep, c, h, dy, dhT, dcT, dh, dc, grads["b"], work)

    dgates, h_prev = gates.reshape(T * B, 4 * H), h[:-1]  # which keep is in now
    dx = work.array("dx", (T, B, E))
    ops.matmul(dgates, p["Wx"].T, dx.reshape(T * B, E))
    ops.matmul(x.reshape(T * B, E).T, dgates, grads["Wx"])
    ops.matmul(h_prev.reshape(T * B, H).T, dgates, grads["Wh"])
    return dx, (dh, dc), grads


def lstm_step(
    ops: NumpyOps,
    p: Mapping[str, Array],
    x: Array,
    h: Array,
    c: Array,
    out: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """Run a layer over one time step, as in sampling. x (B, E), h, c (B, H) -> new (h, c).

    The new state is written to out, where it is given.
    """
    h_next, c_next = out or (ops.xp.empty_like(h), ops.xp.empty_like(c))
    ops.lstm_step_forward(x, p["Wx"], p["Wh"], p["b"], h, c, c_next, h_next)
    return h_next, c_next
