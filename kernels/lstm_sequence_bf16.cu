// All T time steps of an LSTM layer in one launch, the recurrent product on the tensor cores: H <= 128, a
// multiple of 16. As lstm_sequence.cu, but for h, Wh and the gates' gradients, which are rounded to bf16
// where they are operands of that product; its accumulators, the activations and the state are fp32.
//
// A block owns LSTM_ROWS rows of the batch and goes through all steps alone. Each of its H / 16 warps owns
// 16 units with all of their gates, and holds its share of Wh in registers, H of a lane. Gates stand in the
// units' rows (A) and the batch in their columns (B), of which a product has 8 whether there is use for them or
// not: where the block has fewer rows, each stands in several columns, and the lanes that find the same
// sums in their fragments go on with different units. So no gate passes through shared memory.
#include "tensor_cores.cuh"

#ifndef LSTM_H
#define LSTM_H 128
#endif
#ifndef LSTM_ROWS
#define LSTM_ROWS 2  // rows of the batch of a block: 2, 4 or 8
#endif
#define WARPS (LSTM_H / 16)  // as many as there are steps of 16 units in a sum over h
#define CELLS (LSTM_ROWS / 2)  // units of rows that a lane owns
#define UNITS (LSTM_ROWS == 8 ? 2 : 1)  // of a lane's cells
#define STAGES (LSTM_ROWS == 8 ? 3 : 4)  // steps whose inputs are in shared memory or on their way
#define THREADS (2 * LSTM_H)
// Rows in shared memory are padded so that a warp meets no bank twice, but for some with 8 rows a block.
#define STATE_WIDTH (LSTM_H + 8)
#define PADDING (32 / LSTM_ROWS)
#define INPUT_WIDTH (4 * LSTM_H + PADDING)
#define SAVED_WIDTH (6 * LSTM_H + PADDING)
#define PARTIAL_WIDTH ((LSTM_H + 31) / 32 * 32 + PADDING)

// What a lane 4g + q owns: CELLS cells, each a unit of a row of the batch. A fragment's rows g and g + 8 are
// units 2g and 2g + 1 of the warp's 16, its columns 2q and 2q + 1 rows of the batch.
struct Lane {
    int g, q, warp, first, last;  // rows of the batch: of the block's row 0; the batch's last

    __device__ __forceinline__ int half(int p) const { return LSTM_ROWS == 8 ? p / 2 : q / 2; }
    __device__ __forceinline__ int unit(int p) const { return 16 * warp + 2 * g + half(p); }
    __device__ __forceinline__ int row(int p) const
    {
        return LSTM_ROWS == 8 ? 2 * q + p % 2 : LSTM_ROWS == 4 ? 2 * (q % 2) + p : q % 2;
    }
    __device__ __forceinline__ bool exists(int p) const { return first + row(p) <= last; }
    // The row of the batch. Beyond the last one it is that one's copy, which is computed and not written.
    __device__ __forceinline__ int batch_row(int p) const { return exists(p) ? first + row(p) : last; }
    // Where in (B, H) a cell stands; 32 bits, as all offsets here.
    __device__ __forceinline__ uint32 at(int p) const { return batch_row(p) * LSTM_H + unit(p); }
    // What a C fragment holds of a cell.
    __device__ __forceinline__ float accumulator(const float* c, int p) const
    {
        return LSTM_ROWS == 8 ? c[p] : q / 2 ? c[2 + p] : c[p];
    }
};

__device__ __forceinline__ Lane own_lane(int B)
{
    Lane own;
    own.g = threadIdx.x % 32 / 4, own.q = threadIdx.x % 4, own.warp = threadIdx.x / 32;
    own.first = blockIdx.x * LSTM_ROWS, own.last = B - 1;
    return own;
}

// The block's row that stands in column n of B.
__device__ __forceinline__ int row_of_column(int n) { return LSTM_ROWS == 2 ? n / 2 % 2 : n % LSTM_ROWS; }

// Two instructions of the special unit each, where those of common.cuh have a few more around them.
#ifdef HOST_CUDA
__device__ __forceinline__ float reciprocal(float x) { return 1 / x; }
#else
__device__ __forceinline__ float reciprocal(float x)
{
    float out;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
#endif
__device__ __forceinline__ float sigmoid_of(float x) { return reciprocal(1 + exp2_of(-LOG2_E * x)); }
__device__ __forceinline__ float tanh_by_exp2(float x)
{
    return 1 - 2 * reciprocal(1 + exp2_of(2 * LOG2_E * x));
}

// Two neighbours in memory, one load of 8 bytes.
struct alignas(8) Pair {
    float v[2];
};

__device__ __forceinline__ bf16 rounded(float x)
{
    bf16 out;
    out.bits = (unsigned short)bf16_pair(x, 0);
    return out;
}

// Copy the block's rows of a step, which is rows `step` and on of a matrix of that width, to rows in shared
// memory that begin every `pitch` floats.
template <int width>
__device__ __forceinline__ void copy_rows(float* to, int pitch, const float* from, int step, const Lane& own)
{
#pragma unroll
    for (int k = 0; k < LSTM_ROWS * width / 4; k += THREADS) {
        const int n = k + threadIdx.x;
        if (n >= LSTM_ROWS * width / 4) continue;
        const int row = n / (width / 4), at = n % (width / 4) * 4;
        const int of_batch = own.first + row <= own.last ? own.first + row : own.last;
        copy_async(to + row * pitch + at, from + ((uint32)(step + of_batch) * width + at), true);
    }
}

// Bring the block's keep of all steps to the L2 cache: each is a line of its own.
__device__ __forceinline__ void prefetch_keep(const float* keep, int first, int T, int B)
{
#ifndef HOST_CUDA
    for (int t = threadIdx.x; keep && t < T; t += THREADS) {
        const float* of_step = keep + ((uint32)t * B + first);
        asm volatile("prefetch.global.L2 [%0];" :: "l"(__cvta_generic_to_global(of_step)));
    }
#endif
}

// A warp's weights going forward, gate by gate: A's rows are its 16 units, A's columns those of h.
__device__ __forceinline__ void load_columns(uint32 (&weights)[4][WARPS][4], const float* Wh, const Lane& own)
{
    const int H = LSTM_H;
#pragma unroll
    for (int k = 0; k < WARPS; ++k)
#pragma unroll
        for (int gate = 0; gate < 4; ++gate)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int unit = 16 * k + 8 * half + 2 * own.q;
                const float* from = Wh + unit * 4 * H + gate * H + 16 * own.warp + 2 * own.g;
                const Pair low = *reinterpret_cast<const Pair*>(from);
                const Pair high = *reinterpret_cast<const Pair*>(from + 4 * H);
                weights[gate][k][2 * half] = bf16_pair(low.v[0], high.v[0]);
                weights[gate][k][2 * half + 1] = bf16_pair(low.v[1], high.v[1]);
            }
}

// A warp's weights going back: A's rows are units of h, 16 at a time, A's columns its own units with their
// four gates. In step s those of unit 4q + s are lane q's: 16 bytes of a row of Wh are four steps' weights.
__device__ __forceinline__ void load_rows(uint32 (&weights)[WARPS][4][4], const float* Wh, const Lane& own)
{
    const int H = LSTM_H;
#pragma unroll
    for (int m = 0; m < WARPS; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* from = Wh + (16 * m + 2 * own.g + half) * 4 * H + 16 * own.warp + 4 * own.q;
            QuadOf<float> w[4];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                w[gate] = *reinterpret_cast<const QuadOf<float>*>(from + gate * H);
#pragma unroll
            for (int s = 0; s < 4; ++s) {
                weights[m][s][half] = bf16_pair(w[0].v[s], w[1].v[s]);
                weights[m][s][2 + half] = bf16_pair(w[2].v[s], w[3].v[s]);
            }
        }
}

// gates (T, B, 4H): x·Wx -> activations i, f, g, o. Wh (H, 4H), b (4H,). keep (T, B) or null. h0, c0 (B, H): the
// initial state, which slot 0 of c, h (T+1, B, H) gets too; hT, cT (B, H), the final one, may be the same arrays.
// 2H threads; gates and Wh aligned to 16 bytes.
// Shared memory: x·Wx of some steps, (STAGES, LSTM_ROWS, INPUT_WIDTH) floats; h of this step and of the
// next, (2, LSTM_ROWS, STATE_WIDTH) bf16.
extern "C" __global__ void __launch_bounds__(THREADS, 1) lstm_sequence_bf16_forward(
    float* gates, const float* Wh, const float* b, const float* keep, const float* h0, const float* c0, float* c,
    float* h, float* hT, float* cT, int T, int B)
{
    SHARED_ARRAY(float, inputs);
    const int H = LSTM_H, stage = LSTM_ROWS * INPUT_WIDTH, lane = threadIdx.x % 32;
    bf16* states = reinterpret_cast<bf16*>(inputs + STAGES * stage);
    const Lane own = own_lane(B);
    const auto fetch = [&](int t) {
        if (t < T) copy_rows<4 * H>(inputs + (uint32)t % STAGES * stage, INPUT_WIDTH, gates, t * B, own);
        copies_commit();
    };
#pragma unroll(1)
    for (int t = 0; t < STAGES - 1; ++t) fetch(t);
    prefetch_keep(keep, own.first, T, B);

    // The state is reset before it is kept for the next step.
    float cell[CELLS];
#pragma unroll
    for (int p = 0; p < CELLS; ++p) {
        const float kept = keep ? keep[own.batch_row(p)] : 1.0f;
        const float before[2] = {c0[own.at(p)], h0[own.at(p)]};
        cell[p] = kept * before[0];
        states[own.row(p) * STATE_WIDTH + own.unit(p)] = rounded(kept * before[1]);
        if (own.exists(p)) c[own.at(p)] = before[0], h[own.at(p)] = before[1];
    }
    uint32 weights[4][WARPS][4];
    load_columns(weights, Wh, own);
    float bias[CELLS][4];
#pragma unroll
    for (int p = 0; p < CELLS; ++p)
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) bias[p][gate] = b[gate * H + own.unit(p)];
    float results[CELLS][6];  // of the step before: four gates, c, h
    const auto write = [&](int t) {
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            if (!own.exists(p)) continue;
            float* to = gates + ((uint32)t * B + own.batch_row(p)) * 4 * H + own.unit(p);
            const uint32 next = (uint32)(t + 1) * B * H + own.at(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) to[gate * H] = results[p][gate];
            c[next] = results[p][4], h[next] = results[p][5];
        }
    };
    // Lane 8m + n says where in column n the m-th 8 of 32 units of h begin.
    const int eight = lane / 8 * 8;
    const bf16* column = states + row_of_column(lane % 8) * STATE_WIDTH + eight;
    copies_wait<STAGES - 2>();
    __syncthreads();

    int current = 0;  // where in states this step's h is
    for (int t = 0; t < T; ++t) {
        const int following = LSTM_ROWS * STATE_WIDTH - current;
        // Even and odd steps of the sum are two chains, so that no product waits long for the one before.
        float acc[4][2][4] = {};
        uint32 state[(WARPS + 1) / 2][4];  // B, 32 units of h at a time
#pragma unroll
        for (int k = 0; k < WARPS; k += 2)
            // Where the last 16 units are alone the other two matrices are any that exist.
            ldmatrix(state[k / 2], column + current + 16 * k - (k + 1 == WARPS && eight >= 16 ? 16 : 0));
        const auto product = [&](int k) {
            if (k >= WARPS) return;
            const uint32* x = state[k / 2];
#pragma unroll
            for (int also = 0; also < 2 && k + also < WARPS; ++also)
#pragma unroll
                for (int gate = 0; gate < 4; ++gate)
                    mma(acc[gate][also], weights[gate][k + also], x[2 * also], x[2 * also + 1]);
        };
        // A warp goes on while its products are under way, but not past the next one: so what isn't urgent
        // stands between them.
        product(0);
        float kept[CELLS], x[CELLS][4];
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            kept[p] = 1;
            if (keep && t + 1 < T) kept[p] = keep[(uint32)(t + 1) * B + own.batch_row(p)];
        }
        if (t > 0) write(t - 1);
        product(2);
        fetch(t + STAGES - 1);
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const float* in = inputs + (uint32)t % STAGES * stage + own.row(p) * INPUT_WIDTH + own.unit(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) x[p][gate] = in[gate * H] + bias[p][gate];
        }
        product(4);
        product(6);
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            float a[4];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                a[gate] = x[p][gate] + (own.accumulator(acc[gate][0], p) + own.accumulator(acc[gate][1], p));
            const float i = sigmoid_of(a[0]), f = sigmoid_of(a[1]), g = tanh_by_exp2(a[2]);
            const float o = sigmoid_of(a[3]);
            const float now = f * cell[p] + i * g, out = o * tanh_by_exp2(now);
            states[following + own.row(p) * STATE_WIDTH + own.unit(p)] = rounded(kept[p] * out);
            cell[p] = kept[p] * now;
            results[p][0] = i, results[p][1] = f, results[p][2] = g, results[p][3] = o;
            results[p][4] = now, results[p][5] = out;
        }
        current = following;
        copies_wait<STAGES - 2>();
        __syncthreads();  // the new h is whole, the next inputs are there, and nobody reads the old ones
    }
    write(T - 1);
#pragma unroll
    for (int p = 0; p < CELLS; ++p)
        if (own.exists(p)) cT[own.at(p)] = results[p][4], hT[own.at(p)] = results[p][5];
}

// What of a step back is known before dh is, of a cell: the factors of d for dcell, of dcell for i, f, g, of
// d for o, and of dcell for the step before's.
struct Slopes {
    float cell, gate[4], forget, dy, kept;
};

// gates (T, B, 4H): activations -> gradient of the pre-activations. c (T+1, B, H). h (T+1, B, H): 0 from here on
// where the state was reset before a step, as the gradient of Wh wants it. dy (T, B, H). dhT, dcT (B, H): gradient
// of the final state, null for zero; dh, dc (B, H): of the initial state. 2H threads; gates, Wh, c and dy aligned to
// 16 bytes. A warp multiplies the gradients of its own units' gates by their rows of Wh transposed, and
// the block adds up the warps' partial sums of dh. db (blocks, 4H): what the rows of each add to the bias's gradient.
// Shared memory: inputs of some steps, (STAGES, LSTM_ROWS, SAVED_WIDTH) floats, rows of gates, c and dy; the warps'
// partial sums, (2, WARPS, LSTM_ROWS, PARTIAL_WIDTH) floats, of a step and of the next; with 8 rows of a block (8,
// THREADS) floats more.
extern "C" __global__ void __launch_bounds__(THREADS, 1) lstm_sequence_bf16_backward(
    float* gates, const float* Wh, const float* keep, const float* c, float* h, const float* dy, const float* dhT,
    const float* dcT, float* dh, float* dc, float* db, int T, int B)
{
    SHARED_ARRAY(float, inputs);
    const int H = LSTM_H, stage = LSTM_ROWS * SAVED_WIDTH, partial = LSTM_ROWS * PARTIAL_WIDTH;
    float* partials = inputs + STAGES * stage;
    const Lane own = own_lane(B);
    // First of all, while every register is free for a load under way.
    uint32 weights[WARPS][4][4];
    load_rows(weights, Wh, own);
    const auto fetch = [&](int t) {
        float* to = inputs + (uint32)t % STAGES * stage;
        if (t >= 0) {
            copy_rows<4 * H>(to, SAVED_WIDTH, gates, t * B, own);
            copy_rows<H>(to + 4 * H, SAVED_WIDTH, c, t * B, own);
            copy_rows<H>(to + 5 * H, SAVED_WIDTH, dy, t * B, own);
        }
        copies_commit();
    };
#pragma unroll(1)
    for (int n = 1; n <= STAGES; ++n) fetch(T - n);
    prefetch_keep(keep, own.first, T, B);
    float cell[CELLS], dcell[CELLS], carried[CELLS], keep_before[CELLS];  // keep_before: of the step before
    // What the lane's rows add to the bias's gradient. With 8 rows registers have no room for it.
    float in_registers[4] = {};
    float* in_shared = partials + 2 * WARPS * partial + threadIdx.x;
    const auto bias = [&](int unit, int gate) -> float& {
        return LSTM_ROWS == 8 ? in_shared[(4 * unit + gate) * THREADS] : in_registers[gate];
    };
    for (int n = 0; n < 4 * UNITS; ++n) bias(n / 4, n % 4) = 0;
    const auto fetch_keep = [&](int t) {
#pragma unroll
        for (int p = 0; p < CELLS; ++p)
            if (keep && t >= 0) keep_before[p] = keep[(uint32)t * B + own.batch_row(p)];
    };
#pragma unroll
    for (int p = 0; p < CELLS; ++p) {
        cell[p] = c[(uint32)T * B * H + own.at(p)], keep_before[p] = 1;
        dcell[p] = dcT ? dcT[own.at(p)] : 0.0f, carried[p] = dhT ? dhT[own.at(p)] : 0.0f;
    }
    // The slopes of step t; then `cell` is the state before it.
    Slopes slopes[CELLS];
    const auto prepare = [&](int t) {
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const float* in = inputs + (uint32)t % STAGES * stage + own.row(p) * SAVED_WIDTH + own.unit(p);
            const float i = in[0], f = in[H], g = in[2 * H], o = in[3 * H], before = in[4 * H];
            const float tanh_c = tanh_by_exp2(cell[p]), kept = keep_before[p];
            Slopes& to = slopes[p];
            to.cell = o * (1 - tanh_c * tanh_c), to.forget = f * kept, to.dy = in[5 * H], to.kept = kept;
            to.gate[0] = g * i * (1 - i), to.gate[1] = (kept * before) * f * (1 - f);
            to.gate[2] = i * (1 - g * g), to.gate[3] = tanh_c * o * (1 - o);
            cell[p] = before;
        }
    };
    // Column g of B is a row of the batch: of its cell of unit 4q + s which lane is the owner.
    const int column_row = row_of_column(own.g);
    const auto owner = [&](int s) {
        const int q = LSTM_ROWS == 8 ? column_row / 2 : 2 * (s % 2) + (LSTM_ROWS == 4 ? column_row / 2 : column_row);
        return 4 * (2 * own.q + s / 2) + q;
    };
    copies_wait<STAGES - 2>();
    __syncthreads();
    fetch_keep(T - 1);
    prepare(T - 1);
    fetch_keep(T - 2);
    __syncthreads();  // nobody reads the inputs whose place the first step's copies take

    for (int t = T - 1; t >= 0; --t) {
        float d[CELLS][4];
        uint32 pair[CELLS][2];
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const Slopes& slope = slopes[p];
            const float total = slope.dy + carried[p];
            dcell[p] += total * slope.cell;
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) d[p][gate] = (gate == 3 ? total : dcell[p]) * slope.gate[gate];
            dcell[p] *= slope.forget;
            // A reset keeps the gradient of the state before from any part of this step's.
            pair[p][0] = bf16_pair(slope.kept * d[p][0], slope.kept * d[p][1]);
            pair[p][1] = bf16_pair(slope.kept * d[p][2], slope.kept * d[p][3]);
        }
        float acc[WARPS][4] = {};
        const auto product = [&](int s) {
            uint32 x[2];
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int p = LSTM_ROWS == 8 ? 2 * (s % 2) : 0;
                x[n] = __shfl_sync(FULL_WARP, pair[p][n], owner(s));
                if (LSTM_ROWS > 2) {
                    const uint32 other = __shfl_sync(FULL_WARP, pair[(p + 1) % CELLS][n], owner(s));
                    if (column_row % 2) x[n] = other;
                }
            }
#pragma unroll
            for (int m = 0; m < WARPS; ++m) mma(acc[m], weights[m][s], x[0], x[1]);
        };
        // As going forward: what isn't urgent stands between the products.
        product(0);
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            if (!own.exists(p)) continue;
            float* to = gates + ((uint32)t * B + own.batch_row(p)) * 4 * H + own.unit(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) to[gate * H] = d[p][gate], bias(p / 2, gate) += d[p][gate];
            if (slopes[p].kept == 0) h[(uint32)t * B * H + own.at(p)] = 0;
        }
        product(1);
        if (t > 0) prepare(t - 1);
        product(2);
        fetch_keep(t - 2);
        fetch(t - STAGES);
        product(3);
        float* of_step = partials + (uint32)t % 2 * WARPS * partial;
#pragma unroll
        for (int m = 0; m < WARPS; ++m)
#pragma unroll
            for (int p = 0; p < CELLS; ++p) {
                float* to = of_step + own.warp * partial + own.row(p) * PARTIAL_WIDTH;
                to[16 * m + 2 * own.g + own.half(p)] = own.accumulator(acc[m], p);
            }
        copies_wait<STAGES - 2>();
        __syncthreads();  // all partials of the next step's dh are known, and the inputs of the one after it
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const float* of_warp = of_step + own.row(p) * PARTIAL_WIDTH + own.unit(p);
            float total[2] = {of_warp[0], WARPS > 1 ? of_warp[partial] : 0.0f};
#pragma unroll
            for (int w = 2; w < WARPS; ++w) total[w % 2] += of_warp[w * partial];
            carried[p] = total[0] + total[1];
        }
    }
#pragma unroll
    for (int p = 0; p < CELLS; ++p)
        if (own.exists(p)) dh[own.at(p)] = carried[p], dc[own.at(p)] = dcell[p];
    // A unit's other rows are the neighbouring lanes'.
#pragma unroll
    for (int u = 0; u < UNITS; ++u)
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) {
            float total = bias(u, gate);
#pragma unroll
            for (int lanes = 1; lanes < 2 * UNITS; lanes *= 2) total += __shfl_xor_sync(FULL_WARP, total, lanes);
            if (own.row(0) == 0) db[blockIdx.x * 4 * H + gate * H + own.unit(2 * u)] = total;
        }
}
