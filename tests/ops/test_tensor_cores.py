"""What kernels/tensor_cores.cuh does, on the CPU stand-in, against plain products."""

import numpy as np
import pytest
from host_cuda.compile import COMPILER, HostModule, LaunchError
from host_cuda.host_cublas import from_bf16

from lstm_music.ops.cuda import source

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")

SHARED = 2 * 24 * 16
KERNEL = """
#include "tensor_cores.cuh"

// c (16, 8) = a (16, 16) · b (8, 16) transposed, both through shared memory.
extern "C" __global__ void product(const bf16* a, const bf16* b, float* c, int rows)
{
    SHARED_ARRAY(bf16, tile);  // 24 rows of 16
    const int lane = threadIdx.x;
    if (lane < 32) copy_async(tile + 8 * lane, a + 8 * lane, lane / 2 < rows);
    copies_commit();
    if (lane < 16) copy_async(tile + 256 + 8 * lane, b + 8 * lane, true);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    uint32 left[4], right[4];
    const int matrix = lane / 8, row = lane % 8;
    ldmatrix(left, tile + (row + 8 * (matrix % 2)) * 16 + 8 * (matrix / 2));
    ldmatrix(right, tile + 256 + row * 16 + 8 * (matrix % 2));
    float sums[4] = {0, 0, 0, 0};
    mma(sums, left, right[0], right[1]);
    for (int n = 0; n < 4; ++n) c[(lane / 4 + 8 * (n / 2)) * 8 + 2 * (lane % 4) + n % 2] = sums[n];
}

extern "C" __global__ void rounding(const float* x, uint32* pairs, float* powers)
{
    const int n = threadIdx.x;
    pairs[n] = bf16_pair(x[2 * n], x[2 * n + 1]);
    powers[n] = exp2_of(x[n]) + 0 * (low_of(pairs[n]) + high_of(pairs[n]));
}
"""


def module(text=KERNEL):
    return HostModule(source.with_includes(text), ())


def bits(x):
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def factors():
    rng = np.random.default_rng(0)
    return (bits(rng.normal(size=shape)) for shape in ((16, 16), (8, 16)))


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("rows", [16, 11])
def test_a_product_is_that_of_the_matrices(order, rows):
    a, b = factors()
    c = np.full((16, 8), np.nan, np.float32)
    module().get_function("product")((1,), (32,), (a, b, c, np.int32(rows)), SHARED, order)
    left = np.where(np.arange(16)[:, None] < rows, from_bf16(a), 0)
    np.testing.assert_allclose(c, left @ from_bf16(b).T, rtol=1e-5, atol=1e-6)


def test_copies_that_nobody_waits_for_are_missed():
    a, b = factors()
    c = np.zeros((16, 8), np.float32)
    planted = module(KERNEL.replace("copies_wait<0>();", "copies_wait<1>();"))
    planted.get_function("product")((1,), (32,), (a, b, c, np.int32(16)), SHARED)
    assert np.isnan(c).all()


def test_rows_that_are_not_aligned_are_refused():
    a, b = factors()
    c = np.zeros((16, 8), np.float32)
    planted = module(KERNEL.replace("row * 16 + 8 * (matrix % 2)", "row * 16 + 4 * (matrix % 2)"))
    with pytest.raises(LaunchError, match="16 bytes"):
        planted.get_function("product")((1,), (32,), (a, b, c, np.int32(16)), SHARED)


def test_pairs_are_rounded_and_powers_are_of_two():
    x = np.random.default_rng(1).normal(size=64).astype(np.float32)
    x[:2] = 1 + 1 / 256, 1 + 3 / 256  # halfway: to the even one
    pairs, powers = np.zeros(32, np.uint32), np.zeros(32, np.float32)
    module().get_function("rounding")((1,), (32,), (x, pairs, powers))
    halves = pairs.view(np.uint16)
    assert from_bf16(halves[:2]).tolist() == [1.0, 1 + 4 / 256]
    np.testing.assert_allclose(from_bf16(halves), x, rtol=1 / 256)
    np.testing.assert_allclose(powers, np.exp2(x[:32]), rtol=1e-6)
