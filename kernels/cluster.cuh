// A cluster: CLUSTER blocks on neighbouring multiprocessors that reach each other's shared memory (distributed shared
// memory, sm_90 and later), the barrier of all its threads, and asynchronous stores that an mbarrier of the receiver
// counts. CLUSTER is 1 elsewhere: then none of this exists. tests/harness/host_cuda/host_cuda.h runs clusters too.
// Source: PTX ISA, "barrier.cluster", "mapa", "st.async" and "Asynchronous barrier".
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
__device__ __forceinline__ int cluster_rank() { return CLUSTER == 1 ? 0 : blockIdx.x % CLUSTER; }

// 16 bytes: the most that one asynchronous store takes.
struct alignas(16) Packet {
    uint32 word[4];
};

// Of a block, in its shared memory. A phase ends when all arrivals and all bytes expected have come.
typedef uint64 Mbarrier;

#if CLUSTER > 1 && defined(HOST_CUDA)
#define cluster_arrive() host_cuda::arrive_at_cluster(__LINE__)
using host_cuda::cluster_wait;
using host_cuda::in_block;
using host_cuda::mbarrier_announce;
using host_cuda::mbarrier_expect;
using host_cuda::mbarrier_init;
using host_cuda::mbarrier_wait;
using host_cuda::store_async;
#elif CLUSTER > 1
// All threads of the cluster meet: what each wrote before it arrived, all see once they have waited. The release is a
// fence of all memory (MEMBAR.ALL.GPU): it lasts until every store under way, to device memory too, is done.
__device__ __forceinline__ void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Where the block of that rank has what this one has at an address of its shared memory.
template <typename T>
__device__ __forceinline__ T* in_block(T* own, int rank)
{
    uint64 there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"((uint64)own), "r"(rank));
    return reinterpret_cast<T*>(there);
}

__device__ __forceinline__ uint32 shared_address(const void* own) { return (uint32)__cvta_generic_to_shared(own); }

__device__ __forceinline__ void mbarrier_init(Mbarrier* own, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(own)), "r"(arrivals) : "memory");
}

// What this thread has initialised the cluster sees behind its next barrier.
__device__ __forceinline__ void mbarrier_announce()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrive, and expect so many bytes more in the phase under way.
__device__ __forceinline__ void mbarrier_expect(Mbarrier* own, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
        :: "r"(shared_address(own)), "r"(bytes) : "memory");
}

// Wait until the phase under way is not of that parity. What has come then lies in the block's own shared memory, so an
// acquire of the block's scope is enough; one of the cluster's would empty the L1 cache each time (CCTL.IVALL).
__device__ __forceinline__ void mbarrier_wait(Mbarrier* own, int parity)
{
    uint32 ended;
    do {
        asm volatile("{\n\t.reg .pred ended;\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, ended;\n\t}"
            : "=r"(ended) : "r"(shared_address(own)), "r"(parity) : "memory");
    } while (!ended);
}

// Write to the block of that rank, where this one has `own` in its shared memory; there `counter` counts the bytes when
// they have come. Nobody waits for it here.
__device__ __forceinline__ void store_async(void* own, const Packet& x, Mbarrier* counter, int rank)
{
    asm volatile("{\n\t.reg .b32 to, bar;\n\t"
        "mapa.shared::cluster.u32 to, %0, %6;\n\t"
        "mapa.shared::cluster.u32 bar, %1, %6;\n\t"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [to], {%2, %3, %4, %5}, [bar];\n\t}"
        :: "r"(shared_address(own)), "r"(shared_address(counter)), "r"(x.word[0]), "r"(x.word[1]), "r"(x.word[2]),
           "r"(x.word[3]), "r"(rank)
        : "memory");
}
#endif
