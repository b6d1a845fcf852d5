"""Every kernel compiles for the GPUs that matter, without a GPU: by NVRTC from its pip wheel."""

import re

import pytest

from host_cuda import nvrtc
from lstm_music.ops import cuda_source
from lstm_music.ops.cupy_ops import sequence_options, sequence_plan

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
SHARED = {"sm_75": 64 << 10, "sm_80": 163 << 10, "sm_90": 227 << 10}
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def compiled(name, arch, dtype, options=()):
    """Return stack and spill bytes of each kernel of a source."""
    flags = (cuda_source.real_option(dtype), "--ptxas-options=-v", *options)
    cubin, log = nvrtc.compile_cubin(cuda_source.source(name), arch, flags)
    assert cubin
    return [tuple(map(int, found)) for found in SPILLS.findall(log)]


@pytest.mark.parametrize("name", [n for n in cuda_source.names() if n != "lstm_sequence"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles_without_spills(name, arch):
    for dtype in ("float32", "float64"):
        found = compiled(name, arch, dtype)
        assert found
        assert set(found) == {(0, 0, 0)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("H", [128, 256])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_the_persistent_kernel_compiles_without_spills(arch, H, rows):
    for itemsize, dtype in ((4, "float32"), (8, "float64")):
        plan = sequence_plan(100 * rows, H, itemsize, 100, SHARED[arch])
        if plan is None:
            continue  # too little shared memory: the cell kernel takes over
        assert plan.rows == (rows if H == 128 else min(rows, 2))
        found = compiled("lstm_sequence", arch, dtype, sequence_options(plan))
        assert len(found) == 2
        if dtype == "float32":
            assert found == [(0, 0, 0)] * 2
