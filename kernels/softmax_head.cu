// A softmax layer's loss and gradient on the tensor cores, H = HEAD_H a multiple of 64: logits never reach memory.
//
// h (N, H) and W transposed (V, H) are in bf16, so both are rows of H, and a logit is the product of two rows.
// A block's stationary operand is 128 rows of one matrix, in registers; its streamed operand the rows of the other, a
// tile of 128 at a time through shared memory, in a software pipeline of two stages. Forward h is stationary and W is
// streamed, so that a thread keeps its rows' running maximum and sum (online softmax) to itself until the end; backward
// W is stationary and h is streamed, so that it does so with the gradient of b. Threads exchange at the end, once.
//
// An accumulator begins with its bias. e^x is 2^(x · log2 e), a multiply-add and an instruction.
#include "mixture.cuh"
#include "tensor_cores.cuh"

#ifndef HEAD_H
#define HEAD_H 128
#endif
#define TILE 128     // rows of either operand in a block's product
#define THREADS 256  // 4 warps of 32 stationary rows, by 2 of 64 streamed ones
#define SLAB 32      // streamed rows that a warp multiplies at once
#define STEPS (HEAD_H / 16)
#define BLOCKS (HEAD_H <= 128 ? 2 : 1)  // of a multiprocessor
#define LN_2 0.6931471805599453f
// A logit of no probability. Times LOG2_E it is exact, a power of two, so that without others e^(x - x) is 1.
#define NEVER -1.2676506002282294e30f

typedef QuadOf<float> Quad4;

struct alignas(16) Packed {
    uint32 pair[4];  // eight numbers in bf16
};

// What is known of a tile's rows of h, or in `offsets` the biases of a tile of words.
struct alignas(16) OfRows {
    float offsets[TILE], scales[TILE];
    int targets[TILE];
};

// A stage of the pipeline: the rows of a streamed tile (TILE, H), and what is known of them.
struct Stage {
    bf16* rows;
    OfRows* of;
};

// shared: of 2 · TILE · (2 · H + 12) + 128 bytes.
__device__ __forceinline__ Stage stage_of(unsigned char* shared, int n)
{
    unsigned char* aligned = shared + (128 - shared_at(shared) % 128) % 128;
    Stage out;
    out.rows = reinterpret_cast<bf16*>(aligned) + n * TILE * HEAD_H;
    out.of = reinterpret_cast<OfRows*>(aligned + 4 * TILE * HEAD_H) + n;
    return out;
}

// A tile's rows would all begin at the same bank of shared memory. The swizzle puts eight n of a row, in each group of
// 64 elements, where n ^ swizzle(row) would be, so that eight rows, one after another or as mma_slab takes them, lie in
// different banks.
__device__ __forceinline__ int swizzle(int row)
{
    return (row & 1) | ((row >> 1 ^ row >> 3) & 3) << 1;
}

// Begin to copy rows first ... first + 127 of a matrix (rows, H), zeros beyond its end.
__device__ __forceinline__ void fetch_rows(bf16* tile, const bf16* from, int first, int rows)
{
    const int line = threadIdx.x / 8, eight = threadIdx.x % 8;
    bf16* to = tile + line * HEAD_H + 8 * (eight ^ swizzle(line));
    from += (size_t)(first + line) * HEAD_H + 8 * eight;
#pragma unroll
    for (int row = 0; row < TILE; row += 32)  // swizzle(row) repeats
#pragma unroll
        for (int h = 0; h < HEAD_H; h += 64)
            copy_async(to + row * HEAD_H + h, from + row * HEAD_H + h, first + line + row < rows);
}

// The same of so many bytes.
template <int BYTES>
__device__ __forceinline__ void fetch_bytes(void* to, const void* from)
{
    static_assert(BYTES <= 16 * THREADS, "a thread copies 16 bytes");
    const int n = 16 * threadIdx.x;
    if (n < BYTES) copy_async((char*)to + n, (const char*)from + n, true);
}

// Where eight `n` of a row lies, given where eight 0 or 1 does: both differ in bits that no row's beginning has.
__device__ __forceinline__ SharedAt eight_at(SharedAt row, int n) { return (row ^ n % 8 * 16) + n / 8 * 128; }

// The fragments of a warp's 32 stationary rows, of the block's 128 of a matrix (rows, H).
__device__ __forceinline__ void load_stationary(
    uint32 (&stationary)[2][STEPS][4], bf16* tile, const bf16* from, int first, int rows)
{
    fetch_rows(tile, from, first, rows);
    copies_commit();
    copies_wait<0>();
    __syncthreads();  // the stationary rows have come
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int row = 32 * (warp % 4) + 16 * i + lane % 16;
        const SharedAt at = shared_at(tile + row * HEAD_H + 8 * (lane / 16 ^ swizzle(row)));
#pragma unroll
        for (int k = 0; k < STEPS; ++k) ldmatrix(stationary[i][k], eight_at(at, 2 * k));
    }
    __syncthreads();  // streamed ones may take their place
}

// Add to the accumulators 32 stationary rows by the 32 streamed ones from `first` on. Lane 4g + q has in
// acc[i][j][2n + e] row 16i + 8n + g by row 8q + 2j + e: eight neighbours, 16 bytes of bf16, of each of its four rows.
__device__ __forceinline__ void mma_slab(
    float (&acc)[2][4][4], const uint32 (&stationary)[2][STEPS][4], const bf16* tile, int first)
{
    const int lane = threadIdx.x % 32, matrix = lane / 8, r = lane % 8;
    const int row = first + 8 * (r / 2) + 2 * (matrix / 2) + r % 2;
    const SharedAt at = shared_at(tile + row * HEAD_H + 8 * (matrix % 2 ^ swizzle(row)));
#pragma unroll
    for (int k = 0; k < STEPS; ++k)
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            uint32 streamed[4];  // of rows j more; two more change swizzle(row) by 4
            ldmatrix(streamed, eight_at(at, 2 * k ^ 2 * j) + 4 * j * HEAD_H);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                mma(acc[i][j], stationary[i][k], streamed[0], streamed[1]);
                mma(acc[i][j + 1], stationary[i][k], streamed[2], streamed[3]);
            }
        }
}

// The accumulator of the thread's stationary row r, 0 ... 3, by its n-th streamed one.
#define ACC(r, n) acc[(r) / 2][(n) / 2][(r) % 2 * 2 + (n) % 2]

// A thread's eight numbers of the streamed rows, from the slab's first on.
template <typename T>
__device__ __forceinline__ const QuadOf<T>* eight_of(const T* numbers, int first)
{
    return reinterpret_cast<const QuadOf<T>*>(numbers + first + 8 * (threadIdx.x % 4));
}

// Stream tiles begin ... end - 1. fetch(stage, tile) begins to copy one; compute(stage, tile, slab) multiplies 32 of
// its rows, the slab's and on, and has the epilogue of their accumulators; each warp takes half of a tile's rows.
template <typename Fetch, typename Compute>
__device__ __forceinline__ void stream(unsigned char* shared, int begin, int end, Fetch fetch, Compute compute)
{
    const int half = TILE / 2 * (threadIdx.x / 128);
    fetch(stage_of(shared, 0), begin), copies_commit();
    for (int tile = begin; tile < end; ++tile) {
        if (tile + 1 < end) {
            fetch(stage_of(shared, (tile + 1 - begin) % 2), tile + 1), copies_commit();
            copies_wait<1>();
        } else copies_wait<0>();
        __syncthreads();  // this tile has come
        const Stage stage = stage_of(shared, (tile - begin) % 2);
#pragma unroll 1
        for (int slab = half; slab < half + TILE / 2; slab += SLAB) compute(stage, tile, slab);
        __syncthreads();  // nobody reads this tile any more
    }
}

// W (H, V), whose rows begin every `stride` -> out (V, H) in bf16; b (V,) -> biases, NEVER beyond V, as many as whole
// tiles have. A block transposes 64 by 64.
extern "C" __global__ void softmax_head_copy(
    const float* W, const float* b, Packed* out, float* biases, int V, int stride)
{
    __shared__ float tile[64][65];
    const int first = 64 * blockIdx.x, unit = 64 * blockIdx.y;
    for (int n = threadIdx.x; n < 64 * 64; n += THREADS) {
        const int v = first + n % 64;
        tile[n / 64][n % 64] = v < V ? W[(size_t)(unit + n / 64) * stride + v] : 0.0f;
    }
    __syncthreads();  // the tile is whole
    for (int n = threadIdx.x; n < 64 * 8; n += THREADS) {
        const int v = n / 8, h = n % 8 * 8;
        Packed eight;
#pragma unroll
        for (int p = 0; p < 4; ++p) eight.pair[p] = bf16_pair(tile[h + 2 * p][v], tile[h + 2 * p + 1][v]);
        if (first + v < V) out[((size_t)(first + v) * HEAD_H + unit + h) / 8] = eight;
    }
    const int v = first + threadIdx.x;
    if (blockIdx.y == 0 && threadIdx.x < 64) biases[v] = v < V ? b[v] : NEVER;
}

struct Running {
    float maximum, sum;  // sum of e^(x - maximum)
};

// Source: Milakov & Gimelshein 2018, "Online normalizer calculation for softmax".
__device__ __forceinline__ Running merged(const Running& a, const Running& b)
{
    Running out;
    out.maximum = fmaxf(a.maximum, b.maximum);
    out.sum = a.sum * exp2_of(LOG2_E * (a.maximum - out.maximum))
        + b.sum * exp2_of(LOG2_E * (b.maximum - out.maximum));
    return out;
}

// h (N, H), W (V, H), biases -> partials (N, 2 · segments): the running maximum and sum of a row's logits over
// each segment of W's tiles. `length` tiles are a segment; blocks (segments, tiles of h).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) softmax_head_forward(
    const bf16* h, const bf16* W, const float* biases, Running* partials, int N, int V, int length)
{
    SHARED_ARRAY(unsigned char, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = TILE * blockIdx.y;
    const int begin = blockIdx.x * length, tiles = (V + TILE - 1) / TILE;
    const int end = begin + length < tiles ? begin + length : tiles;
    uint32 stationary[2][STEPS][4];
    load_stationary(stationary, stage_of(shared, 0).rows, h, first, N);
    auto fetch = [&](const Stage& to, int tile) {
        fetch_rows(to.rows, W, TILE * tile, V);
        fetch_bytes<4 * TILE>(to.of->offsets, biases + (size_t)TILE * tile);
    };
    Running running[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) running[r].maximum = NEVER, running[r].sum = 0;
    stream(shared, begin, end, fetch, [&](const Stage& stage, int, int slab) {
        float acc[2][4][4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Quad4 bias = eight_of(stage.of->offsets, slab)[half];
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int r = 0; r < 4; ++r) ACC(r, 4 * half + n) = bias.v[n];
        }
        mma_slab(acc, stationary, stage.rows, slab);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            float maximum = running[r].maximum;
#pragma unroll
            for (int n = 0; n < 8; ++n) maximum = fmaxf(maximum, ACC(r, n));
            float sum = running[r].sum * exp2_of(LOG2_E * (running[r].maximum - maximum));
            const float offset = LOG2_E * maximum;
#pragma unroll
            for (int n = 0; n < 8; ++n) sum += exp2_of(LOG2_E * ACC(r, n) - offset);
            running[r].maximum = maximum, running[r].sum = sum;
        }
    });
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int lanes = 1; lanes < 4; lanes *= 2) {
            Running other;
            other.maximum = __shfl_xor_sync(FULL_WARP, running[r].maximum, lanes);
            other.sum = __shfl_xor_sync(FULL_WARP, running[r].sum, lanes);
            running[r] = merged(running[r], other);
        }
        const int row = first + 32 * (warp % 4) + 8 * r + lane / 4;
        if (lane % 4 == 0 && row < N) partials[(size_t)row * 2 * gridDim.x + 2 * blockIdx.x + warp / 4] = running[r];
    }
}

// A warp each: a row's partials (N, P) -> losses (N,), and for whole tiles of rows, to of: what going back subtracts
// from logits times log2 e, log2 of (sum of e^x) / scale; the scale itself; and the target. Infinity, 0 and -1 where
// there is none. own, copied (N,): of a mixture, whose losses these are then, and of whose scale a row has the network's
// share; or null.
extern "C" __global__ void softmax_head_merge(
    const Running* partials, const bf16* h, const bf16* W, const float* biases, const int* targets, float* losses,
    OfRows* of, float scale, int N, int P, const REAL* own, const REAL* copied)
{
    const int lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const int target = row < N ? targets[row] : -1, at = row % TILE;
    of += row / TILE;
    if (target < 0) {
        if (lane == 0) of->offsets[at] = INFINITY, of->scales[at] = 0, of->targets[at] = -1;
        if (lane == 0 && row < N) losses[row] = 0;
        return;
    }
    Running running;
    running.maximum = NEVER, running.sum = 0;
    for (int p = lane; p < P; p += 32) running = merged(running, partials[(size_t)row * P + p]);
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        Running other;
        other.maximum = __shfl_xor_sync(FULL_WARP, running.maximum, lanes);
        other.sum = __shfl_xor_sync(FULL_WARP, running.sum, lanes);
        running = merged(running, other);
    }
    float product = 0;
    for (int k = 2 * lane; k < HEAD_H; k += 64) {
        const uint32 x = *reinterpret_cast<const uint32*>(h + (size_t)row * HEAD_H + k);
        const uint32 w = *reinterpret_cast<const uint32*>(W + (size_t)target * HEAD_H + k);
        product += low_of(x) * low_of(w) + high_of(x) * high_of(w);
    }
    product = warp_sum(product);
    if (lane != 0) return;
    const float log2_sum = log2f(running.sum);
    const Mixed loss = mixed(LN_2 * log2_sum - (product + biases[target] - running.maximum), own, copied, row);
    const float row_scale = scale * (float)loss.share;
    losses[row] = loss.nats;
    of->offsets[at] = LOG2_E * running.maximum + log2_sum - log2f(row_scale);
    of->scales[at] = row_scale, of->targets[at] = target;
}

// Which of a thread's 4 · 8 logits are their row's target: bit 8r + n for row first + 8r of W.
__device__ __forceinline__ uint32 target_mask(const int* targets, int slab, int first)
{
    uint32 out = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const QuadOf<int> target = eight_of(targets, slab)[half];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const uint32 distance = target.v[n] - first;
            if (!(distance & ~24u)) out |= 1u << (distance + 4 * half + n);
        }
    }
    return out;
}

// Of V words, the first of which is `word`: d (V, 8 · stride) in bf16 = scale · (softmax - one_hot(target)),
// transposed, of N rows of h; row_sums (2 · segments, V), rows `pitch` from each other: its rows' sums over each
// segment of h's tiles. Both have room for whole tiles, and zeros beyond V and N. Blocks (tiles of W, segments).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) softmax_head_backward(
    const bf16* h, const bf16* W, const float* biases, const OfRows* of, Packed* d, float* row_sums, int N, int V,
    int word, uint32 stride, uint32 pitch, int length)
{
    SHARED_ARRAY(unsigned char, shared);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = TILE * blockIdx.x;
    const int begin = blockIdx.y * length, tiles = (N + TILE - 1) / TILE;
    const int end = begin + length < tiles ? begin + length : tiles;
    uint32 stationary[2][STEPS][4];
    load_stationary(stationary, stage_of(shared, 0).rows, W, first, V);
    auto fetch = [&](const Stage& to, int tile) {
        fetch_rows(to.rows, h, TILE * tile, N);
        fetch_bytes<sizeof(OfRows)>(to.of, of + tile);
    };
    const int row = 32 * (warp % 4) + lane / 4;  // of the tile's rows, and 8, 16, 24 more
    // Registers have no room for these, one a row of a thread.
    __shared__ float bias[TILE], totals[4][THREADS];
    if (threadIdx.x < TILE) bias[threadIdx.x] = biases[first + threadIdx.x];
#pragma unroll
    for (int r = 0; r < 4; ++r) totals[r][threadIdx.x] = 0;
    stream(shared, begin, end, fetch, [&](const Stage& stage, int tile, int slab) {
        float acc[2][4][4];
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
            for (int n = 0; n < 8; ++n) ACC(r, n) = bias[row + 8 * r];
        mma_slab(acc, stationary, stage.rows, slab);
        const uint32 hits = target_mask(stage.of->targets, slab, word + first + row);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Quad4 offset = eight_of(stage.of->offsets, slab)[half];
#pragma unroll
            for (int n = 0; n < 4; ++n)
#pragma unroll
                for (int r = 0; r < 4; ++r)
                    ACC(r, 4 * half + n) = exp2_of(LOG2_E * ACC(r, 4 * half + n) - offset.v[n]);
        }
        if (hits)  // seldom: one logit of V
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const float scale = stage.of->scales[slab + 8 * (lane % 4) + n];
#pragma unroll
                for (int r = 0; r < 4; ++r) ACC(r, n) -= (float)(hits >> (8 * r + n) & 1) * scale;
            }
        const uint32 to = (first + row) * stride + (TILE * tile + slab) / 8 + lane % 4;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            Packed eight;
            float total = totals[r][threadIdx.x];
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                total += ACC(r, n) + ACC(r, n + 1);
                eight.pair[n / 2] = bf16_pair(ACC(r, n), ACC(r, n + 1));
            }
            totals[r][threadIdx.x] = total;
            d[to + 8 * r * stride] = eight;
        }
    });
#pragma unroll
    for (int r = 0; r < 4; ++r) {
        float total = totals[r][threadIdx.x];
#pragma unroll
        for (int lanes = 1; lanes < 4; lanes *= 2) total += __shfl_xor_sync(FULL_WARP, total, lanes);
        if (lane % 4 == 0) row_sums[(2 * blockIdx.y + warp / 4) * pitch + first + row + 8 * r] = total;
    }
}
