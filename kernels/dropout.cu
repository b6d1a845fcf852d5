// Dropout (Srivastava et al. 2014) by counter-based random numbers: a mask is computed, never stored.
#include "common.cuh"

// x (T, n) -> out (T, n), which may be x itself: an element is zeroed where its random word is below threshold, else
// scaled. x is the columns first ... first + n - 1 of a (T, whole), whose words it takes; each: blocks of four words
// that a row may touch.
// counter: the step in device memory, or null to take `step`; a captured graph reads it anew each time.
extern "C" __global__ void dropout_forward(
    const REAL* x, REAL* out, uint64 T, uint64 n, uint64 first, uint64 whole, uint64 each, uint32 threshold, REAL scale,
    uint32 k0, uint32 k1, uint32 stream, uint32 step, const uint32* counter)
{
    const uint64 thread = (uint64)blockIdx.x * blockDim.x + threadIdx.x;
    const uint64 t = thread / each;
    if (t >= T) return;
    const uint64 start = t * whole + first;
    const uint64 block = start / 4 + (thread - t * each);
    if (4 * block >= start + n) return;
    const Four bits = philox((uint32)block, stream, counter ? *counter : step, k0, k1);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const uint64 word = 4 * block + k;
        if (word < start || word >= start + n) continue;
        const uint64 at = t * n + (word - start);
        out[at] = bits.word[k] >= threshold ? x[at] * scale : x[at] * REAL(0);
    }
}
