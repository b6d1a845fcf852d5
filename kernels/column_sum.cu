// Sums over rows, in a fixed order: the gradients of biases. Block (32, 8): 32 quads of columns by 8 parts.
#include "common.cuh"

template <typename T>
__device__ __forceinline__ void sum_columns(const T* a, REAL* out, int N, int C, int stride, int before)
{
    __shared__ Quad parts[8][32];
    const int x = threadIdx.x, y = threadIdx.y, column = 4 * (blockIdx.x * 32 + x);
    Quad sum = Quad();
    if (column < C)
#pragma unroll 4
        for (int n = y; n < N; n += 8)
            sum = sum_of(sum, real_of(read_quad(a + (size_t)n * stride, column, C)));
    parts[y][x] = sum;
    __syncthreads();
    if (y != 0 || column >= C) return;
    sum = before ? read_quad(out, column, C) : Quad();
#pragma unroll
    for (int part = 0; part < 8; ++part) sum = sum_of(sum, parts[part][x]);
    write_quad(out, column, C, sum);
}

// out (C,) = before · out + Σ a (N, C) over its rows, which begin every `stride`; before is 0 or 1.
extern "C" __global__ void column_sum(const REAL* a, REAL* out, int N, int C, int stride, int before)
{
    sum_columns(a, out, N, C, stride, before);
}

// The same of rows in bf16.
extern "C" __global__ void column_sum_bf16(const bf16* a, REAL* out, int N, int C, int stride, int before)
{
    sum_columns(a, out, N, C, stride, before);
}
