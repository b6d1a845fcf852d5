// Drawing the next token of each piece on the device, as sampler.choose does for the same number u.
//
// A token's share is a whole number, exp((x - max) / temperature) in units of 2^-40: whole numbers add
// up to the same sum in any order, so that shared-memory atomics may add them and a seed gives the same
// music. Cuts (top-k, top-p) and draws in the order of likelihood are radix selections: digit by digit
// from the highest, the digit at which the count or the share wanted is reached.
#include "common.cuh"

#define ONE_SHARE 1099511627776.0  // 2^40
#define DIGITS 256

// A whole number that grows with x: floats in their order.
__device__ __forceinline__ uint32 ordered(float x)
{
    const uint32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint64 ordered(double x)
{
    const uint64 bits = (uint64)__double_as_longlong(x);
    return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}


// A row of logits, and what of it may still be drawn.
struct Row {
    const REAL* logits;
    const REAL* b;
    const unsigned char* allowed;
    uint64* shares;
    int V;
};

__device__ __forceinline__ REAL logit(const Row& row, int v)
{
    return row.logits[v] + (row.b ? row.b[v] : REAL(0));
}

struct Shared {
    uint64 share[DIGITS];
    uint32 count[DIGITS];
    uint64 scratch[32];
    uint64 before;  // share of what stands before
    uint32 before_count;
    int found;
};

struct Place {
    uint64 key;      // of the token found
    uint32 ties;     // how many of its equals, in order of id, stand up to and with it
    uint64 through;  // share of all up to and with it
};

// The token in order of likelihood, equals by id, at which the count reached is `count`, or, where count
// is 0, the share reached is at least `share`. Both are within what the row holds.
__device__ __forceinline__ Place select(const Row& row, uint32 count, uint64 share, Shared& s)
{
    const int bits = 8 * sizeof(REAL);
    uint64 prefix = 0, before = 0;
    uint32 before_count = 0;
    for (int shift = bits - 8; shift >= 0; shift -= 8) {
        for (int d = threadIdx.x; d < DIGITS; d += blockDim.x) s.share[d] = 0, s.count[d] = 0;
        __syncthreads();
        for (int v = threadIdx.x; v < row.V; v += blockDim.x) {
            if (row.allowed && !row.allowed[v]) continue;
            const uint64 key = ordered(logit(row, v));
            if (shift + 8 < bits && key >> (shift + 8) != prefix) continue;
            const int digit = (int)(key >> shift & (DIGITS - 1));
            atomicAdd(&s.share[digit], row.shares[v]);
            atomicAdd(&s.count[digit], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = DIGITS - 1;
            for (int d = DIGITS - 1; d >= 0; --d) {
                if (s.count[d] == 0) continue;
                digit = d;
                const bool reached = count ? before_count + s.count[d] >= count
                                           : before + s.share[d] >= share;
                if (reached) break;
                // The last digit there is stays in place: rounding may ask for a hair too much.
                bool more = false;
                for (int rest = d - 1; rest >= 0 && !more; --rest) more = s.count[rest] != 0;
                if (!more) break;
                before += s.share[d];
                before_count += s.count[d];
            }
            s.found = digit, s.before = before, s.before_count = before_count;
        }
        __syncthreads();
        prefix = prefix << 8 | (uint64)s.found;
        before = s.before, before_count = s.before_count;
    }
    const int digit = s.found;
    const uint32 equals = s.count[digit];
    const uint64 each = s.share[digit] / equals;  // equal logits have equal shares
    uint64 ties = count ? count - before_count
                        : each ? (share - before + each - 1) / each : 1;
    if (ties < 1) ties = 1;
    if (ties > equals) ties = equals;
    Place place;
    place.key = prefix, place.ties = (uint32)ties, place.through = before + ties * each;
    __syncthreads();  // the histogram may be overwritten
    return place;
}

// The id, in order of id, at which the sum of weight(v) reaches `wanted` (at least 1).
template <typename Weight>
__device__ __forceinline__ int nth(int V, uint64 wanted, Shared& s, Weight weight)
{
    // Each thread takes ids side by side; the prefix of the parts is summed by one thread.
    const int part = (V + blockDim.x - 1) / blockDim.x;
    const int start = threadIdx.x * part < V ? threadIdx.x * part : V;
    const int stop = start + part < V ? start + part : V;
    uint64 own = 0;
    for (int v = start; v < stop; ++v) own += weight(v);
    uint64 upto = own;  // inclusive prefix over the warp
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int offset = 1; offset < 32; offset <<= 1) {
        const uint64 other = __shfl_up_sync(FULL_WARP, upto, offset);
        if (lane >= (unsigned)offset) upto += other;
    }
    if (lane == 31) s.scratch[warp] = upto;
    if (threadIdx.x == 0) s.found = -1;
    __syncthreads();
    uint64 before = upto - own;
    for (unsigned w = 0; w < warp; ++w) before += s.scratch[w];
    if (before < wanted && before + own >= wanted) {
        uint64 sum = before;
        int v = start;
        for (; v < stop; ++v) {
            sum += weight(v);
            if (sum >= wanted) break;
        }
        s.found = v;
    }
    __syncthreads();
    const int found = s.found;
    __syncthreads();
    return found;
}

// Writes the next token of each of N pieces; a block takes one. logits (N, V), b (V,) or null.
// allowed (N, V) or (V,) bytes or null; allowed_stride V or 0. shares (N, V): scratch.
// position: tokens drawn so far, in device memory; `advance` below counts on. The number u of row
// n is draws[n] or, where draws is null, word t % 1024 of Philox's (seed, stream first + n, step t / 1024),
// as the sampler on the CPU draws it.
// next (N,): the token to read next. out (most, N): the tokens; -1 after the end. done (N,).
extern "C" __global__ void sample_forward(
    const REAL* logits, const REAL* b, const unsigned char* allowed, int allowed_stride, uint64* shares,
    int V, double temperature, int top_k, double top_p, int greedy, uint32 k0, uint32 k1, uint32 first,
    const int* position, const double* draws, int start, int* next, int* out, int* done)
{
    __shared__ Shared s;
    __shared__ REAL scratch[32];
    const int n = blockIdx.x, N = gridDim.x, t = *position;
    if (done[n]) {
        if (threadIdx.x == 0) next[n] = start, out[(size_t)t * N + n] = -1;
        return;
    }
    Row row;
    row.logits = logits + (size_t)n * V, row.b = b, row.V = V;
    row.allowed = allowed ? allowed + (size_t)n * allowed_stride : nullptr;
    row.shares = shares + (size_t)n * V;

    REAL largest = -INFINITY;
    for (int v = threadIdx.x; v < V; v += blockDim.x)
        if (!row.allowed || row.allowed[v]) {
            const REAL x = logit(row, v);
            if (x > largest) largest = x;
        }
    largest = block_max(largest, scratch);
    uint64 total = 0;
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
        const bool may = !row.allowed || row.allowed[v];
        // Greedy: the likeliest alone has a share, the first of them by its id.
        const double x = may ? ((double)logit(row, v) - (double)largest) / temperature : 0;
        const double e = exp(x);
        const uint64 share = !may ? 0
            : greedy ? (uint64)(logit(row, v) == largest)
                     : e >= 0 ? (uint64)(e * ONE_SHARE + 0.5) : 0;  // no share where it is NaN
        row.shares[v] = share;
        total += share;
    }
    __syncthreads();  // other threads read these shares
    total = block_sum(total, s.scratch);

    double u = 0;
    if (draws) {
        u = draws[n];
    } else {
        const Four bits = philox((uint32)(t % 1024) / 4, first + n, (uint32)(t / 1024), k0, k1);
        u = bits.word[t % 4] * (1.0 / 4294967296.0);
    }
    int id = -1;
    if (total == 0) {
        // No word is allowed: the end.
    } else if (greedy) {
        id = nth(V, 1, s, [&](int v) { return row.shares[v]; });
    } else if (top_k == 0 && top_p >= 1) {
        const uint64 wanted = (uint64)(u * (double)total) + 1;
        id = nth(V, wanted < total ? wanted : total, s, [&](int v) { return row.shares[v]; });
    } else {
        uint64 kept = total;
        if (top_k > 0 && top_k < V) kept = select(row, (uint32)top_k, 0, s).through;
        if (top_p < 1) {
            const double share = top_p * (double)kept;
            uint64 wanted = (uint64)share;
            wanted += (double)wanted < share || wanted == 0;
            kept = select(row, 0, wanted, s).through;
        }
        uint64 wanted = (uint64)(u * (double)kept) + 1;
        if (wanted > kept) wanted = kept;
        const Place place = select(row, 0, wanted, s);
        id = nth(V, place.ties, s, [&](int v) {
            const bool may = !row.allowed || row.allowed[v];
            return (uint64)(may && ordered(logit(row, v)) == place.key);
        });
    }
    if (threadIdx.x != 0) return;
    if (id < 0) id = start;
    next[n] = id;
    out[(size_t)t * N + n] = id == start ? -1 : id;
    done[n] = id == start;
}

// Count a token. Its own launch: every block of sample_forward reads the position.
extern "C" __global__ void sample_advance(int* position)
{
    if (threadIdx.x == 0) *position += 1;
}
