// Softmax cross-entropy of rows of logits: bias, loss and gradient in two visits of a row, one block
// each. Called on a chunk of rows that fits the L2 cache, so the second visit finds them there.
#include "mixture.cuh"

struct Running {
    REAL maximum, sum;  // sum of exp(x - maximum)
};

// Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax".
__device__ __forceinline__ Running merged(Running a, Running b)
{
    Running out;
    out.maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
    // Equal ones, even two of minus infinity, need no correction.
    const REAL scale_a = a.maximum == out.maximum ? REAL(1) : exp_of(a.maximum - out.maximum);
    const REAL scale_b = b.maximum == out.maximum ? REAL(1) : exp_of(b.maximum - out.maximum);
    out.sum = a.sum * scale_a + b.sum * scale_b;
    return out;
}

// A row's logits at ... at + 3 with their biases, minus infinity beyond its end.
__device__ __forceinline__ Quad biased(const REAL* logits, const REAL* b, int at, int V)
{
    const Quad x = read_quad(logits, at, V, REAL(-INFINITY));
    return b ? sum_of(x, read_quad(b, at, V)) : x;
}

__device__ __forceinline__ Running merged(const Running& running, const Quad& x)
{
    Running out = running;
#pragma unroll
    for (int n = 0; n < 4; ++n) out.maximum = x.v[n] > out.maximum ? x.v[n] : out.maximum;
    out.sum *= exp_of(running.maximum - out.maximum);
#pragma unroll
    for (int n = 0; n < 4; ++n) out.sum += exp_of(x.v[n] - out.maximum);
    return out;
}

__device__ __forceinline__ Running running_of_row(const REAL* logits, const REAL* b, int V)
{
    // Two chains, so that their loads are under way together.
    Running part[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) part[k].maximum = -INFINITY, part[k].sum = 0;
    const int stride = 4 * blockDim.x;
    for (int v = 4 * threadIdx.x; v < V; v += 2 * stride) {
        const Quad x = biased(logits, b, v, V);
        const bool more = v + stride < V;
        const Quad y = more ? biased(logits, b, v + stride, V) : x;
        part[0] = merged(part[0], x);
        if (more) part[1] = merged(part[1], y);
    }
    return merged(part[0], part[1]);
}

__device__ __forceinline__ Running block_merged(Running x)
{
    __shared__ REAL maxima[32], sums[32];
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        Running other;
        other.maximum = __shfl_xor_sync(FULL_WARP, x.maximum, offset);
        other.sum = __shfl_xor_sync(FULL_WARP, x.sum, offset);
        x = merged(x, other);
    }
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = x.maximum, sums[threadIdx.x / 32] = x.sum;
    __syncthreads();
    x.maximum = maxima[0], x.sum = sums[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) {
        Running other;
        other.maximum = maxima[warp], other.sum = sums[warp];
        x = merged(x, other);
    }
    return x;
}

__device__ __forceinline__ REAL nats_of(const Running& row, const REAL* logits, const REAL* b, int target)
{
    const REAL at_target = logits[target] + (b ? b[target] : REAL(0));
    return log_of(row.sum) - (at_target - row.maximum);
}

// logits (N, V), whose rows begin every `stride`; b (V,) or null, targets (N,) with -1 for none -> losses (N,).
// logits stay as they are.
extern "C" __global__ void softmax_xent_forward(
    const REAL* logits, const REAL* b, const int* targets, REAL* losses, int V, int stride)
{
    const REAL* row = logits + (size_t)blockIdx.x * stride;
    const int target = targets[blockIdx.x];
    if (target < 0) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        return;
    }
    const Running all = block_merged(running_of_row(row, b, V));
    if (threadIdx.x == 0) losses[blockIdx.x] = nats_of(all, row, b, target);
}

__device__ __forceinline__ void write_gradient(REAL* row, bf16* rounded, int at, int V, const Quad& x)
{
    if (rounded) write_quad(rounded, at, V, bf16_of(x));
    else write_quad(row, at, V, x);
}

// As above, and logits become scale · (softmax - one_hot(target)), 0 where there is no target. Where there is d,
// of rows as far from each other, that is written there, rounded, and logits stay as they are. own, copied (N,): of a
// mixture, whose losses and gradients these are then, or null.
extern "C" __global__ void softmax_xent_backward(
    REAL* logits, const REAL* b, const int* targets, REAL* losses, REAL scale, int V, int stride, bf16* d,
    const REAL* own, const REAL* copied)
{
    REAL* row = logits + (size_t)blockIdx.x * stride;
    bf16* rounded = d ? d + (size_t)blockIdx.x * stride : 0;
    const int target = targets[blockIdx.x];
    if (target < 0) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        for (int v = 4 * threadIdx.x; v < V; v += 4 * blockDim.x) write_gradient(row, rounded, v, V, Quad());
        return;
    }
    const Running all = block_merged(running_of_row(row, b, V));
    const Mixed loss = mixed(nats_of(all, row, b, target), own, copied, blockIdx.x);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss.nats;
    __syncthreads();  // the loss reads the target's logit before it is overwritten
    const REAL weight = scale * loss.share, factor = weight / all.sum;
    for (int v = 4 * threadIdx.x; v < V; v += 4 * blockDim.x) {
        Quad x = biased(row, b, v, V);
#pragma unroll
        for (int n = 0; n < 4; ++n)
            x.v[n] = factor * exp_of(x.v[n] - all.maximum) - (v + n == target ? weight : REAL(0));
        write_gradient(row, rounded, v, V, x);
    }
}
