// Drawing the next token of each piece on the device, as sampler.choose does for the same number u.
//
// A token's share is a whole number, exp((x - max) / temperature) in units of 1 / ONE: whole numbers add
// up to the same sum in any order, so that shared-memory atomics may add them and a seed gives the same
// music. Shares are in the order of the logits; so cuts (top-k, top-p) and draws in the order of likelihood
// are radix selections of shares: digit by digit from the highest, the digit at which the count or the share
// wanted is reached. A token without a share is never drawn.
#include "common.cuh"

#define DIGITS 256
#define LANE_DIGITS (DIGITS / 32)

// A share, which has the size of a logit and lies in its place; how many make up the largest token's.
template <typename T>
struct Shares;
template <>
struct Shares<float> {
    typedef uint32 Share;
    static __device__ __forceinline__ float one() { return 1073741824.0f; }  // 2^30
    static __device__ __forceinline__ uint32 bits(float x) { return __float_as_uint(x); }
    static __device__ __forceinline__ float real(uint32 x) { return __int_as_float((int)x); }
    static __device__ __forceinline__ float power(float x) { return expf(x); }
};
template <>
struct Shares<double> {
    typedef uint64 Share;
    static __device__ __forceinline__ double one() { return 1099511627776.0; }  // 2^40
    static __device__ __forceinline__ uint64 bits(double x) { return (uint64)__double_as_longlong(x); }
    static __device__ __forceinline__ double real(uint64 x) { return __longlong_as_double((long long)x); }
    static __device__ __forceinline__ double power(double x) { return exp(x); }
};
typedef Shares<REAL> Kind;
typedef Kind::Share Share;
#define TOP_SHIFT (sizeof(REAL) == 4 ? 24 : 40)  // of the highest digit: shares have 31 bits, or 41

struct Shared {
    uint64 share[DIGITS];
    uint32 count[DIGITS];
    uint64 scratch[32];
    REAL largest[32];
    uint64 before;  // share of what stands before
    uint32 before_count;
    int found;
};

// What tokens hold together.
struct Held {
    uint64 share;
    uint32 count;
};

__device__ __forceinline__ Held operator+(Held a, const Held& b)
{
    a.share += b.share, a.count += b.count;
    return a;
}

struct Place {
    Share key;       // the share of the token found
    uint32 ties;     // how many of its equals, in order of id, stand up to and with it
    uint64 through;  // share of all up to and with it
};

// The digit, from the highest down, at which the count or the share wanted is reached, and what stands before it;
// to s. Digit 0, which most tokens have, isn't counted: it is what is left. For one warp.
__device__ __forceinline__ void find_digit(Shared& s, const Held& before, uint32 count, uint64 share)
{
    const int lane = threadIdx.x, highest = DIGITS - 1 - LANE_DIGITS * lane;
    Held own = {0, 0};
    for (int n = 0; n < LANE_DIGITS; ++n)
        if (highest - n > 0) own.share += s.share[highest - n], own.count += s.count[highest - n];
    Held upto = own;
#pragma unroll
    for (int offset = 1; offset < 32; offset <<= 1) {
        Held other;
        other.share = __shfl_up_sync(FULL_WARP, upto.share, offset);
        other.count = __shfl_up_sync(FULL_WARP, upto.count, offset);
        if (lane >= offset) upto = upto + other;
    }
    const Held all = before + upto;
    const bool reached = count ? all.count >= count : all.share >= share;
    const uint32 lanes = __ballot_sync(FULL_WARP, reached);
    if (lanes ? lane != __ffs(lanes) - 1 : lane != 31) return;
    if (!lanes) {  // digit 0
        s.found = 0, s.before = all.share, s.before_count = all.count;
        return;
    }
    Held sum = before + upto;
    sum.share -= own.share, sum.count -= own.count;
    int digit = highest;
    for (; digit > highest - LANE_DIGITS + 1; --digit) {
        Held next = sum;
        next.share += s.share[digit], next.count += s.count[digit];
        if (count ? next.count >= count : next.share >= share) break;
        sum = next;
    }
    s.found = digit, s.before = sum.share, s.before_count = sum.count;
}

// The token in order of likelihood, equals by id, at which the count reached is `count`, or, where count
// is 0, the share reached is at least `share`. Both are within what all hold, those with a share.
__device__ __forceinline__ Place select(const Share* shares, int V, uint32 count, uint64 share, Shared& s)
{
    Share prefix = 0;
    Held before = {0, 0};
#pragma unroll 1
    for (int shift = TOP_SHIFT; shift >= 0; shift -= 8) {
        for (int d = threadIdx.x; d < DIGITS; d += blockDim.x) s.share[d] = 0, s.count[d] = 0;
        __syncthreads();
        for (int v = threadIdx.x; v < V; v += blockDim.x) {
            const Share own = shares[v];
            const int digit = (int)(own >> shift & (DIGITS - 1));
            // Two shifts: one by all bits of a share is none.
            if (digit == 0 || own >> shift >> 8 != prefix) continue;
            atomicAdd(&s.share[digit], (uint64)own);
            atomicAdd(&s.count[digit], 1u);
        }
        __syncthreads();
        if (threadIdx.x < 32) find_digit(s, before, count, share);
        __syncthreads();
        prefix = prefix << 8 | (Share)s.found;
        before.share = s.before, before.count = s.before_count;
    }
    const uint64 each = prefix ? prefix : 1;  // equals have equal shares; one without is never found
    Place place;
    place.key = prefix;
    place.ties = count ? count - before.count : (uint32)((share - before.share + each - 1) / each);
    place.through = before.share + place.ties * each;
    __syncthreads();  // the histogram may be overwritten
    return place;
}

// The id, in order of id, at which the sum of weight(v) reaches `wanted` (at least 1). Each warp takes ids side by
// side.
template <typename Weight>
__device__ __forceinline__ int nth(int V, uint64 wanted, Shared& s, Weight weight)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int part = 32 * ((V + blockDim.x - 1) / blockDim.x);
    const int start = warp * part < V ? warp * part : V, stop = start + part < V ? start + part : V;
    uint64 own = 0;
    for (int v = start + lane; v < stop; v += 32) own += weight(v);
    own = warp_sum(own);
    if (lane == 0) s.scratch[warp] = own;
    if (threadIdx.x == 0) s.found = -1;
    __syncthreads();
    uint64 before = 0;
    for (int w = 0; w < warp; ++w) before += s.scratch[w];
    if (before < wanted && before + own >= wanted) {  // one warp, or none
        for (int first = start; first < stop; first += 32) {
            uint64 upto = first + lane < stop ? (uint64)weight(first + lane) : 0;
#pragma unroll
            for (int offset = 1; offset < 32; offset <<= 1) {
                const uint64 other = __shfl_up_sync(FULL_WARP, upto, offset);
                if (lane >= offset) upto += other;
            }
            const uint32 reached = __ballot_sync(FULL_WARP, before + upto >= wanted);
            if (reached) {
                if (lane == 0) s.found = first + __ffs(reached) - 1;
                break;
            }
            before += __shfl_sync(FULL_WARP, upto, 31);
        }
    }
    __syncthreads();
    const int found = s.found;
    __syncthreads();
    return found;
}

// What a piece's draw is made from; the fields of Options and the random numbers' key.
struct Rules {
    REAL temperature;
    double top_p;
    int top_k, greedy, exact;
};

// The id drawn from a row of logits by u, -1 where no token may be drawn. shares (V,): scratch, where logits stand
// first.
__device__ __forceinline__ int drawn(
    const REAL* logits, const REAL* b, const unsigned char* allowed, Share* shares, int V, const Rules& rules,
    double u, Shared& s)
{
    REAL largest = -INFINITY;
    for (int v = 4 * threadIdx.x; v < V; v += 4 * blockDim.x) {
        const Quad x = read_quad(logits, v, V);
        const Quad bias = b ? read_quad(b, v, V) : Quad();
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            if (v + n >= V) continue;
            const REAL own = x.v[n] + bias.v[n];
            const bool may = !allowed || allowed[v + n];
            if (may && own > largest) largest = own;
            // What isn't allowed is no number: it is never the largest, and has no share.
            shares[v + n] = Kind::bits(may ? own : REAL(INFINITY) - REAL(INFINITY));
        }
    }
    largest = block_max(largest, s.largest);  // and all logits stand there
    Held all = {0, 0};
    for (int v = threadIdx.x; v < V; v += blockDim.x) {
        const REAL x = Kind::real(shares[v]);
        // Alike whatever the temperature, and however large; minus infinity alone is nothing to draw.
        const bool top = x == largest && largest > -INFINITY;
        const REAL power = Kind::power(top ? REAL(0) : (x - largest) / rules.temperature);
        // Greedy: the likeliest alone has a share, the first of them by its id.
        const Share share = rules.greedy ? (Share)(x == largest)
            : power >= 0 ? (Share)(power * Kind::one() + REAL(0.5)) : 0;  // none where it is no number
        shares[v] = share;
        all.share += share, all.count += share != 0;
    }
    all.share = block_sum(all.share, s.scratch);  // and other threads may read these shares
    all.count = (uint32)block_sum((uint64)all.count, s.scratch);
    auto of = [&](int v) { return (uint64)shares[v]; };
    if (all.share == 0) return -1;
    if (rules.greedy) return nth(V, 1, s, of);
    if (rules.top_k == 0 && rules.top_p >= 1) {
        const uint64 wanted = (uint64)(u * (double)all.share) + 1;
        return nth(V, wanted < all.share ? wanted : all.share, s, of);
    }
    const uint64 own = rules.exact >= 0 ? of(rules.exact) : 0;
    if (own) {  // drawn as likely as it is, and the others cut among themselves
        const double share = (double)own / (double)all.share;
        if (u < share) return rules.exact;
        u = (u - share) / (1 - share);
        all.share -= own, all.count -= 1;
        __syncthreads();  // all have read it
        if (threadIdx.x == 0) shares[rules.exact] = 0;
        __syncthreads();
    }
    uint64 kept = all.share;
    if (rules.top_k > 0 && (uint32)rules.top_k < all.count)
        kept = select(shares, V, (uint32)rules.top_k, 0, s).through;
    if (rules.top_p < 1) {
        const double share = rules.top_p * (double)kept;
        uint64 wanted = (uint64)share;
        wanted += (double)wanted < share || wanted == 0;
        kept = select(shares, V, 0, wanted < kept ? wanted : kept, s).through;
    }
    uint64 wanted = (uint64)(u * (double)kept) + 1;
    if (wanted > kept) wanted = kept;
    const Place place = select(shares, V, 0, wanted, s);
    return nth(V, place.ties, s, [&](int v) { return (uint64)(shares[v] == place.key); });
}

// Writes the next token of each of N pieces; a block takes one. logits (N, V), whose rows begin every `stride`; b
// (V,) or null.
// allowed (N, V) or (V,) bytes or null; allowed_stride V or 0. in_memory (N, V): scratch for shares, or null where
// dynamic shared memory has room for those of a piece.
// position: tokens drawn so in_memory, in device memory; `advance` below counts on. The number u of row
// n is draws[n] or, where draws is null, word t % 1024 of Philox's (seed, stream first + n, step t / 1024),
// as the sampler on the CPU draws it.
// copied (N,): a token that recall_choose took in place of a draw, or -1; or null.
// next (N,): the token to read next. out (most, N): the tokens; -1 after the end. done (N,).
extern "C" __global__ void __launch_bounds__(1024, 1) sample_forward(
    const REAL* logits, int stride, const REAL* b, const unsigned char* allowed, int allowed_stride,
    Share* in_memory, int V, double temperature, int top_k, double top_p, int greedy, int exact, uint32 k0, uint32 k1,
    uint32 first, const int* position, const double* draws, const int* copied, int start, int* next, int* out,
    int* done)
{
    SHARED_ARRAY(Share, in_shared);
    __shared__ Shared s;
    const int n = blockIdx.x, N = gridDim.x, t = *position;
    if (done[n]) {
        if (threadIdx.x == 0) next[n] = start, out[(size_t)t * N + n] = -1;
        return;
    }
    const double u = draws ? draws[n] : uniform(t, first + n, k0, k1);
    Rules rules;
    rules.temperature = (REAL)temperature, rules.top_p = top_p, rules.top_k = top_k, rules.greedy = greedy;
    rules.exact = exact;
    const REAL* row = logits + (size_t)n * stride;
    const unsigned char* mask = allowed ? allowed + (size_t)n * allowed_stride : 0;
    int id = copied ? copied[n] : -1;
    if (id < 0) id = drawn(row, b, mask, in_memory ? in_memory + (size_t)n * V : in_shared, V, rules, u, s);
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
