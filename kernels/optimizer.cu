// The norm of all gradients, clipping and Adam: a launch each, whatever the number of parameters.
// Its structs are ops/cuda/structs.py's: Tensor, a parameter; StepInputs, what the host sends a step; StepResults,
// what it comes to.
#include "common.cuh"
#include "optimizer_structs.cuh"

#define CHUNK 4096  // elements of a block

// partial (blocks,): each block's sum of squares, in double from the warp up.
extern "C" __global__ void sum_squares_forward(const Tensor* tensors, int count, double* partial)
{
    __shared__ double scratch[32];
    int k = 0;
    while (k + 1 < count && tensors[k + 1].first_g <= blockIdx.x) ++k;
    const Tensor& tensor = tensors[k];
    const uint64 size = tensor.rows ? tensor.slots * tensor.width : tensor.size;
    const uint64 start = (blockIdx.x - tensor.first_g) * CHUNK;
    const uint64 stop = start + CHUNK < size ? start + CHUNK : size;
    double sum = 0;
    for (uint64 n = start + 4 * threadIdx.x; n < stop; n += 4 * blockDim.x) {
        const Quad g = read_quad(tensor.g, n, size);
#pragma unroll
        for (int k = 0; k < 4; ++k) sum += (double)g.v[k] * (double)g.v[k];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: the norm from the partial sums in a fixed order, the loss, and the factor of the gradients.
extern "C" __global__ void clip_forward(
    const double* partial, int parts, const REAL* losses, int N, const StepInputs* inputs, StepResults* results)
{
    __shared__ double scratch[32];
    double sum = 0, loss = 0;
    for (int n = threadIdx.x; n < parts; n += blockDim.x) sum += partial[n];
    for (int n = threadIdx.x; n < N; n += blockDim.x) loss += (double)losses[n];
    sum = block_sum(sum, scratch);
    loss = block_sum(loss, scratch);
    if (threadIdx.x != 0) return;
    const double norm = sqrt(sum) * inputs->gradient_scale;
    const double clipped = inputs->clip > 0 ? inputs->clip / (norm + 1e-6) : 1.0;
    results->norm = norm;
    results->loss = loss * inputs->gradient_scale;
    results->scale = inputs->gradient_scale * (clipped < 1 ? clipped : 1.0);
    results->loss_sum += loss;
    results->norm_sum += norm;
    if (results->failed != 0 || !(norm < INFINITY) || !(loss < INFINITY)) results->failed += 1;
}

// Where the gradient of element n of a parameter lies, which has one of rows; null where its row has none.
__device__ __forceinline__ const REAL* gradient_of_row(const Tensor& tensor, uint64 n)
{
    ASSUME_GLOBAL(tensor.where);
    ASSUME_GLOBAL(tensor.rows);
    const uint64 r = n / tensor.width, slot = (uint32)tensor.where[r];
    if (slot >= tensor.slots || tensor.rows[slot] != (int)r) return 0;
    return tensor.g + slot * tensor.width + (n - r * tensor.width);
}

// The gradient of elements n ... n + 3.
__device__ __forceinline__ Quad gradient(const Tensor& tensor, uint64 n)
{
    if (!tensor.rows) return read_quad(tensor.g, n, tensor.size);
    Quad out = Quad();
    if (tensor.width % 4 == 0) {  // all four in one row
        const REAL* g = gradient_of_row(tensor, n);
        return g ? read_quad(g, 0, 4) : out;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const REAL* g = n + k < tensor.size ? gradient_of_row(tensor, n + k) : 0;
        ASSUME_GLOBAL(g);
        if (g) out.v[k] = *g;
    }
    return out;
}

// Adam (Kingma & Ba 2015, algorithm 1) over all parameters, which first shrink (Loshchilov & Hutter 2019,
// algorithm 2). Rows without a gradient move too: by their decaying moments, as in dense Adam. Means then move
// towards the new parameters by a share of their difference.
extern "C" __global__ void adam_forward(
    const Tensor* tensors, int count, const StepInputs* inputs, const StepResults* results, double beta1, double beta2,
    double eps, double share)
{
    if (results->failed != 0) return;
    int k = 0;
    while (k + 1 < count && tensors[k + 1].first <= blockIdx.x) ++k;
    const Tensor tensor = tensors[k];
    const REAL rate = (REAL)(inputs->lr * inputs->correct1), correct2 = (REAL)inputs->correct2;
    const REAL scale = (REAL)results->scale, small = (REAL)eps;
    const REAL shrink = (REAL)(1 - inputs->lr * tensor.decay);
    // 1 - beta in double: in float it would lose what it has in digits.
    const REAL keep1 = (REAL)beta1, add1 = (REAL)(1 - beta1);
    const REAL keep2 = (REAL)beta2, add2 = (REAL)(1 - beta2);
    const uint64 start = (blockIdx.x - tensor.first) * CHUNK;
    const uint64 stop = start + CHUNK < tensor.size ? start + CHUNK : tensor.size;
    for (uint64 n = start + 4 * threadIdx.x; n < stop; n += 4 * blockDim.x) {
        Quad p = read_quad(tensor.p, n, stop), m = read_quad(tensor.m, n, stop), v = read_quad(tensor.v, n, stop);
        const Quad gradients = gradient(tensor, n);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const REAL g = scale * gradients.v[k];
            m.v[k] = keep1 * m.v[k] + add1 * g;
            v.v[k] = keep2 * v.v[k] + add2 * g * g;
            p.v[k] = shrink * p.v[k] - rate * m.v[k] / (sqrt_of(v.v[k] * correct2) + small);
        }
        write_quad(tensor.m, n, stop, m);
        write_quad(tensor.v, n, stop, v);
        write_quad(tensor.p, n, stop, p);
        if (!tensor.mean) continue;
        Quad mean = read_quad(tensor.mean, n, stop);
#pragma unroll
        for (int k = 0; k < 4; ++k) mean.v[k] += (REAL)share * (p.v[k] - mean.v[k]);
        write_quad(tensor.mean, n, stop, mean);
    }
}

// mean (size,) moves towards p by a share of their difference.
extern "C" __global__ void average_forward(const REAL* p, REAL* mean, uint64 size, REAL share)
{
    const uint64 n = (uint64)blockIdx.x * blockDim.x + threadIdx.x;
    if (n < size) mean[n] += share * (p[n] - mean[n]);
}
