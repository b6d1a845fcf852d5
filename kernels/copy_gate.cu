// The copy gate: shares of the network and of K candidates, and their gradients. Bound by launches: a row has K
// scores and K bytes, and K is about ten.
#include "mixture.cuh"

// As in ops/reference/copying.py: of runs; added to a bucket where the candidate is the target; no candidate.
constexpr int BUCKETS = 13;
constexpr int HIT = 16;
constexpr int NOTHING = 255;
constexpr int THREADS = 256;  // of the block that goes back over a candidate's rows

__device__ __forceinline__ bool is_hit(unsigned char recall) { return recall != NOTHING && recall >= HIT; }

// scores (N, K), recall (N, K), R (K, BUCKETS) -> scores: shares of the candidates, 0 where there is none; own (N,):
// log of the network's; copied (N,): log of what the candidates give the target. A thread takes one row.
extern "C" __global__ void copy_gate_shares(
    REAL* scores, const unsigned char* recall, const REAL* R, REAL* own, REAL* copied, int N, int K)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    REAL* row = scores + (size_t)n * K;
    const unsigned char* found = recall + (size_t)n * K;
    REAL top = 0, total = 0, hits = 0;  // the network's score is 0
    for (int k = 0; k < K; ++k) {
        if (found[k] == NOTHING) continue;
        const REAL score = row[k] + R[k * BUCKETS + found[k] % HIT];
        row[k] = score;
        top = score > top ? score : top;
    }
    for (int k = 0; k < K; ++k) {
        const REAL power = found[k] == NOTHING ? REAL(0) : exp_of(row[k] - top);
        row[k] = power;
        total += power;
    }
    total += exp_of(-top);
    for (int k = 0; k < K; ++k) {
        const REAL share = row[k] / total;
        row[k] = share;
        hits += is_hit(found[k]) ? share : REAL(0);
    }
    own[n] = -(top + log_of(total));
    copied[n] = log_of(hits);
}

// shares (N, K) -> scale times the gradient of the scores; losses (N,): nats of the mixture; dR (K, BUCKETS): its sums
// by bucket, in a fixed order. A block takes one candidate: each thread every so many rows, then a warp each bucket.
extern "C" __global__ void __launch_bounds__(THREADS) copy_gate_backward(
    REAL* shares, const unsigned char* recall, const REAL* losses, REAL scale, REAL* dR, int N)
{
    __shared__ REAL sums[BUCKETS][THREADS];
    const int k = blockIdx.x, K = gridDim.x, t = threadIdx.x;
    for (int bucket = 0; bucket < BUCKETS; ++bucket) sums[bucket][t] = 0;
    for (int n = t; n < N; n += THREADS) {
        const size_t at = (size_t)n * K + k;
        const unsigned char found = recall[at];
        const REAL wrong = is_hit(found) ? 1 - exp_of(losses[n]) : REAL(1);
        const REAL d = shares[at] * (wrong * scale);
        shares[at] = d;
        if (found != NOTHING) sums[found % HIT][t] += d;
    }
    __syncthreads();  // all rows are added up
    for (int bucket = t / 32; bucket < BUCKETS; bucket += THREADS / 32) {
        REAL sum = 0;
        for (int other = t % 32; other < THREADS; other += 32) sum += sums[bucket][other];
        sum = warp_sum(sum);
        if (t % 32 == 0) dR[k * BUCKETS + bucket] = sum;
    }
}

// losses (N,): the network's nats -> the mixture's.
extern "C" __global__ void copy_gate_mix(REAL* losses, const REAL* own, const REAL* copied, int N)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n < N) losses[n] = mixed(losses[n], own, copied, n).nats;
}
