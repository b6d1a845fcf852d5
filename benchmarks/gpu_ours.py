"""Our side of benchmarks/gpu.py: steps, their parts, sampling, and what a card reaches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gpu_cases import BARRIER, CANDIDATES, CLIP, LR, STEPS, WITHOUT, Case, precision_of
from gpu_kernels import copy_quads, kernel_calls, layer_call, loss_call, rest_calls, sequence_call
from gpu_workers import Made, Round, first_line
from lstm_music.arrays import Batch
from lstm_music.network.biaxial import row_width
from lstm_music.network.config import Config
from lstm_music.network.model import Model, parameter_shapes
from lstm_music.network.optim import Averages, Optimizer
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.capture import captured
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import Allocator, usable_cupy
from lstm_music.ops.cuda.layout import padded
from lstm_music.sampling.device import DeviceSampler
from lstm_music.sampling.options import Options
from lstm_music.training.graph_step import GraphStep, step_of
from lstm_music.training.step import Step

Call: TypeAlias = Callable[[], Any]
Timer: TypeAlias = Callable[[Call], float]


def start(**settings: int) -> Ours:
    """Return our side on the GPU here."""
    xp = usable_cupy()
    return Ours(xp, by_events(xp), **settings)


def by_events(xp: Any) -> Timer:
    """Return what tells a call's seconds in the current stream, by events of the device."""

    def timed(call: Call) -> float:
        stream = xp.cuda.get_current_stream()
        begin, end = xp.cuda.Event(), xp.cuda.Event()
        begin.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        return float(xp.cuda.get_elapsed_time(begin, end)) / 1e3

    return timed


def ops_of(variant: str, cupy: Any) -> CupyOps:
    """Return the ops of a variant; one of bf16 takes cuBLAS and an fp32 recurrence instead."""
    ops = CupyOps("float32", precision_of(variant), cupy)
    if variant == WITHOUT:
        ops.tensor_cores = ops.clusters = False
    if variant == BARRIER:
        ops.exchange = "barrier"
    return ops


def config_of(case: Case) -> Config:
    """Return the model of a case."""
    nade = case.H if case.head == "biaxial" else Config.nade
    return Config(
        case.V, case.width, case.H, case.L, case.dropout, head=case.head, nade=nade, copy=case.copy
    )


def steps_of(case: Case, ops: NumpyOps) -> Step:
    """Return the training steps of a case."""
    model = Model(config_of(case), ops)
    averages = Averages(model, case.average) if case.average else None
    return step_of(model, Optimizer(ops, "adam", model.parameters), CLIP, averages=averages)


def random_batch(case: Case, rng: np.random.Generator) -> Batch:
    """Return a batch of ids, or of notes of which one in twenty is on, with CANDIDATES."""
    shape = (case.T, case.B)
    if case.head == "softmax":
        x, y = rng.integers(case.V, size=(2, *shape), dtype=np.int32)
    else:
        more = 1 if case.head != "biaxial" else row_width(case.V, case.copy) - case.V
        x, y = ((rng.random((*shape, case.V + k)) < 0.05).astype(np.uint8) for k in (more, 0))
    if not case.copy:
        return Batch(x, y, None, case.N)
    recall = rng.choice(np.array(CANDIDATES, np.uint8), (*shape, case.copy))
    return Batch(x, y, None, case.N, recall=recall)


class Ours:
    """What our side can be asked for; a method's arguments and results can be sent.

    xp: CuPy or its stand-in. timer: tells a call's seconds. most: of calls in a graph. launches: of
    it in a round. rounds: of what isn't compared.
    """

    def __init__(
        self, xp: Any, timer: Timer, most: int = 50, launches: int = 5, rounds: int = 5
    ) -> None:
        self.xp, self.timer = xp, timer
        self.most, self.launches, self.rounds = most, launches, rounds

    def check(self) -> None:
        """Raise where the device no longer answers."""
        self.xp.cuda.runtime.deviceSynchronize()

    def clean(self) -> None:
        """Give back memory that nothing holds."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def machine(self) -> dict[str, Any]:
        """Return what the card and its software are."""
        runtime = self.xp.cuda.runtime
        card = runtime.getDeviceProperties(0)
        name = card["name"]
        return {
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "compute_capability": f"{card['major']}.{card['minor']}",
            "multiprocessors": int(card["multiProcessorCount"]),
            "l2_megabytes": card["l2CacheSize"] / 1e6,
            "memory_gigabytes": card["totalGlobalMem"] / 1e9,
            "cuda_runtime": runtime.runtimeGetVersion(),
            "cuda_driver": runtime.driverGetVersion(),
            "cupy": self.xp.__version__,
            "numpy": np.__version__,
        }

    def device_bytes(self) -> int:
        """Return the device bytes in use now, by all processes."""
        free, total = self.xp.cuda.runtime.memGetInfo()
        return int(total - free)

    # Timing -----------------------------------------------------------------------------------

    def replays(self, call: Call, calls: int = 10) -> Round:
        """Return the round of a call inside a graph of so many."""
        xp, calls, launches = self.xp, min(calls, self.most), self.launches
        stream, pool = xp.cuda.Stream(non_blocking=False), xp.cuda.MemoryPool()
        with stream, xp.cuda.using_allocator(Allocator(xp, pool)):
            call()  # compiles and allocates
            stream.synchronize()
            graph = captured(xp, stream, lambda: [call() for _ in range(calls)])

        def launch() -> None:
            for _ in range(launches):
                graph.launch(stream)

        # What the graph reads and writes must live as long as the round does.
        def run(alive: tuple[Any, ...] = (call, pool)) -> float:
            with stream:
                return self.timer(launch) / calls / launches

        run()
        return run

    def plain(self, call: Call, calls: int = 10) -> Round:
        """Return the round of a call without a graph: launching counts."""
        calls = min(calls, self.most)

        def several() -> None:
            for _ in range(calls):
                call()

        several()
        return lambda: self.timer(several) / calls

    def timed(self, call: Call, how: str, calls: int = 10) -> Round:
        """Return the round of a call, as `replays` for "graph" or as `plain`."""
        return self.replays(call, calls) if how == "graph" else self.plain(call, calls)

    def median(self, round: Round) -> float:
        """Return the median seconds of some rounds."""
        return statistics.median(round() for _ in range(self.rounds))

    # What is compared -------------------------------------------------------------------------

    def step(self, case: Case, variant: str, steps: int = STEPS, sent: bool = False) -> Made:
        """Make a round of training steps: seconds of a step.

        sent: a batch is sent for each, as in training; else one lies on the device, as PyTorch's.
        """
        graph = self.graph_step(case, variant)
        rng = np.random.default_rng(0)
        batches = [random_batch(case, rng) for _ in range(4)]
        graph.run(batches[0], LR)
        (known,) = graph._graphs.values()

        def run() -> float:
            begun = time.perf_counter()
            for step in range(steps):
                if sent:
                    graph.run(batches[step % len(batches)], LR)
                else:
                    known.graph.launch(graph.stream)
            found = graph.read()
            took = (time.perf_counter() - begun) / steps
            if found.failed:
                raise ArithmeticError(f"a loss or norm is no finite number: {found.loss}")
            return took

        run()
        return Made(run, {"bytes": graph.device_bytes()})

    def graph_step(self, case: Case, variant: str) -> GraphStep:
        """Return a case's steps, each one graph."""
        step = steps_of(case, ops_of(variant, self.xp))
        assert isinstance(step, GraphStep)
        return step

    def layers(self, variant: str, H: int, L: int, B: int, T: int, how: str) -> Made:
        """Make a round of LSTM layers, forward and backward, with the GEMMs they need."""
        call = layer_call(ops_of(variant, self.xp), H, L, B, T)
        return Made(self.timed(call, how, 10 if H <= 256 else 3), {})

    def sequences(self, variant: str, H: int, B: int, T: int) -> Made:
        """Make a round of one layer's kernels alone, forward and backward."""
        return Made(self.replays(sequence_call(ops_of(variant, self.xp), H, B, T)), {})

    def loss(self, variant: str, N: int, V: int, H: int, how: str) -> Made:
        """Make a round of the loss layer; known is what it takes beside weights and gradients."""
        pool = self.xp.cuda.MemoryPool()
        with self.xp.cuda.using_allocator(Allocator(self.xp, pool)):
            call, _ = loss_call(ops_of(variant, self.xp), N, V, H)
            call()
        over = pool.total_bytes() - 2 * 4 * (H * V + V)
        return Made(self.timed(call, how, 5), {"bytes_over": int(over)})

    def sampling(self, batch: int, words: int, tokens: int, H: int = 128) -> Made:
        """Make a round of drawing tokens on the device: seconds of a token of all pieces."""
        model = Model(Config(words, H, H), ops_of("fp32", self.xp))
        # The start symbol, which would end a piece, is never drawn.
        allowed = np.ones(words, np.uint8)
        allowed[0] = 0

        def run() -> float:
            sampler = DeviceSampler(model, batch, Options(seed=1), 0, allowed=allowed)
            begun = time.perf_counter()
            found = sampler.run(tokens)
            took = time.perf_counter() - begun
            assert sum(map(len, found)) == batch * tokens
            return took / tokens

        run()
        return Made(run, {})

    # What is known of ours alone --------------------------------------------------------------

    def parts(self, case: Case, variant: str, steps: int = STEPS) -> dict[str, float]:
        """Return the seconds of a whole step and of each part of it, timed by itself."""
        ops = ops_of(variant, self.xp)
        embedding, optimizer = rest_calls(ops, case, Model(config_of(case), ops))
        found = {
            "recurrent": layer_call(ops, case.H, case.L, case.B, case.T),
            "loss": loss_call(ops, case.N, case.V, case.H)[0],
            "embedding": embedding,
            "optimizer": optimizer,
        }
        whole = self.median(self.step(case, variant, steps).round)
        timed = {name: self.median(self.replays(call)) for name, call in found.items()}
        return {"step": whole, **timed}

    def copy_rate(self, size: int) -> float:
        """Return bytes a second, read and written, of copies of so many bytes: the best of two."""
        ops = ops_of("fp32", self.xp)
        rng = np.random.default_rng(0)
        some = rng.random(min(size // 4, 1 << 22), dtype=np.float32)
        a = ops.asarray(np.resize(some, size // 4))
        b = self.xp.empty_like(a)
        calls = 5 if size > 1 << 28 else 50
        takes = [
            self.median(self.replays(call, calls))
            for call in (lambda: b.__setitem__(..., a), copy_quads(ops, a, b))
        ]
        return 2 * a.nbytes / min(takes)

    def gemm_rate(self, precision: str, n: int, copies: bool = False) -> float:
        """Return FLOP a second of a square product; copies: of factors already in bf16."""
        ops = ops_of(precision, self.xp)
        x, y = (factor(ops, (n, n), copies, seed) for seed in (0, 1))
        out = self.xp.empty((n, n), np.float32)
        took = self.median(self.plain(lambda: ops.matmul(x, y, out), 5))
        return 2 * n**3 / took

    def head_rate(self, precision: str, N: int, V: int, H: int) -> float:
        """Return FLOP a second of the three products of a loss layer, all rows at once."""
        ops = ops_of(precision, self.xp)
        half = precision == "bf16"
        h = factor(ops, (N, H), half, 0)
        W = factor(ops, (H, padded(V) if half else V), half, 1)[:, :V]
        d = factor(ops, (N, padded(V)), half, 2)[:, :V]
        logits = self.xp.empty((N, padded(V)), np.float32)[:, :V]
        dh, dW = self.xp.empty((N, H), np.float32), self.xp.empty((H, V), np.float32)

        def products() -> None:
            ops.matmul(h, W, logits)
            ops.matmul(d, W.T, dh)
            ops.matmul(h.T, d, dW)

        return 6 * N * H * V / self.median(self.plain(products, 5))

    def kernels(self, case: Case, variant: str, ceilings: dict[str, float]) -> list[dict[str, Any]]:
        """Return each kernel's time alone at the sizes of a case, with its share of the bound."""
        ops = ops_of(variant, self.xp)
        rows = []
        for name, flops, size, call in kernel_calls(ops, case):
            row: dict[str, Any] = {"kernel": name, "precision": variant}
            try:
                took = self.median(self.replays(call, 20))
                least = bound(ceilings, precision_of(variant), flops, size)
                row |= {"microseconds": took * 1e6, "share_of_bound": least / took}
            except Exception as error:  # the others are worth their rows
                row["error"] = first_line(error)
            rows.append(row)
        return rows


def factor(ops: CupyOps, shape: tuple[int, int], half: bool, seed: int) -> Any:
    """Return a random matrix on the device, or the upper halves of its numbers: bf16."""
    rng = np.random.default_rng(seed)
    real = rng.random(shape, dtype=np.float32) - np.float32(0.5)
    if not half:
        return ops.asarray(real)
    return ops.asarray((real.view(np.uint32) >> 16).astype(np.uint16), np.uint16)


def bound(ceilings: dict[str, float], rate: str, flops: float, size: float) -> float:
    """Return the least seconds of so many FLOPs and bytes; NaN where no ceiling is known."""
    if rate not in ceilings or "bytes" not in ceilings:
        return float("nan")
    return max(flops / ceilings[rate], size / ceilings["bytes"])


def step_bound(case: Case, ceilings: dict[str, float], precision: str) -> float:
    """Return the seconds a step takes at least: FLOPs at the GEMM rate, or bytes of Adam."""
    sizes = parameter_shapes(config_of(case))
    gemm = sum(int(np.prod(s)) for name, s in sizes.items() if ".W" in name and name[0] != "e")
    adam = 4 * (7 * sum(int(np.prod(s)) for s in sizes.values()) - case.V * case.H)
    return bound(ceilings, precision, 6 * case.N * gemm, adam)
