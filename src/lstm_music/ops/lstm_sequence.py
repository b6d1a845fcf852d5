"""How kernels/lstm_sequence.cu runs: rows and weights, shared out over threads and blocks.

A thread holds H recurrent weights: some in registers, some in shared memory, and what neither
holds it reads from the L2 cache at each step. On an sm_90 the blocks of a cluster share a layer's
units, so that together they hold all weights. Which way is fastest is estimated in clocks.
"""

from typing import NamedTuple

LARGEST_H = 256
CLUSTERS = (1, 2, 4)  # blocks of a cluster: as many as any group of multiprocessors has room for
ROWS = (1, 2, 4)  # of the batch, of a block

# Weights of a thread in registers, by the threads that the compiler is told are most, and rows: the
# most that compiles without spills on every architecture. sm_90 has room for more.
IN_REGISTERS = {(512, 1): 60, (512, 2): 52, (512, 4): 40, (1024, 1): 16, (1024, 2): 0}
IN_REGISTERS_SM_90 = {
    (256, 1): 192, (256, 2): 160, (256, 4): 128,
    (384, 1): 96, (384, 2): 84, (384, 4): 64,
    (512, 1): 76,
}  # fmt: skip
IN_REGISTERS_DOUBLE = {512: 16, 1024: 4}

# Clocks, assumed: from published measurements of Hopper, rounded.
SHARED_BYTES_A_CLOCK, L2_BYTES_A_CLOCK, MULTIPLY_ADDS_A_CLOCK = 128, 64, 128
STEP = 330  # of a step beside its products: two barriers, shared memory's latency, activations
AMONG_BLOCKS = 400  # more where blocks wait for each other: a cluster's barrier, memory of others


class SequencePlan(NamedTuple):
    """How the kernel runs: threads and rows a block, where each thread's weights lie."""

    threads: int
    bound: int  # what the compiler is told is the most of threads
    registers: int  # weights in registers
    rows: int
    held: int  # quads of weights in shared memory
    cluster: int = 1  # blocks that share rows


def sequence_plan(
    B: int, H: int, itemsize: int, multiprocessors: int, shared_bytes: int, clusters: bool = False
) -> SequencePlan | None:
    """Return how the kernel runs fastest, None for a hidden size that it isn't for.

    shared_bytes: of a block at most. clusters: whether blocks reach each other's shared memory.
    """
    if not 0 < H <= LARGEST_H:
        return None
    sizes = CLUSTERS if clusters and itemsize == 4 else CLUSTERS[:1]
    found = [
        plan
        for cluster in sizes
        for rows in ROWS
        if (plan := plan_of(H, itemsize, shared_bytes, cluster, rows, clusters)) is not None
    ]
    if not found:
        return None
    return min(found, key=lambda plan: rounds(plan, B, multiprocessors) * step_clocks(plan, H))


def plan_of(
    H: int, itemsize: int, shared_bytes: int, cluster: int, rows: int, sm_90: bool
) -> SequencePlan | None:
    """Return the plan of so many blocks a cluster and rows a block, None where it has no room."""
    threads = 32 * -(-4 * units(H, cluster) // 32)
    bounds = (512, 1024) if cluster == 1 else (256, 384)
    bound = next((n for n in bounds if threads <= n), 0)
    registers = IN_REGISTERS.get((bound, rows))
    if sm_90:
        registers = IN_REGISTERS_SM_90.get((bound, rows), registers)
    if registers is None:
        return None
    if itemsize == 8:
        registers = IN_REGISTERS_DOUBLE[bound]
    plan = SequencePlan(threads, bound, min(registers, 4 * -(-H // 4)), rows, 0, cluster)
    quads = max(0, -(-H // 4) - plan.registers // 4)
    free = shared_bytes - sequence_shared(plan, H, itemsize)
    if free < 0:
        return None
    return plan._replace(held=min(quads, free // (4 * itemsize * threads)))


def units(H: int, cluster: int) -> int:
    """Return the units of a block."""
    return -(-H // cluster)


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
    far = max(0, quads - plan.registers // 4 - plan.held)
    weights = 16 * plan.held * plan.threads / SHARED_BYTES_A_CLOCK
    broadcasts = plan.rows * quads * plan.threads / 32
    product = max(
        weights + broadcasts,
        plan.rows * H * plan.threads / MULTIPLY_ADDS_A_CLOCK,
        16 * far * plan.threads / L2_BYTES_A_CLOCK,
    )
    return product + STEP + (AMONG_BLOCKS if plan.cluster > 1 else 0)


def sequence_options(plan: SequencePlan) -> tuple[str, ...]:
    """Return the compiler's options for a plan."""
    return (
        f"-DLSTM_THREADS={plan.bound}",
        f"-DLSTM_REG={plan.registers}",
        f"-DLSTM_ROWS={plan.rows}",
        f"-DCLUSTER={plan.cluster}",
    )


def sequence_shared(plan: SequencePlan, H: int, itemsize: int) -> int:
    """Return the bytes of shared memory of a plan; enough for either direction."""
    width = max(plan.registers, 4 * -(-H // 4))
    turns = 2 if plan.cluster > 1 else 1
    own = plan.rows * (4 * turns * width + 11 * units(H, plan.cluster))
    return itemsize * (4 * plan.held * plan.threads + own)
