"""Adding up gradients over ranks during the backward pass: a CPU's by MPI, a GPU's by NCCL."""

import warnings
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.errors import UserError
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.layout import extent, pointer

BUCKET = 1 << 20  # bytes: an array from this size on travels as it lies, smaller ones together


class Sums(Protocol):
    """What adds up arrays over ranks; each rank must ask for the same in the same order."""

    def start(self, arrays: list[Array]) -> None:
        """Begin to replace arrays by their sums."""

    def gather(self, g: RowGradient, counts: list[int]) -> tuple[Array, Array]:
        """Return the rows and values of all ranks end to end, in the order of the ranks.

        counts: how many rows each rank has.
        """

    def finish(self) -> None:
        """Return once all arrays hold their sums."""


def sums_of(ops: NumpyOps, comm: Any, in_place: Any) -> Sums:
    """Return what adds up a backend's arrays over a communicator of mpi4py."""
    if ops.name == "cupy":
        return NcclSums(ops.xp, comm)
    return MpiSums(comm, in_place)


class MpiSums:
    """By MPI's non-blocking all-reduce.

    Most MPIs move data only inside a call of MPI, so each `start` also looks at what is under way.
    """

    def __init__(self, comm: Any, in_place: Any) -> None:
        self._comm, self._in_place = comm, in_place
        self._requests: list[Any] = []
        self._small: list[Array] = []
        self._buckets: list[tuple[Array, list[Array]]] = []

    def start(self, arrays: list[Array]) -> None:
        """As Sums.start."""
        for a in arrays:
            if a.nbytes >= BUCKET:
                self._begin(a)
            else:
                self._small.append(a)
        if sum(a.nbytes for a in self._small) >= BUCKET:
            self._flush()
        for request in self._requests:
            request.Test()

    def _begin(self, a: Array) -> None:
        self._requests.append(self._comm.Iallreduce(self._in_place, a))

    def _flush(self) -> None:
        """Send what is small as one array."""
        if self._small:
            flat = np.concatenate([a.reshape(-1) for a in self._small])
            self._buckets.append((flat, self._small))
            self._small = []
            self._begin(flat)

    def gather(self, g: RowGradient, counts: list[int]) -> tuple[Array, Array]:
        """As Sums.gather."""
        self._flush()
        return self._all(g.rows, counts), self._all(g.values, counts)

    def _all(self, a: Array, counts: list[int]) -> Array:
        found = np.empty((sum(counts), *a.shape[1:]), a.dtype)
        width = found[:1].size if len(found) else 0
        self._comm.Allgatherv(np.ascontiguousarray(a), [found, [n * width for n in counts]])
        return found

    def finish(self) -> None:
        """As Sums.finish."""
        self._flush()
        for request in self._requests:
            request.Wait()
        for flat, arrays in self._buckets:
            parts = np.split(flat, np.cumsum([a.size for a in arrays])[:-1])
            for a, part in zip(arrays, parts, strict=True):
                a[...] = part.reshape(a.shape)
        self._requests, self._buckets = [], []


class NcclSums:
    """By NCCL, in a stream of its own beside the one that computes.

    cupy: the module; comm: of mpi4py, over which the ranks find each other.
    """

    def __init__(self, cupy: Any, comm: Any) -> None:
        nccl = self._nccl = usable_nccl()
        known = comm.bcast(nccl.get_unique_id() if comm.rank == 0 else None)
        self._cuda, self._xp = cupy.cuda, cupy
        self._world = nccl.NcclCommunicator(comm.size, known, comm.rank)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._kinds = {
            "float32": nccl.NCCL_FLOAT32,
            "float64": nccl.NCCL_FLOAT64,
            "int32": nccl.NCCL_INT32,
            "int64": nccl.NCCL_INT64,
        }
        self._held: list[Array] = []  # what the stream still reads

    def start(self, arrays: list[Array]) -> None:
        """As Sums.start."""
        self._after_current()
        self._nccl.groupStart()
        for a in arrays:
            self._world.allReduce(
                pointer(a), pointer(a), extent(a), self._kinds[a.dtype.name], self._nccl.NCCL_SUM,
                self._stream.ptr,
            )  # fmt: skip
        self._nccl.groupEnd()
        self._held += arrays

    def _after_current(self) -> None:
        """Let the stream wait for what computes the arrays."""
        self._stream.wait_event(self._cuda.get_current_stream().record())

    def gather(self, g: RowGradient, counts: list[int]) -> tuple[Array, Array]:
        """As Sums.gather; NCCL gathers as much of each rank, so the shorter are filled up."""
        return self._all(g.rows, counts), self._all(g.values, counts)

    def _all(self, a: Array, counts: list[int]) -> Array:
        most, xp = max(counts), self._xp
        sent = xp.zeros((most, *a.shape[1:]), a.dtype)
        sent[: len(a)] = a
        found = xp.zeros((len(counts) * most, *a.shape[1:]), a.dtype)
        self._after_current()
        kind = self._kinds[a.dtype.name]
        self._world.allGather(pointer(sent), pointer(found), sent.size, kind, self._stream.ptr)
        self._wait()
        parts = [found[k * most : k * most + n] for k, n in enumerate(counts)]
        whole: Array = xp.concatenate(parts)
        return whole

    def _wait(self) -> None:
        """Let what computes next wait for the stream."""
        self._cuda.get_current_stream().wait_event(self._stream.record())

    def finish(self) -> None:
        """As Sums.finish: on the device, nothing waits on the host."""
        self._wait()
        self._held = []


def usable_nccl() -> Any:
    """Return CuPy's NCCL; raises UserError where the library isn't there.

    CuPy imports it only when asked to, and without the library it is a module that says so.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what we say in one line
        nccl = import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise UserError(
            "several GPUs need NCCL, which CuPy can't load here: "
            "pip install nvidia-nccl-cu12, or -cu13, whichever CUDA CuPy is for"
        )
    return nccl
