// The embedding of a row of notes, the sum of the rows of W that are on, and its gradient.
//
// Bound by latency: of D = 89 notes a handful are on, so that a row of N reads few rows of E reals, from the
// L1 or L2 cache. As GEMMs both would be 2·N·D·E FLOPs, nearly all of them with zeros.
#include "common.cuh"

// out (N, E) = x·W. x (N, D) 0 or 1; W (D, E). A block takes one row.
extern "C" __global__ void note_embedding_forward(
    const REAL* W, const unsigned char* x, REAL* out, int D, int E)
{
    const unsigned char* notes = x + (size_t)blockIdx.x * D;
    for (int start = 0; start < E; start += blockDim.x) {
        const int e = start + threadIdx.x;
        REAL sum = 0;
        for (int d = next_note(notes, 0, D); d < D; d = next_note(notes, d + 1, D))
            if (e < E) sum += W[(size_t)d * E + e];
        if (e < E) out[(size_t)blockIdx.x * E + e] = sum;
    }
}

// dW (D, E) = x.T·dx in a fixed order. dx (N, E). Block (32, 8) of grid (columns of 32, D): 32 columns of
// note d by 8 parts of the rows.
extern "C" __global__ void note_embedding_backward(
    const unsigned char* x, const REAL* dx, REAL* dW, int N, int D, int E)
{
    __shared__ REAL parts[8][32];
    const int lane = threadIdx.x, part = threadIdx.y, d = blockIdx.y, column = blockIdx.x * 32 + lane;
    REAL sum = 0;
    for (int start = 32 * part; start < N; start += 32 * 8) {
        // Each lane looks at a row; then all take those in which the note is on.
        const int own = start + lane;
        uint32 on = __ballot_sync(FULL_WARP, own < N && x[(size_t)own * D + d]);
        for (; on; on &= on - 1) {
            const int n = start + __ffs(on) - 1;
            if (column < E) sum += dx[(size_t)n * E + column];
        }
    }
    parts[part][lane] = sum;
    __syncthreads();  // all parts are known
    if (part != 0 || column >= E) return;
    for (int other = 1; other < 8; ++other) sum += parts[other][lane];
    dW[(size_t)d * E + column] = sum;
}
