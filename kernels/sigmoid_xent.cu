// Sigmoid cross-entropy, summed over the D notes of a row. A block takes one row.
//
// Bound by bytes: logits (N, D) are read and, by `backward`, written once; targets are a byte each.
#include "mixture.cuh"

// The nats of a row of D notes x, y, known to every thread; 0 where it has no target.
__device__ __forceinline__ REAL row_nats(const REAL* x, const unsigned char* y, int D)
{
    __shared__ REAL scratch[32];
    const bool used = y[0] != NO_NOTES;
    REAL nats = 0;
    for (int d = threadIdx.x; used && d < D; d += blockDim.x) nats += note_nats(x[d], y[d]);
    return block_sum(nats, scratch);
}

// logits (N, D), targets (N, D) 0 or 1, a row of which begins with NO_NOTES where it has none -> losses (N,):
// nats. logits stay as they are.
extern "C" __global__ void sigmoid_xent_forward(
    const REAL* logits, const unsigned char* targets, REAL* losses, int D)
{
    const REAL* x = logits + (size_t)blockIdx.x * D;
    const unsigned char* y = targets + (size_t)blockIdx.x * D;
    const REAL nats = row_nats(x, y, D);
    if (threadIdx.x == 0) losses[blockIdx.x] = nats;
}

// As above, and logits become scale · (sigmoid - target), 0 where there is no target. own, copied (N,): of a
// mixture, whose losses and gradients these are then, or null.
extern "C" __global__ void sigmoid_xent_backward(
    REAL* logits, const unsigned char* targets, REAL* losses, REAL scale, int D, const REAL* own, const REAL* copied)
{
    REAL* x = logits + (size_t)blockIdx.x * D;
    const unsigned char* y = targets + (size_t)blockIdx.x * D;
    const bool used = y[0] != NO_NOTES;
    const Mixed loss = mixed(row_nats(x, y, D), used ? own : 0, copied, blockIdx.x);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss.nats;
    const REAL weight = scale * loss.share;
    for (int d = threadIdx.x; d < D; d += blockDim.x) x[d] = used ? weight * (sigmoid(x[d]) - y[d]) : REAL(0);
}
