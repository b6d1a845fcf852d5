// One LSTM time step, everything but its GEMM in one pass. A thread takes one unit of one row.
#include "common.cuh"

// gates (B, 4H): x·Wx (+ b where it is given) -> activations i, f, g, o. recurrent (B, 4H): h_prev·Wh.
// b (4H,) or null. keep (B,) or null: 0 resets the state. c_prev (B, H). Writes c, h (B, H).
extern "C" __global__ void lstm_cell_forward(
    REAL* gates, const REAL* recurrent, const REAL* b, const REAL* keep, const REAL* c_prev, REAL* c,
    REAL* h, int B, int H)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= B * H) return;
    const int row = n / H, unit = n - row * H;
    const REAL k = keep ? keep[row] : REAL(1);
    REAL* gate = gates + (size_t)row * 4 * H + unit;
    const REAL* added = recurrent + (size_t)row * 4 * H + unit;
    REAL x[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) x[q] = gate[q * H] + (b ? b[q * H + unit] : REAL(0)) + k * added[q * H];
    const REAL i = sigmoid(x[0]), f = sigmoid(x[1]), g = tanh_of(x[2]), o = sigmoid(x[3]);
    const REAL cell = f * (k * c_prev[n]) + i * g;
    gate[0] = i, gate[H] = f, gate[2 * H] = g, gate[3 * H] = o;
    c[n] = cell;
    h[n] = o * tanh_of(cell);
}

// gates (B, 4H): activations -> gradient of the pre-activations. dy (B, H) or null is added to dh
// (B, H). dc (B, H): gradient of c -> gradient of c_prev.
extern "C" __global__ void lstm_cell_backward(
    REAL* gates, const REAL* keep, const REAL* c_prev, const REAL* c, const REAL* dy, const REAL* dh,
    REAL* dc, int B, int H)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= B * H) return;
    const int row = n / H, unit = n - row * H;
    const REAL k = keep ? keep[row] : REAL(1);
    REAL* gate = gates + (size_t)row * 4 * H + unit;
    const REAL i = gate[0], f = gate[H], g = gate[2 * H], o = gate[3 * H];
    const REAL d = dh[n] + (dy ? dy[n] : REAL(0));
    const REAL tanh_c = tanh_of(c[n]);
    const REAL dcell = dc[n] + d * o * (1 - tanh_c * tanh_c);
    gate[0] = dcell * g * i * (1 - i);
    gate[H] = dcell * (k * c_prev[n]) * f * (1 - f);
    gate[2 * H] = dcell * i * (1 - g * g);
    gate[3 * H] = d * tanh_c * o * (1 - o);
    dc[n] = dcell * f * k;
}
