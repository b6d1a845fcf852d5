"""The contract of every backend, and its reference in plain NumPy.

The ops are functions of `ops/reference/`, where each one's signature and docstring stand once, for
all backends. Here are what these share, and the ops that are made of other ops: a backend that
overrides the others has them too.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.arrays import Array
from lstm_music.ops.reference import copying, maths, notes
from lstm_music.ops.workspace import Workspace


class NumpyOps:
    """The reference ops: clear, correct in float64, and what other backends inherit."""

    name = "numpy"
    xp: Any = np
    precision = "fp32"  # of matrix products

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

    lstm_cell_forward = staticmethod(maths.lstm_cell_forward)
    lstm_cell_backward = staticmethod(maths.lstm_cell_backward)
    lstm_sequence_forward = staticmethod(maths.lstm_sequence_forward)
    lstm_sequence_backward = staticmethod(maths.lstm_sequence_backward)
    dropout = staticmethod(maths.dropout)

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

    # What goes in -----------------------------------------------------------------------------

    embedding_forward = staticmethod(maths.embedding_forward)
    embedding_backward = staticmethod(maths.embedding_backward)
    note_embedding_forward = staticmethod(notes.note_embedding_forward)
    note_embedding_backward = staticmethod(notes.note_embedding_backward)

    def embedding_backward_dense(self, ids: Array, dx: Array, dW: Array) -> None:
        """Write the gradient of every row: that of `embedding_backward`, 0 where none occurs.

        ids (N,) integers; dx (N, E); dW (V, E), overwritten: for tables of few rows.
        """
        rows, values = self.embedding_backward(ids, dx)
        dW[...] = 0
        dW[rows] = values

    # Losses -----------------------------------------------------------------------------------

    softmax_xent = staticmethod(maths.softmax_xent)
    linear_softmax_xent = staticmethod(maths.linear_softmax_xent)
    _linear_softmax_nll = staticmethod(maths.linear_softmax_nll)
    sigmoid_xent = staticmethod(notes.sigmoid_xent)
    nade_xent = staticmethod(notes.nade_xent)
    nade_nll = staticmethod(notes.nade_nll)
    nade_sample = staticmethod(notes.nade_sample)
    copy_shares = staticmethod(copying.copy_shares)
    copy_backward = staticmethod(copying.copy_backward)
    mix_losses = staticmethod(copying.mix_losses)

    def softmax_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """Compute softmax cross-entropy without its gradient; logits (N, V) are overwritten."""
        self.softmax_xent(logits, targets, losses, 1.0)

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

    def sigmoid_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """Compute the losses of `sigmoid_xent` alone; logits (N, D) are overwritten."""
        self.sigmoid_xent(logits, targets, losses, 1.0)

    # Optimiser --------------------------------------------------------------------------------

    sum_squares = staticmethod(maths.sum_squares)
    adam_step = staticmethod(maths.adam_step)
    adam_step_rows = staticmethod(maths.adam_step_rows)
    average_step = staticmethod(maths.average_step)
