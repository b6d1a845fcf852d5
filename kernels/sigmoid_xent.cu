// Sigmoid cross-entropy, summed over the D notes of a row. A block takes one row.
//
// Bound by bytes: logits (N, D) are read and, by `backward`, written once; targets are a byte each.
#include "common.cuh"

__device__ __forceinline__ void write_loss(REAL nats, REAL* loss)
{
    __shared__ REAL scratch[32];
    nats = block_sum(nats, scratch);
    if (threadIdx.x == 0) *loss = nats;
}

// logits (N, D), targets (N, D) 0 or 1, a row of which begins with NO_NOTES where it has none -> losses (N,):
// nats. logits stay as they are.
extern "C" __global__ void sigmoid_xent_forward(
    const REAL* logits, const unsigned char* targets, REAL* losses, int D)
{
    const REAL* x = logits + (size_t)blockIdx.x * D;
    const unsigned char* y = targets + (size_t)blockIdx.x * D;
    const bool used = y[0] != NO_NOTES;
    REAL nats = 0;
    for (int d = threadIdx.x; used && d < D; d += blockDim.x) nats += note_nats(x[d], y[d]);
    write_loss(nats, losses + blockIdx.x);
}

// As above, and logits become scale · (sigmoid - target), 0 where there is no target.
extern "C" __global__ void sigmoid_xent_backward(
    REAL* logits, const unsigned char* targets, REAL* losses, REAL scale, int D)
{
    REAL* x = logits + (size_t)blockIdx.x * D;
    const unsigned char* y = targets + (size_t)blockIdx.x * D;
    const bool used = y[0] != NO_NOTES;
    REAL nats = 0;
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        if (used) nats += note_nats(x[d], y[d]);
        x[d] = used ? scale * (sigmoid(x[d]) - y[d]) : REAL(0);
    }
    write_loss(nats, losses + blockIdx.x);
}
