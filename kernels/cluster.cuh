// A cluster: blocks on neighbouring multiprocessors that reach each other's shared memory (sm_90 and later).
// CLUSTER of them, 1 elsewhere: then all of this is nothing. tests/host_cuda/host_cuda.h runs clusters too.
#include "common.cuh"

#ifndef CLUSTER
#define CLUSTER 1
#endif

#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

// Which of its cluster's blocks this is.
__device__ __forceinline__ int cluster_rank()
{
#if CLUSTER == 1
    return 0;
#else
    return blockIdx.x % CLUSTER;
#endif
}

#if CLUSTER == 1
#define cluster_barrier() __syncthreads()
template <typename T>
__device__ __forceinline__ T* of_block(T* own, int) { return own; }
#elif defined(HOST_CUDA)
#define cluster_barrier() host_cuda::sync_cluster(__LINE__)
using host_cuda::of_block;
#else
// All threads of the cluster meet, and see what the others wrote to shared memory.
__device__ __forceinline__ void cluster_barrier()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Where the block of that rank has what this one has at an address of its shared memory.
template <typename T>
__device__ __forceinline__ T* of_block(T* own, int rank)
{
    uint64 there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"((uint64)own), "r"(rank));
    return reinterpret_cast<T*>(there);
}
#endif
