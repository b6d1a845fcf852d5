// A NADE: D notes, each given those below it (Larochelle & Murray 2011, equations 3 and 4). Note d is on with
// probability sigmoid(visible[d] + U[d]·s), s = sigmoid(a), a = hidden + W[k] of each note k < d that is on.
//
// s changes only after a note that is on, and in a row of 88 a handful are. So a row is taken in segments: all
// notes up to and with the next that is on see the same s.
//
// Bound by multiply-adds and by U from the L1 cache. Of a row: forward 2·D·K FLOPs and D·K reals of U; back
// 4·D·K FLOPs, D·K reals of U, and 2·D·K of sums in shared memory. From device memory come D + K reals each.
#include "mixture.cuh"

// u·s, known to every lane of a warp. u, s (K,).
__device__ __forceinline__ REAL warp_dot(const REAL* u, const REAL* s, int K)
{
    REAL sum = 0;
    for (int k = threadIdx.x % 32; k < K; k += 32) sum += u[k] * s[k];
    return warp_sum(sum);
}

// visible (N, D): biases -> scale times the gradient of the logits. hidden (N, K): biases, as they were.
// targets (N, D) 0 or 1, a row of which begins with NO_NOTES where it has none. W, U (D, K). losses (N,): nats.
// own, copied (N,): of a mixture, whose losses and gradients these are then, or null.
// A block takes one row, a warp every so many notes of a segment. Shared memory: 2·K reals.
extern "C" __global__ void nade_forward(
    REAL* visible, const REAL* hidden, const unsigned char* targets, const REAL* W, const REAL* U,
    REAL* losses, REAL scale, int D, int K, const REAL* own, const REAL* copied)
{
    SHARED_ARRAY(REAL, a);
    __shared__ REAL scratch[32];
    REAL* s = a + K;
    const size_t n = blockIdx.x;
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    const unsigned char* x = targets + n * D;
    REAL* z = visible + n * D;
    if (x[0] == NO_NOTES) {
        for (int d = threadIdx.x; d < D; d += blockDim.x) z[d] = 0;
        if (threadIdx.x == 0) losses[n] = 0;
        return;
    }
    for (int k = threadIdx.x; k < K; k += blockDim.x) a[k] = hidden[n * K + k];
    REAL nats = 0;
    for (int start = 0; start < D;) {
        const int on = next_note(x, start, D);
        const int stop = on < D ? on + 1 : D;
        for (int k = threadIdx.x; k < K; k += blockDim.x) s[k] = sigmoid(a[k]);
        __syncthreads();  // s is whole
        for (int d = start + warp; d < stop; d += warps) {
            const REAL dot = warp_dot(U + (size_t)d * K, s, K);
            if (lane != 0) continue;
            const REAL logit = z[d] + dot;
            nats += note_nats(logit, x[d]);
            z[d] = scale * (sigmoid(logit) - x[d]);
        }
        __syncthreads();  // s may be overwritten
        if (on < D)
            for (int k = threadIdx.x; k < K; k += blockDim.x) a[k] += W[(size_t)on * K + k];
        start = stop;
    }
    const Mixed loss = mixed(block_sum(nats, scratch), own, copied, n);
    if (threadIdx.x == 0) losses[n] = loss.nats;
    if (!own) return;
    for (int d = threadIdx.x; d < D; d += blockDim.x) z[d] *= loss.share;  // the network's part of the mixture
}

// dz (N, D): what nade_forward left in visible. hidden (N, K): biases -> their gradient. dWs, dUs (parts, D, K):
// each part's share of the gradients of W and U. Grid (columns of 32 units, parts): a thread takes unit k of every
// parts-th row, and its column of the sums alone, so that there are no barriers. Shared memory: 64·D reals.
extern "C" __global__ void nade_backward(
    const REAL* dz, REAL* hidden, const unsigned char* targets, const REAL* W, const REAL* U, REAL* dWs,
    REAL* dUs, int N, int D, int K)
{
    SHARED_ARRAY(REAL, sums);
    REAL* dW = sums + threadIdx.x;
    REAL* dU = dW + 32 * D;
    const int parts = gridDim.y, own = blockIdx.x * 32 + threadIdx.x;
    const int k = own < K ? own : K - 1;  // lanes beyond the last repeat it, and write nothing
    for (int d = 0; d < D; ++d) dW[32 * d] = dU[32 * d] = 0;
    for (int n = blockIdx.y; n < N; n += parts) {
        const unsigned char* x = targets + (size_t)n * D;
        const REAL* g = dz + (size_t)n * D;
        REAL da = 0;
        if (x[0] != NO_NOTES) {
            REAL a = hidden[(size_t)n * K + k];
            for (int d = next_note(x, 0, D); d < D; d = next_note(x, d + 1, D)) a += W[(size_t)d * K + k];
            for (int stop = D, below = D;;) {
                const int first = previous_note(x, below) + 1;  // of the segment first … stop - 1
                const REAL s = sigmoid(a);
                REAL ds = 0;
#pragma unroll 4
                for (int d = first; d < stop; ++d) {
                    ds += g[d] * U[(size_t)d * K + k];
                    dU[32 * d] += g[d] * s;
                }
                da += ds * s * (1 - s);
                if (first == 0) break;
                stop = first, below = first - 1;  // the note that is on, and the last of its segment
                dW[32 * below] += da;
                a -= W[(size_t)below * K + k];
            }
        }
        __syncwarp();  // the last unit is read by several lanes
        if (own < K) hidden[(size_t)n * K + k] = da;
    }
    if (own >= K) return;
    for (int d = 0; d < D; ++d) {
        const size_t at = ((size_t)blockIdx.y * D + d) * K + k;
        dWs[at] = dW[32 * d];
        dUs[at] = dU[32 * d];
    }
}

// out (N, D): notes drawn from the lowest up, on where a draw is below the note's probability. draws (N, D) in
// 0 … 1; inverse: 1 / temperature. A block takes one row: its warps look at all notes above the last that is on,
// each as far as its own first that would be on; the lowest of these is. Shared memory: 2·K reals.
extern "C" __global__ void nade_sample(
    const REAL* visible, const REAL* hidden, const REAL* W, const REAL* U, const REAL* draws, REAL inverse,
    unsigned char* out, int D, int K)
{
    SHARED_ARRAY(REAL, a);
    __shared__ int found[32];
    REAL* s = a + K;
    const size_t n = blockIdx.x;
    const int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    for (int d = threadIdx.x; d < D; d += blockDim.x) out[n * D + d] = 0;
    for (int k = threadIdx.x; k < K; k += blockDim.x) a[k] = hidden[n * K + k];
    for (int start = 0; start < D;) {
        for (int k = threadIdx.x; k < K; k += blockDim.x) s[k] = sigmoid(a[k]);
        __syncthreads();  // s is whole
        int on = D;
        for (int d = start + warp; d < D && on == D; d += warps) {
            const REAL logit = visible[n * D + d] + warp_dot(U + (size_t)d * K, s, K);
            if (draws[n * D + d] < sigmoid(logit * inverse)) on = d;
        }
        if (lane == 0) found[warp] = on;
        __syncthreads();  // all warps have looked, and s may be overwritten
        for (int w = 0; w < warps; ++w) on = found[w] < on ? found[w] : on;
        if (on == D) break;
        if (threadIdx.x == 0) out[n * D + on] = 1;
        for (int k = threadIdx.x; k < K; k += blockDim.x) a[k] += W[(size_t)on * K + k];
        start = on + 1;
    }
}
