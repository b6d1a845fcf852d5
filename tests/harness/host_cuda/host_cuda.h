// Stands in for CUDA's built-ins, so that a .cu file runs on the CPU as C++.
//
// A block's threads are fibres of one thread of the system, so that barriers are real: a fibre stops at
// a barrier until all of its warp or block have come. The scheduler is the worst there is: it runs a warp
// as far as it can before the next one starts, lane after lane, in ascending, descending or shuffled order
// (`host_cuda_order`), and the last warp only where no other can run. What passes only because threads happen to
// run side by side fails here. Shared memory is filled with NaN before each block. A cluster's blocks
// (-DCLUSTER=n) run together: clusters.h.
#pragma once
#define HOST_CUDA 1
#ifndef CLUSTER
#define CLUSTER 1
#endif

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using std::max, std::min;  // as CUDA has them

struct uint3 {
    unsigned x, y, z;
};

namespace host_cuda {

constexpr int WARP = 32;
constexpr size_t STACK = 64 << 10;

// A barrier: a fibre waits while `generation` is what it was when it came.
struct Barrier {
    int arrived = 0, line = 0;
    unsigned generation = 0;
};

// A copy under way from device to shared memory.
struct Copy {
    void* to;
    const void* from;
    bool real;
};

typedef unsigned long long Word;

// What counts arrivals and bytes: clusters.h.
struct Mbarrier {
    int arrivals, pending, owner;
    long bytes = 0;
    unsigned phase = 0;
    bool announced = false;
};

// An asynchronous store under way to a block of the cluster.
struct Store {
    int rank;
    unsigned char* to;
    Word* counter;
    unsigned char packet[16];
};

struct Fibre {
    ucontext_t start;
    jmp_buf at;
    bool begun, finished;
    const unsigned* waits_for;  // null while it can run
    unsigned generation;
    const unsigned* mbarrier;  // whose phase it waits for, likewise null
    int parity;
    bool arrived_at_cluster;
    unsigned cluster_generation;
    uint3 index;
    int block;  // of its cluster
    std::vector<std::vector<Copy>> copies;  // groups; the last one is open
};

struct Warp {
    Barrier barrier;
    int alive;
    unsigned turn[WARP];         // exchanges a lane has made
    uint64_t slot[2][WARP];      // what lanes exchange; two sets, so that one barrier is enough
    uint32_t factor[2][WARP][6];  // the same for fragments of matrices
};

struct Block {
    Barrier barrier;
    int alive;
    uint3 index;
    std::vector<unsigned char> shared;  // dynamic
};

static std::vector<Fibre> fibres;  // of a cluster; each block's begin with a warp of their own
static std::vector<Warp> warps;
static Block blocks[CLUSTER];
static char* const stacks = (char*)malloc(CLUSTER * 1024 * STACK);  // touched only where used
static Barrier cluster_barrier;
static std::map<Word*, Mbarrier> mbarriers;  // of a cluster, by their addresses
static std::vector<Store> stores;
static int alive, current, order;
static jmp_buf scheduler;
static std::function<void()> body;
static std::string failure;
static unsigned random_state;

inline void fail(const std::string& what)
{
    if (failure.empty()) failure = what;
}

inline void pause()
{
    if (!_setjmp(fibres[current].at)) _longjmp(scheduler, 1);
}

inline void release(Barrier& barrier)
{
    barrier.arrived = 0;
    ++barrier.generation;
}

inline void arrive(Barrier& barrier, int members, int line, const char* what)
{
    if (barrier.arrived == 0) barrier.line = line;
    if (barrier.line != line)
        fail(std::string(what) + ": threads meet at lines " + std::to_string(barrier.line) + " and "
             + std::to_string(line));
    if (++barrier.arrived >= members) release(barrier);
}

inline void wait_for(const Barrier& barrier, unsigned generation)
{
    Fibre& self = fibres[current];
    self.waits_for = &barrier.generation;
    self.generation = generation;
    // Even the last to come stops: the others may run first.
    pause();
}

inline void meet(Barrier& barrier, int members, int line, const char* what)
{
    const unsigned generation = barrier.generation;
    arrive(barrier, members, line, what);
    wait_for(barrier, generation);
}

inline Block& own_block() { return blocks[fibres[current].block]; }

inline void sync_block(int line)
{
    Block& block = own_block();
    meet(block.barrier, block.alive, line, "__syncthreads");
}
inline void sync_warp(int line)
{
    Warp& warp = warps[current / WARP];
    meet(warp.barrier, warp.alive, line, "warp barrier");
}

// Give a value to the warp's other lanes; returns the set of slots where all of theirs stand.
template <typename T>
inline uint64_t* exchange(T value, int line)
{
    static_assert(sizeof(T) <= 8, "a lane exchanges at most 8 bytes");
    Warp& warp = warps[current / WARP];
    const int lane = current % WARP;
    uint64_t* set = warp.slot[warp.turn[lane]++ % 2];
    memcpy(&set[lane], &value, sizeof(T));
    sync_warp(line);
    return set;
}

template <typename T>
inline T shuffle(unsigned mask, T value, int from, int line)
{
    uint64_t* set = exchange(value, line);
    if (!(mask >> (current % WARP) & 1)) fail("a lane outside its own mask shuffles");
    T out;
    memcpy(&out, &set[from & (WARP - 1)], sizeof(T));
    return out;
}

inline unsigned ballot(bool vote, int line)
{
    Warp& warp = warps[current / WARP];
    uint64_t* set = exchange<uint64_t>(vote, line);
    // Lanes that returned before have no vote; one that voted may have gone on and returned by now.
    const unsigned turn = warp.turn[current % WARP];
    unsigned out = 0;
    for (int lane = 0; lane < WARP; ++lane)
        if (warp.turn[lane] >= turn) out |= (unsigned)(set[lane] & 1) << lane;
    return out;
}

// The tensor cores: kernels/tensor_cores.cuh says which lane holds what.
inline float bf16_half(uint32_t pair, int which)
{
    const uint32_t bits = which ? pair & 0xffff0000u : pair << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

inline void mma(float* c, const uint32_t* a, uint32_t b0, uint32_t b1, int line)
{
    Warp& warp = warps[current / WARP];
    const int lane = current % WARP, g = lane / 4, q = lane % 4;
    uint32_t(*set)[6] = warp.factor[warp.turn[lane]++ % 2];
    const uint32_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(set[lane], own, sizeof own);
    if (warp.alive != WARP) fail("a matrix product without all lanes of the warp");
    sync_warp(line);
    // A[row][k] and B[k][column] by the lane that holds them.
    for (int n = 0; n < 4; ++n) {
        const int row = g + 8 * (n / 2), column = 2 * q + n % 2;
        for (int k = 0; k < 16; ++k) {
            const int half = k / 8, pair = k % 8 / 2;
            const float x = bf16_half(set[4 * (row % 8) + pair][2 * half + row / 8], k % 2);
            c[n] += x * bf16_half(set[4 * column + pair][4 + half], k % 2);
        }
    }
}

template <typename T>
inline void ldmatrix(uint32_t* x, T row, int line)
{
    if ((uintptr_t)row % 16) fail("a row of a matrix isn't aligned to 16 bytes");
    uint64_t* set = exchange((uint64_t)row, line);
    const int lane = current % WARP;
    for (int m = 0; m < 4; ++m)
        memcpy(&x[m], (const char*)set[8 * m + lane / 4] + 4 * (lane % 4), 4);
}

// Copies are made at the last moment in ascending order, at once in the others: the worst of both worlds.
inline void make(const Copy& copy)
{
    if (copy.real) memcpy(copy.to, copy.from, 16);
    else memset(copy.to, 0, 16);
}

inline void copy_async(void* to, const void* from, bool real)
{
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) fail("a copy that isn't aligned to 16 bytes");
    const Copy copy = {to, from, real};
    if (order) make(copy);
    else fibres[current].copies.back().push_back(copy);
}

inline void copies_commit() { fibres[current].copies.emplace_back(); }

template <int later>
inline void copies_wait()
{
    auto& groups = fibres[current].copies;
    while ((int)groups.size() > later + 1) {
        for (const Copy& copy : groups.front()) make(copy);
        groups.erase(groups.begin());
    }
}

inline unsigned random_below(unsigned n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

#include "clusters.h"

inline float exp2_of(float x) { return x < -126 ? 0.0f : std::exp2(x); }

inline void enter()
{
    body();
    Fibre& self = fibres[current];
    if (self.arrived_at_cluster) fail("cluster barrier: a thread ends without waiting");
    self.finished = true;
    --alive;
    Warp& warp = warps[current / WARP];
    --warp.alive;
    Block& block = own_block();
    --block.alive;
    // Threads that have returned no longer count at barriers.
    if (block.barrier.arrived && block.barrier.arrived >= block.alive) release(block.barrier);
    if (cluster_barrier.arrived && cluster_barrier.arrived >= alive) release(cluster_barrier);
    if (warp.barrier.arrived && warp.barrier.arrived >= warp.alive) release(warp.barrier);
    _longjmp(scheduler, 1);
}

inline bool can_run(const Fibre& f)
{
    if (f.finished || (f.mbarrier && (int)(*f.mbarrier % 2) == f.parity)) return false;
    return !f.waits_for || *f.waits_for != f.generation;
}

inline void run(int k)
{
    Fibre& f = fibres[k];
    current = k;
    f.waits_for = f.mbarrier = nullptr;
    if (_setjmp(scheduler)) return;
    if (f.begun) _longjmp(f.at, 1);
    f.begun = true;
    setcontext(&f.start);
}

inline std::vector<int> sequence(int n)
{
    std::vector<int> out(n);
    for (int k = 0; k < n; ++k) out[k] = order == 1 ? n - 1 - k : k;
    if (order == 2)
        for (int k = n - 1; k > 0; --k) std::swap(out[k], out[random_below(k + 1)]);
    return out;
}

// Run a cluster's blocks, whose indices are known, to their end.
inline void run_cluster(int threads, uint3 shape)
{
    const int count = (threads + WARP - 1) / WARP;  // warps of a block
    alive = CLUSTER * threads;
    cluster_barrier = Barrier();
    mbarriers.clear(), stores.clear();
    fibres.resize(CLUSTER * count * WARP);
    warps.assign(CLUSTER * count, Warp());
    for (int n = 0; n < CLUSTER; ++n) blocks[n].barrier = Barrier(), blocks[n].alive = threads;
    for (int k = 0; k < (int)fibres.size(); ++k) {
        Fibre& f = fibres[k];
        f.block = k / (count * WARP);
        const unsigned thread = k % (count * WARP);
        f.finished = (int)thread >= threads;
        if (f.finished) continue;
        f.begun = f.arrived_at_cluster = false, f.waits_for = f.mbarrier = nullptr;
        f.copies.assign(1, {});
        f.index = {thread % shape.x, thread / shape.x % shape.y, thread / (shape.x * shape.y)};
        ++warps[k / WARP].alive;
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stacks + k * STACK;
        f.start.uc_stack.ss_size = STACK;
        f.start.uc_link = nullptr;
        makecontext(&f.start, (void (*)())enter, 0);
    }
    const std::vector<int> warp_order = sequence(CLUSTER * count), lane_order = sequence(WARP);
    while (alive > 0) {
        bool moved = false;
        for (int w : warp_order) {
            // The last one is starved: it runs where no other can, and no store is under way that could wake one.
            if (w == warp_order.back() && (moved || !stores.empty())) break;
            for (bool again = true; again;) {
                again = false;
                for (int lane : lane_order) {
                    const int k = w * WARP + lane;
                    if (can_run(fibres[k])) run(k), again = moved = true;
                }
            }
        }
        if (!failure.empty()) return;
        if (!moved && !deliver_latest())
            return fail("deadlock: threads wait for others, or for bytes, that don't come");
    }
    check_stores();
}

}  // namespace host_cuda

// Static shared memory lies in a section of its own, so that it can be filled before each block.
#define __shared__ static __attribute__((section("host_shared")))
extern "C" unsigned char __start_host_shared[] __attribute__((weak));
extern "C" unsigned char __stop_host_shared[] __attribute__((weak));
#define SHARED_ARRAY(type, name) type* name = reinterpret_cast<type*>(host_cuda::own_block().shared.data())

#define __global__
#define __device__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define threadIdx (host_cuda::fibres[host_cuda::current].index)
#define blockIdx (host_cuda::own_block().index)
#define __cluster_dims__(...)
static uint3 blockDim, gridDim;

#define __syncthreads() host_cuda::sync_block(__LINE__)
#define __syncwarp(...) host_cuda::sync_warp(__LINE__)
#define __shfl_sync(mask, x, lane) host_cuda::shuffle(mask, x, lane, __LINE__)
#define __shfl_xor_sync(mask, x, bits) \
    host_cuda::shuffle(mask, x, (host_cuda::current % 32) ^ (bits), __LINE__)
#define __shfl_up_sync(mask, x, by)                                                               \
    host_cuda::shuffle(mask, x,                                                                   \
        host_cuda::current % 32 < (int)(by) ? host_cuda::current % 32 : host_cuda::current % 32 - (int)(by), \
        __LINE__)
#define __shfl_down_sync(mask, x, by)                                                              \
    host_cuda::shuffle(mask, x,                                                                    \
        host_cuda::current % 32 + (int)(by) > 31 ? host_cuda::current % 32 : host_cuda::current % 32 + (int)(by), \
        __LINE__)
#define __ballot_sync(mask, vote) host_cuda::ballot(vote, __LINE__)

inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return b > 8.5e37f ? 0.0f : a / b; }
inline float __int_as_float(int x) { float out; memcpy(&out, &x, 4); return out; }
inline unsigned __float_as_uint(float x) { unsigned out; memcpy(&out, &x, 4); return out; }
inline long long __double_as_longlong(double x) { long long out; memcpy(&out, &x, 8); return out; }
inline double __longlong_as_double(long long x) { double out; memcpy(&out, &x, 8); return out; }
inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
template <typename T> inline T __ldg(const T* at) { return *at; }
// Fibres change only at barriers, so that a plain addition is atomic.
template <typename T, typename U> inline T atomicAdd(T* at, U x) { T old = *at; *at += (T)x; return old; }

// Launching ----------------------------------------------------------------------------------------

namespace host_cuda {

template <typename T>
char kind()
{
    return std::is_pointer<T>::value ? 'P' : std::is_floating_point<T>::value ? 'f'
        : std::is_signed<T>::value ? 'i' : 'u';
}

// What a kernel takes: a letter (P pointer, f real, i signed, u unsigned) and a size in bytes each.
template <typename... A>
std::string signature(void (*)(A...))
{
    std::string out;
    ((out += kind<A>(), out += std::to_string(sizeof(A)), out += ' '), ...);
    return out;
}

template <typename... A, size_t... K>
void call(void (*kernel)(A...), void** args, std::index_sequence<K...>)
{
    kernel(*static_cast<std::remove_cv_t<A>*>(args[K])...);
}

template <typename... A>
const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, size_t shared, void** args)
{
    failure.clear();
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const int threads = block[0] * block[1] * block[2];
    if (threads < 1 || threads > 1024 || grid[0] < 1 || grid[1] < 1 || grid[2] < 1)
        fail("a launch of no blocks, no threads, or more than 1024 threads a block");
    const unsigned count = grid[0] * grid[1] * grid[2];
    if (grid[0] % CLUSTER) fail("a grid that isn't whole clusters");
    if (CLUSTER > 1 && __start_host_shared) fail("a cluster's blocks would share static shared memory");
    body = [&] { call(kernel, args, std::index_sequence_for<A...>()); };
    random_state = 1;
    for (int first : sequence(failure.empty() ? count / CLUSTER : 0)) {
        if (__start_host_shared) memset(__start_host_shared, 0xff, __stop_host_shared - __start_host_shared);
        for (unsigned n = 0; n < CLUSTER; ++n) {
            const unsigned k = first * CLUSTER + n;
            blocks[n].index = {k % grid[0], k / grid[0] % grid[1], k / (grid[0] * grid[1])};
            // 64 guard bytes behind what was asked for.
            blocks[n].shared.assign(shared + 64, 0xff);
        }
        run_cluster(threads, blockDim);
        for (const Block& block : blocks)
            for (size_t n = shared; n < block.shared.size(); ++n)
                if (block.shared[n] != 0xff) fail("a write beyond the dynamic shared memory");
        if (!failure.empty()) break;
    }
    return failure.c_str();
}

}  // namespace host_cuda

extern "C" void host_cuda_order(int order) { host_cuda::order = order; }

#define HOST_KERNEL(name)                                                                              \
    extern "C" const char* launch_##name(                                                              \
        const unsigned* grid, const unsigned* block, size_t shared, void** args)                       \
    {                                                                                                  \
        return host_cuda::launch(name, grid, block, shared, args);                                     \
    }                                                                                                  \
    extern "C" const char* signature_##name()                                                          \
    {                                                                                                  \
        static std::string out = host_cuda::signature(name);                                           \
        return out.c_str();                                                                            \
    }
