// One time step of an LSTM layer in one launch, as sampling takes it: both products, gates and state.
//
// A block takes two units, with their four gates, of 64 rows. Four threads share each row's sums over inputs and
// state, a tile of 64 at a time through shared memory; the next tile is under way in registers (a software pipeline).
// Sums are in an order of their own, the same for every row.
#include "common.cuh"

#define ROWS 64
#define UNITS 2
#define SUMS (4 * UNITS)  // of a row: a gate of a unit each
#define TILE 64           // inputs, and units of the state, at once
#define PARTS 4           // of a sum, for a thread each
#define THREADS (ROWS * PARTS)
#define LOADS (ROWS * TILE / THREADS)  // of rows' numbers, of a thread

// The product's: a row's inputs and then its state, and the weights of both.
struct Operands {
    const REAL *x, *h, *Wx, *Wh;
    int B, E, H;
};

__device__ __forceinline__ REAL of_row(const Operands& f, int row, int k)
{
    if (row >= f.B || k >= f.E + f.H) return 0;
    return k < f.E ? f.x[(size_t)row * f.E + k] : f.h[(size_t)row * f.H + k - f.E];
}

// Sum s of a unit pair: gate s / UNITS of unit first + s % UNITS.
__device__ __forceinline__ REAL of_weights(const Operands& f, int first, int s, int k)
{
    const int unit = first + s % UNITS, column = s / UNITS * f.H + unit;
    if (unit >= f.H || k >= f.E + f.H) return 0;
    return k < f.E ? f.Wx[(size_t)k * 4 * f.H + column] : f.Wh[(size_t)(k - f.E) * 4 * f.H + column];
}

// x (B, E), h_prev, c_prev (B, H), Wx (E, 4H), Wh (H, 4H), b (4H,) -> c, h (B, H), which are other arrays.
extern "C" __global__ void __launch_bounds__(THREADS, 1) lstm_step_forward(
    const REAL* x, const REAL* Wx, const REAL* Wh, const REAL* b, const REAL* h_prev, const REAL* c_prev, REAL* c,
    REAL* h, int B, int E, int H)
{
    __shared__ REAL rows[ROWS][TILE + 1];
    __shared__ __align__(16) REAL weights[TILE][SUMS];
    const int first = UNITS * blockIdx.x, above = ROWS * blockIdx.y, j = threadIdx.x;
    const int row = j % ROWS, part = j / ROWS;
    Operands f;
    f.x = x, f.h = h_prev, f.Wx = Wx, f.Wh = Wh, f.B = B, f.E = E, f.H = H;
    REAL next[LOADS], next_weights[TILE * SUMS / THREADS];
    auto fetch = [&](int k) {
#pragma unroll
        for (int n = 0; n < LOADS; ++n) next[n] = of_row(f, above + j / TILE + n * (THREADS / TILE), k + j % TILE);
#pragma unroll
        for (int n = 0; n < TILE * SUMS / THREADS; ++n)
            next_weights[n] = of_weights(f, first, j % SUMS, k + j / SUMS + n * (THREADS / SUMS));
    };
    REAL sums[SUMS];
#pragma unroll
    for (int s = 0; s < SUMS; ++s) sums[s] = 0;
    fetch(0);
    for (int k = 0; k < E + H; k += TILE) {
#pragma unroll
        for (int n = 0; n < LOADS; ++n) rows[j / TILE + n * (THREADS / TILE)][j % TILE] = next[n];
#pragma unroll
        for (int n = 0; n < TILE * SUMS / THREADS; ++n)
            weights[j / SUMS + n * (THREADS / SUMS)][j % SUMS] = next_weights[n];
        __syncthreads();  // these terms have come
        if (k + TILE < E + H) fetch(k + TILE);
#pragma unroll 4
        for (int t = part * (TILE / PARTS); t < (part + 1) * (TILE / PARTS); ++t) {
            const REAL own = rows[row][t];
            const Quad* w = reinterpret_cast<const Quad*>(weights[t]);
            const Quad low = w[0], high = w[1];
#pragma unroll
            for (int s = 0; s < 4; ++s) sums[s] += own * low.v[s], sums[s + 4] += own * high.v[s];
        }
        __syncthreads();  // nobody reads them any more
    }
    REAL* parts = &rows[0][0];  // (PARTS, SUMS, ROWS)
#pragma unroll
    for (int s = 0; s < SUMS; ++s) parts[(part * SUMS + s) * ROWS + row] = sums[s];
    __syncthreads();  // all parts are known
    const int unit = first + part, at = above + row;
    if (part >= UNITS || unit >= H || at >= B) return;
    REAL a[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const REAL* own = parts + (q * UNITS + part) * ROWS + row;
        a[q] = b[q * H + unit] + ((own[0] + own[SUMS * ROWS]) + (own[2 * SUMS * ROWS] + own[3 * SUMS * ROWS]));
    }
    const size_t n = (size_t)at * H + unit;
    const REAL cell = sigmoid(a[1]) * c_prev[n] + sigmoid(a[0]) * tanh_of(a[2]);
    c[n] = cell;
    h[n] = sigmoid(a[3]) * tanh_of(cell);
}
