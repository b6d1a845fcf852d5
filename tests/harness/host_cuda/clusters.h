// Clusters for host_cuda.h, which includes this: the barrier of all their threads, the shared memory of other blocks,
// mbarriers, and asynchronous stores. kernels/cluster.cuh says what each does.
//
// A store comes at the last moment in the ascending order of threads, when nobody can run without it and the latest
// first; at once in the descending order; by chance either way in the shuffled one.

// Where the block of that rank has what this one has at an address of its shared memory.
template <typename T>
inline T* in_block(T* own, int rank)
{
    const long offset = (unsigned char*)own - own_block().shared.data();
    if (offset < 0 || offset >= (long)own_block().shared.size()) {
        fail("not an address of shared memory");
        return own;  // what lies so far from another block's could be anything
    }
    if (!blocks[rank].alive) fail("a block's shared memory is reached after its end");
    return (T*)(blocks[rank].shared.data() + offset);
}

inline void arrive_at_cluster(int line)
{
    Fibre& self = fibres[current];
    if (self.arrived_at_cluster) fail("cluster barrier: a thread arrives twice without waiting");
    self.arrived_at_cluster = true;
    self.cluster_generation = cluster_barrier.generation;
    arrive(cluster_barrier, alive, line, "cluster barrier");
}

inline void cluster_wait()
{
    Fibre& self = fibres[current];
    if (!self.arrived_at_cluster) fail("cluster barrier: a thread waits without having arrived");
    self.arrived_at_cluster = false;
    wait_for(cluster_barrier, self.cluster_generation);
}

constexpr Word INITIALISED = 0x6d62617272696572;  // what an mbarrier shows

inline Mbarrier& state_of(Word* own)
{
    if (!mbarriers.count(own)) fail("an mbarrier that nobody has initialised");
    else if (*own != INITIALISED) fail("an mbarrier that something else has written over");
    return mbarriers[own];
}

inline void end_phase(Mbarrier& barrier)
{
    if (barrier.pending == 0 && barrier.bytes == 0) ++barrier.phase, barrier.pending = barrier.arrivals;
}

inline void mbarrier_init(Word* own, int arrivals)
{
    in_block(own, 0);
    if ((uintptr_t)own % 8) fail("an mbarrier that isn't aligned to 8 bytes");
    if (mbarriers.count(own)) fail("an mbarrier that is initialised twice");
    *own = INITIALISED;
    Mbarrier& barrier = mbarriers[own];
    barrier.arrivals = barrier.pending = arrivals;
    barrier.owner = current;
}

inline void mbarrier_announce()
{
    for (auto& each : mbarriers)
        if (each.second.owner == current) each.second.announced = true;
}

inline void mbarrier_expect(Word* own, int bytes)
{
    Mbarrier& barrier = state_of(own);
    barrier.bytes += bytes;
    if (barrier.pending-- == 0) fail("more threads arrive at an mbarrier than it was initialised for");
    end_phase(barrier);
}

inline void mbarrier_wait(Word* own, int parity)
{
    Fibre& self = fibres[current];
    self.mbarrier = &state_of(own).phase;
    self.parity = parity;
    pause();
}

inline void deliver(const Store& store)
{
    if (!blocks[store.rank].alive) return fail("a block's shared memory is reached after its end");
    memcpy(store.to, store.packet, sizeof store.packet);
    Mbarrier& barrier = state_of(store.counter);
    barrier.bytes -= sizeof store.packet;
    if (barrier.bytes <= -(1 << 20)) fail("an mbarrier has counted more bytes than it can");
    end_phase(barrier);
}

template <typename T>
inline void store_async(void* own, const T& x, Word* counter, int rank)
{
    Store store = {rank, (unsigned char*)in_block((char*)own, rank), in_block(counter, rank), {}};
    static_assert(sizeof x == sizeof store.packet, "a store of 16 bytes");
    memcpy(store.packet, &x, sizeof x);
    if ((uintptr_t)store.to % 16) fail("an asynchronous store that isn't aligned to 16 bytes");
    if (!state_of(store.counter).announced) fail("an mbarrier is used by another block before it is announced");
    if (order == 1 || (order == 2 && random_below(2))) deliver(store);
    else stores.push_back(store);
}

// Let the latest store come; returns whether there was one.
inline bool deliver_latest()
{
    if (stores.empty()) return false;
    const Store store = stores.back();
    stores.pop_back();
    deliver(store);
    return true;
}

// At a cluster's end, all that was sent has come, and all that was expected.
inline void check_stores()
{
    if (!stores.empty()) fail("a cluster ends before what it stores has come");
    for (const auto& each : mbarriers)
        if (each.second.bytes || each.second.pending != each.second.arrivals)
            fail("a cluster ends while an mbarrier expects " + std::to_string(each.second.bytes) + " bytes");
}
