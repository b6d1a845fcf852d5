// What every kernel shares. REAL is float or double; names are those of the Python code.
//
// Arrays are row-major and time-major (T, B, ...). The same source is compiled by NVRTC for the
// GPU and, with tests/harness/host_cuda/host_cuda.h in front, by a C++ compiler for the CPU.

#ifndef REAL
#define REAL float
#endif

typedef unsigned int uint32;
typedef unsigned long long uint64;

#ifndef HOST_CUDA
// A block's dynamic shared memory, as an array of a type. On the host it comes from the harness.
#define SHARED_ARRAY(type, name)                                  \
    extern __shared__ __align__(16) unsigned char shared_bytes[]; \
    type* name = reinterpret_cast<type*>(shared_bytes)
// The compiler can't see where a pointer leads that was itself read from memory.
#define ASSUME_GLOBAL(pointer) __builtin_assume(__isGlobal(pointer))
#else
#define ASSUME_GLOBAL(pointer)
#endif

#define FULL_WARP 0xffffffffu

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)  // NVRTC has no <math.h>
#endif

// __expf is the hardware's 2^x: its error, about 2 units in the last place near 0, is far inside
// what single precision training needs. Double precision takes the library's.
__device__ __forceinline__ float exp_of(float x) { return __expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
__device__ __forceinline__ float log1p_of(float x) { return log1pf(x); }
__device__ __forceinline__ double log1p_of(double x) { return log1p(x); }
__device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
__device__ __forceinline__ double sqrt_of(double x) { return sqrt(x); }

// Neither can overflow: exp_of(large) is infinity and 1 / infinity is 0.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
__device__ __forceinline__ double sigmoid(double x) { return 1 / (1 + exp(-x)); }
__device__ __forceinline__ float tanh_of(float x)
{
    // exp(2x) beyond 2^126 is where __fdividef gives up; tanh is 1 long before. Not fminf: it drops NaN.
    const float e = __expf(2 * (x > 40.0f ? 40.0f : x));
    return 1 - __fdividef(2.0f, 1.0f + e);
}
__device__ __forceinline__ double tanh_of(double x) { return tanh(x); }

template <typename T>
__device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}

template <typename T>
__device__ __forceinline__ T warp_max(T x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        const T other = __shfl_xor_sync(FULL_WARP, x, offset);
        x = other > x ? other : x;
    }
    return x;
}

// The sum of x over a block of whole warps, in a fixed order, known to every thread.
// scratch: 32 elements that no thread is still reading.
template <typename T>
__device__ __forceinline__ T block_sum(T x, T* scratch)
{
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    x = warp_sum(lane < blockDim.x / 32 ? scratch[lane] : T(0));
    __syncthreads();  // scratch may be used again
    return x;
}

template <typename T>
__device__ __forceinline__ T block_max(T x, T* scratch)
{
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    x = warp_max(scratch[lane < blockDim.x / 32 ? lane : 0]);
    __syncthreads();
    return x;
}

// bf16 is the upper half of a float; a class of its own, so that nothing takes it for a whole number.
struct bf16 {
    unsigned short bits;
};

// The nearest bf16, the even one of two as near; what is no number stays none.
__device__ __forceinline__ bf16 bf16_of(float x)
{
    uint32 bits = __float_as_uint(x);
    if (x == x) bits += 0x7fff + (bits >> 16 & 1);
    else bits |= 0x400000;
    bf16 out;
    out.bits = bits >> 16;
    return out;
}
__device__ __forceinline__ float real_of(bf16 x) { return __int_as_float((int)((uint32)x.bits << 16)); }

// Four neighbours in memory: of float one load or store of 16 bytes, the widest there is.
template <typename T>
struct alignas(sizeof(T) == 2 ? 8 : 16) QuadOf {
    T v[4];
};
typedef QuadOf<REAL> Quad;

// Elements at ... at + 3 of an array, `fill` from its end on; one load where they are aligned.
template <typename T>
__device__ __forceinline__ QuadOf<T> read_quad(const T* a, uint64 at, uint64 size, T fill = T())
{
    ASSUME_GLOBAL(a);
    const T* from = a + at;
    if (at + 4 <= size && (uint64)from % alignof(QuadOf<T>) == 0)
        return *reinterpret_cast<const QuadOf<T>*>(from);
    QuadOf<T> out;
#pragma unroll
    for (int n = 0; n < 4; ++n) out.v[n] = at + n < size ? from[n] : fill;
    return out;
}

// Write four elements as read_quad reads them.
template <typename T>
__device__ __forceinline__ void write_quad(T* a, uint64 at, uint64 size, const QuadOf<T>& x)
{
    ASSUME_GLOBAL(a);
    T* to = a + at;
    if (at + 4 <= size && (uint64)to % alignof(QuadOf<T>) == 0) {
        *reinterpret_cast<QuadOf<T>*>(to) = x;
        return;
    }
#pragma unroll
    for (int n = 0; n < 4; ++n)
        if (at + n < size) to[n] = x.v[n];
}

__device__ __forceinline__ QuadOf<bf16> bf16_of(const Quad& x)
{
    QuadOf<bf16> out;
#pragma unroll
    for (int n = 0; n < 4; ++n) out.v[n] = bf16_of((float)x.v[n]);
    return out;
}
__device__ __forceinline__ const Quad& real_of(const Quad& x) { return x; }
__device__ __forceinline__ Quad real_of(const QuadOf<bf16>& x)
{
    Quad out;
#pragma unroll
    for (int n = 0; n < 4; ++n) out.v[n] = real_of(x.v[n]);
    return out;
}

__device__ __forceinline__ Quad sum_of(Quad a, const Quad& b)
{
#pragma unroll
    for (int n = 0; n < 4; ++n) a.v[n] += b.v[n];
    return a;
}

#define NO_NOTES 255  // begins a row of notes that has no target, as in arrays.py

// The first note from `from` up that is on, D where there is none. notes (D,) 0 or 1. For whole warps, all
// lanes with the same arguments.
__device__ __forceinline__ int next_note(const unsigned char* notes, int from, int D)
{
    const int lane = threadIdx.x % 32;
    for (int d = from; d < D; d += 32) {
        const uint32 on = __ballot_sync(FULL_WARP, d + lane < D && notes[d + lane]);
        if (on) return d + __ffs(on) - 1;
    }
    return D;
}

// The last note below `below` that is on, -1 where there is none.
__device__ __forceinline__ int previous_note(const unsigned char* notes, int below)
{
    const int lane = threadIdx.x % 32;
    for (int d = below - 1; d >= 0; d -= 32) {
        const uint32 on = __ballot_sync(FULL_WARP, d >= lane && notes[d - lane]);
        if (on) return d - __ffs(on) + 1;
    }
    return -1;
}

// The nats of a note y of 0 or 1 with logit x, log(1 + e^x) - y·x without overflow; no finite number where x
// is none.
__device__ __forceinline__ REAL note_nats(REAL x, REAL y)
{
    return (x > 0 ? x : REAL(0)) - x * y + log1p_of(exp_of(x < 0 ? x : -x));
}

struct Four {
    uint32 word[4];
};

// Philox4x32-10 (Salmon et al. 2011): the same bits as lstm_music/ops/philox.py.
__device__ __forceinline__ Four philox(uint32 block, uint32 stream, uint32 step, uint32 k0, uint32 k1)
{
    uint32 c0 = block, c1 = stream, c2 = step, c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const uint64 p0 = (uint64)c0 * 0xD2511F53u;
        const uint64 p1 = (uint64)c2 * 0xCD9E8D57u;
        const uint32 c1_before = c1, c3_before = c3;
        c0 = (uint32)(p1 >> 32) ^ c1_before ^ k0;
        c1 = (uint32)p1;
        c2 = (uint32)(p0 >> 32) ^ c3_before ^ k1;
        c3 = (uint32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Four out;
    out.word[0] = c0, out.word[1] = c1, out.word[2] = c2, out.word[3] = c3;
    return out;
}

// Number t of a stream in 0 ... 1, which `uniform` of philox.py makes 1,024 at a time.
__device__ __forceinline__ double uniform(int t, uint32 stream, uint32 k0, uint32 k1)
{
    const Four bits = philox((uint32)(t % 1024) / 4, stream, (uint32)(t / 1024), k0, k1);
    const uint32 first_two = t % 2 ? bits.word[1] : bits.word[0];
    const uint32 last_two = t % 2 ? bits.word[3] : bits.word[2];
    return (t % 4 < 2 ? first_two : last_two) * (1.0 / 4294967296.0);
}
