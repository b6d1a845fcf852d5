// Where the recurrent product's stationary operand lies. A thread has H weights, in quads of four: the first LSTM_REG
// in registers, the next LSTM_SHARED quads in shared memory, the rest in device memory, read through the L2 cache at
// each step. (H = 128 in float is 256 KiB: neither the registers nor the shared memory of a multiprocessor hold it.)
#include "common.cuh"

#ifndef LSTM_REG
#define LSTM_REG 64  // weights of a thread in registers, a multiple of 4
#endif
#ifndef LSTM_SHARED
#define LSTM_SHARED 0  // quads of a thread in shared memory
#endif
#ifndef LSTM_MEMORY
#define LSTM_MEMORY 1  // whether any are left in device memory
#endif
#ifndef LSTM_UNROLL
#define LSTM_UNROLL 4  // quads of shared memory under way at once
#endif
#define REG_QUADS (LSTM_REG / 4)

// A thread's weights in device memory: weight k of H is first[k * stride].
struct WeightsInMemory {
    const REAL* first;
    int stride, H;

    // Whether each quad is 16 bytes that one load can take.
    __device__ __forceinline__ bool in_quads() const
    {
        return stride == 1 && H % 4 == 0 && (uint64)first % alignof(Quad) == 0;
    }
    __device__ __forceinline__ int quads() const { return (H + 3) / 4; }

    // Weights 4q ... 4q + 3, zeros from H on.
    __device__ __forceinline__ Quad quad(int q, bool at_once) const
    {
        if (at_once) return reinterpret_cast<const Quad*>(first)[q];
        Quad out;
#pragma unroll
        for (int n = 0; n < 4; ++n) out.v[n] = 4 * q + n < H ? first[(size_t)(4 * q + n) * stride] : REAL(0);
        return out;
    }
};

struct RecurrentWeights {
    Quad in_registers[REG_QUADS > 0 ? REG_QUADS : 1];
    Quad* in_shared;  // (LSTM_SHARED, threads)
    WeightsInMemory in_memory;

    // Read what stays on chip; shared has room for (LSTM_SHARED, threads) quads.
    __device__ __forceinline__ void load(const WeightsInMemory& from, Quad* shared)
    {
        in_memory = from, in_shared = shared + threadIdx.x;
        if (from.in_quads()) load_quads(true);
        else load_quads(false);
    }
    __device__ __forceinline__ void load_quads(bool at_once)
    {
#pragma unroll
        for (int q = 0; q < REG_QUADS; ++q) in_registers[q] = in_memory.quad(q, at_once);
#pragma unroll(LSTM_UNROLL)
        for (int q = 0; q < LSTM_SHARED; ++q) in_shared[q * blockDim.x] = in_memory.quad(REG_QUADS + q, at_once);
    }

    // Call use(quad, k) for the weights k ... k + 3 of each quad, in order.
    template <typename Use>
    __device__ __forceinline__ void each(Use use) const
    {
#pragma unroll
        for (int q = 0; q < REG_QUADS; ++q) use(in_registers[q], 4 * q);
#pragma unroll(LSTM_UNROLL)
        for (int q = 0; q < LSTM_SHARED; ++q) use(in_shared[q * blockDim.x], 4 * (REG_QUADS + q));
        if (!LSTM_MEMORY) return;
        const bool at_once = in_memory.in_quads();
        for (int q = REG_QUADS + LSTM_SHARED; q < in_memory.quads(); ++q) use(in_memory.quad(q, at_once), 4 * q);
    }
};
