"""How kernels/lstm_sequence.cu runs: rows and weights, shared out over threads and blocks.

A thread has H recurrent weights: some in registers, some in shared memory, and what neither has
room for it reads from the L2 cache at each step. On an sm_90 the blocks of a cluster share a
layer's units, so that together they have room for all weights. Which way is fastest is estimated in
clocks.
"""

from typing import NamedTuple

LARGEST_BF16_H = 128  # registers hold no more of Wh

LARGEST_H = 256
CLUSTERS = (1, 2, 4)  # blocks of a cluster: as many as any group of multiprocessors has room for
ROWS = (1, 2, 4)  # of the batch, of a block
# How blocks of a cluster exchange what they compute, as in exchange.cuh. By the cluster's barrier,
# or by asynchronous stores that mbarriers count: no fence in the machine code. Neither is measured.
EXCHANGES = ("barrier", "mbarrier")

# Weights of a thread in registers, by the threads that the compiler is told are most, and rows:
# what NVRTC 13.0 and 13.5 compile without spills on every architecture. Only sm_90 has clusters.
IN_REGISTERS = {
    (512, 1): 72, (512, 2): 52, (512, 4): 36, (1024, 1): 12, (1024, 2): 8,
    (256, 1): 184, (256, 2): 168, (256, 4): 136, (384, 1): 96, (384, 2): 92, (384, 4): 64,
}  # fmt: skip
IN_REGISTERS_DOUBLE = {512: 8, 1024: 0}

# Clocks, assumed: from published measurements of Hopper, rounded.
SHARED_BYTES_A_CLOCK, L2_BYTES_A_CLOCK, MULTIPLY_ADDS_A_CLOCK = 128, 64, 128
STEP = 300  # of a step beside its products: shared memory's latency, two activations, shuffles
BARRIER = 40  # of a block's threads
# Between blocks: 180 to another's shared memory, and what is done to send and to wait. The
# cluster's barrier waits for all stores under way, to device memory too: 700 to 1,100.
EXCHANGE = {"mbarrier": 270, "barrier": 900}


class SequencePlan(NamedTuple):
    """How the kernel runs: threads and rows a block, where each thread's weights lie."""

    threads: int
    bound: int  # what the compiler is told is the most of threads
    registers: int  # weights in registers
    rows: int
    shared_quads: int  # quads of weights in shared memory
    all_on_chip: bool  # whether none are left for the L2 cache
    cluster: int = 1  # blocks that share rows
    exchange: str = "mbarrier"  # of EXCHANGES: how the blocks of a cluster do


def sequence_plan(
    B: int,
    H: int,
    itemsize: int,
    multiprocessors: int,
    shared_bytes: int,
    clusters: bool = False,
    exchange: str = "mbarrier",
) -> SequencePlan | None:
    """Return how the kernel runs fastest, None for a hidden size that it isn't for.

    shared_bytes: of a block at most. clusters: whether blocks reach each other's shared memory.
    """
    if not 0 < H <= LARGEST_H:
        return None
    sizes = CLUSTERS if clusters and itemsize == 4 else CLUSTERS[:1]
    found = [
        plan._replace(exchange=exchange)
        for cluster in sizes
        for rows in ROWS
        if (plan := plan_of(H, itemsize, shared_bytes, cluster, rows)) is not None
    ]
    if not found:
        return None
    return min(found, key=lambda plan: rounds(plan, B, multiprocessors) * step_clocks(plan, H))


def plan_of(
    H: int, itemsize: int, shared_bytes: int, cluster: int, rows: int
) -> SequencePlan | None:
    """Return the plan of so many blocks a cluster and rows a block, None where it has no room.

    None too where a block of the cluster would have no unit.
    """
    threads = 4 * units(H, cluster)
    bounds = (512, 1024) if cluster == 1 else (256, 384)
    bound = next((n for n in bounds if threads <= n), 0)
    registers = IN_REGISTERS.get((bound, rows))
    if registers is None or (cluster - 1) * units(H, cluster) >= H:
        return None
    if itemsize == 8:
        registers = IN_REGISTERS_DOUBLE[bound]
    quads = -(-H // 4)
    plan = SequencePlan(threads, bound, min(registers, 4 * quads), rows, 0, True, cluster)
    free = shared_bytes - sequence_shared(plan, H, itemsize)
    if free < 0:
        return None
    left = quads - plan.registers // 4
    shared = min(left, free // (4 * itemsize * threads))
    return plan._replace(shared_quads=shared, all_on_chip=shared == left)


def units(H: int, cluster: int) -> int:
    """Return the units of a block: whole warps, of 8 units with their four gates each."""
    return 8 * -(-H // (8 * cluster))


def grid(plan: SequencePlan, B: int) -> int:
    """Return how many blocks a batch needs."""
    return plan.cluster * -(-B // plan.rows)


def rounds(plan: SequencePlan, B: int, multiprocessors: int) -> int:
    """Return how often the device is filled with blocks, of which it runs one a multiprocessor.

    A group of multiprocessors may be left with fewer than a cluster of four.
    """
    usable = multiprocessors if plan.cluster < 4 else max(4, multiprocessors * 15 // 16)
    return -(-grid(plan, B) // usable)


def step_clocks(plan: SequencePlan, H: int) -> float:
    """Return the clocks of a time step, estimated.

    The shared memory's pipe carries the weights that registers don't hold, and each warp's
    broadcasts of the state; multiply-adds run beside it. What follows is a chain.
    """
    quads = -(-H // 4)
    in_memory = quads - plan.registers // 4 - plan.shared_quads
    weights = 16 * plan.shared_quads * plan.threads / SHARED_BYTES_A_CLOCK
    broadcasts = plan.rows * quads * plan.threads / 32
    product = max(
        weights + broadcasts,
        plan.rows * H * plan.threads / MULTIPLY_ADDS_A_CLOCK,
        16 * in_memory * plan.threads / L2_BYTES_A_CLOCK,
    )
    return product + STEP + (EXCHANGE[plan.exchange] if plan.cluster > 1 else BARRIER)


def sequence_options(plan: SequencePlan) -> tuple[str, ...]:
    """Return the compiler's options for a plan."""
    return (
        f"-DLSTM_THREADS={plan.bound}",
        f"-DLSTM_ROWS={plan.rows}",
        f"-DLSTM_REG={plan.registers}",
        f"-DLSTM_SHARED={plan.shared_quads}",
        f"-DLSTM_MEMORY={int(not plan.all_on_chip)}",
        f"-DCLUSTER={plan.cluster}",
        f"-DEXCHANGE={EXCHANGES.index(plan.exchange)}",
    )


def sequence_shared(plan: SequencePlan, H: int, itemsize: int) -> int:
    """Return the bytes of shared memory of a plan, as lstm_sequence.cu shares them out.

    Enough for either direction: going back a buffer has four gates' rows.
    """
    width = max(plan.registers, 4 * -(-H // 4))
    of_gate = 32 * -(-plan.rows * width // 32) + 8
    return 16 + itemsize * (4 * plan.shared_quads * plan.threads + 2 * 4 * of_gate)


def bf16_sequence_rows(B: int, H: int, multiprocessors: int, shared_bytes: int) -> int | None:
    """Return the rows of the batch of a block, None for an H that the kernel isn't for.

    As few as there are multiprocessors for: the fewer, the sooner is a step done.
    """
    if H % 16 or not 0 < H <= LARGEST_BF16_H:
        return None
    rows = next((n for n in (2, 4) if n * multiprocessors >= B), 8)
    return rows if bf16_sequence_shared(rows, H, True) <= shared_bytes else None


def bf16_sequence_options(rows: int, H: int) -> tuple[str, ...]:
    """Return the compiler's options for a hidden size and rows a block."""
    return (f"-DLSTM_H={H}", f"-DLSTM_ROWS={rows}")


def bf16_sequence_shared(rows: int, H: int, backward: bool) -> int:
    """Return the bytes of shared memory, by the widths of rows in lstm_sequence_bf16.cu."""
    apart, stages = 32 // rows, 3 if rows == 8 else 4
    if not backward:
        return rows * (4 * stages * (4 * H + apart) + 2 * 2 * (H + 8))
    part = 32 * -(-H // 32) + apart
    bias = 8 * 2 * H if rows == 8 else 0
    return 4 * (rows * (stages * (6 * H + apart) + 2 * (H // 16) * part) + bias)
