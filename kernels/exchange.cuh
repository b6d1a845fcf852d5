// Where the recurrent product's streamed operand lies: a vector of which each block of a cluster computes its units'
// part at every step, and which each has whole in its shared memory, in two buffers: step n's is read while that of
// step n + 1 is written. No part of step n + 1 is computed without all parts of step n, so nobody gets two steps ahead.
// EXCHANGE:
//
//   BY_BARRIER   stores to each block's shared memory, then the cluster's barrier
//   BY_MBARRIER  asynchronous stores, counted by an mbarrier of each receiver: no fence, and a block waits for what
//                it reads alone
//
// Whatever is sent to a block it waits for, so that each may end when it has its last. A block without a cluster stores
// and has __syncthreads.
#include "cluster.cuh"

#define BY_BARRIER 0
#define BY_MBARRIER 1
#ifndef EXCHANGE
#define EXCHANGE BY_MBARRIER
#endif
#define COUNTED (CLUSTER > 1 && EXCHANGE == BY_MBARRIER)

struct Exchange {
    Mbarrier* counters;  // two, in shared memory
    REAL* buffers;       // two of `size` numbers, likewise; rows in them are aligned to 16 bytes
    int size, units;     // units: of the layer
    int bytes, steps;    // that a block receives at a step; steps are 1 ... steps, buffer(0) is the caller's

    __device__ __forceinline__ REAL* buffer(int n) const { return buffers + n % 2 * size; }

    // Behind all that a block writes to its buffers before step 1.
    __device__ __forceinline__ void begin() const
    {
#if COUNTED
        if (threadIdx.x == 0) {
            for (int k = 0; k < 2; ++k) mbarrier_init(counters + k, 1);
            mbarrier_announce();
        }
        expect(1), expect(2);
#endif
#if CLUSTER > 1
        cluster_arrive(), cluster_wait();
#else
        __syncthreads();  // buffer(0) is whole
#endif
    }

    // Whether a warp, of whose units this is one, has none that exists: it has no part in the steps, and ends at once.
    __device__ __forceinline__ bool is_idle(int unit) const { return COUNTED && unit / 8 * 8 >= units; }

    // Write a unit's value of step n to row[unit] in every block; row lies in buffer(n). For whole warps, whose lanes
    // 8q ... 8q + 7 have neighbouring units of one row.
    __device__ __forceinline__ void put(int n, REAL* row, int unit, REAL value, bool row_exists) const
    {
#if COUNTED
        // Four lanes gather their four units, and each of them sends these to another block.
        const int lane = threadIdx.x % 32, rank = lane % 4, first = unit - rank;
        Quad four;
#pragma unroll
        for (int k = 0; k < 4; ++k)
            four.v[k] = __shfl_sync(FULL_WARP, unit < units ? value : REAL(0), lane - rank + k);
        if (first >= units || !row_exists || rank >= CLUSTER) return;
        const Packet* packets = reinterpret_cast<const Packet*>(&four);
#pragma unroll
        for (int p = 0; p < (int)(sizeof four / sizeof *packets); ++p)
            store_async(reinterpret_cast<Packet*>(row + first) + p, packets[p], counters + n % 2, rank);
#else
        if (unit >= units || !row_exists) return;
#if CLUSTER > 1
#pragma unroll
        for (int rank = 0; rank < CLUSTER; ++rank) *in_block(row + unit, rank) = value;
#else
        row[unit] = value;
#endif
#endif
    }

    // Behind a thread's last put of a step. What it writes to device memory from here on delays nobody.
    __device__ __forceinline__ void arrive() const
    {
#if CLUSTER > 1 && !COUNTED
        cluster_arrive();
#endif
    }

    // Then buffer(n) is whole.
    __device__ __forceinline__ void wait(int n) const
    {
#if COUNTED
        mbarrier_wait(counters + n % 2, (n - 1) / 2 % 2);
        expect(n + 2);
        __syncwarp();  // else each shuffle from here on asks whether the warp is together
#elif CLUSTER > 1
        cluster_wait();
#else
        __syncthreads();  // all have put theirs
#endif
    }

    // What a block receives at step n counts from here on.
    __device__ __forceinline__ void expect(int n) const
    {
#if COUNTED
        if (threadIdx.x == 0 && n <= steps) mbarrier_expect(counters + n % 2, bytes);
#endif
    }
};
