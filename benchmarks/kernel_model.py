"""Predict each kernel's time and a training step's from bytes, FLOPs, clocks and occupancy: no GPU.

What it says stands in docs/gpu.md, where predictions.py puts it. Ceilings are an H200's datasheet.

A part of a step takes as long as the slowest of: its bytes from device memory or the L2 cache, its
FLOPs, its exponentials, the bytes its threads can have under way, its chain of clocks; and each
launch adds a gap. Parts follow each other. What no datasheet states is an assumption, and says so.
"""

import re
from typing import NamedTuple

from gpu_cases import Case
from lstm_music.ops.cuda import lstm_sequence, softmax_head
from lstm_music.ops.cuda.layout import padded
from lstm_music.ops.cuda.lstm_sequence import bf16_sequence_rows
from lstm_music.ops.cuda.softmax import CHUNK_ROWS, L2_BYTES
from lstm_music.ops.workspace import LOGITS_BYTES

MULTIPROCESSORS, THREADS = 132, 2048  # THREADS: that live on a multiprocessor at most
SHARED, SHARED_BYTES = 128, 227 << 10  # bytes a clock of a multiprocessor; bytes of a block
SPECIAL = 16  # exponentials a clock of a multiprocessor
FFMA = 128  # multiply-adds a clock of a multiprocessor
L2_CAPACITY = 50e6

# Assumed, in clocks: from published measurements of Hopper's latencies, rounded.
FROM_MEMORY, FROM_L2, FROM_SHARED, BARRIER, ACTIVATION, ADD = 700, 270, 30, 40, 60, 4
# Assumed likewise, of a warp's product of 16 × 16 by 16 × 8 in bf16: clocks until it is done,
# and between two on a quarter of a multiprocessor: 2,048 multiply-adds at 62 % of its 1,024 a
# clock, which is what such instructions are reported to reach on Hopper; on an A100 it is 8.
FROM_PRODUCT, PRODUCT = 33, 2048 / (0.62 * 1024)
SHUFFLE = 25  # assumed: clocks between lanes of a warp
L2_RATE = 64  # assumed: bytes a clock between the L2 cache and a multiprocessor
GEMM_REACH = 0.75  # assumed: cuBLAS's share of a rate at these shapes, whose sum is over 128
# Assumed: mma.sync's share of Hopper's matrix rate, 62 % in published measurements (wgmma: all),
# and what exponentials and loads between them leave.
MATRIX_REACH = 0.62 * 0.75
GAP = 1e-6  # assumed: seconds between two launches of a graph that wait for each other


class Ceilings(NamedTuple):
    """What a machine allows: bytes a second, FLOPs a second, clocks a second."""

    memory: float = 4.8e12
    l2: float = 5.5e12  # assumed: no datasheet states it
    fp32: float = 67e12
    tf32: float = 495e12
    bf16: float = 989e12
    clock: float = 1.755e9  # assumed under load; 1.98e9 at most


class Part(NamedTuple):
    """A part of a step: what it moves and does; group: recurrent, loss, or the rest.

    rate: of Ceilings, that its FLOPs run at. share: of that rate or of a cache's, that it reaches.
    clocks: of a chain that can't be shortened. flying: bytes that its threads have under way at
    most, and whence.
    """

    name: str
    memory: float = 0
    l2: float = 0
    flops: float = 0
    rate: str = "fp32"
    share: float = 1
    exponentials: float = 0
    clocks: float = 0
    flying: tuple[float, int] | None = None
    launches: int = 1
    group: str = "rest"

    def bounds(self, c: Ceilings) -> dict[str, float]:
        """Return the seconds that each bound asks for."""
        found = {
            "bytes": self.memory / c.memory,
            "L2": (self.memory + self.l2) / c.l2,
            "FLOPs": self.flops / (self.share * getattr(c, self.rate)),
            "exponentials": self.exponentials / (MULTIPROCESSORS * SPECIAL * c.clock),
            "latency": self.clocks / c.clock,
            "launch": self.launches * GAP,
        }
        if self.flying:
            under_way, latency = self.flying
            found["loads under way"] = (self.memory + self.l2) * latency / under_way / c.clock
        return found

    def seconds(self, c: Ceilings) -> float:
        """Return the predicted time."""
        bounds = self.bounds(c)
        gap = bounds.pop("launch")
        return max(bounds.values()) + gap

    def bound(self, c: Ceilings) -> str:
        """Return what binds."""
        bounds = self.bounds(c)
        return max(bounds, key=lambda name: bounds[name])


def occupancy(page: str, kernel: str) -> float:
    """Return the share of a multiprocessor's threads, from the compiler's report in docs/gpu.md."""
    found = re.search(rf"^\| {kernel} \|.*\| (\d+)% \|$", page, re.M)
    if found is None:
        raise ValueError(f"docs/gpu.md doesn't report {kernel}")
    return int(found[1]) / 100


# The parts of a step ----------------------------------------------------------------------------


def plan(case: Case) -> lstm_sequence.SequencePlan:
    """Return how the persistent kernel runs on an H200."""
    sizes = (case.B, case.H, 4, MULTIPROCESSORS, SHARED_BYTES)
    found = lstm_sequence.sequence_plan(*sizes, clusters=True)
    assert found is not None
    return found


def step_clocks(case: Case, backward: bool, exchange: str = "mbarrier") -> float:
    """Return the clocks of a time step of the persistent kernel, alike in both directions."""
    return lstm_sequence.step_clocks(plan(case)._replace(exchange=exchange), case.H)


def barrier_clocks(case: Case, backward: bool) -> float:
    """Return the same where a cluster's blocks exchange by its barrier."""
    return step_clocks(case, backward, "barrier")


def bf16_step_clocks(case: Case, backward: bool) -> float:
    """Return the clocks of a time step of the persistent kernel on the tensor cores.

    A warp owns 16 units and multiplies by all of their weights, 256 at a time; the quarters of a
    multiprocessor share the warps. Beside the products go h for each warp through the shared
    memory's pipe, and what the L2 cache reads and writes; all else is taken to be a chain, though
    the compiler puts some of it between products.
    """
    H = case.H
    rows = bf16_sequence_rows(case.B, H, MULTIPROCESSORS, SHARED_BYTES)
    assert rows is not None
    warps = H / 16
    products = -(-warps // 4) * 4 * warps * PRODUCT
    h = 0 if backward else warps * 8 * H * 2 / SHARED
    moved = rows * H * 4 * 10 / L2_RATE  # gates read and written; c and h written, or c and dy read
    chain = max(products, h, moved) + FROM_PRODUCT + BARRIER + 2 * FROM_SHARED + 8 * ADD
    if backward:  # to the lanes of a warp; the warps' parts of dh, written and read
        return chain + SHUFFLE + 2 * warps * rows * H * 4 / SHARED
    # Two exponentials or reciprocals for each of a unit's five activations.
    return chain + max(2 * ACTIVATION, 10 * rows * H / SPECIAL)


def fits_tensor_cores(case: Case, precision: str) -> bool:
    """Return whether the recurrent product is on the tensor cores."""
    rows = bf16_sequence_rows(case.B, case.H, MULTIPROCESSORS, SHARED_BYTES)
    return precision == "bf16" and rows is not None


def layers(case: Case, precision: str) -> list[Part]:
    """Return the parts of all recurrent layers and their GEMMs, forward and back."""
    N, H, L = case.T * case.B, case.H, case.L
    real, gemm = 4, {"rate": precision, "share": GEMM_REACH}
    rows, product = L * real * N * H, L * 8 * N * H * H
    # The weights and the first inputs come before the first step.
    on_tensor_cores = fits_tensor_cores(case, precision)
    blocks = 1 if on_tensor_cores else plan(case).cluster  # that share Wh
    start = FROM_MEMORY * 3 + real * 4 * H * H / blocks / L2_RATE
    clocks = bf16_step_clocks if on_tensor_cores else step_clocks
    recurrent = [
        Part(f"lstm_sequence_{way}, both layers", 10 * rows, flops=product,
             clocks=L * (start + case.T * clocks(case, way == "backward")), launches=L,
             group="recurrent")
        for way in ("forward", "backward")
    ]  # fmt: skip
    return [
        Part("x·Wx, both layers", 5 * rows, flops=product, **gemm, launches=L),
        *recurrent,
        Part("dx, dWx, dWh, both layers", 15 * rows, flops=3 * product, **gemm, launches=3 * L),
        Part("db, both layers", L * 4 * real * case.B * H, clocks=L * 3 * FROM_L2, launches=L),
    ]


def loss(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of the loss layer."""
    if precision == "bf16":
        return fused_loss(case)
    return loss_by_chunks(case, precision, page)


def fused_loss(case: Case) -> list[Part]:
    """Return the parts of the loss layer by softmax_head.cu, over all chunks of words.

    The gradient of a chunk's logits stays in the L2 cache; W's copy is read from there as often as
    there are tiles of rows, and the other way round.
    """
    N, H, V = case.T * case.B, case.H, case.V
    chunks = len(softmax_head.word_chunks(N, V))
    passes = softmax_head.tiles(N) * V * H * 2
    product = {"flops": 2 * N * H * V, "rate": "bf16", "group": "loss"}
    ours = {**product, "share": MATRIX_REACH}
    gemm = {**product, "share": GEMM_REACH, "launches": chunks}
    tiles = softmax_head.tiles(V) * 2 * H * N  # h is read for each 128 columns
    return [
        Part("copies in bf16", 6 * (H * V + N * H), launches=2, group="loss"),
        Part("softmax_head_forward", 2 * H * V, passes, exponentials=1.125 * N * V, **ours),
        Part("softmax_head_merge", 2 * H * N, 16 * N * 26, clocks=4 * FROM_MEMORY, group="loss"),
        Part("softmax_head_backward", 2 * H * V, passes + 2 * N * V, exponentials=N * V,
             launches=chunks, **ours),
        Part("head: d·Wᵀ", 2 * H * V, 2 * N * V + 8 * N * H * chunks, **gemm),
        Part("head: hᵀ·d", 4 * H * V, 2 * N * V + tiles, **gemm),
        Part("column_sum", 4 * V, 40 * V, clocks=3 * FROM_L2, group="loss"),
    ]  # fmt: skip


def loss_by_chunks(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of the loss layer by cuBLAS and softmax_xent.cu, over all chunks of rows.

    A chunk goes through memory where the L2 cache doesn't hold it; W and its gradient go through
    memory once more for each chunk, where it doesn't hold them beside it.
    """
    N, H, V = case.T * case.B, case.H, case.V
    rows = chunk_rows(N, V)
    chunks = -(-N // rows)
    size = rows * V * 4
    far = size > L2_CAPACITY
    again = chunks if 8 * H * V + size > L2_CAPACITY else 1
    tiles = -(-V // 128) * 4 * H * N  # h is read for each 128 columns, from the L2 cache
    shared = {"launches": chunks, "group": "loss"}

    def gemm(name: str, weights: float, more: float = 0) -> Part:
        """Return a product that moves four bytes for each logit."""
        memory, l2 = (4 * N * V, 0) if far else (0, 4 * N * V)
        return Part(name, memory + again * weights, l2 + more, 2 * N * H * V, precision,
                    GEMM_REACH, **shared)  # fmt: skip

    def visit(name: str, each: int, flying: float, flops: int, exponentials: float) -> Part:
        """Return a kernel of ours likewise; each thread has so many bytes under way."""
        under_way = MULTIPROCESSORS * THREADS * occupancy(page, name) * flying
        return Part(name, flops=flops * N * V, exponentials=exponentials * N * V,
                    flying=(under_way, FROM_MEMORY if far else FROM_L2),
                    **{"memory" if far else "l2": each * N * V}, **shared)  # fmt: skip

    return [
        gemm("head: h·W", 4 * H * V, tiles),
        visit("softmax_xent_backward", 12, 32, 7, 2.25),
        gemm("head: d·Wᵀ", 4 * H * V),
        gemm("head: hᵀ·d", 8 * H * V, tiles),
        visit("column_sum", 4, 64, 1, 0),
    ]


def chunk_rows(N: int, V: int) -> int:
    """Return the rows of a chunk, as `padded_chunks` takes them."""
    limit = min(LOGITS_BYTES, max(L2_BYTES, CHUNK_ROWS * padded(V) * 4))
    most = max(1, min(N, limit // (4 * padded(V))))
    return -(-N // -(-N // most))


def rest(case: Case, page: str) -> list[Part]:
    """Return the embedding and the optimiser."""
    N, E, V = case.T * case.B, case.H, case.V
    dense = case.H * V + V + case.L * (8 * case.H * case.H + 4 * case.H)
    flying = MULTIPROCESSORS * THREADS * occupancy(page, "adam_forward") * 64
    # Assumed: 5 instructions for each number that a warp compares, 4 a clock of a multiprocessor.
    count = 5 * N / 32 * N / MULTIPROCESSORS / 4
    return [
        Part("embedding_forward", 8 * N * E, clocks=2 * FROM_MEMORY),
        Part("embedding_sort, embedding_backward", 8 * N * E, clocks=count + 8 * FROM_L2,
             launches=2),
        Part("sum of squares, clip", 4 * (dense + N * E), flops=2 * (dense + N * E),
             clocks=4 * FROM_MEMORY, launches=2),
        Part("adam_forward", 28 * dense + 24 * V * E, flops=12 * (dense + V * E),
             flying=(flying, FROM_MEMORY), clocks=4 * FROM_MEMORY),
    ]  # fmt: skip


def step(case: Case, precision: str, page: str) -> list[Part]:
    """Return the parts of a training step."""
    return [*layers(case, precision), *loss(case, precision, page), *rest(case, page)]


def token(case: Case, N: int, top_p: bool) -> list[Part]:
    """Return the parts of drawing a token of each of N pieces, without rules, in fp32."""
    H, V, L = case.H, case.V, case.L
    terms = 2 * H / 64  # rounds of lstm_step_forward, each 16 terms of 8 sums of a thread, 8 warps
    step_of_layer = 2 * FROM_L2 + terms * (16 * (8 + 3) * 2 + 100 + 2 * BARRIER) + 3 * ACTIVATION
    # A row of logits to one multiprocessor, an exponential of some 20 instructions each, the word.
    draw = 4 * V / L2_RATE + 20 * V / FFMA + 3 * V / FFMA + 12 * BARRIER + 2 * FROM_L2
    select = 4 * (8 * V / FFMA + 4 * BARRIER + 10 * SHUFFLE)  # four digits
    return [
        Part("embedding_forward", 8 * N * H, clocks=2 * FROM_MEMORY),
        Part("lstm_step_forward, both layers", l2=L * 32 * H * H, clocks=L * step_of_layer,
             launches=L),
        Part("logits: h·W", l2=4 * H * V + 4 * N * V, flops=2 * N * H * V, share=GEMM_REACH),
        Part("logits: + b", l2=8 * N * V),
        Part("sample_forward", l2=4 * N * V, clocks=draw + 2 * select * top_p),
        Part("sample_advance", clocks=FROM_L2),
    ]  # fmt: skip
