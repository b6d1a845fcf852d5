// Embedding: gather, and the gradient of the rows that occur, summed in a fixed order.
//
// The gradient keeps N slots, so that its size depends on the batch's shape alone (a CUDA graph
// can't wait for a count): the k-th of the sorted ids, where it is the first of its kind, owns slot k.
#include "common.cuh"

// out (N, E) = W[ids]; W (V, E), ids (N,). An id outside is clipped, as in NumpyOps. A thread copies four.
extern "C" __global__ void embedding_forward(
    const REAL* W, const int* ids, REAL* out, int N, int V, int E)
{
    const uint32 quads = (E + 3) / 4, thread = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32 n = thread / quads, e = 4 * (thread - n * quads);
    if (n >= N) return;
    int id = ids[n];
    id = id < 0 ? 0 : id >= V ? V - 1 : id;
    write_quad(out + (size_t)n * E, e, E, read_quad(W + (size_t)id * E, e, E));
}

// order (2, N): the positions of ids in increasing order, equal ones as they come; and the ids in that order.
// A warp counts how many stand before an id: N² comparisons, which for a batch's few thousand beat a sort's many
// launches.
extern "C" __global__ void embedding_sort(const int* ids, int* order, int N)
{
    const int n = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (n >= N) return;
    const int own = ids[n];
    int before = 0;
    for (int k = 4 * (threadIdx.x % 32); k < N; k += 128) {
        const QuadOf<int> four = read_quad(ids, k, N, 0x7fffffff);
#pragma unroll
        for (int m = 0; m < 4; ++m) before += four.v[m] < own || (four.v[m] == own && k + m < n);
    }
    before = warp_sum(before);
    if (threadIdx.x % 32 == 0) order[before] = n, order[N + before] = own;
}

// How many neighbours from sorted[k] on are equal to it. For whole warps, all lanes with the same arguments.
__device__ __forceinline__ int equals_from(const int* sorted, int k, int N)
{
    const int id = sorted[k];
    for (int n = k;; n += 32) {
        const int at = n + threadIdx.x % 32;
        const uint32 others = __ballot_sync(FULL_WARP, at >= N || sorted[at] != id);
        if (others) return n + __ffs(others) - 1 - k;
    }
}

// rows (N,): the id that owns slot k, -1 for a slot without. values (N, E): its gradient, 0 without.
// where (V,) or null: the slot of each row that occurs; others are left as they are, for a reader can tell by
// rows[where[r]] == r. Without rows, values is (V, E), each id its own slot, and the others are left as they are.
// Block (32, 8): 32 quads of columns of one slot by 8 parts of its occurrences.
extern "C" __global__ void embedding_backward(
    const int* order, const REAL* dx, int* rows, REAL* values, int* where, int N, int E)
{
    __shared__ Quad parts[8][32];
    const int k = blockIdx.x, x = threadIdx.x, y = threadIdx.y;
    const int* sorted = order + N;
    const int id = sorted[k];
    const bool owns = k == 0 || sorted[k - 1] != id;
    const int count = owns ? equals_from(sorted, k, N) : 0;
    const size_t slot = rows ? k : id;
    if (rows && x == 0 && y == 0) {
        rows[k] = owns ? id : -1;
        if (owns && where) where[id] = k;
    }
    for (int start = 0; start < E; start += 128) {
        const int e = start + 4 * x;
        Quad sum = Quad();
        if (e < E)
#pragma unroll 4
            for (int n = y; n < count; n += 8)
                sum = sum_of(sum, read_quad(dx + (size_t)order[k + n] * E, e, E));
        parts[y][x] = sum;
        __syncthreads();
        if (y == 0 && e < E && (rows || owns)) {
            for (int part = 1; part < 8; ++part) sum = sum_of(sum, parts[part][x]);
            write_quad(values + slot * E, e, E, sum);
        }
        __syncthreads();
    }
}
