// All T time steps of an LSTM layer in one launch, H <= 256: the arithmetic. recurrent_weights.cuh says where the
// weights lie, exchange.cuh where the vector lies that they multiply.
//
// A block, or a cluster of blocks, takes LSTM_ROWS rows of the batch through all steps alone, so that no grid-wide
// barrier is needed. A block of a cluster has a part of the units, a multiple of 8, with all of their gates. A warp
// has 8 units: lane 8q + n is gate q of the n-th, so that gates of a unit meet by shuffles.
#ifndef LSTM_THREADS
#define LSTM_THREADS 512  // at least four for each unit of a block
#endif
#ifndef LSTM_ROWS
#define LSTM_ROWS 1  // rows of the batch of a block: 1, 2 or 4
#endif
#define LSTM_UNROLL (LSTM_THREADS <= 512 && LSTM_ROWS <= 2 ? 4 : 2)  // by the registers left for loads under way
#include "exchange.cuh"
#include "recurrent_weights.cuh"

// What a thread is: gate `gate` of unit `unit` in each of the block's rows, and one of those that compute that unit's
// cell in row `row`. Offsets have 32 bits: those of 64 take registers that weights need.
struct Lane {
    int gate, unit, row;
    int first, rows;  // of the batch: the block's first row, and how many of LSTM_ROWS there are
    bool unit_exists, owns_row, owns_cell;  // owns: is the one of a row's four lanes of a unit that writes
    uint32 cell;  // where the cell is in (B, H)
};

__device__ __forceinline__ Lane own_lane(int B, int H)
{
    Lane own;
    own.gate = threadIdx.x % 32 / 8, own.row = own.gate % LSTM_ROWS;
    own.unit = cluster_rank() * (blockDim.x / 4) + threadIdx.x / 32 * 8 + threadIdx.x % 8;
    own.first = blockIdx.x / CLUSTER * LSTM_ROWS;
    own.rows = B - own.first < LSTM_ROWS ? B - own.first : LSTM_ROWS;
    own.unit_exists = own.unit < H;
    own.owns_row = own.gate < own.rows;
    own.owns_cell = own.owns_row && own.unit_exists;
    own.cell = own.unit_exists && own.row < own.rows ? (own.first + own.row) * H + own.unit : 0;
    return own;
}

// v[n % N]; registers have no index.
template <int N>
__device__ __forceinline__ REAL pick(const REAL* v, int n)
{
    if (N == 1) return v[0];
    const REAL low = n & 1 ? v[1] : v[0];
    if (N == 2) return low;
    const REAL high = n & 1 ? v[3] : v[2];
    return n & 2 ? high : low;
}

// From the lane's gate of each row to all gates of the lane's row.
__device__ __forceinline__ Quad gates_of_row(const REAL* of_rows, int gate)
{
    REAL from[4];  // from[s]: of the lane of gate `gate ^ s`
#pragma unroll
    for (int s = 0; s < 4; ++s) {
        from[s] = pick<LSTM_ROWS>(of_rows, gate ^ s);
        if (s) from[s] = __shfl_xor_sync(FULL_WARP, from[s], 8 * s);
    }
    Quad out;
#pragma unroll
    for (int q = 0; q < 4; ++q) out.v[q] = pick<4>(from, q ^ gate);
    return out;
}

// From all gates of the lane's row to the lane's gate of each row.
__device__ __forceinline__ void rows_of_gate(REAL* of_rows, const Quad& gates, int gate)
{
    REAL from[LSTM_ROWS];
#pragma unroll
    for (int s = 0; s < LSTM_ROWS; ++s) {
        from[s] = pick<4>(gates.v, gate ^ s);
        if (s) from[s] = __shfl_xor_sync(FULL_WARP, from[s], 8 * s);
    }
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) of_rows[r] = pick<LSTM_ROWS>(from, r ^ gate);
}

// out[r]: the thread's weights times row r of x (LSTM_ROWS, width) in shared memory, which is 0 from H on. A row has
// two accumulators, so that a multiply-add needn't wait for the one before, and four where few warps have a row each.
__device__ __forceinline__ void dot(REAL* out, const RecurrentWeights& weights, const REAL* x, int width)
{
    const int chains = LSTM_ROWS == 1 && LSTM_THREADS <= 384 ? 4 : 2;
    REAL sums[chains][LSTM_ROWS] = {};
    weights.each([&](const Quad& w, int k) {
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            const Quad v = *reinterpret_cast<const Quad*>(x + r * width + k);
#pragma unroll
            for (int n = 0; n < 4; ++n) sums[n % chains][r] += w.v[n] * v.v[n];
        }
    });
#pragma unroll
    for (int r = 0; r < LSTM_ROWS; ++r) {
        out[r] = sums[0][r] + sums[1][r];
        if (chains == 4) out[r] += sums[2][r] + sums[3][r];
    }
}

// tanh or sigmoid, as common.cuh has them, by one exponential for lanes of either.
__device__ __forceinline__ float activation(float x, bool is_tanh)
{
    const float e = __expf(is_tanh ? 2 * (x > 40.0f ? 40.0f : x) : -x);
    const float part = __fdividef(is_tanh ? 2.0f : 1.0f, 1.0f + e);
    return is_tanh ? 1 - part : part;
}
__device__ __forceinline__ double activation(double x, bool is_tanh) { return is_tanh ? tanh_of(x) : sigmoid(x); }

// The length of a row of x: H, and at least LSTM_REG, in whole quads.
__device__ __forceinline__ int padded(int H) { return H > LSTM_REG ? (H + 3) / 4 * 4 : LSTM_REG; }

// The length of a gate's rows of x, so that the four that a warp reads at once lie in different banks.
__device__ __forceinline__ int padded_rows(int width) { return (LSTM_ROWS * width + 31) / 32 * 32 + 8; }

// Dynamic shared memory: the exchange's counters, 16 bytes; LSTM_SHARED * threads quads of weights; two buffers of
// `size` numbers each.
struct Shared {
    Quad* weights;
    Exchange exchange;
};

__device__ __forceinline__ Shared shared_of(unsigned char* bytes, int size, int rows, int T, int H)
{
    Shared out;
    out.weights = reinterpret_cast<Quad*>(bytes + 16);
    out.exchange.counters = reinterpret_cast<Mbarrier*>(bytes);
    out.exchange.buffers = reinterpret_cast<REAL*>(out.weights + LSTM_SHARED * blockDim.x);
    out.exchange.size = size, out.exchange.units = H, out.exchange.steps = T;
    out.exchange.bytes = rows * ((H + 3) / 4) * sizeof(Quad);
    return out;
}

// gates (T, B, 4H): x·Wx -> activations i, f, g, o. Wh (H, 4H), b (4H,). keep (T, B) or null. h0, c0 (B, H): the
// initial state, which slot 0 of c, h (T+1, B, H) gets too; hT, cT (B, H), the final one, may be the same arrays.
// Exchanged at each step: h of the block's rows, (LSTM_ROWS, padded(H)).
extern "C" __global__ void CLUSTERED __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_forward(
    REAL* gates, const REAL* Wh, const REAL* b, const REAL* keep, const REAL* h0, const REAL* c0, REAL* c, REAL* h,
    REAL* hT, REAL* cT, int T, int B, int H)
{
    SHARED_ARRAY(unsigned char, bytes);
    const int width = padded(H), size = LSTM_ROWS * width;
    const Lane own = own_lane(B, H);
    const Shared shared = shared_of(bytes, size, own.rows, T, H);
    const Exchange& exchange = shared.exchange;
    const int column = own.gate * H + (own.unit_exists ? own.unit : 0);

    RecurrentWeights weights;
    weights.load({Wh + column, 4 * H, H}, shared.weights);
    for (int n = threadIdx.x; n < 2 * size; n += blockDim.x) {
        const int row = n / width, unit = n % width;
        exchange.buffers[n] = row < own.rows && unit < H ? h0[(own.first + row) * H + unit] : REAL(0);
    }
    const REAL bias = b[column];
    REAL cell = c0[own.cell], made = h0[own.cell];
    REAL x[LSTM_ROWS], k[LSTM_ROWS];
    const auto fetch = [&](int t) {
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            const bool exists = own.unit_exists && r < own.rows;
            const uint32 row = t * B + own.first + r;
            x[r] = exists ? gates[row * 4 * H + column] : REAL(0);
            k[r] = exists && keep ? keep[row] : REAL(1);
        }
    };
    fetch(0);
    exchange.begin();
    if (exchange.is_idle(own.unit)) return;

    if (own.owns_cell) c[own.cell] = cell, h[own.cell] = made;
    for (int t = 0; t < T; ++t) {
        REAL value[LSTM_ROWS];
        dot(value, weights, exchange.buffer(t), width);
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) value[r] = activation(x[r] + bias + k[r] * value[r], own.gate == 2);
        const Quad gate = gates_of_row(value, own.gate);
        cell = gate.v[1] * (pick<LSTM_ROWS>(k, own.row) * cell) + gate.v[0] * gate.v[2];
        made = gate.v[3] * tanh_of(cell);
        exchange.put(t + 1, exchange.buffer(t + 1) + own.row * width, own.unit, made, own.owns_row);
        exchange.arrive();
        const uint32 next = (t + 1) * B * H + own.cell;
        if (own.owns_cell) c[next] = cell, h[next] = made;
        if (own.unit_exists)
#pragma unroll
            for (int r = 0; r < LSTM_ROWS; ++r)
                if (r < own.rows) gates[(uint32)(t * B + own.first + r) * 4 * H + column] = value[r];
        // The next step's is asked for before the wait and the products, which hide its latency.
        if (t + 1 < T) fetch(t + 1);
        exchange.wait(t + 1);
    }
    if (own.owns_cell) hT[own.cell] = made, cT[own.cell] = cell;
}

// gates (T, B, 4H): activations -> gradient of the pre-activations. c (T+1, B, H). h (T+1, B, H): 0 from here on
// where the state was reset before a step, as the gradient of Wh wants it. dy (T, B, H). dhT, dcT (B, H): gradient
// of the final state, null for zero; dh, dc (B, H): of the initial state. db (blocks or clusters, 4H): what the rows
// of each add to the bias's gradient. The thread of gate q and unit u sums gate q's share of the unit's dh,
// Wh[u, qH + k] over k.
// Exchanged at each step: the gradients of the gates, (4, LSTM_ROWS, padded(H)), each gate's rows padded.
extern "C" __global__ void CLUSTERED __launch_bounds__(LSTM_THREADS, 1) lstm_sequence_backward(
    REAL* gates, const REAL* Wh, const REAL* keep, const REAL* c, REAL* h, const REAL* dy, const REAL* dhT,
    const REAL* dcT, REAL* dh, REAL* dc, REAL* db, int T, int B, int H)
{
    SHARED_ARRAY(unsigned char, bytes);
    const int width = padded(H), of_gate = padded_rows(width), size = 4 * of_gate;
    const Lane own = own_lane(B, H);
    const Shared shared = shared_of(bytes, size, 4 * own.rows, T, H);
    const Exchange& exchange = shared.exchange;
    const int unit = own.unit_exists ? own.unit : 0, column = own.gate * H + unit;

    RecurrentWeights weights;
    weights.load({Wh + unit * 4 * H + own.gate * H, 1, H}, shared.weights);
    for (int n = threadIdx.x; n < 2 * size; n += blockDim.x) exchange.buffers[n] = 0;
    // Beside its gate a lane brings dy, c before the step, or keep: a number for each row is all that registers hold.
    const REAL* source = own.gate == 0 ? dy : own.gate == 1 ? c : own.gate == 2 ? keep : 0;
    const int of_row = own.gate == 2 ? 1 : H, in_row = own.gate == 2 ? 0 : unit;
    REAL gate[LSTM_ROWS], other[LSTM_ROWS];
    const auto fetch = [&](int t) {
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            const bool exists = own.unit_exists && r < own.rows;
            const uint32 row = t * B + own.first + r;
            gate[r] = exists ? gates[row * 4 * H + column] : REAL(0);
            other[r] = exists && source ? source[row * of_row + in_row] : REAL(1);
        }
    };
    fetch(T - 1);
    REAL cell = c[T * B * H + own.cell], dcell = dcT ? dcT[own.cell] : REAL(0);
    REAL carried = dhT ? dhT[own.cell] : REAL(0);
    REAL kept = 1, total = 0;  // kept: of the step after; total: of the lane's gate, over rows and steps
    exchange.begin();
    if (exchange.is_idle(own.unit)) return;

    // From the gradients of the state after step t to those of its gates.
    const auto go_back = [&](int t) {
        const Quad a = gates_of_row(gate, own.gate), others = gates_of_row(other, own.gate);
        const REAL i = a.v[0], f = a.v[1], g = a.v[2], o = a.v[3];
        const REAL d = others.v[0] + kept * carried, tanh_c = tanh_of(cell);
        cell = others.v[1], kept = others.v[2];
        dcell += d * o * (1 - tanh_c * tanh_c);
        Quad made;
        made.v[0] = dcell * g * i * (1 - i), made.v[1] = dcell * (kept * cell) * f * (1 - f);
        made.v[2] = dcell * i * (1 - g * g), made.v[3] = d * tanh_c * o * (1 - o);
        dcell = dcell * f * kept;
        REAL value[LSTM_ROWS];
        rows_of_gate(value, made, own.gate);
        REAL* to = exchange.buffer(T - t) + own.gate * of_gate;
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) exchange.put(T - t, to + r * width, own.unit, value[r], r < own.rows);
        exchange.arrive();
        if (own.owns_cell && kept == 0) h[(uint32)t * B * H + own.cell] = 0;
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r) {
            if (!own.unit_exists || r >= own.rows) continue;
            gates[(uint32)(t * B + own.first + r) * 4 * H + column] = value[r];
            total += value[r];
        }
        if (t > 0) fetch(t - 1);
    };
    // The gradient of h before a step, the n-th gone back, but for the reset.
    const auto product = [&](int n) {
        REAL share[LSTM_ROWS];
        dot(share, weights, exchange.buffer(n) + own.gate * of_gate, width);
#pragma unroll
        for (int r = 0; r < LSTM_ROWS; ++r)
#pragma unroll
            for (int lanes = 8; lanes < 32; lanes *= 2) share[r] += __shfl_xor_sync(FULL_WARP, share[r], lanes);
        return pick<LSTM_ROWS>(share, own.row);
    };
    go_back(T - 1);
    for (int n = 1; n < T; ++n) {
        exchange.wait(n);
        carried = product(n);
        go_back(T - 1 - n);
    }
    exchange.wait(T);
    carried = product(T);
    if (own.owns_cell) dh[own.cell] = kept * carried, dc[own.cell] = dcell;
    if (own.unit_exists) db[blockIdx.x / CLUSTER * 4 * H + column] = total;
}
