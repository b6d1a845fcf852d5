// Sigmoid cross-entropy, summed over the D notes of a row. A block takes one row.
#include "common.cuh"

// logits (N, D) -> scale · (sigmoid - target). targets (N, D) in 0 … 1. losses (N,): nats.
// counted (N,) or null: 0 for a row without loss and gradient.
extern "C" __global__ void sigmoid_xent_backward(
    REAL* logits, const REAL* targets, const REAL* counted, REAL* losses, REAL scale, int D)
{
    __shared__ REAL scratch[32];
    const size_t start = (size_t)blockIdx.x * D;
    const REAL weight = counted ? counted[blockIdx.x] : REAL(1);
    REAL sum = 0;
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        const REAL x = logits[start + d], y = targets[start + d];
        const REAL size = x < 0 ? -x : x;
        // log(1 + e^x) - y·x without overflow.
        sum += (x > 0 ? x : REAL(0)) - x * y + log_of(1 + exp_of(-size));
        logits[start + d] = weight * scale * (sigmoid(x) - y);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) losses[blockIdx.x] = weight * sum;
}
