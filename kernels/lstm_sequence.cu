// All T time steps of an LSTM layer in one launch, H <= 256.
//
// A block owns LSTM_ROWS rows of the batch and goes through all steps alone, so that no grid-wide
// barrier is needed. Its 4H threads each hold one vector of H recurrent weights, read once:
// the first LSTM_REG in registers, the next `held` in shared memory (H = 128 in float is 256 KiB,
// which neither holds alone), and what is left, none at H <= 128 on an A100 or H100, is read from the
// L2 cache at each step. Weights go by quads of four: a quad is one 16-byte load.
#include "common.cuh"

#ifndef LSTM_THREADS
#define LSTM_THREADS 512  // at least 4H
#endif
#ifndef LSTM_REG
#define LSTM_REG 64  // weights of a thread in registers, a multiple of 4
#endif
#ifndef LSTM_ROWS
#define LSTM_ROWS 1  // rows of the batch of a block
#endif
#define REG_QUADS (LSTM_REG / 4)
#define SPARE (LSTM_THREADS <= 512 && LSTM_ROWS <= 2)  // whether registers are left for loads under way

// The weights of a thread beyond LSTM_REG: `held` quads in shared memory, the others in `far`.
struct Rest {
    const Quad* near;  // (held, threads)
    const REAL* far;   // weight k at far[k * stride]
    int stride, held, quads, H;
};

__device__ __forceinline__ Quad far_quad(const REAL* w, int stride, int k, int H)
{
    Quad q;
#pragma unroll
    for (int n = 0; n < 4; ++n) q.v[n] = k + n < H ? w[(size_t)(k + n) * stride] : REAL(0);
    return q;
}

__device__ __forceinline__ void multiply_add(REAL* sums, const Quad& w, const REAL* x, int width, int k)
{
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) {
        const Quad v = *reinterpret_cast<const Quad*>(x + r * width + k);
#pragma unroll
        for (int n = 0; n < 4; ++n) sums[n & 1 ? LSTM_ROWS + r : r] += w.v[n] * v.v[n];
    }
}

// Dot products of a thread's weights with x (LSTM_ROWS, width) in shared memory, zero beyond H.
// Two sums a row, so that one multiply-add needn't wait for the one before.
__device__ __forceinline__ void dot(
    REAL* out, const Quad* own, const Rest& rest, const REAL* x, int width)
{
    REAL sums[2 * LSTM_ROWS];
#pragma unroll
    for (int r = 0; r < 2 * LSTM_ROWS; ++r) sums[r] = 0;
#pragma unroll
    for (int q = 0; q < REG_QUADS; ++q) multiply_add(sums, own[q], x, width, 4 * q);
#pragma unroll(SPARE ? 4 : 2)
    for (int q = 0; q < rest.held; ++q)
        multiply_add(sums, rest.near[(size_t)q * blockDim.x + threadIdx.x], x, width, LSTM_REG + 4 * q);
    for (int q = REG_QUADS + rest.held; q < rest.quads; ++q)
        multiply_add(sums, far_quad(rest.far, rest.stride, 4 * q, rest.H), x, width, 4 * q);
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) out[r] = sums[r] + sums[LSTM_ROWS + r];
}

// Read a thread's weights: weight k is w[k * stride]. near has room for (held, threads) quads.
__device__ __forceinline__ Rest load_weights(
    Quad* own, Quad* near, const REAL* w, int stride, int held, int H)
{
#pragma unroll
    for (int q = 0; q < REG_QUADS; ++q) own[q] = far_quad(w, stride, 4 * q, H);
    for (int q = 0; q < held; ++q)
        near[(size_t)q * blockDim.x + threadIdx.x] = far_quad(w, stride, LSTM_REG + 4 * q, H);
    Rest rest;
    rest.near = near, rest.far = w, rest.stride = stride, rest.held = held;
    rest.quads = (H + 3) / 4, rest.H = H;
    return rest;
}

// The length of a vector of x in shared memory: H, and at least LSTM_REG, in whole quads.
__device__ __forceinline__ int padded(int H) { return H > LSTM_REG ? (H + 3) / 4 * 4 : LSTM_REG; }

// The unit of one of the block's rows that a thread takes beside its weights: LSTM_ROWS * H <= 4H <= threads.
struct Unit {
    int row, unit;  // of the block; of the layer
    bool real;
    uint32 at;  // in (B, H); 32 bits, as all offsets here: those of 64 take registers that weights need
};

__device__ __forceinline__ Unit own_unit(int first, int B, int H)
{
    Unit own;
    own.row = threadIdx.x / H, own.unit = threadIdx.x - own.row * H;
    own.real = own.row < LSTM_ROWS && first + own.row < B;
    own.at = (first + own.row) * H + own.unit;
    return own;
}

// gates (T, B, 4H): x·Wx -> activations i, f, g, o. Wh (H, 4H), b (4H,). keep (T, B) or null.
// c, h (T+1, B, H): slot 0 is the initial state. held: quads of weights a thread keeps in shared memory.
// Shared memory: held * threads quads, then LSTM_ROWS * (padded(H) + 4H) reals.
extern "C" __global__ void __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_forward(
    REAL* gates, const REAL* Wh, const REAL* b, const REAL* keep, REAL* c, REAL* h, int T, int B, int H,
    int held)
{
    SHARED_ARRAY(Quad, near);
    const int width = padded(H), first = blockIdx.x * LSTM_ROWS, j = threadIdx.x;
    REAL* state = reinterpret_cast<REAL*>(near + (size_t)held * blockDim.x);  // h (LSTM_ROWS, width)
    REAL* active = state + LSTM_ROWS * width;                                 // (LSTM_ROWS, 4H)
    const bool has_gate = j < 4 * H;
    const int column = has_gate ? j : 0;

    Quad own[REG_QUADS > 0 ? REG_QUADS : 1];
    const Rest rest = load_weights(own, near, Wh + column, 4 * H, held, H);
    for (int n = j; n < LSTM_ROWS * width; n += blockDim.x) {
        const int row = first + n / width, unit = n % width;
        state[n] = row < B && unit < H ? h[(size_t)row * H + unit] : REAL(0);
    }
    const REAL bias = b[column];
    const bool is_tanh = column / H == 2;
    const Unit mine = own_unit(first, B, H);
    const uint32 step = B * H;
    REAL cell = mine.real ? c[mine.at] : REAL(0);
    __syncthreads();

    for (int t = 0; t < T; ++t) {
        // What comes from device memory is asked for before the dot products that hide its latency.
        const REAL kept = mine.real && keep ? keep[t * B + first + mine.row] : REAL(1);
        REAL x[LSTM_ROWS], k[LSTM_ROWS], recurrent[LSTM_ROWS];
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            const bool real = has_gate && first + r < B;
            const uint32 row = t * B + first + r;
            x[r] = real ? gates[row * 4 * H + column] : REAL(0);
            k[r] = real && keep ? keep[row] : REAL(1);
        }
        dot(recurrent, own, rest, state, width);
        if (has_gate) {
#pragma unroll
            for (int r = 0; r < LSTM_ROWS; ++r) {
                const REAL a = x[r] + bias + k[r] * recurrent[r];
                const REAL value = is_tanh ? tanh_of(a) : sigmoid(a);
                active[r * 4 * H + column] = value;
                if (first + r < B) gates[(uint32)(t * B + first + r) * 4 * H + column] = value;
            }
        }
        __syncthreads();  // all gates are known, and nobody reads the old h any more
        if (mine.real) {
            const REAL* a = active + mine.row * 4 * H + mine.unit;
            cell = a[H] * (kept * cell) + a[0] * a[2 * H];
            const REAL out = a[3 * H] * tanh_of(cell);
            const uint32 next = (t + 1) * step + mine.at;
            c[next] = cell;
            h[next] = out;
            state[mine.row * width + mine.unit] = out;
        }
        __syncthreads();  // the new h is whole
    }
}

// gates (T, B, 4H): activations -> gradient of the pre-activations. c (T+1, B, H). dy (T, B, H).
// dh, dc (B, H): gradient of the final state -> of the initial state.
// Thread (q, u) sums gate q's share of unit u's dh: Wh[u, qH + k] over k.
// Shared memory: held * threads quads, then LSTM_ROWS * (4 * padded(H) + 11 * H) reals.
extern "C" __global__ void __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_backward(
    REAL* gates, const REAL* Wh, const REAL* keep, const REAL* c, const REAL* dy, REAL* dh, REAL* dc,
    int T, int B, int H, int held)
{
    SHARED_ARRAY(Quad, near);
    const int width = padded(H), first = blockIdx.x * LSTM_ROWS, j = threadIdx.x;
    REAL* dgates = reinterpret_cast<REAL*>(near + (size_t)held * blockDim.x);  // (4, LSTM_ROWS, width)
    REAL* shares = dgates + 4 * LSTM_ROWS * width;                             // (LSTM_ROWS, 4, H)
    REAL* active = shares + LSTM_ROWS * 4 * H;                                 // (LSTM_ROWS, 4, H)
    REAL* others = active + LSTM_ROWS * 4 * H;                                 // (LSTM_ROWS, 3, H): dy, c, keep
    const bool has_share = j < 4 * H;
    const int q = has_share ? j / H : 0, u = has_share ? j - q * H : 0;

    Quad own[REG_QUADS > 0 ? REG_QUADS : 1];
    const Rest rest = load_weights(own, near, Wh + (size_t)u * 4 * H + q * H, 1, held, H);
    for (int n = j; n < 4 * LSTM_ROWS * width; n += blockDim.x) dgates[n] = 0;
    for (int n = j; n < LSTM_ROWS * 4 * H; n += blockDim.x) {
        // The final state's gradient stands in gate 0's share; the other shares are 0.
        const int r = n / (4 * H), unit = n - r * 4 * H;
        shares[n] = unit < H && first + r < B ? dh[(size_t)(first + r) * H + unit] : REAL(0);
    }
    const Unit mine = own_unit(first, B, H);
    const uint32 step = B * H;
    // Thread (q, u) brings gate q of a row's unit u from device memory, and dy, c before the step, or keep.
    auto fetch = [&](int t, int r, REAL& gate, REAL& other) {
        const uint32 row = t * B + first + r;
        const bool real = has_share && first + r < B;
        gate = real ? gates[row * 4 * H + j] : REAL(0);
        other = REAL(1);
        if (real && q < 2) other = (q ? c : dy)[row * H + u];
        if (real && q == 2 && keep) other = keep[row];
    };
    auto put = [&](int r, REAL gate, REAL other) {
        if (has_share) active[r * 4 * H + j] = gate;
        if (has_share && q < 3) others[r * 3 * H + j] = other;
    };
    REAL gate[LSTM_ROWS], other[LSTM_ROWS];
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) fetch(T - 1, r, gate[r], other[r]), put(r, gate[r], other[r]);
    REAL cell = mine.real ? c[T * step + mine.at] : REAL(0), dcell = mine.real ? dc[mine.at] : REAL(0);
    REAL kept = 1;  // of the step after
    __syncthreads();

    for (int t = T - 1; t >= 0; --t) {
        if (mine.real) {
            const REAL* a = active + mine.row * 4 * H + mine.unit;
            const REAL i = a[0], f = a[H], g = a[2 * H], o = a[3 * H];
            const REAL* other = others + mine.row * 3 * H + mine.unit;
            const REAL* part = shares + mine.row * 4 * H + mine.unit;
            const REAL d = other[0] + kept * ((part[0] + part[H]) + (part[2 * H] + part[3 * H]));
            const REAL tanh_c = tanh_of(cell);
            cell = other[H], kept = other[2 * H];
            dcell += d * o * (1 - tanh_c * tanh_c);
            const REAL di = dcell * g * i * (1 - i), df = dcell * (kept * cell) * f * (1 - f);
            const REAL dg = dcell * i * (1 - g * g), dout = d * tanh_c * o * (1 - o);
            REAL* to = dgates + mine.row * width + mine.unit;
            const int next = LSTM_ROWS * width;
            to[0] = di, to[next] = df, to[2 * next] = dg, to[3 * next] = dout;
            dcell = dcell * f * kept;
        }
        __syncthreads();  // all of this step's dgates are known
        // The step before is asked for before the dot products that hide its latency.
#pragma unroll(SPARE ? LSTM_ROWS : 1)
        for (int r = 0; r < LSTM_ROWS; ++r) {
            if (has_share && first + r < B)
                gates[(uint32)(t * B + first + r) * 4 * H + j] = dgates[(q * LSTM_ROWS + r) * width + u];
            REAL now, also;
            fetch(t > 0 ? t - 1 : 0, r, now, also);
            if (SPARE) gate[r] = now, other[r] = also;
            else put(r, now, also);
        }
        REAL share[LSTM_ROWS];
        dot(share, own, rest, dgates + q * LSTM_ROWS * width, width);
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            if (has_share) shares[r * 4 * H + j] = share[r];
            if (SPARE) put(r, gate[r], other[r]);
        }
        __syncthreads();  // all shares of the next step's dh are known, and its gates
    }
    if (!mine.real) return;
    const REAL* part = shares + mine.row * 4 * H + mine.unit;
    dh[mine.at] = kept * ((part[0] + part[H]) + (part[2 * H] + part[3 * H]));
    dc[mine.at] = dcell;
}
