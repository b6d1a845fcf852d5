"""CUDA through CuPy: our own kernels for everything but the GEMMs, which are cuBLAS's.

Kernels are compiled by NVRTC at first use and cached on disk by CuPy; nvcc isn't needed.
Nothing here reads from the device but what a contract returns as a number (`sum_squares`) or as an
array of unknown length (`embedding_backward`); inside `recording` not even these do, so that a
whole training step can be captured as one CUDA graph (lstm_music/graph.py).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from lstm_music.cache import cache_folder, can_write
from lstm_music.errors import UserError
from lstm_music.ops import philox
from lstm_music.ops.cuda import lstm_sequence, softmax_head
from lstm_music.ops.cuda import source as cuda_source
from lstm_music.ops.cuda.cublas import Cublas
from lstm_music.ops.cuda.lstm_sequence import SequencePlan, sequence_options, sequence_shared
from lstm_music.ops.cuda.lstm_sequence_bf16 import (
    bf16_sequence_options,
    bf16_sequence_rows,
    bf16_sequence_shared,
)
from lstm_music.ops.numpy_ops import (
    Array,
    NumpyOps,
    RowGradient,
    Workspace,
    dropout_threshold,
    logit_chunks,
    row,
    rows_and_place,
)

PRECISIONS = ("fp32", "tf32", "bf16")

NULL = np.uint64(0)  # a null pointer, as an argument of a kernel
CHUNK = 4096  # as in optimizer.cu

# cuBLAS: types of matrices, and what it computes in. NumPy has no bf16: its bits are uint16.
BF16 = "uint16"
MATRIX_TYPES = {"float32": 0, "float64": 1, BF16: 14}
COMPUTE_TYPES = {"fp32": 68, "tf32": 77, "bf16": 75, "float64": 70}

# Fields of Given and Found in optimizer.cu.
GIVEN = ("lr", "correct1", "correct2", "gradient_scale", "clip")
FOUND = ("norm", "scale", "loss", "loss_sum", "norm_sum", "failed")
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # as in optim.py

ALIGNED = 8  # a row's length in memory is a multiple: 16 bytes of bf16, as tensor cores want them
LINE, LONG = 64, 1024  # and of so many, a line of the cache, where rows are at least so long
L2_BYTES = 32 << 20  # of logits at once: what the second-level cache of a large GPU holds
CHUNK_ROWS = 200  # at least: each chunk reads W and its gradient, whatever its rows
NADE_PARTS = 128  # of the rows, each with its own sums of a NADE's gradients


class Parameter(NamedTuple):
    """What Adam needs of one parameter.

    where is for a gradient of slots alone. decay: how much of p, times the learning rate, goes at
    each step. mean: moves towards p after each step.
    """

    p: Array
    g: Array | RowGradient
    m: Array
    v: Array
    where: Array | None = None
    decay: float = 0.0
    mean: Array | None = None


@dataclass(frozen=True)
class Table:
    """Parameters as optimizer.cu reads them; blocks of Adam and of the sum of squares."""

    tensors: Array
    count: int
    blocks: int
    norm_blocks: int
    alive: tuple[Parameter, ...]  # the pointers' arrays, kept from being freed


class CupyOps(NumpyOps):
    """The ops on an NVIDIA GPU.

    precision: of the GEMMs of float32 models. "fp32" is strict; "tf32" and "bf16" let the tensor
    cores round the factors, and add up in fp32. State, losses and weights are fp32 in all three.
    "bf16" reads copies in bf16 of a softmax head's factors: half the bytes. There the recurrent
    product too rounds its factors (h, Wh and the gates' gradients) to bf16, where the device has
    tensor cores and H fits; elsewhere, and with "fp32" and "tf32" always, it is fp32.
    cupy: the module to use, for tests, with a cublas_library of its own.
    """

    name = "cupy"

    def __init__(
        self, dtype: DTypeLike = "float32", precision: str = "fp32", cupy: Any = None
    ) -> None:
        super().__init__(dtype)
        if precision not in PRECISIONS:
            raise UserError(
                f"unknown precision '{precision}': choose one of {', '.join(PRECISIONS)}"
            )
        self.precision = precision
        self.xp = usable_cupy() if cupy is None else cupy
        device = self.xp.cuda.Device()
        # Whether there are instructions for products of matrices in bf16: kernels/tensor_cores.cuh.
        self.tensor_cores = int(device.compute_capability) >= 80
        # Whether blocks reach each other's shared memory: kernels/cluster.cuh.
        self.clusters = int(device.compute_capability) >= 90
        self.exchange = "mbarrier"  # of lstm_sequence.EXCHANGES: how the blocks of a cluster do
        attributes = device.attributes
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.shared_bytes = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self._cublas = Cublas(self.xp, getattr(self.xp, "cublas_library", None))
        self._kernels: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._step: Array | None = None
        self._where: Array | None = None
        self._slots: dict[str, Array] = {}

    # Arrays -----------------------------------------------------------------------------------

    def asarray(self, a: Any, dtype: DTypeLike | None = None) -> Array:
        """As NumpyOps.asarray, on the device."""
        array: Array = self.xp.ascontiguousarray(self.xp.asarray(a, dtype=dtype or self.dtype))
        return array

    def aligned(self, a: Array) -> Array:
        """As NumpyOps.aligned: an odd distance between rows keeps cuBLAS from its fast kernels."""
        if apart(a) % ALIGNED == 0:
            return a
        rows, columns = a.shape
        out: Array = self.xp.zeros((rows, padded(columns)), a.dtype)[:, :columns]
        out[...] = a
        return out

    def to_numpy(self, a: Array) -> Array:
        """As NumpyOps.to_numpy: waits for the device and copies."""
        host: Array = self.xp.asnumpy(a)
        return host

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul, by cuBLAS."""
        self._gemm(a, b, out, 0.0)

    def matmul_add(self, a: Array, b: Array, out: Array) -> None:
        """As NumpyOps.matmul_add, by cuBLAS, which adds to out itself."""
        self._gemm(a, b, out, 1.0)

    def affine(self, x: Array, W: Array, b: Array | None, out: Array) -> None:
        """As NumpyOps.affine, by one GEMM: rows are alike in batches of one size alone."""
        self.matmul(x, W, out)
        if b is not None:
            self.xp.add(out, b, out=out)

    def _gemm(self, a: Array, b: Array, out: Array, beta: float) -> None:
        """Compute out = a·b + beta·out. cuBLAS is column-major: it computes out.T = b.T·a.T."""
        M, K = a.shape
        N = b.shape[1]
        factor, real = MATRIX_TYPES[a.dtype.name], MATRIX_TYPES[self.dtype.name]
        # Of bf16 itself nothing is left to round.
        precision = "fp32" if a.dtype == BF16 else self.precision
        compute = COMPUTE_TYPES["float64" if self.dtype == np.float64 else precision]
        transpose_b, ldb = leading(b)
        transpose_a, lda = leading(a)
        # Read by cuBLAS before the call returns.
        scalars = np.array([1, beta], self.dtype)
        one = scalars.ctypes.data
        self._cublas.gemm_ex(
            transpose_b, transpose_a, N, M, K,
            one, pointer(b), factor, ldb, pointer(a), factor, lda,
            one + self.dtype.itemsize, pointer(out), real, max(out.strides[0] // out.itemsize, N),
            compute, -1,
        )  # fmt: skip

    # Launching --------------------------------------------------------------------------------

    def _kernel(self, file: str, name: str, options: tuple[str, ...] = ()) -> Any:
        """Return a kernel of kernels/FILE.cu, compiled at first use."""
        key = (name, options)
        if key not in self._kernels:
            flags = (cuda_source.real_option(self.dtype), "-std=c++17", *options)
            try:
                module = self.xp.RawModule(code=cuda_source.source(file), options=flags)
                self._kernels[key] = module.get_function(name)
            except self.xp.cuda.compiler.CompileException as error:
                first = str(error).strip().splitlines()[0]
                raise UserError(
                    f"the kernel {name} doesn't compile for this GPU ({first}): "
                    "use --backend numba, or update CuPy and the driver"
                ) from error
        return self._kernels[key]

    def launch(
        self,
        file: str,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
        options: tuple[str, ...] = (),
    ) -> None:
        """Launch a kernel of kernels/FILE.cu; None is a null pointer.

        shared: bytes of its dynamic shared memory. options: of the compiler.
        """
        kernel = self._kernel(file, name, options)
        if shared:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(grid, block, tuple(NULL if a is None else a for a in args), shared_mem=shared)

    def _real(self, x: float) -> Any:
        kind: Any = self.dtype.type
        return kind(x)

    @contextmanager
    def recording(self, step: Array, where: Array, slots: dict[str, Array]) -> Iterator[None]:
        """Run what follows without a read from the device, as a graph's capture asks for.

        step (1,) uint32: dropout's step, read from here instead of from its argument. where (V,)
        int32: `embedding_backward` returns slots, one for each id of the batch, of which those
        with row -1 are empty, and writes here the slot of each row that occurs. slots: where the
        slots' arrays are kept from one call to the next, empty at first.
        """
        self._step, self._where, self._slots = step, where, slots
        try:
            yield
        finally:
            self._step, self._where, self._slots = None, None, {}

    # LSTM -------------------------------------------------------------------------------------

    def lstm_cell_forward(
        self, gates: Array, recurrent: Array, keep: Array | None, c_prev: Array, c: Array, h: Array
    ) -> None:
        """As NumpyOps.lstm_cell_forward, in one launch."""
        self._cell_forward(gates, recurrent, None, keep, c_prev, c, h)

    def _cell_forward(
        self,
        gates: Array,
        recurrent: Array,
        b: Array | None,
        keep: Array | None,
        c_prev: Array,
        c: Array,
        h: Array,
    ) -> None:
        B, H = c.shape
        self.launch(
            "lstm_cell", "lstm_cell_forward", (blocks(B * H, 128),), (128,),
            gates, recurrent, b, keep, c_prev, c, h, np.int32(B), np.int32(H),
        )  # fmt: skip

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
        """As NumpyOps.lstm_step_forward, in one launch."""
        (B, E), H = x.shape, c.shape[1]
        self.launch(
            "lstm_step", "lstm_step_forward", (blocks(H, 2), blocks(B, 64)), (256,),
            x, Wx, Wh, b, h_prev, c_prev, c, h, np.int32(B), np.int32(E), np.int32(H),
        )  # fmt: skip

    def lstm_cell_backward(
        self, gates: Array, keep: Array | None, c_prev: Array, c: Array, dh: Array, dc: Array
    ) -> None:
        """As NumpyOps.lstm_cell_backward, in one launch."""
        self._cell_backward(gates, keep, c_prev, c, None, dh, dc)

    def _cell_backward(
        self,
        gates: Array,
        keep: Array | None,
        c_prev: Array,
        c: Array,
        dy: Array | None,
        dh: Array,
        dc: Array,
    ) -> None:
        B, H = c.shape
        self.launch(
            "lstm_cell", "lstm_cell_backward", (blocks(B * H, 128),), (128,),
            gates, keep, c_prev, c, dy, dh, dc, np.int32(B), np.int32(H),
        )  # fmt: skip

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
        """As NumpyOps.lstm_sequence_forward: one launch for H <= 256, else two a step."""
        T, B, H4 = gates.shape
        H = H4 // 4
        args = (gates, Wh, b, keep, h0, c0, c, h, hT, cT, np.int32(T), np.int32(B))
        rows = self._tensor_core_rows(B, H, gates, Wh)
        if rows is not None:
            self._launch_bf16_sequence("forward", rows, H, B, *args)
            return
        plan = self._plan(B, H)
        if plan is not None:
            self._launch_sequence("lstm_sequence_forward", plan, B, H, *args, np.int32(H))
            return
        recurrent = work.array("recurrent", (B, H4))
        h[0], c[0] = h0, c0
        for t in range(T):
            self.matmul(h[t], Wh, recurrent)
            self._cell_forward(gates[t], recurrent, b, row(keep, t), c[t], c[t + 1], h[t + 1])
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
        """As NumpyOps.lstm_sequence_backward: one launch for H <= 256, else two a step.

        keep is 0 or 1.
        """
        T, B, H = dy.shape
        args = (gates, Wh, keep, c, h, dy, dhT, dcT, dh, dc)
        sizes = (np.int32(T), np.int32(B))
        rows = self._tensor_core_rows(B, H, gates, Wh, c, dy)
        if rows is not None:
            parts = work.array("db_parts", (blocks(B, rows), 4 * H))
            self._launch_bf16_sequence("backward", rows, H, B, *args, parts, *sizes)
            self.column_sum(parts, db)
            return
        plan = self._plan(B, H)
        if plan is not None:
            parts = work.array("db_parts", (blocks(B, plan.rows), 4 * H))
            self._launch_sequence(
                "lstm_sequence_backward", plan, B, H, *args, parts, *sizes, np.int32(H)
            )
            self.column_sum(parts, db)
            return
        dh[...] = 0 if dhT is None else dhT
        dc[...] = 0 if dcT is None else dcT
        for t in reversed(range(T)):
            kept = row(keep, t)
            self._cell_backward(gates[t], kept, c[t], c[t + 1], dy[t], dh, dc)
            self.matmul(gates[t], Wh.T, dh)
            if kept is not None:
                self.xp.multiply(dh, kept[:, None], out=dh)
        if keep is not None:
            self.xp.multiply(h[:-1], keep[:, :, None], out=h[:-1])
        self.column_sum(gates.reshape(T * B, 4 * H), db)

    def _launch_sequence(self, name: str, plan: SequencePlan, B: int, H: int, *args: Any) -> None:
        self.launch(
            "lstm_sequence", name, (lstm_sequence.grid(plan, B),), (plan.threads,), *args,
            shared=sequence_shared(plan, H, self.dtype.itemsize), options=sequence_options(plan),
        )  # fmt: skip

    def _launch_bf16_sequence(self, direction: str, rows: int, H: int, B: int, *args: Any) -> None:
        self.launch(
            "lstm_sequence_bf16", f"lstm_sequence_bf16_{direction}",
            (blocks(B, rows),), (2 * H,), *args,
            shared=bf16_sequence_shared(rows, H, direction == "backward"),
            options=bf16_sequence_options(rows, H),
        )  # fmt: skip

    def _tensor_core_rows(self, B: int, H: int, *copied: Array) -> int | None:
        """Return the rows of a block of the kernel on the tensor cores, None where it isn't used.

        copied: what the kernel reads 16 bytes at a time.
        """
        if not (self.tensor_cores and self.precision == "bf16" and self.dtype == np.float32):
            return None
        if any(pointer(a) % 16 for a in copied):
            return None
        return bf16_sequence_rows(B, H, self.multiprocessors, self.shared_bytes)

    def _plan(self, B: int, H: int) -> SequencePlan | None:
        """Return how to run the persistent kernel, None where H is too large for it."""
        return lstm_sequence.sequence_plan(
            B, H, self.dtype.itemsize, self.multiprocessors, self.shared_bytes, self.clusters,
            self.exchange,
        )  # fmt: skip

    # Embedding --------------------------------------------------------------------------------

    def embedding_forward(self, W: Array, ids: Array, out: Array) -> None:
        """As NumpyOps.embedding_forward, in one launch."""
        V, E = W.shape
        self.launch(
            "embedding", "embedding_forward", (blocks(ids.size * blocks(E, 4), 256),), (256,),
            W, ids, out, np.int32(ids.size), np.int32(V), np.int32(E),
        )  # fmt: skip

    def embedding_backward(self, ids: Array, dx: Array) -> RowGradient:
        """As NumpyOps.embedding_backward; inside `recording`, with slots that may be empty."""
        N, E = dx.shape
        slots = self._slots if self._where is not None else {}
        if not slots:
            slots["order"] = self.xp.empty((2, N), np.int32)
            slots["rows"] = self.xp.empty(N, np.int32)
            slots["values"] = self.xp.empty((N, E), self.dtype)
        order, rows, values = slots["order"], slots["rows"], slots["values"]
        self.launch("embedding", "embedding_sort", (blocks(N, 8),), (256,), ids, order, np.int32(N))
        self.launch(
            "embedding", "embedding_backward", (N,), (32, 8),
            order, dx, rows, values, self._where, np.int32(N), np.int32(E),
        )  # fmt: skip
        if self._where is not None:
            return RowGradient(rows, values)
        owned = self.xp.flatnonzero(rows >= 0)
        return RowGradient(rows[owned], values[owned])

    def embedding_backward_dense(self, ids: Array, dx: Array, dW: Array) -> None:
        """As NumpyOps.embedding_backward_dense, without slots in between."""
        N, E = dx.shape
        order = self.xp.empty((2, N), np.int32)
        dW[...] = 0
        self.launch("embedding", "embedding_sort", (blocks(N, 8),), (256,), ids, order, np.int32(N))
        self.launch(
            "embedding", "embedding_backward", (N,), (32, 8),
            order, dx, None, dW, None, np.int32(N), np.int32(E),
        )  # fmt: skip

    # Losses -----------------------------------------------------------------------------------

    def softmax_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """As NumpyOps.softmax_xent, in one launch."""
        self._softmax_xent(logits, None, targets, losses, scale)

    def _softmax_xent(
        self,
        logits: Array,
        b: Array | None,
        targets: Array,
        losses: Array,
        scale: float,
        d: Array | None = None,
    ) -> None:
        """As `softmax_xent` with a bias (V,); the gradient goes to d (N, V) in bf16 if given."""
        N, V = logits.shape
        self.launch(
            "softmax_xent", "softmax_xent_backward", (N,), (row_threads(V),),
            logits, b, targets, losses, self._real(scale), np.int32(V), np.int32(apart(logits)), d,
        )  # fmt: skip

    def softmax_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """As NumpyOps.softmax_nll, in one launch."""
        self._softmax_nll(logits, None, targets, losses)

    def _softmax_nll(self, logits: Array, b: Array | None, targets: Array, losses: Array) -> None:
        N, V = logits.shape
        self.launch(
            "softmax_xent", "softmax_xent_forward", (N,), (row_threads(V),),
            logits, b, targets, losses, np.int32(V), np.int32(apart(logits)),
        )  # fmt: skip

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
        """As NumpyOps.linear_softmax_xent; the logits of a chunk stay in the L2 cache.

        With bf16 and tensor cores there are no logits: softmax_head.py.
        """
        half = self.precision == "bf16" and self.dtype == np.float32
        how = softmax_head.plan(len(W), self.shared_bytes) if half and self.tensor_cores else None
        if how is not None:
            softmax_head.linear_softmax_xent(
                self, how, h, W, b, targets, scale, losses, dh, dW, db, work
            )
            return
        if half:
            h, W = (self.rounded(a, name, work) for a, name in ((h, "h"), (W, "W")))
        for rows, logits, d in gradient_chunks(len(h), len(b), work, half):
            later = rows.start > 0
            self.matmul(h[rows], W, logits)
            self._softmax_xent(logits, b, targets[rows], losses[rows], scale, d if half else None)
            self.matmul(d, W.T, dh[rows])
            self._gemm(h[rows].T, d, dW, float(later))
            self.column_sum(d, db, later)

    def rounded(self, a: Array, name: str, work: Workspace) -> Array:
        """Return a matrix's copy in bf16, in scratch of that name, with aligned rows."""
        N, C = a.shape
        out = work.part("bf16", BF16).array(name, (N, padded(C)))[:, :C]
        self.launch(
            "bf16", "bf16_forward", (blocks(N * blocks(C, 4), 256),), (256,),
            a, out, np.int32(N), np.int32(C), np.int32(apart(a)), np.int32(apart(out)),
        )  # fmt: skip
        return out

    def linear_softmax_nll(
        self, h: Array, W: Array, b: Array, targets: Array, losses: Array, work: Workspace
    ) -> None:
        """As NumpyOps.linear_softmax_nll, with the bias added on the way."""
        for rows, logits in padded_chunks(len(h), len(b), work):
            self.matmul(h[rows], W, logits)
            self._softmax_nll(logits, b, targets[rows], losses[rows])

    def column_sum(self, a: Array, out: Array, add: bool = False) -> None:
        """Write the sums of the columns of a (N, C) to out (C,), or add them to it."""
        N, C = a.shape
        name = "column_sum_bf16" if a.dtype == BF16 else "column_sum"
        self.launch(
            "column_sum", name, (blocks(C, 128),), (32, 8),
            a, out, np.int32(N), np.int32(C), np.int32(apart(a)), np.int32(add),
        )  # fmt: skip

    # Notes ------------------------------------------------------------------------------------

    def note_embedding_forward(self, W: Array, x: Array, out: Array) -> None:
        """As NumpyOps.note_embedding_forward, in one launch: only the rows that sound are read."""
        D, E = W.shape
        self.launch(
            "note_embedding", "note_embedding_forward", (len(x),), (128,),
            W, x, out, np.int32(D), np.int32(E),
        )  # fmt: skip

    def note_embedding_backward(self, x: Array, dx: Array, dW: Array) -> None:
        """As NumpyOps.note_embedding_backward, in one launch and a fixed order."""
        D, E = dW.shape
        self.launch(
            "note_embedding", "note_embedding_backward", (blocks(E, 32), D), (32, 8),
            x, dx, dW, np.int32(len(x)), np.int32(D), np.int32(E),
        )  # fmt: skip

    def sigmoid_xent(self, logits: Array, targets: Array, losses: Array, scale: float) -> None:
        """As NumpyOps.sigmoid_xent, in one launch."""
        N, D = logits.shape
        self.launch(
            "sigmoid_xent", "sigmoid_xent_backward", (N,), (128,),
            logits, targets, losses, self._real(scale), np.int32(D),
        )  # fmt: skip

    def sigmoid_nll(self, logits: Array, targets: Array, losses: Array) -> None:
        """As NumpyOps.sigmoid_nll, in one launch."""
        N, D = logits.shape
        self.launch(
            "sigmoid_xent", "sigmoid_xent_forward", (N,), (128,),
            logits, targets, losses, np.int32(D),
        )  # fmt: skip

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
        """As NumpyOps.nade_xent: a launch each way, and sums of parts in a fixed order."""
        self._nade_forward(visible, hidden, targets, W, U, scale, losses)
        (N, K), D = hidden.shape, len(U)
        parts = min(N, NADE_PARTS)
        dWs, dUs = (work.array(name, (parts, D * K)) for name in ("nade_dW", "nade_dU"))
        self.launch(
            "nade", "nade_backward", (blocks(K, 32), parts), (32,),
            visible, hidden, targets, W, U, dWs, dUs, np.int32(N), np.int32(D), np.int32(K),
            shared=64 * D * self.dtype.itemsize,
        )  # fmt: skip
        self.column_sum(dWs, dW.reshape(-1))
        self.column_sum(dUs, dU.reshape(-1))

    def nade_nll(
        self, visible: Array, hidden: Array, targets: Array, W: Array, U: Array, losses: Array
    ) -> None:
        """As NumpyOps.nade_nll, in one launch."""
        self._nade_forward(visible, hidden, targets, W, U, 1.0, losses)

    def _nade_forward(
        self,
        visible: Array,
        hidden: Array,
        targets: Array,
        W: Array,
        U: Array,
        scale: float,
        losses: Array,
    ) -> None:
        """Write the losses, and over visible (N, D) scale times the gradient of the logits."""
        D, K = U.shape
        self.launch(
            "nade", "nade_forward", (len(visible),), (128,),
            visible, hidden, targets, W, U, losses, self._real(scale), np.int32(D), np.int32(K),
            shared=2 * K * self.dtype.itemsize,
        )  # fmt: skip

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
        """As NumpyOps.nade_sample, in one launch."""
        D, K = U.shape
        self.launch(
            "nade", "nade_sample", (len(visible),), (128,),
            visible, hidden, W, U, self.asarray(draws), self._real(1 / temperature), out,
            np.int32(D), np.int32(K),
            shared=2 * K * self.dtype.itemsize,
        )  # fmt: skip

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
        """As NumpyOps.dropout, with the same bits; inside `recording` the step is the device's."""
        k0, k1 = philox.split_seed(seed)
        rows, before, row = rows_and_place(x, first, whole)
        T, n = rows.shape
        each = (n + 6) // 4  # blocks of four words that a row may touch, which may begin inside one
        self.launch(
            "dropout", "dropout_forward", (blocks(T * each, 256),), (256,),
            x, x if out is None else out,
            np.uint64(T), np.uint64(n), np.uint64(before), np.uint64(row), np.uint64(each),
            dropout_threshold(p), self._real(1 / (1 - p)),
            np.uint32(k0), np.uint32(k1), np.uint32(stream & philox.MASK32),
            np.uint32(step & philox.MASK32), self._step,
        )  # fmt: skip

    # Optimiser --------------------------------------------------------------------------------

    def sum_squares(self, g: Array) -> float:
        """As NumpyOps.sum_squares: waits for the device."""
        table = self.table([Parameter(g, g, g, g)])
        partial = self.xp.empty(table.norm_blocks, np.float64)
        self._sum_squares(table, partial)
        return float(partial.sum())

    def adam_step(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
        decay: float = 0.0,
    ) -> None:
        """As NumpyOps.adam_step, in one launch."""
        table = self.table([Parameter(p, g, m, v, decay=decay)])
        self._adam(table, lr, beta1, beta2, eps, t, scale)

    def adam_step_rows(
        self,
        p: Array,
        g: RowGradient,
        m: Array,
        v: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
        decay: float = 0.0,
    ) -> None:
        """As NumpyOps.adam_step_rows, without a dense gradient."""
        where = self.xp.zeros(len(p), np.int32)
        where[g.rows] = self.xp.arange(len(g.rows), dtype=np.int32)
        rows = self.asarray(g.rows, np.int32)
        parameter = Parameter(p, RowGradient(rows, g.values), m, v, where, decay)
        self._adam(self.table([parameter]), lr, beta1, beta2, eps, t, scale)

    def _adam(
        self,
        table: Table,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        t: int,
        scale: float,
    ) -> None:
        given = self.asarray([lr, 1 / (1 - beta1**t), 1 / (1 - beta2**t), 1, 0], np.float64)
        found = self.asarray([scale if n == "scale" else 0 for n in FOUND], np.float64)
        self.adam_all(table, given, found, beta1, beta2, eps)

    def table(self, parameters: list[Parameter]) -> Table:
        """Return parameters as `clip_all` and `adam_all` take them; pointers must stay valid."""
        rows = []
        first = first_norm = 0
        for each in parameters:
            entry, size = table_entry(each)
            rows.append([*entry, first, first_norm])
            first += blocks(extent(each.p), CHUNK)
            first_norm += blocks(size, CHUNK)
        tensors = self.asarray(np.array(rows, np.uint64), np.uint64)
        return Table(tensors, len(rows), first, first_norm, tuple(parameters))

    def _sum_squares(self, table: Table, partial: Array) -> None:
        self.launch(
            "optimizer", "sum_squares_forward", (table.norm_blocks,), (256,),
            table.tensors, np.int32(table.count), partial,
        )  # fmt: skip

    def clip_all(
        self, table: Table, losses: Array, given: Array, found: Array, partial: Array
    ) -> None:
        """Write the loss, the norm of all gradients and their factor to found (FOUND,) float64.

        given (GIVEN,) float64; partial (table.norm_blocks,) float64 is scratch.
        """
        self._sum_squares(table, partial)
        self.launch(
            "optimizer", "clip_forward", (1,), (1024,),
            partial, np.int32(table.norm_blocks), losses, np.int32(losses.size), given, found,
        )  # fmt: skip

    def adam_all(
        self,
        table: Table,
        given: Array,
        found: Array,
        beta1: float = BETA1,
        beta2: float = BETA2,
        eps: float = EPS,
        rate: float = 0.0,
    ) -> None:
        """Take a step of Adam with every parameter, in one launch; given, found as of `clip_all`.

        Then each mean moves towards its parameter by a share `rate` of their difference.
        """
        self.launch(
            "optimizer", "adam_forward", (table.blocks,), (256,),
            table.tensors, np.int32(table.count), given, found,
            np.float64(beta1), np.float64(beta2), np.float64(eps), np.float64(rate),
        )  # fmt: skip

    def average_step(self, p: Array, mean: Array, rate: float) -> None:
        """As NumpyOps.average_step, in one launch."""
        n = extent(p, mean)
        self.launch(
            "optimizer", "average_forward", (blocks(n, 256),), (256,),
            p, mean, np.uint64(n), self._real(rate),
        )  # fmt: skip


# Arithmetic that tests and tools use without a device ------------------------------------------


def blocks(n: int, size: int) -> int:
    """Return how many blocks of a size n elements need."""
    return -(-n // size)


def padded(V: int) -> int:
    """Return how far apart rows of V elements begin so that each is aligned."""
    size = LINE if V >= LONG else ALIGNED
    return blocks(V, size) * size


def padded_chunks(N: int, V: int, work: Workspace) -> Iterator[tuple[slice, Array]]:
    """Yield what `logit_chunks` does, in rows that begin where loads of 16 bytes may."""
    limit = max(L2_BYTES, CHUNK_ROWS * padded(V) * work.dtype.itemsize)
    for rows, logits in logit_chunks(N, padded(V), work, limit):
        yield rows, logits[:, :V]


def gradient_chunks(
    N: int, V: int, work: Workspace, half: bool
) -> Iterator[tuple[slice, Array, Array]]:
    """Yield slices of rows, logits, and where their gradient goes: over them, or half: to bf16."""
    d = None
    for rows, logits in padded_chunks(N, V, work):
        if half and d is None:  # the first chunk is the largest
            d = work.part("bf16", BF16).array("d", (len(logits), padded(V)))[:, :V]
        yield rows, logits, logits if d is None else d[: len(logits)]


def apart(a: Array) -> int:
    """Return how many elements the rows of a matrix begin after each other."""
    return int(a.strides[0]) // a.itemsize


def extent(*arrays: Array) -> int:
    """Return the elements of memory of arrays that lie alike, what is between rows included."""
    a, *others = arrays
    assert all(b.shape == a.shape and b.strides == a.strides for b in others)
    return a.size if a.flags.c_contiguous else len(a) * apart(a)


def row_threads(V: int) -> int:
    """Return the threads of a block that goes over a row of V logits."""
    return 128 if V <= 1024 else 512


def leading(a: Array) -> tuple[int, int]:
    """Return (transposed, leading dimension) of a row-major matrix or a transposed view of one."""
    rows, columns = a.shape
    down, across = (stride // a.itemsize for stride in a.strides)
    if across == 1:
        return 0, max(down, columns)
    return 1, max(across, rows)


def table_entry(each: Parameter) -> tuple[list[int], int]:
    """Return a parameter's fields of optimizer.cu's Tensor, and the elements of its gradient."""
    slots, width, rows, where = 0, 0, 0, 0
    values = each.g
    alike = [a for a in (each.p, each.m, each.v, each.mean) if a is not None]
    if isinstance(values, RowGradient):
        assert each.where is not None
        slots, width = values.values.shape
        rows, where = pointer(values.rows), pointer(each.where)
        values = values.values
    else:
        alike.append(values)
    pointers = [pointer(a) for a in (each.p, values, each.m, each.v)]
    mean = 0 if each.mean is None else pointer(each.mean)
    decay = int(np.float64(each.decay).view(np.uint64))
    size = extent(*alike)
    return [*pointers, rows, where, mean, decay, size, width, slots], extent(values)


def pointer(a: Any) -> int:
    """Return where a device array lies."""
    return int(a.data.ptr)


# Finding a GPU ----------------------------------------------------------------------------------


def usable_cupy() -> Any:
    """Return the module cupy, where it finds a GPU; raises UserError that says what is missing."""
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            f"the cupy backend needs CuPy ({error}): pip install 'lstm-music[cuda13]' "
            "(or [cuda12] for a driver older than 580), or use --backend numba"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(driver_message(str(error))) from error
    if not count:
        raise UserError("there is no CUDA device here: use --backend numba")
    keep_kernels()
    cupy.cuda.set_allocator(Allocator(cupy, cupy.get_default_memory_pool()))
    return cupy


def keep_kernels() -> None:
    """Have CuPy keep compiled kernels in our cache, where its own can't be written."""
    own = Path(os.path.expanduser("~/.cupy/kernel_cache"))  # as CuPy finds it
    if "CUPY_CACHE_DIR" not in os.environ and not can_write(own):
        os.environ["CUPY_CACHE_DIR"] = str(cache_folder() / "cupy")


def driver_message(what: str) -> str:
    """Return what to do about an error of the CUDA runtime."""
    if "InsufficientDriver" in what:
        return (
            "the NVIDIA driver is missing or older than CuPy: install a newer driver, or the CuPy "
            "that fits it (pip install 'lstm-music[cuda12]'), or use --backend numba"
        )
    return f"no CUDA device answers ({what}): check nvidia-smi, or use --backend numba"


class Allocator:
    """A pool's malloc that says in one line what to lower where the GPU's memory is full."""

    def __init__(self, cupy: Any, pool: Any) -> None:
        self.cupy, self.pool = cupy, pool

    def __call__(self, size: int) -> Any:
        """Return device memory of a size."""
        try:
            return self.pool.malloc(size)
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            used = self.pool.used_bytes() / 2**20
            raise UserError(
                f"the GPU has no {size / 2**20:,.0f} MB left beside the {used:,.0f} MB in use: "
                "lower --batch, --seq or --hidden, or use --backend numba"
            ) from error


def named(found: Array) -> Mapping[str, float]:
    """Return what `clip_all` found, read from the device, by name."""
    return dict(zip(FOUND, (float(x) for x in found), strict=True))
