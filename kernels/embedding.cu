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

// order (N,): the positions of ids in increasing order, equal ones as they come. A thread counts how
// many stand before its id: N² comparisons, which for a batch's few thousand beat a sort's many launches.
extern "C" __global__ void embedding_sort(const int* ids, int* order, int N)
{
    __shared__ int tile[256];
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    const int own = n < N ? ids[n] : 0;
    int before = 0;
    for (int start = 0; start < N; start += 256) {
        for (int k = threadIdx.x; k < 256 && start + k < N; k += blockDim.x) tile[k] = ids[start + k];
        __syncthreads();
        const int stop = N - start < 256 ? N - start : 256;
        for (int k = 0; k < stop; ++k) before += tile[k] < own || (tile[k] == own && start + k < n);
        __syncthreads();  // the tile may be overwritten
    }
    if (n < N) order[before] = n;
}

// rows (N,): the id that owns slot k, -1 for a slot without. values (N, E): its gradient, 0 without.
// where (V,) or null: the slot of each row that occurs; others are left as they are, for a reader can tell by
// rows[where[r]] == r. Without rows, values is (V, E), each id its own slot, and the others are left as they are.
// Block (32, 8): 32 quads of columns of one slot by 8 parts of its occurrences.
extern "C" __global__ void embedding_backward(
    const int* ids, const int* order, const REAL* dx, int* rows, REAL* values, int* where, int N, int E)
{
    __shared__ Quad parts[8][32];
    const int k = blockIdx.x, x = threadIdx.x, y = threadIdx.y;
    const int id = ids[order[k]];
    const bool owns = k == 0 || ids[order[k - 1]] != id;
    const size_t slot = rows ? k : id;
    if (rows && x == 0 && y == 0) {
        rows[k] = owns ? id : -1;
        if (owns && where) where[id] = k;
    }
    for (int start = 0; start < E; start += 128) {
        const int e = start + 4 * x;
        Quad sum = Quad();
        if (owns && e < E)
            for (int n = k + y; n < N; n += 8) {
                const int at = order[n];
                if (ids[at] != id) break;
                sum = sum_of(sum, read_quad(dx + (size_t)at * E, e, E));
            }
        parts[y][x] = sum;
        __syncthreads();
        if (y == 0 && e < E && (rows || owns)) {
            for (int part = 1; part < 8; ++part) sum = sum_of(sum, parts[part][x]);
            write_quad(values + slot * E, e, E, sum);
        }
        __syncthreads();
    }
}
