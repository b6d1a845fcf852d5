// A copy gate's mixture of the network and of what the piece has said: ops/reference/copying.py.
#include "common.cuh"

struct Mixed {
    REAL nats, share;  // of the mixture; and the network's share of the target's probability
};

// Row n of a mixture, given the network's nats. own, copied (N,) as in Mixture of arrays.py, null where nothing is
// copied: then it is the network's alone. What is no number stays none.
__device__ __forceinline__ Mixed mixed(REAL nats, const REAL* own, const REAL* copied, int n)
{
    Mixed out = {nats, REAL(1)};
    if (!own) return out;
    const REAL network = own[n] - nats, copies = copied[n], top = network > copies ? network : copies;
    const REAL total = top + log_of(exp_of(network - top) + exp_of(copies - top));
    out.nats = -total, out.share = exp_of(network - total);
    return out;
}
