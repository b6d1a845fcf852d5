"""Processes that an MPI launcher starts to work on one thing: what each asks of the others.

`Alone` is one process and asks nobody. `Ranks` are those of `mpirun -n N` or `srun`, over mpi4py;
the arrays of a GPU go by NCCL. A rank that fails has MPI end the others; of one that is killed the
launcher sees that it never finalized MPI, and ends them.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from lstm_music.arrays import RowGradient
from lstm_music.corpus.batches import Batches
from lstm_music.errors import UserError, mpi_size_and_rank
from lstm_music.network.config import Gradients, State
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.training.all_reduce import Sums, sums_of

T = TypeVar("T")
DENSE = 2  # an all-reduce moves nearly twice an array, an all-gather the rows of all ranks once
WAIT_SECONDS = 0.02  # between looks at whether rank 0 is done with what takes long


class Alone:
    """One process. rank: which of `size` this is; sent: bytes given to the others so far."""

    rank, size, sent = 0, 1, 0

    @property
    def alone(self) -> bool:
        """Whether nothing ever has to be asked of others."""
        return True

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    @property
    def threads(self) -> int | None:
        """CPU threads for each rank where none are asked for, None for all cores."""
        return None

    def connect(self, ops: NumpyOps) -> None:
        """Say which backend the gradients will be on. Raises UserError where ranks differ."""

    def check_alike(self, options: Mapping[str, Any]) -> None:
        """Raise UserError where a rank was given other options than rank 0, whose alone count."""

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what rank 0 makes; the others call nothing."""
        return make()

    def first_alone(self, make: Callable[[], T]) -> T:
        """Return what each rank makes, the others once rank 0 is done."""
        return make()

    def total(self, number: float) -> float:
        """Return the sum over ranks, the same bits on each."""
        return number

    def agree(self, now: float, wish: int) -> tuple[float, int]:
        """Return rank 0's time, and the greatest wish."""
        return now, wish

    def share_of(self, n: int) -> tuple[int, int]:
        """Return the first of this rank's share of n things, and the one behind its last."""
        return self.rank * n // self.size, (self.rank + 1) * n // self.size

    def part(self, batches: Batches) -> Batches:
        """Return this rank's streams. Raises UserError where there isn't one for each rank."""
        return batches

    def state_part(self, state: State | None) -> State | None:
        """Return this rank's streams of the state of all."""
        return state

    def whole_state(self, state: State | None, ops: NumpyOps) -> State | None:
        """Return the state of all streams, as one process would have it."""
        return state

    def start(self, grads: Gradients) -> None:
        """Begin to add up gradients over the ranks, in place; they may not be touched meanwhile."""

    def finish(self, grads: Gradients, model: Model) -> Gradients:
        """Wait for what `start` began; return the sums, of rows those of all ranks."""
        return grads

    def leave(self) -> None:
        """Say that this rank is done."""


class Ranks(Alone):
    """The processes of a communicator of mpi4py.

    in_place: MPI.IN_PLACE; local: how many of the ranks share this machine; end: finalizes MPI.
    """

    def __init__(
        self, comm: Any, in_place: Any, local: int = 1, end: Callable[[], None] = lambda: None
    ) -> None:
        self._comm, self._in_place, self._local, self._end = comm, in_place, local, end
        self.rank, self.size, self.sent = int(comm.rank), int(comm.size), 0
        self._sums: Sums | None = None

    @property
    def alone(self) -> bool:
        """As Alone.alone: not even a single rank of an MPI launcher is."""
        return False

    @property
    def threads(self) -> int | None:
        """As Alone.threads: the machine's cores, shared by its ranks."""
        return max(1, cores() // self._local)

    def connect(self, ops: NumpyOps) -> None:
        """As Alone.connect: NCCL for a GPU, else MPI."""
        names = self._comm.allgather(ops.name)
        for rank, name in enumerate(names):
            if name != names[0]:
                raise UserError(
                    f"rank 0 computes with {names[0]} and rank {rank} with {name}: "
                    "choose one for all with --backend"
                )
        self._sums = sums_of(ops, self._comm, self._in_place)

    def check_alike(self, options: Mapping[str, Any]) -> None:
        """As Alone.check_alike; options: by name, compared as they are written."""
        first, *others = self._comm.allgather({name: str(v) for name, v in options.items()})
        for rank, given in enumerate(others, 1):
            differ = [name for name in first if given.get(name) != first[name]]
            if differ:
                said = ", ".join(f"{name} {given.get(name)}, not {first[name]}" for name in differ)
                raise UserError(
                    f"rank {rank} was given other options than rank 0 ({said}): give all the same"
                )

    def from_first(self, make: Callable[[], T]) -> T:
        """As Alone.from_first."""
        made: T = self._comm.bcast(make() if self.leads else None)
        return made

    def first_alone(self, make: Callable[[], T]) -> T:
        """As Alone.first_alone. The others sleep meanwhile: MPI would have them spin."""
        made = make() if self.leads else None
        done = self._comm.Ibarrier()
        while not done.Test():
            time.sleep(WAIT_SECONDS)
        return make() if made is None else made

    def total(self, number: float) -> float:
        """As Alone.total: added in the order of the ranks."""
        return float(sum(self._comm.allgather(number)))

    def agree(self, now: float, wish: int) -> tuple[float, int]:
        """As Alone.agree."""
        said = self._comm.allgather((now, wish))
        return said[0][0], max(each for _, each in said)

    def part(self, batches: Batches) -> Batches:
        """As Alone.part."""
        streams = len(batches.streams)
        if streams < self.size:
            raise UserError(
                f"{streams} streams are too few for {self.size} ranks: start fewer, "
                f"or train with a --batch of at least {self.size} on a corpus that fills it"
            )
        return batches.part(*self.share_of(streams))

    def state_part(self, state: State | None) -> State | None:
        """As Alone.state_part."""
        if state is None:
            return None
        own = slice(*self.share_of(state.h.shape[1]))
        return State(state.h[:, own].copy(), state.c[:, own].copy())

    def whole_state(self, state: State | None, ops: NumpyOps) -> State | None:
        """As Alone.whole_state, on the host."""
        if state is None:
            return None
        parts = self._comm.allgather(tuple(ops.to_numpy(a) for a in state))
        h, c = (np.concatenate(a, axis=1) for a in zip(*parts, strict=True))
        return State(h, c)

    def start(self, grads: Gradients) -> None:
        """As Alone.start, for dense gradients; those of rows go all at once in `finish`."""
        assert self._sums is not None
        dense = [g for g in grads.values() if not isinstance(g, RowGradient)]
        self.sent += sum(g.nbytes for g in dense)
        self._sums.start(dense)

    def finish(self, grads: Gradients, model: Model) -> Gradients:
        """As Alone.finish: rows that several ranks have are added in the order of the ranks.

        So many rows that an all-reduce of the whole moves less become dense.
        """
        assert self._sums is not None
        summed = dict(grads)
        for name, g in grads.items():
            if not isinstance(g, RowGradient):
                continue
            counts, p = self._comm.allgather(len(g.rows)), model.parameters[name]
            if sum(counts) > DENSE * len(p):
                dense = summed[name] = model.ops.xp.zeros_like(p)
                dense[g.rows] = g.values
                self.start({name: dense})
            else:
                self.sent += g.rows.nbytes + g.values.nbytes
                summed[name] = model.ops.embedding_backward(*self._sums.gather(g, counts))
        self._sums.finish()
        return summed

    def leave(self) -> None:
        """As Alone.leave."""
        self._end()


ALONE = Alone()


# Joining them -----------------------------------------------------------------------------------


def join() -> Alone:
    """Return the ranks that this process is one of, once all are there; else `Alone`.

    Raises UserError where a launcher started it that mpi4py doesn't know.
    """
    found = mpi_size_and_rank()
    if found is None:
        return ALONE
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # a rank that fails must not wait for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"an MPI launcher started this, and mpi4py isn't usable here ({error}): "
            "pip install 'lstm-music[mpi]'"
        ) from error
    comm = MPI.COMM_WORLD
    if comm.size != found[0]:
        name = MPI.Get_library_version().split("\n")[0].strip("\0 ")
        raise UserError(
            f"the launcher started {found[0]} processes, but mpi4py's MPI ({name}) knows "
            f"{comm.size}: start them with the mpirun of that MPI"
        )
    local = comm.Split_type(MPI.COMM_TYPE_SHARED)
    if local.size > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = own_gpu(
            os.environ.get("CUDA_VISIBLE_DEVICES"), local.rank
        )
    return Ranks(comm, MPI.IN_PLACE, local.size, MPI.Finalize)


def abandon(status: int) -> None:
    """End all ranks with an exit status, where this one has joined them and hasn't left."""
    MPI = sys.modules.get("mpi4py.MPI")
    if MPI is not None and MPI.Is_initialized() and not MPI.Is_finalized():
        sys.stdout.flush()
        MPI.COMM_WORLD.Abort(status)


def own_gpu(visible: str | None, local: int) -> str:
    """Return the GPU of a machine's local-th rank, of those that CUDA_VISIBLE_DEVICES lists.

    None: it lists none. A single one is what the launcher chose for this rank; "" is none.
    """
    if visible is None:
        return str(local)
    listed = visible.split(",")
    if len(listed) == 1:
        return visible
    return listed[local] if local < len(listed) else ""


def cores() -> int:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
