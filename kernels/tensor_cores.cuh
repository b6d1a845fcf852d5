// The tensor cores of sm_80 and later, for a warp: bf16 operands, accumulators in fp32. Each is one instruction;
// tests/harness/host_cuda/host_cuda.h has the same by plain arithmetic. What lane 4g + q of the warp holds of
//
//   A (16, 16): a[0] columns 2q, 2q+1 of row g, a[1] of row g+8; a[2], a[3] the same of columns 2q+8, 2q+9
//   B (16, 8):  b0 rows 2q, 2q+1 of column g; b1 rows 2q+8, 2q+9
//   C (16, 8):  c[0], c[1] columns 2q, 2q+1 of row g; c[2], c[3] of row g+8
//
// Two neighbours share 32 bits, the first in the lower half.
// Source: PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".
#include "common.cuh"

#define LOG2_E 1.4426950408889634f  // e^x = 2^(x · log2 e)

#ifndef HOST_CUDA
#if __CUDA_ARCH__ >= 800
#define TENSOR_CORES 1
#endif

// c += A · B.
__device__ __forceinline__ void mma(float* c, const uint32* a, uint32 b0, uint32 b1)
{
#ifdef TENSOR_CORES
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// An address in shared memory, a number.
typedef uint32 SharedAt;
__device__ __forceinline__ SharedAt shared_at(const void* pointer)
{
    return (SharedAt)__cvta_generic_to_shared(pointer);
}

// Four matrices of 8 rows of 8 in shared memory, aligned to 16 bytes: lanes 8m ... 8m+7 say where the rows of
// matrix m begin; x[m] is elements 2q, 2q+1 of row g of it.
__device__ __forceinline__ void ldmatrix(uint32* x, SharedAt row)
{
#ifdef TENSOR_CORES
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(row) : "memory");
#endif
}
__device__ __forceinline__ void ldmatrix(uint32* x, const bf16* row) { ldmatrix(x, shared_at(row)); }

// Copy 16 bytes from device to shared memory beside other work; zeros where `exists` is false.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool exists)
{
#ifdef TENSOR_CORES
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
        :: "r"(shared_at(to)), "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
        : "memory");
#endif
}

// The thread's copies since the last call are a group, even if there are none.
__device__ __forceinline__ void copies_commit()
{
#ifdef TENSOR_CORES
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait for all of the thread's groups but the last `later`; those of others take a barrier more.
template <int later>
__device__ __forceinline__ void copies_wait()
{
#ifdef TENSOR_CORES
    asm volatile("cp.async.wait_group %0;" :: "n"(later) : "memory");
#endif
}

// Two numbers rounded to bf16, to the nearest, the even one of two as near.
__device__ __forceinline__ uint32 bf16_pair(float low, float high)
{
    uint32 out = 0;
#ifdef TENSOR_CORES
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
#endif
    return out;
}

// The hardware's 2^x; the result of a number below -126 is 0.
__device__ __forceinline__ float exp2_of(float x)
{
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
#else
typedef uint64 SharedAt;
inline SharedAt shared_at(const void* pointer) { return (SharedAt)pointer; }
using host_cuda::copies_commit;
using host_cuda::copies_wait;
using host_cuda::copy_async;
using host_cuda::exp2_of;
#define mma(c, a, b0, b1) host_cuda::mma(c, a, b0, b1, __LINE__)
#define ldmatrix(x, row) host_cuda::ldmatrix(x, row, __LINE__)
__device__ __forceinline__ uint32 bf16_pair(float low, float high)
{
    return bf16_of(low).bits | (uint32)bf16_of(high).bits << 16;
}
#endif

__device__ __forceinline__ float low_of(uint32 pair) { return __int_as_float((int)(pair << 16)); }
__device__ __forceinline__ float high_of(uint32 pair) { return __int_as_float((int)(pair & 0xffff0000u)); }
