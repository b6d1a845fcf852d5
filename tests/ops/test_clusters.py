"""What kernels/cluster.cuh does, on the CPU stand-in: every block of a cluster sends to all."""

import numpy as np
import pytest
from host_cuda.compile import COMPILER, HostModule, LaunchError

from lstm_music.ops.cuda import source

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")

CLUSTER, T = 4, 5
SHARED = 2 * CLUSTER * 16 + 16
ORDERS = ("ascending", "descending", "shuffled")
STORES = """
#include "cluster.cuh"

// out (blocks, T, 4 * CLUSTER): what each block has of all at each step.
extern "C" __global__ void CLUSTERED exchange(uint32* out, int T)
{
    SHARED_ARRAY(Packet, packets);  // two times CLUSTER of them, and two counters
    Mbarrier* counters = reinterpret_cast<Mbarrier*>(packets + 2 * CLUSTER);
    const int lane = threadIdx.x, rank = cluster_rank();
    if (lane == 0) {
        for (int n = 0; n < 2; ++n) mbarrier_init(counters + n, 1);
        mbarrier_announce();
        for (int n = 0; n < 2; ++n) mbarrier_expect(counters + n, 16 * CLUSTER);
    }
    cluster_arrive(), cluster_wait();  // all counters are there
    for (int t = 0; t < T; ++t) {
        Packet* now = packets + t % 2 * CLUSTER;
        Packet own;
        for (int k = 0; k < 4; ++k) own.word[k] = 100 * blockIdx.x + 10 * t + k;
        if (lane < CLUSTER) store_async(now + rank, own, counters + t % 2, lane);
        mbarrier_wait(counters + t % 2, t / 2 % 2);
        if (lane == 0 && t + 2 < T) mbarrier_expect(counters + t % 2, 16 * CLUSTER);
        uint32* to = out + (blockIdx.x * T + t) * 4 * CLUSTER;
        if (lane < 4 * CLUSTER) to[lane] = now[lane / 4].word[lane % 4];
    }
}
"""
BARRIER = """
#include "cluster.cuh"

extern "C" __global__ void CLUSTERED exchange(uint32* out, int T)
{
    SHARED_ARRAY(uint32, words);  // two times 4 * CLUSTER
    const int lane = threadIdx.x, rank = cluster_rank();
    for (int t = 0; t < T; ++t) {
        uint32* now = words + t % 2 * 4 * CLUSTER;
        for (int other = 0; other < CLUSTER && lane < 4; ++other)
            in_block(now, other)[4 * rank + lane] = 100 * blockIdx.x + 10 * t + lane;
        cluster_arrive();
        cluster_wait();
        if (lane < 4 * CLUSTER) out[(blockIdx.x * T + t) * 4 * CLUSTER + lane] = now[lane];
    }
}
"""


def exchanged(text, order):
    """What two clusters exchange."""
    module = HostModule(source.with_includes(text), (f"-DCLUSTER={CLUSTER}",))
    out = np.zeros((2 * CLUSTER, T, 4 * CLUSTER), np.uint32)
    kernel = module.get_function("exchange")
    kernel((2 * CLUSTER,), (32,), (out, np.int32(T)), SHARED, order)
    return out


def expected():
    block, step, word = np.ogrid[: 2 * CLUSTER, :T, : 4 * CLUSTER]
    return 100 * (block // CLUSTER * CLUSTER + word // 4) + 10 * step + word % 4


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("text", [STORES, BARRIER], ids=["stores", "barrier"])
def test_each_block_has_what_all_send(text, order):
    np.testing.assert_array_equal(exchanged(text, order), expected())


# What to replace in a kernel, by what, and what a launch then says, None for wrong numbers.
BUGS = {
    "nobody waits": (
        STORES, "mbarrier_wait(counters + t % 2, t / 2 % 2);", "", "more threads arrive",
    ),
    "the wrong phase": (STORES, "t / 2 % 2);", "1);", "more threads arrive"),
    "one counter for two steps": (STORES, "counters + t % 2", "counters", "more threads arrive"),
    "one buffer for two steps": (STORES, "packets + t % 2 * CLUSTER", "packets", None),
    "too few bytes expected": (
        STORES, "(counters + n, 16 * CLUSTER)", "(counters + n, 16)", "after its end",
    ),
    "too many bytes expected": (
        STORES, "(counters + n, 16 * CLUSTER)", "(counters + n, 16 * CLUSTER + 16)", "threads wait",
    ),
    "nothing expected": (
        STORES, "(counters + t % 2, 16 * CLUSTER)", "(counters + t % 2, 0)", "threads wait",
    ),
    "bytes expected that nobody sends": (STORES, " && t + 2 < T", "", "expects 64 bytes"),
    "more arrivals than there are to be": (
        STORES, "if (lane == 0 && t + 2 < T)", "if (lane < 2 && t + 2 < T)", "more threads arrive",
    ),
    "counters that nobody has initialised": (
        STORES, "mbarrier_init(counters + n, 1);", "", "nobody has initialised",
    ),
    "counters initialised twice": (
        STORES, "mbarrier_init(counters + n, 1)", "mbarrier_init(counters, 1)", "twice",
    ),
    "counters written over": (STORES, "packets + 2 * CLUSTER)", "packets + CLUSTER)", "over"),
    "counters not announced": (STORES, "mbarrier_announce();", "", "before it is announced"),
    "blocks that begin before the others": (
        STORES, "cluster_arrive(), cluster_wait();", "", "nobody has initialised",
    ),
    "an address that isn't aligned": (
        STORES, "store_async(now + rank,", "store_async((char*)(now + rank) + 8,", "aligned",
    ),
    "an address of no shared memory": (
        STORES, "store_async(now + rank,", "store_async(&own,", "not an address",
    ),
    "a block that ends before the others": (
        STORES, "t < T; ++t)", "t < T - rank / 3; ++t)", "after its end",
    ),
    "nobody waits at the barrier": (BARRIER, "cluster_wait();", "", "arrives twice"),
    "nobody arrives at the barrier": (BARRIER, "cluster_arrive();", "", "without having arrived"),
    "a block's own barrier": (
        BARRIER, "cluster_arrive();\n        cluster_wait();", "__syncthreads();", "after its end",
    ),
    "one buffer for two steps at the barrier": (
        BARRIER, "words + t % 2 * 4 * CLUSTER", "words", None,
    ),
}  # fmt: skip


@pytest.mark.slow(keep=2)
@pytest.mark.parametrize("name", BUGS)
def test_bugs_are_caught(name):
    text, before, after, says = BUGS[name]
    assert before in text
    found = []
    for order in ORDERS:
        try:
            wrong = (exchanged(text.replace(before, after), order) != expected()).any()
            found += ["wrong numbers"] if wrong else []
        except LaunchError as error:
            found.append(str(error))
    assert any((says or "wrong numbers") in each for each in found), found
