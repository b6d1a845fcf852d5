// Copies in bf16 of what cuBLAS is to read so: half the bytes, and its tensor cores.
#include "common.cuh"

// out (N, C) = a (N, C) rounded, whose rows begin every `to` and `from`. A thread takes four.
extern "C" __global__ void bf16_forward(const REAL* a, bf16* out, int N, int C, int from, int to)
{
    const uint32 quads = (C + 3) / 4, thread = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32 n = thread / quads, c = 4 * (thread - n * quads);
    if (n < N) write_quad(out + (size_t)n * to, c, C, bf16_of(read_quad(a + (size_t)n * from, c, C)));
}
