"""A whole training step as one CUDA graph: captured once for each shape of batch, then replayed.

A replay costs one small copy to the device (the batch and a few numbers) and one launch. Loss and
gradient norm stay on the device, added up until `read` asks for them. What a step is:
`training/step.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array, Batch
from lstm_music.errors import UserError
from lstm_music.network.config import Gradients, State
from lstm_music.network.learning_rate import average_share
from lstm_music.network.model import Model
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.ops.cuda.capture import captured
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import Allocator
from lstm_music.ops.cuda.optimizer import Parameter, Table, results_by_name, step_inputs
from lstm_music.ops.cuda.structs import STEP_INPUTS, STEP_RESULTS, fields, member, packed
from lstm_music.ops.reference.maths import Adam
from lstm_music.training.ranks import ALONE, Alone
from lstm_music.training.step import EagerStep, Step, Totals

READ_STEPS = 32  # between reads of the losses: a read waits for the device
BUFFERS = 4  # of the host, so that a batch can be written while others are on their way


class Part(NamedTuple):
    """Where an array lies in what is sent: its first byte, type and shape."""

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The byte behind its last."""
        return self.start + self.dtype.itemsize * math.prod(self.shape)

    def of(self, whole: Array) -> Array:
        """Return this part of what is sent, an array of bytes."""
        return whole[self.start : self.stop].view(self.dtype).reshape(self.shape)


class InputBuffers:
    """What a step gets from the host, in one array so that one copy sends it.

    like: a batch of the shape and kind of those that will be sent, ids or notes, and with what a
    copy gate reads if there is one. inputs: the STEP_INPUTS on the device, and dropout_step its
    member; batch: the batch there.
    """

    def __init__(self, ops: CupyOps, like: Batch) -> None:
        self.parts: dict[str, Part] = {}
        whole = 0
        byte = np.dtype(np.uint8)
        recall = () if like.recall is None else (("recall", byte, like.recall.shape),)
        for name, dtype, shape in (
            ("inputs", byte, (STEP_INPUTS.itemsize,)),
            ("x", kind_of(like.x), like.x.shape),
            ("y", kind_of(like.y), like.y.shape),
            ("keep", ops.dtype, like.x.shape[:2]),
            *recall,
        ):
            self.parts[name] = part = Part(aligned(whole), dtype, shape)
            whole = part.stop
        cuda = self.cuda = ops.xp.cuda
        # Page-locked: copies from other memory would wait for the device.
        self.memory = [cuda.alloc_pinned_memory(whole) for _ in range(BUFFERS)]
        self.hosts = [np.frombuffer(memory, np.uint8, whole) for memory in self.memory]
        self.copied: list[Any] = [None] * BUFFERS
        self.turn = 0
        self.device = ops.xp.zeros(whole, np.uint8)
        views = {name: part.of(self.device) for name, part in self.parts.items()}
        self.inputs = views["inputs"]
        self.dropout_step = member(self.inputs, STEP_INPUTS, "dropout_step")
        # One target: the gradient is of the sum, and `gradient_scale` makes it the mean's.
        self.batch = Batch(views["x"], views["y"], views["keep"], 1, recall=views.get("recall"))

    def send(self, batch: Batch, inputs: Mapping[str, float], stream: Any) -> None:
        """Copy a batch of the host, and the members of STEP_INPUTS, to the device."""
        self.turn = (self.turn + 1) % BUFFERS
        host, copied = self.hosts[self.turn], self.copied[self.turn]
        if copied is not None:
            copied.synchronize()
        arrays = {
            "inputs": packed(STEP_INPUTS, [inputs]),
            "x": batch.x,
            "y": batch.y,
            "keep": 1 if batch.keep is None else batch.keep,
            "recall": batch.recall,
        }
        for name, part in self.parts.items():
            part.of(host)[...] = arrays[name]
        device: Any = self.device
        device.set(host, stream)
        self.copied[self.turn] = copied or self.cuda.Event(disable_timing=True)
        self.copied[self.turn].record(stream)


def kind_of(a: Array) -> np.dtype[Any]:
    """Return the type that the kernels read of notes, which are bytes, or of ids."""
    return np.dtype(np.uint8 if a.dtype == np.uint8 else np.int32)


def aligned(start: int) -> int:
    """Return the next place where an array of any type may begin."""
    return -(-start // 16) * 16


class Captured(NamedTuple):
    """A graph, what it reads, and all that must live as long as it does."""

    graph: Any
    buffers: InputBuffers
    alive: tuple[Any, ...]
    pool: Any


class GraphStep:
    """Training steps of a model on a GPU, each one graph launch. Adam only.

    clip: the largest norm, 0 for any. seed: of the dropout masks. The optimiser's moments and
    count of steps, the model's parameters and their averages are those that it was made with.
    After a bad step all that follow fail too, until a read.
    """

    read_every = READ_STEPS

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        clip: float,
        seed: int = 0,
        averages: Averages | None = None,
    ) -> None:
        if not isinstance(model.ops, CupyOps) or optimizer.kind != "adam":
            raise UserError("a step is one CUDA graph with the cupy backend and Adam alone")
        self.ops: CupyOps = model.ops
        self.model, self.optimizer, self.clip, self.seed = model, optimizer, clip, seed
        self.means = averages.means if averages else {}
        self.rate = averages.rate if averages else 1.0
        self.share = 0.0  # by which the captured graphs move the averages
        xp = self.xp = self.ops.xp
        # Work in the default stream (validation, say) waits for this one, and the reverse.
        self.stream = xp.cuda.Stream(non_blocking=False)
        self.where = xp.zeros(model.config.vocabulary, np.int32)
        self.results = xp.zeros(STEP_RESULTS.itemsize, np.uint8)
        self.state: State | None = None
        self.number = 0
        self._graphs: dict[tuple[int, int], Captured] = {}

    def reset(self, state: State) -> None:
        """As Step.reset: where the graphs read it, if there is a state of that shape."""
        if self.state is None or state.h.shape != self.state.h.shape:
            self.state = state
            self._graphs.clear()  # they hold the old state's arrays
            return
        with self.stream:
            self.state.h[...] = state.h
            self.state.c[...] = state.c

    def run(self, batch: Batch, lr: float) -> None:
        """As Step.run: returns before the step is done."""
        shape = (batch.x.shape[0], batch.x.shape[1])
        with self.stream:
            self._move_averages_by(average_share(self.rate, self.optimizer.t + 1))
            if shape not in self._graphs:
                self._graphs[shape] = self._capture(batch)
            captured = self._graphs[shape]
            self.optimizer.t += 1
            how, scale = Adam(lr, self.optimizer.t), 1 / max(batch.targets, 1)
            inputs = step_inputs(how, scale, self.clip, self.number)
            captured.buffers.send(batch, inputs, self.stream)
            captured.graph.launch(self.stream)
        self.number += 1

    def read(self) -> Totals:
        """As Step.read. Which tensor isn't finite, the device doesn't say."""
        with self.stream:
            results = results_by_name(self.ops.to_numpy(self.results))
            for name in ("loss_sum", "norm_sum", "failed"):
                member(self.results, STEP_RESULTS, name)[...] = 0
        return Totals(
            loss=results["loss"],
            norm=results["norm"],
            loss_sum=results["loss_sum"],
            norm_sum=results["norm_sum"],
            failed=int(results["failed"]),
        )

    def device_bytes(self) -> int:
        """Return the bytes of device memory that the graphs have to themselves."""
        return sum(int(one.pool.total_bytes()) for one in self._graphs.values())

    # Capturing --------------------------------------------------------------------------------

    def _move_averages_by(self, share: float) -> None:
        """Capture anew where the averages move by another share: some nine times in a run."""
        if share != self.share:
            self.stream.synchronize()
            self._graphs.clear()
            self.share = share

    def _capture(self, batch: Batch) -> Captured:
        """Run the step's maths once, so that everything is compiled and allocated; record it."""
        if self.state is None:
            self.state = self.model.zero_state(batch.x.shape[1])
        before = State(*(a.copy() for a in self.state))
        # Memory of its own: what a capture frees, nobody else may get, another capture neither.
        pool = self.xp.cuda.MemoryPool()
        with self.xp.cuda.using_allocator(Allocator(self.xp, pool)):
            # A model of its own: its scratch must not move when another shape is run.
            twin = self.model.with_parameters(self.model.parameters)
            buffers, slots = InputBuffers(self.ops, batch), dict[str, Array]()
            buffers.send(batch, dict.fromkeys(fields(STEP_INPUTS), 0), self.stream)
            _, grads = self._gradients(twin, buffers, slots)
            table = self._table(grads)
            partial = self.xp.empty(table.norm_blocks, np.float64)
            # Compiled before the capture. A failed step leaves the parameters as they are.
            member(self.results, STEP_RESULTS, "failed")[...] = 1
            self._update(twin, buffers, slots, table, partial)
            self.results[...] = 0
            self.reset(before)
            self.stream.synchronize()
            graph = captured(
                self.xp, self.stream, lambda: self._update(twin, buffers, slots, table, partial)
            )
        return Captured(graph, buffers, (twin, table, partial, slots), pool)

    def _gradients(
        self, twin: Model, buffers: InputBuffers, slots: dict[str, Array]
    ) -> tuple[Array, Gradients]:
        """Return losses and gradients; the state becomes that after the window."""
        assert self.state is not None
        with self.ops.recording(buffers.dropout_step, self.where, slots):
            losses, grads, _ = twin.losses_and_grads(
                buffers.batch, self.state, self.seed, final=self.state
            )
        return losses, grads

    def _update(
        self,
        twin: Model,
        buffers: InputBuffers,
        slots: dict[str, Array],
        table: Table,
        partial: Array,
    ) -> None:
        """Do what a step does, all of it on the device."""
        losses, _ = self._gradients(twin, buffers, slots)
        self.ops.clip_all(table, losses, buffers.inputs, self.results, partial)
        self.ops.adam_all(table, buffers.inputs, self.results, rate=self.share)

    def _table(self, grads: Gradients) -> Table:
        optimizer = self.optimizer
        return self.ops.table(
            [
                Parameter(
                    p,
                    grads[name],
                    optimizer.slots[f"m.{name}"],
                    optimizer.slots[f"v.{name}"],
                    self.where,
                    optimizer.decay_of(name),
                    self.means.get(name),
                )
                for name, p in self.model.parameters.items()
            ]
        )


def step_of(
    model: Model,
    optimizer: Optimizer,
    clip: float,
    seed: int = 0,
    averages: Averages | None = None,
    ranks: Alone = ALONE,
    skips: bool = False,
) -> Step:
    """Return a model's training steps: captured on a GPU where they can be, else done at once.

    skips: bad steps are left out, so the host has to know of one before the next.
    """
    if isinstance(model.ops, CupyOps) and optimizer.kind == "adam" and ranks.alone and not skips:
        return GraphStep(model, optimizer, clip, seed, averages)
    return EagerStep(model, optimizer, clip, seed, averages, ranks)
