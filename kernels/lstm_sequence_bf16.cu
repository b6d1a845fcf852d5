// All T time steps of an LSTM layer in one launch, the recurrent product on the matrix units: H <= 128, a
// multiple of 16. As lstm_sequence.cu, but for h, Wh and the gates' gradients, which are rounded to bf16
// where they are factors of that product; its sums, the activations and the state are fp32.
//
// A block owns LSTM_ROWS rows of the batch and goes through all steps alone. Each of its H / 16 warps owns
// 16 units with all of their gates, and holds its share of Wh in registers, H of a lane. Gates stand in the
// units' rows (A) and the batch in their columns (B), of which a product has 8 whether they are wanted or
// not: where the block has fewer rows, each stands in several columns, and the lanes that find the same
// sums in their fragments go on with different units. So no gate passes through shared memory.
#include "matrix.cuh"

#ifndef LSTM_H
#define LSTM_H 128
#endif
#ifndef LSTM_ROWS
#define LSTM_ROWS 2  // rows of the batch of a block: 2, 4 or 8
#endif
#define WARPS (LSTM_H / 16)  // as many as there are steps of 16 units in a sum over h
#define CELLS (LSTM_ROWS / 2)  // units of rows that a lane owns
#define AHEAD (LSTM_ROWS == 2 ? 2 : 1)  // steps that what comes from device memory is asked for before its use
#define STATE_WIDTH (LSTM_H + 8)  // of a row of h in shared memory: load_matrices meets no bank twice
#define PART_WIDTH ((LSTM_H + 31) / 32 * 32 + 32 / LSTM_ROWS)  // of a row of dh's parts, likewise

// What a lane 4g + q owns: CELLS cells, each a unit of a row of the batch. A fragment's rows g and g + 8 are
// units 2g and 2g + 1 of the warp's 16, its columns 2q and 2q + 1 rows of the batch.
struct Lane {
    int g, q, warp, first;  // first: row of the batch of the block's row 0

    __device__ __forceinline__ int half(int p) const { return LSTM_ROWS == 8 ? p / 2 : q / 2; }
    __device__ __forceinline__ int unit(int p) const { return 16 * warp + 2 * g + half(p); }
    __device__ __forceinline__ int row(int p) const
    {
        return LSTM_ROWS == 8 ? 2 * q + p % 2 : LSTM_ROWS == 4 ? 2 * (q % 2) + p : q % 2;
    }
    // Where in (B, H) a cell stands; 32 bits, as all offsets here.
    __device__ __forceinline__ uint32 at(int p) const { return (first + row(p)) * LSTM_H + unit(p); }
    // What a C fragment holds of a cell.
    __device__ __forceinline__ float of(const float* c, int p) const
    {
        return LSTM_ROWS == 8 ? c[p] : q / 2 ? c[2 + p] : c[p];
    }
};

__device__ __forceinline__ Lane own_lane()
{
    Lane own;
    own.g = threadIdx.x % 32 / 4, own.q = threadIdx.x % 4, own.warp = threadIdx.x / 32;
    own.first = blockIdx.x * LSTM_ROWS;
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
#define LOG2E 1.4426950408889634f
__device__ __forceinline__ float sigmoid_of(float x) { return reciprocal(1 + exp2_of(-LOG2E * x)); }
__device__ __forceinline__ float tanh_by_exp2(float x) { return 1 - 2 * reciprocal(1 + exp2_of(2 * LOG2E * x)); }

__device__ __forceinline__ bf16 rounded(float x)
{
    bf16 out;
    out.bits = (unsigned short)bf16_pair(x, 0);
    return out;
}

// What a step forward needs from device memory, of each cell.
struct Inputs {
    float x[CELLS][4], keep[CELLS];
};

// What a step forward leaves in device memory.
struct Made {
    float gate[CELLS][4], c[CELLS], h[CELLS];
};

// gates (T, B, 4H): x·Wx -> activations i, f, g, o. Wh (H, 4H), b (4H,). keep (T, B) or null.
// c, h (T+1, B, H): slot 0 is the initial state. 2H threads.
// Shared memory: h of this step and of the next, (2, LSTM_ROWS, STATE_WIDTH) bf16.
extern "C" __global__ void __launch_bounds__(2 * LSTM_H, 1) lstm_sequence_bf16_forward(
    float* gates, const float* Wh, const float* b, const float* keep, float* c, float* h, int T, int B)
{
    SHARED_ARRAY(bf16, states);
    const int H = LSTM_H, lane = threadIdx.x % 32;
    const Lane own = own_lane();
    // Gate by gate, A is the 16 units' columns of Wh: rows are units, columns those of h.
    uint32 weights[4][WARPS][4];
#pragma unroll
    for (int k = 0; k < WARPS; ++k)
#pragma unroll
        for (int gate = 0; gate < 4; ++gate)
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                const float* from = Wh + (16 * k + 8 * part + 2 * own.q) * 4 * H + gate * H + 16 * own.warp + 2 * own.g;
                const float2 low = *reinterpret_cast<const float2*>(from);
                const float2 high = *reinterpret_cast<const float2*>(from + 4 * H);
                weights[gate][k][2 * part] = bf16_pair(low.x, high.x);
                weights[gate][k][2 * part + 1] = bf16_pair(low.y, high.y);
            }
    bool real[CELLS];
    float bias[CELLS][4], cell[CELLS];
#pragma unroll
    for (int p = 0; p < CELLS; ++p) {
        real[p] = own.first + own.row(p) < B;
        cell[p] = real[p] ? c[own.at(p)] : 0.0f;
        states[own.row(p) * STATE_WIDTH + own.unit(p)] = rounded(real[p] ? h[own.at(p)] : 0.0f);
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) bias[p][gate] = b[gate * H + own.unit(p)];
    }
    const auto fetch = [&](int t, Inputs& in) {
        const uint32 step = (t < T ? t : T - 1) * B;
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const uint32 row = step + own.first + own.row(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                in.x[p][gate] = real[p] ? gates[row * 4 * H + gate * H + own.unit(p)] : 0.0f;
            in.keep[p] = real[p] && keep ? keep[row] : 1.0f;
        }
    };
    const auto write = [&](int t, const Made& made) {
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            if (!real[p]) continue;
            const uint32 row = t * B + own.first + own.row(p), next = (t + 1) * B * H + own.at(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) gates[row * 4 * H + gate * H + own.unit(p)] = made.gate[p][gate];
            c[next] = made.c[p], h[next] = made.h[p];
        }
    };
    // Lane 8m + n says where in column n the m-th 8 of 32 units of h begin.
    const int quarter = lane / 8 * 8;
    const bf16* column = states + row_of_column(lane % 8) * STATE_WIDTH + quarter;
    Made made;
    const auto step = [&](int t, Inputs& in, int from, int to) {
        // Even and odd steps of the sum are two chains, so that no product waits long for the one before.
        float sums[4][2][4] = {};
#pragma unroll
        for (int k = 0; k < WARPS; k += 2) {
            uint32 x[4];
            // Where the last 16 units are alone the other two matrices are any that exist.
            const int beyond = k + 1 == WARPS && quarter >= 16 ? 16 : 0;
            load_matrices(x, column + from + 16 * k - beyond);
#pragma unroll
            for (int also = 0; also < 2 && k + also < WARPS; ++also)
#pragma unroll
                for (int gate = 0; gate < 4; ++gate)
                    multiply(sums[gate][also], weights[gate][k + also], x[2 * also], x[2 * also + 1]);
        }
        // Memory is written and read while the products are under way.
        if (t > 0) write(t - 1, made);
        const Inputs now = in;
        fetch(t + AHEAD, in);
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            float a[4];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) {
                const float recurrent = own.of(sums[gate][0], p) + own.of(sums[gate][1], p);
                a[gate] = now.x[p][gate] + bias[p][gate] + now.keep[p] * recurrent;
            }
            const float i = sigmoid_of(a[0]), f = sigmoid_of(a[1]), g = tanh_by_exp2(a[2]), o = sigmoid_of(a[3]);
            cell[p] = f * (now.keep[p] * cell[p]) + i * g;
            const float out = o * tanh_by_exp2(cell[p]);
            states[to + own.row(p) * STATE_WIDTH + own.unit(p)] = rounded(out);
            made.gate[p][0] = i, made.gate[p][1] = f, made.gate[p][2] = g, made.gate[p][3] = o;
            made.c[p] = cell[p], made.h[p] = out;
        }
        __syncthreads();  // the new h is whole, and nobody reads the old one any more
    };
    const int other = LSTM_ROWS * STATE_WIDTH;
    Inputs even, odd;  // of even steps and odd ones, where they are asked for two ahead
    fetch(0, even);
    if (AHEAD == 2) fetch(1, odd);
    __syncthreads();
    for (int t = 0; t < T; t += 2) {
        step(t, even, 0, other);
        if (t + 1 < T) step(t + 1, AHEAD == 2 ? odd : even, other, 0);
    }
    write(T - 1, made);
}

// What a step back needs from device memory, of each cell; c: before the step.
struct Saved {
    float gate[CELLS][4], c[CELLS], dy[CELLS], keep[CELLS];
};

// What of a step back is known before dh is: the factors of d, of dcell for each gate but o, and of d for o.
struct Slopes {
    float cell[CELLS], gate[CELLS][4], forget[CELLS], dy[CELLS], keep[CELLS];
};

// gates (T, B, 4H): activations -> gradient of the pre-activations. c (T+1, B, H). dy (T, B, H).
// dh, dc (B, H): gradient of the final state -> of the initial state. 2H threads.
// A warp multiplies the gradients of its own units' gates by all of their rows of Wh; the block adds up the
// warps' parts of dh through shared memory: (2, WARPS, LSTM_ROWS, PART_WIDTH) floats, of a step and the next.
extern "C" __global__ void __launch_bounds__(2 * LSTM_H, 1) lstm_sequence_bf16_backward(
    float* gates, const float* Wh, const float* keep, const float* c, const float* dy, float* dh, float* dc,
    int T, int B)
{
    SHARED_ARRAY(float, parts);
    const int H = LSTM_H, part_size = LSTM_ROWS * PART_WIDTH;
    const Lane own = own_lane();
    // A's rows are units of h, 16 at a time. Its columns are the warp's units with their four gates: in step s
    // those of unit 4q + s are lane q's, so that 16 bytes of a row of Wh are four steps' weights.
    uint32 weights[WARPS][4][4];
#pragma unroll
    for (int m = 0; m < WARPS; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* from = Wh + (16 * m + 2 * own.g + half) * 4 * H + 16 * own.warp + 4 * own.q;
            QuadOf<float> w[4];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) w[gate] = *reinterpret_cast<const QuadOf<float>*>(from + gate * H);
#pragma unroll
            for (int s = 0; s < 4; ++s) {
                weights[m][s][half] = bf16_pair(w[0].v[s], w[1].v[s]);
                weights[m][s][2 + half] = bf16_pair(w[2].v[s], w[3].v[s]);
            }
        }
    bool real[CELLS];
    float cell[CELLS], dcell[CELLS], carried[CELLS];
#pragma unroll
    for (int p = 0; p < CELLS; ++p) {
        real[p] = own.first + own.row(p) < B;
        cell[p] = real[p] ? c[T * B * H + own.at(p)] : 0.0f;
        dcell[p] = real[p] ? dc[own.at(p)] : 0.0f, carried[p] = real[p] ? dh[own.at(p)] : 0.0f;
    }
    const auto fetch = [&](int t, Saved& in) {
        const uint32 step = (t > 0 ? t : 0) * B;
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const uint32 row = step + own.first + own.row(p), at = step * H + own.at(p);
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                in.gate[p][gate] = real[p] ? gates[row * 4 * H + gate * H + own.unit(p)] : 0.0f;
            in.c[p] = real[p] ? c[at] : 0.0f, in.dy[p] = real[p] ? dy[at] : 0.0f;
            in.keep[p] = real[p] && keep ? keep[row] : 1.0f;
        }
    };
    // The slopes of a step; then `cell` is the state before it.
    const auto prepare = [&](Slopes& slope, const Saved& in) {
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const float i = in.gate[p][0], f = in.gate[p][1], g = in.gate[p][2], o = in.gate[p][3];
            const float tanh_c = tanh_by_exp2(cell[p]), kept = in.keep[p];
            slope.cell[p] = o * (1 - tanh_c * tanh_c), slope.forget[p] = f * kept;
            slope.gate[p][0] = g * i * (1 - i), slope.gate[p][1] = (kept * in.c[p]) * f * (1 - f);
            slope.gate[p][2] = i * (1 - g * g), slope.gate[p][3] = tanh_c * o * (1 - o);
            slope.dy[p] = in.dy[p], slope.keep[p] = kept;
            cell[p] = in.c[p];
        }
    };
    // Column g of B is a row of the batch: whose lane and which of its cells owns it for unit 4q + s.
    const int wanted = row_of_column(own.g);
    const auto owner = [&](int s) {
        const int column = LSTM_ROWS == 8 ? wanted / 2 : LSTM_ROWS == 4 ? 2 * (s % 2) + wanted / 2 : 2 * (s % 2) + wanted;
        return 4 * (2 * own.q + s / 2) + column;
    };
    Slopes slope;
    const auto step = [&](int t, Saved& in, float* sums_of_warps) {
        float d[CELLS][4];
        uint32 pair[CELLS][2];
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            const float total = slope.dy[p] + carried[p];
            dcell[p] += total * slope.cell[p];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) d[p][gate] = (gate == 3 ? total : dcell[p]) * slope.gate[p][gate];
            dcell[p] *= slope.forget[p];
            pair[p][0] = bf16_pair(d[p][0], d[p][1]), pair[p][1] = bf16_pair(d[p][2], d[p][3]);
        }
        float sums[WARPS][4] = {};
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            uint32 x[2];
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                if (LSTM_ROWS == 2) {
                    x[n] = __shfl_sync(FULL_WARP, pair[0][n], owner(s));
                } else {
                    const int p = LSTM_ROWS == 8 ? 2 * (s % 2) : 0;
                    const uint32 first = __shfl_sync(FULL_WARP, pair[p][n], owner(s));
                    const uint32 second = __shfl_sync(FULL_WARP, pair[(p + 1) % CELLS][n], owner(s));
                    x[n] = wanted % 2 ? second : first;
                }
            }
#pragma unroll
            for (int m = 0; m < WARPS; ++m) multiply(sums[m], weights[m][s], x[0], x[1]);
        }
        // Memory is written and read, and the step before prepared, while the products are under way.
        float kept[CELLS];
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            kept[p] = slope.keep[p];
#pragma unroll
            for (int gate = 0; gate < 4; ++gate)
                if (real[p])
                    gates[(t * B + own.first + own.row(p)) * 4 * H + gate * H + own.unit(p)] = d[p][gate];
        }
        prepare(slope, in);
        fetch(t - 1 - AHEAD, in);
#pragma unroll
        for (int m = 0; m < WARPS; ++m)
#pragma unroll
            for (int p = 0; p < CELLS; ++p)
                sums_of_warps[own.warp * part_size + own.row(p) * PART_WIDTH + 16 * m + 2 * own.g + own.half(p)]
                    = own.of(sums[m], p);
        __syncthreads();  // all parts of the next step's dh are known
#pragma unroll
        for (int p = 0; p < CELLS; ++p) {
            float total[2] = {0, 0};
#pragma unroll
            for (int w = 0; w < WARPS; ++w)
                total[w % 2] += sums_of_warps[w * part_size + own.row(p) * PART_WIDTH + own.unit(p)];
            carried[p] = kept[p] * (total[0] + total[1]);
        }
    };
    Saved even, odd;
    fetch(T - 1, even);
    prepare(slope, even);
    fetch(T - 2, even);
    if (AHEAD == 2) fetch(T - 3, odd);
    for (int t = T - 1; t >= 0; t -= 2) {
        step(t, even, parts);
        if (t > 0) step(t - 1, AHEAD == 2 ? odd : even, parts + WARPS * part_size);
    }
#pragma unroll
    for (int p = 0; p < CELLS; ++p)
        if (real[p]) dh[own.at(p)] = carried[p], dc[own.at(p)] = dcell[p];
}
