// Sums over rows, in a fixed order: the gradients of biases. Block (32, 32): 32 columns by 32 parts.
#include "common.cuh"

// out (C,) = before · out + Σ a (N, C) over its rows; before is 0 or 1.
extern "C" __global__ void column_sum(const REAL* a, REAL* out, int N, int C, int before)
{
    __shared__ REAL parts[32][33];
    const int x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * 32 + x;
    REAL sum = 0;
    if (column < C)
#pragma unroll 4
        for (int n = y; n < N; n += 32) sum += a[(size_t)n * C + column];
    parts[y][x] = sum;
    __syncthreads();
    // Transposed, so that a warp holds one column's parts: no barrier more.
    sum = warp_sum(parts[x][y]);
    const int own = blockIdx.x * 32 + y;
    if (x == 0 && own < C) out[own] = before ? out[own] + sum : sum;
}
