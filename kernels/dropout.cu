// Dropout (Srivastava et al. 2014) by counter-based random numbers: a mask is computed, never stored.
#include "common.cuh"

// x (size,): element n is zeroed where its random word is below threshold, else scaled.
// counter: the step in device memory, or null to take `step`; a captured graph reads it anew each time.
extern "C" __global__ void dropout_forward(
    REAL* x, uint64 size, uint32 threshold, REAL scale, uint32 k0, uint32 k1, uint32 stream, uint32 step,
    const uint32* counter)
{
    const uint64 block = (uint64)blockIdx.x * blockDim.x + threadIdx.x;
    if (4 * block >= size) return;
    const Four bits = philox((uint32)block, stream, counter ? *counter : step, k0, k1);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
        const uint64 at = 4 * block + n;
        if (at < size) x[at] = bits.word[n] >= threshold ? x[at] * scale : x[at] * REAL(0);
    }
}
