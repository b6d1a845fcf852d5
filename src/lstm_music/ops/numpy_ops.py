"""The contract of every backend, and its reference in plain NumPy.

Names: T time steps, B batch, E embedding, H hidden, V vocabulary, N = T·B rows. Arrays are
time-major and C-contiguous; gates are four contiguous blocks in the order i, f, g, o.
Each docstring says which arguments an op overwrites.
"""

import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.arrays import NO_NOTES, Array, RowGradient
from lstm_music.ops import philox

LOGITS_BYTES = 128 << 20  # of a chunk of logits at most: each chunk reads and writes dW again
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, as Kingma & Ba 2015 advise


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


class Workspace:
    """Scratch arrays by name, made once and used again at every step of the same shape."""

    def __init__(self, xp: Any, dtype: DTypeLike) -> None:
        self.xp, self.dtype = xp, np.dtype(dtype)
        self._arrays: dict[str, Array] = {}
        self._parts: dict[str, Workspace] = {}

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return the uninitialised array of that name; a new shape replaces the old one."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape:
            found = self._arrays[name] = self.xp.empty(shape, self.dtype)
        return found

    def like(self, name: str, a: Array) -> Array:
        """Return the array of that name as `zeros_as` makes one like a; it holds what was last."""
        found = self._arrays.get(name)
        if found is None or found.shape != a.shape:
            found = self._arrays[name] = zeros_as(self.xp, a)
        return found

    def part(self, name: str, dtype: DTypeLike | None = None) -> "Workspace":
        """Return a store of its own, for the same names in other shapes or another dtype."""
        return self._parts.setdefault(name, Workspace(self.xp, dtype or self.dtype))


def zeros_as(xp: Any, a: Array) -> Array:
    """Return zeros of a's shape and type, rows of a matrix as far apart as a's.

    A parameter's gradient, moments and mean are such: an op may take all of their memory at once.
    """
    return rows_as(xp.zeros, a, len(a)) if a.ndim == 2 else xp.zeros(a.shape, a.dtype)


def rows_as(make: Any, a: Array, n: int) -> Array:
    """Return n rows, as long and as far apart as a matrix's; make is xp.zeros or xp.empty."""
    columns = a.shape[1]
    rows: Array = make((n, max(columns, a.strides[0] // a.itemsize)), a.dtype)
    return rows[:, :columns]


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) in the form that can't overflow: tanh(x/2)/2 + 1/2."""
    return np.tanh(x * 0.5) * 0.5 + 0.5


class NumpyOps:
    """The reference ops: clear, correct in float64, and what other backends inherit."""

    name = "numpy"
    xp: Any = np

    def __init__(self, dtype: DTypeLike = "float32") -> None:
        self.dtype = np.dtype(dtype)
        self.real: Any = self.dtype.type  # makes a scalar of the arrays' type

    # Arrays -----------------------------------------------------------------------------------

    def asarray(self, a: Any, dtype: DTypeLike | None = None) -> Array:
        """Return a as a C-contiguous array on this backend, in its dtype unless one is given."""
        return np.ascontiguousarray(a, dtype=dtype or self.dtype)

    def to_numpy(self, a: Array) -> Array:
        """Return a as a NumPy array on the host."""
        return np.asarray(a)

    def aligned(self, a: Array) -> Array:
        """Return a matrix (K, N) with its rows where this backend's GEMMs read them fastest.

        It may be a itself, or the first N columns of a wider copy that holds zeros beyond.
        """
        return a

    def workspace(self) -> Workspace:
        """Return an empty store of scratch arrays."""
        return Workspace(self.xp, self.dtype)

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """Write a·b to out. a (M, K), b (K, N), out (M, N); a and b may be transposed views."""
        np.matmul(a, b, out=out)

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """Add a·b to out, in place. a (M, K), b (K, N), out (M, N)."""
        out += a @ b

    def affine(self, x: Array, W: Array, b: Array | None, out: Array) -> None:
        """Write x·W + b to out, as sampling needs it: a row's bits don't depend on the others.

        x (B, K), W (K, N), b (N,) or None, out (B, N).
        """
        for n in range(len(x)):
            self.xp.dot(x[n], W, out=out[n])
        if b is not None:
            out += b

    # LSTM -------------------------------------------------------------------------------------

    def lstm_cell_forward(
        self, gates: Array, recurrent: Array, keep: Array | None, c_prev: Array, c: Array, h: Array
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

    def lstm_step_forward(
        self,
        x: Array,
        Wx: Array,
        Wh: Array,
        b: Array,
        h_prev: Array,
        c_prev: Array,
        c: Array,
        h: Array,
    ) -> None:
        """Take one time step from its input on, as in sampling: a row's bits are its own.

        x (B, E), Wx (E, 4H), Wh (H, 4H), b (4H,), h_prev, c_prev (B, H). Writes c, h (B, H).
        """
        gates = self.xp.empty((len(x), len(b)), self.dtype)
        recurrent = self.xp.empty_like(gates)
        self.affine(x, Wx, b, gates)
        self.affine(h_prev, Wh, None, recurrent)
        self.lstm_cell_forward(gates, recurrent, None, c_prev, c, h)

    def lstm_cell_backward(
        self, gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
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
        self,
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
            self.lstm_cell_forward(gates[t], recurrent, row(keep, t), c[t], c[t + 1], h[t + 1])
        hT[...], cT[...] = h[T], c[T]

    def lstm_sequence_backward(
        self,
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
            self.lstm_cell_backward(gates[t], row(keep, t), c[t], c[t + 1], dh_step, dc)
            np.matmul(gates[t], Wh_T, out=dh)
            if keep is not None:
                dh *= keep[t][:, None]
                h[t] *= keep[t][:, None]
        self.xp.sum(gates.reshape(T * B, 4 * H), axis=0, out=db)

    # Embedding --------------------------------------------------------------------------------

    def embedding_forward(self, W: Array, ids: Array, out: Array) -> None:
        """Write the rows W[ids] to out. W (V, E); ids (...) integers; out (..., E)."""
        np.take(W, ids, axis=0, out=out, mode="clip")

    def embedding_backward(self, ids: Array, dx: Array) -> RowGradient:
        """Return the gradient of the rows that occur, summed in a fixed order.

        ids (N,) integers; dx (N, E).
        """
        order = np.argsort(ids, kind="stable")
        rows, starts = np.unique(ids[order], return_index=True)
        return RowGradient(rows, np.add.reduceat(dx[order], starts, axis=0))

    def embedding_backward_dense(self, ids: Array, dx: Array, dW: Array) -> None:
        """Write the gradient of every row: that of `embedding_backward`, 0 where none occurs.

        ids (N,) integers; dx (N, E); dW (V, E), overwritten: for tables of few rows.
        """
        rows, values = self.embedding_backward(ids, dx)
        dW[...] = 0
        dW[rows] = values

    # Losses -----------------------------------------------------------------------------------

    def softmax_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """Compute softmax cross-entropy and its gradient.

        logits (N, V): overwritten with scale · (softmax - one_hot(target)).
        targets (N,): ids; -1 asks for no loss and no gradient. losses (N,): nats, overwritten.
        """
        used = targets >= 0
        safe = np.where(used, targets, 0)
        n = np.arange(len(targets))
        logits -= logits.max(axis=1, keepdims=True)
        at_target = logits[n, safe]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        losses[...] = np.where(used, np.log(total) - at_target, 0)
        logits *= (np.where(used, scale, 0) / total)[:, None]
        logits[n, safe] -= np.where(used, scale, 0)

    def softmax_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """Compute softmax cross-entropy without its gradient; logits (N, V) are overwritten."""
        self.softmax_xent(logits, targets, losses, 1.0)

    def linear_softmax_xent(
        self,
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
    ) -> None:
        """Compute the softmax cross-entropy of h·W + b, and every gradient, in chunks of rows.

        The (N, V) logits never exist as a whole. h (N, H), W (H, V), b (V,), targets (N,) with
        -1 for none. scale multiplies the gradients. Overwrites losses (N,), dh (N, H), dW, db.
        """
        dW[...] = 0
        db[...] = 0
        for rows, logits in logit_chunks(len(h), len(b), work):
            self.matmul(h[rows], W, logits)
            logits += b
            self.softmax_xent(logits, targets[rows], losses[rows], scale)
            self.matmul(logits, W.T, dh[rows])
            self.matmul_add(h[rows].T, logits, dW)
            db += logits.sum(axis=0)

    def linear_softmax_nll(
        self, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
    ) -> None:
        """Compute the losses of `linear_softmax_xent` alone. Overwrites losses (N,).

        Rows without a target, which are many where a validation piece outlasts the others, are
        not computed.
        """
        counted = np.flatnonzero(targets >= 0)
        if len(counted) == len(targets):
            self._linear_softmax_nll(h, W, b, targets, losses, work)
            return
        losses[...] = 0
        if len(counted):
            found = np.empty(len(counted), losses.dtype)
            self._linear_softmax_nll(h[counted], W, b, targets[counted], found, work)
            losses[counted] = found

    def _linear_softmax_nll(
        self, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
    ) -> None:
        """As `linear_softmax_nll`, where every row has a target."""
        for rows, logits in logit_chunks(len(h), len(b), work):
            self.matmul(h[rows], W, logits)
            logits += b
            self.softmax_nll(logits, targets[rows], losses[rows])

    # Notes ------------------------------------------------------------------------------------

    def note_embedding_forward(self, W: Array, x: Array, out: Array) -> None:
        """Write the sum of the rows of W that sound. W (D, E); x (N, D) uint8 0/1; out (N, E)."""
        np.matmul(x.astype(self.dtype), W, out=out)

    def note_embedding_backward(self, x: Array, dx: Array, dW: Array) -> None:
        """Write each row's gradient: the sum of dx where it sounds.

        x (N, D) uint8 0/1; dx (N, E); dW (D, E), overwritten.
        """
        np.matmul(x.T.astype(self.dtype), dx, out=dW)

    def sigmoid_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """Compute the cross-entropy of D independent notes, and its gradient.

        logits (N, D): overwritten with scale · (sigmoid - target). targets (N, D) uint8 0/1; a row
        that begins with NO_NOTES asks for no loss and no gradient. losses (N,): nats summed over
        the notes, overwritten.
        """
        used = targets[:, 0] != NO_NOTES
        y = np.where(used[:, None], targets, 0).astype(self.dtype)
        # log(1 + e^x) - y·x without overflow.
        nats = np.maximum(logits, 0) - logits * y + np.log1p(np.exp(-np.abs(logits)))
        losses[...] = np.where(used, nats.sum(axis=1), 0)
        logits[...] = (sigmoid(logits) - y) * np.where(used, self.real(scale), 0)[:, None]

    def sigmoid_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """Compute the losses of `sigmoid_xent` alone; logits (N, D) are overwritten."""
        self.sigmoid_xent(logits, targets, losses, 1.0)

    def nade_xent(
        self,
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
    ) -> None:
        """Compute the cross-entropy of notes under a NADE with conditional biases, and gradients.

        Note d is on with probability sigmoid(visible[d] + U[d]·sigmoid(a)), where a is hidden plus
        W[k] for each note k < d that is on (Larochelle & Murray 2011, equations 3 and 4).
        visible (N, D), hidden (N, K): biases, overwritten with scale times their gradients.
        targets (N, D) uint8 as in `sigmoid_xent`. W, U (D, K). Overwrites losses (N,): nats summed
        over the notes, and dW, dU (D, K).
        """
        used = targets[:, 0] != NO_NOTES
        x = np.where(used[:, None], targets, 0).astype(self.dtype)
        a = hidden.copy()
        for d in range(len(U)):
            visible[:, d] += sigmoid(a) @ U[d]
            a += x[:, d, None] * W[d]
        self.sigmoid_xent(visible, targets, losses, scale)
        hidden[...] = 0
        for d in reversed(range(len(U))):
            np.dot(x[:, d], hidden, out=dW[d])
            a -= x[:, d, None] * W[d]
            s, dz = sigmoid(a), visible[:, d]
            np.dot(dz, s, out=dU[d])
            hidden += dz[:, None] * U[d] * s * (1 - s)

    def nade_nll(
        self, visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
    ) -> None:
        """Compute the losses of `nade_xent` alone; visible and hidden are overwritten."""
        used = targets[:, 0] != NO_NOTES
        x = np.where(used[:, None], targets, 0).astype(self.dtype)
        for d in range(len(U)):
            visible[:, d] += sigmoid(hidden) @ U[d]
            hidden += x[:, d, None] * W[d]
        self.sigmoid_nll(visible, targets, losses)

    def nade_sample(
        self,
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
        inverse = self.real(1 / temperature)
        for d in range(len(U)):
            z = visible[:, d] + (sigmoid(hidden) * U[d]).sum(axis=1)
            out[:, d] = draws[:, d] < sigmoid(z * inverse)
            hidden += out[:, d, None] * W[d]

    # Dropout ----------------------------------------------------------------------------------

    def dropout(
        self,
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
        bits = philox.random_bits(seed, stream, step, math.prod(shape)).reshape(shape)
        if whole is not None:
            bits = bits[:, first : first + x.shape[1]]
        factors = (bits >= dropout_threshold(p)) * self.real(1 / (1 - p))
        np.multiply(x, factors, out=x if out is None else out)

    # Optimiser --------------------------------------------------------------------------------

    def sum_squares(self, g: Array) -> float:
        """Return the sum of the squares of g."""
        flat = g.reshape(-1)
        return float(flat @ flat)

    def adam_step(
        self,
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
        g = g * self.real(scale)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        if decay:
            p *= 1 - lr * decay
        p -= (lr / (1 - beta1**t)) * m / (np.sqrt(v / (1 - beta2**t)) + eps)

    def average_step(self, p: Array, mean: Array, rate: float) -> None:
        """Move mean towards p by a share of their difference, in place; both of one shape."""
        mean += rate * (p - mean)

    def adam_step_rows(
        self,
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
        self.adam_step(p, dense, m, v, how)


def row(keep: Array | None, t: int) -> Array | None:
    """Return keep[t], or None where nothing is reset."""
    return None if keep is None else keep[t]


def logit_chunks(
    N: int, V: int, work: Workspace, limit: int = sys.maxsize
) -> Iterator[tuple[slice, Array]]:
    """Yield slices of the N rows, each with scratch for its logits of LOGITS_BYTES at most.

    limit: bytes at most, where a backend has less room.
    """
    most = max(1, min(N, min(LOGITS_BYTES, limit) // (V * work.dtype.itemsize)))
    chunk = -(-N // -(-N // most))  # as few as can be, and then of one size
    logits = work.array("logits", (chunk, V))
    for start in range(0, N, chunk):
        stop = min(start + chunk, N)
        yield slice(start, stop), logits[: stop - start]


def rows_and_place(x: Array, first: int, whole: int | None) -> tuple[Array, int, int]:
    """Return x as rows (T, n) of the larger array that `NumpyOps.dropout` takes it for a part of.

    Also how many elements of its row are before each row's first, and how long that row is. An
    array that is no part of another is one row.
    """
    if whole is None:
        return x.reshape(1, -1), 0, x.size
    width = math.prod(x.shape[2:])
    return x.reshape(len(x), -1), first * width, whole * width


def dropout_threshold(p: float) -> np.uint32:
    """Return the bound below which a random 32-bit integer drops its element."""
    return np.uint32(min(round(p * 2**32), 2**32 - 1))
