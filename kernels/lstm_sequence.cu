// All T time steps of an LSTM layer in one launch, H <= 256.
//
// A block owns LSTM_ROWS rows of the batch and goes through all steps alone, so that no grid-wide
// barrier is needed. Its 4H threads each hold one vector of H recurrent weights, read once:
// the first LSTM_REG in registers, the next `held` in shared memory (H = 128 in float is 256 KiB,
// which neither holds alone), and what is left, none at H <= 128 on an A100 or H100, is read from the
// L2 cache at each step. Weights go by quads of four: a quad is one 16-byte load.
//
// Where blocks can reach each other's shared memory, CLUSTER of them share the rows: each takes H / CLUSTER units,
// with all of their gates, so that all weights lie on chip, and gives what it finds to the others at each step. U is
// the units of a block, H where CLUSTER is 1.
#include "cluster.cuh"

#ifndef LSTM_THREADS
#define LSTM_THREADS 512  // at least 4U
#endif
#ifndef LSTM_REG
#define LSTM_REG 64  // weights of a thread in registers, a multiple of 4
#endif
#ifndef LSTM_ROWS
#define LSTM_ROWS 1  // rows of the batch of a block
#endif
#define REG_QUADS (LSTM_REG / 4)
// What others write must not be what a slower block still reads: two of it, in turn.
#define TURNS (CLUSTER > 1 ? 2 : 1)
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

// What a thread takes of the product: gate q of unit u, the block's `local`.
struct Gate {
    int q, local, u;
    bool real;
};

__device__ __forceinline__ Gate own_gate(int U, int H)
{
    Gate own;
    own.q = threadIdx.x / U, own.local = threadIdx.x - own.q * U, own.u = cluster_rank() * U + own.local;
    own.real = own.q < 4 && own.u < H;
    if (!own.real) own.q = own.local = own.u = 0;
    return own;
}

// The unit of one of the block's rows that a thread takes beside its weights: LSTM_ROWS * U <= 4U <= threads.
struct Unit {
    int row, local, unit;  // of the block; of the block's units; of the layer
    bool real;
    uint32 at;  // in (B, H); 32 bits, as all offsets here: those of 64 take registers that weights need
};

__device__ __forceinline__ Unit own_unit(int first, int B, int U, int H)
{
    Unit own;
    own.row = threadIdx.x / U, own.local = threadIdx.x - own.row * U;
    own.unit = cluster_rank() * U + own.local;
    own.real = own.row < LSTM_ROWS && first + own.row < B && own.unit < H;
    own.at = (first + own.row) * H + own.unit;
    return own;
}

// Write to all blocks of the cluster, at the place that is this in one's own.
__device__ __forceinline__ void give(REAL* own, REAL value)
{
#pragma unroll
    for (int rank = 0; rank < CLUSTER; ++rank) *of_block(own, rank) = value;
}

// gates (T, B, 4H): x·Wx -> activations i, f, g, o. Wh (H, 4H), b (4H,). keep (T, B) or null. h0, c0 (B, H): the
// initial state, which slot 0 of c, h (T+1, B, H) gets too; hT, cT (B, H), the final one, may be the same arrays.
// held: quads of weights a thread keeps in shared memory.
// Shared memory: held * threads quads, then LSTM_ROWS * (TURNS * padded(H) + 4U) reals.
extern "C" __global__ void CLUSTERED __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_forward(
    REAL* gates, const REAL* Wh, const REAL* b, const REAL* keep, const REAL* h0, const REAL* c0, REAL* c, REAL* h,
    REAL* hT, REAL* cT, int T, int B, int H, int held)
{
    SHARED_ARRAY(Quad, near);
    const int U = (H + CLUSTER - 1) / CLUSTER, width = padded(H), j = threadIdx.x;
    const int first = blockIdx.x / CLUSTER * LSTM_ROWS;
    REAL* state = reinterpret_cast<REAL*>(near + (size_t)held * blockDim.x);  // h (TURNS, LSTM_ROWS, width)
    REAL* active = state + TURNS * LSTM_ROWS * width;                         // (LSTM_ROWS, 4U)
    const Gate gate = own_gate(U, H);
    const int column = gate.q * H + gate.u;

    Quad own[REG_QUADS > 0 ? REG_QUADS : 1];
    const Rest rest = load_weights(own, near, Wh + column, 4 * H, held, H);
    for (int n = j; n < TURNS * LSTM_ROWS * width; n += blockDim.x) {
        const int row = first + n / width % LSTM_ROWS, unit = n % width;
        state[n] = row < B && unit < H ? h0[(size_t)row * H + unit] : REAL(0);
    }
    const REAL bias = b[column];
    const Unit mine = own_unit(first, B, U, H);
    const uint32 step = B * H;
    REAL cell = mine.real ? c0[mine.at] : REAL(0);
    cluster_barrier();  // all have begun, and know h
    if (mine.real) c[mine.at] = cell, h[mine.at] = h0[mine.at];

    for (int t = 0; t < T; ++t) {
        // What comes from device memory is asked for before the dot products that hide its latency.
        const REAL kept = mine.real && keep ? keep[t * B + first + mine.row] : REAL(1);
        REAL x[LSTM_ROWS], k[LSTM_ROWS], recurrent[LSTM_ROWS];
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            const bool real = gate.real && first + r < B;
            const uint32 row = t * B + first + r;
            x[r] = real ? gates[row * 4 * H + column] : REAL(0);
            k[r] = real && keep ? keep[row] : REAL(1);
        }
        dot(recurrent, own, rest, state + t % TURNS * LSTM_ROWS * width, width);
        if (gate.real) {
#pragma unroll
            for (int r = 0; r < LSTM_ROWS; ++r) {
                const REAL a = x[r] + bias + k[r] * recurrent[r];
                const REAL value = gate.q == 2 ? tanh_of(a) : sigmoid(a);
                active[(r * 4 + gate.q) * U + gate.local] = value;
                recurrent[r] = value;
            }
        }
        __syncthreads();  // all gates are known, and nobody reads the old h any more
        REAL made = 0;
        if (mine.real) {
            const REAL* a = active + mine.row * 4 * U + mine.local;
            cell = a[U] * (kept * cell) + a[0] * a[2 * U];
            made = a[3 * U] * tanh_of(cell);
            give(state + ((t + 1) % TURNS * LSTM_ROWS + mine.row) * width + mine.unit, made);
        }
        cluster_barrier();  // the new h is whole
        // Only now: a cluster's barrier waits until all that was written before it has reached device memory.
        if (mine.real) c[(t + 1) * step + mine.at] = cell, h[(t + 1) * step + mine.at] = made;
        if (gate.real)
#pragma unroll
            for (int r = 0; r < LSTM_ROWS; ++r)
                if (first + r < B) gates[(uint32)(t * B + first + r) * 4 * H + column] = recurrent[r];
    }
    if (mine.real) hT[mine.at] = h[T * step + mine.at], cT[mine.at] = cell;
}

// gates (T, B, 4H): activations -> gradient of the pre-activations. c (T+1, B, H). h (T+1, B, H): 0 from here on
// where the state was reset before a step, as the gradient of Wh wants it. dy (T, B, H). dhT, dcT (B, H): gradient
// of the final state, null for zero; dh, dc (B, H): of the initial state.
// Thread (q, u) sums gate q's share of unit u's dh: Wh[u, qH + k] over k.
// Shared memory: held * threads quads, then LSTM_ROWS * (4 * TURNS * padded(H) + 11U) reals.
extern "C" __global__ void CLUSTERED __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_backward(
    REAL* gates, const REAL* Wh, const REAL* keep, const REAL* c, REAL* h, const REAL* dy, const REAL* dhT,
    const REAL* dcT, REAL* dh, REAL* dc, int T, int B, int H, int held)
{
    SHARED_ARRAY(Quad, near);
    const int U = (H + CLUSTER - 1) / CLUSTER, width = padded(H), j = threadIdx.x;
    const int first = blockIdx.x / CLUSTER * LSTM_ROWS, turn = 4 * LSTM_ROWS * width;
    REAL* dgates = reinterpret_cast<REAL*>(near + (size_t)held * blockDim.x);  // (TURNS, 4, LSTM_ROWS, width)
    REAL* shares = dgates + TURNS * turn;                                      // (LSTM_ROWS, 4, U)
    REAL* active = shares + LSTM_ROWS * 4 * U;                                 // (LSTM_ROWS, 4, U)
    REAL* others = active + LSTM_ROWS * 4 * U;                                 // (LSTM_ROWS, 3, U): dy, c, keep
    const Gate own_share = own_gate(U, H);
    const bool has_share = own_share.real;
    const int q = own_share.q, u = own_share.u, local = own_share.local;

    Quad own[REG_QUADS > 0 ? REG_QUADS : 1];
    const Rest rest = load_weights(own, near, Wh + (size_t)u * 4 * H + q * H, 1, held, H);
    for (int n = j; n < TURNS * turn; n += blockDim.x) dgates[n] = 0;
    for (int n = j; n < LSTM_ROWS * 4 * U; n += blockDim.x) {
        // The final state's gradient stands in gate 0's share; the other shares are 0.
        const int r = n / (4 * U), at = n - r * 4 * U, unit = cluster_rank() * U + at;
        const bool real = dhT && at < U && unit < H && first + r < B;
        shares[n] = real ? dhT[(size_t)(first + r) * H + unit] : REAL(0);
    }
    const Unit mine = own_unit(first, B, U, H);
    const uint32 step = B * H;
    // Thread (q, u) brings gate q of a row's unit u from device memory, and dy, c before the step, or keep.
    auto fetch = [&](int t, int r, REAL& gate, REAL& other) {
        const uint32 row = t * B + first + r;
        const bool real = has_share && first + r < B;
        gate = real ? gates[row * 4 * H + q * H + u] : REAL(0);
        other = REAL(1);
        if (real && q < 2) other = (q ? c : dy)[row * H + u];
        if (real && q == 2 && keep) other = keep[row];
    };
    auto put = [&](int r, REAL gate, REAL other) {
        if (has_share) active[(r * 4 + q) * U + local] = gate;
        if (has_share && q < 3) others[(r * 3 + q) * U + local] = other;
    };
    REAL gate[LSTM_ROWS], other[LSTM_ROWS];
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) fetch(T - 1, r, gate[r], other[r]), put(r, gate[r], other[r]);
    REAL cell = mine.real ? c[T * step + mine.at] : REAL(0), dcell = mine.real && dcT ? dcT[mine.at] : REAL(0);
    REAL kept = 1;  // of the step after
    cluster_barrier();  // all have begun

    for (int t = T - 1; t >= 0; --t) {
        REAL* now = dgates + t % TURNS * turn;
        if (mine.real) {
            const REAL* a = active + mine.row * 4 * U + mine.local;
            const REAL i = a[0], f = a[U], g = a[2 * U], o = a[3 * U];
            const REAL* other = others + mine.row * 3 * U + mine.local;
            const REAL* part = shares + mine.row * 4 * U + mine.local;
            const REAL d = other[0] + kept * ((part[0] + part[U]) + (part[2 * U] + part[3 * U]));
            const REAL tanh_c = tanh_of(cell);
            cell = other[U], kept = other[2 * U];
            dcell += d * o * (1 - tanh_c * tanh_c);
            const REAL di = dcell * g * i * (1 - i), df = dcell * (kept * cell) * f * (1 - f);
            const REAL dg = dcell * i * (1 - g * g), dout = d * tanh_c * o * (1 - o);
            REAL* to = now + mine.row * width + mine.unit;
            const int next = LSTM_ROWS * width;
            give(to, di), give(to + next, df), give(to + 2 * next, dg), give(to + 3 * next, dout);
            dcell = dcell * f * kept;
        }
        cluster_barrier();  // all of this step's dgates are known
        if (mine.real && kept == 0) h[t * step + mine.at] = 0;
        // The step before is asked for before the dot products that hide its latency.
#pragma unroll(SPARE ? LSTM_ROWS : 1)
        for (int r = 0; r < LSTM_ROWS; ++r) {
            if (has_share && first + r < B)
                gates[(uint32)(t * B + first + r) * 4 * H + q * H + u] = now[(q * LSTM_ROWS + r) * width + u];
            REAL before, also;
            fetch(t > 0 ? t - 1 : 0, r, before, also);
            if (SPARE) gate[r] = before, other[r] = also;
            else put(r, before, also);
        }
        REAL share[LSTM_ROWS];
        dot(share, own, rest, now + q * LSTM_ROWS * width, width);
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            if (has_share) shares[(r * 4 + q) * U + local] = share[r];
            if (SPARE) put(r, gate[r], other[r]);
        }
        __syncthreads();  // all shares of the next step's dh are known, and its gates
    }
    if (!mine.real) return;
    const REAL* part = shares + mine.row * 4 * U + mine.local;
    dh[mine.at] = kept * ((part[0] + part[U]) + (part[2 * U] + part[3 * U]));
    dc[mine.at] = dcell;
}
