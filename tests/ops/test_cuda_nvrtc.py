"""Every kernel compiles for the GPUs that matter, without a GPU: by NVRTC from its pip wheel."""

import importlib.util
import re
from pathlib import Path

import pytest

from host_cuda import nvrtc
from lstm_music.ops import cuda_source
from lstm_music.ops.lstm_sequence import CLUSTERS, ROWS, plan_of, sequence_options

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
every_version = pytest.mark.parametrize("lib", nvrtc.libraries(), ids=nvrtc.version_of)
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
SHARED = {"sm_75": 64 << 10, "sm_80": 163 << 10, "sm_90": 227 << 10}
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def compiled(name, arch, dtype, options=(), lib=None):
    """Return stack and spill bytes of each kernel of a source."""
    flags = (cuda_source.real_option(dtype), "--ptxas-options=-v", *options)
    cubin, log = nvrtc.compile_cubin(cuda_source.source(name), arch, flags, lib)
    assert cubin
    return [tuple(map(int, found)) for found in SPILLS.findall(log)]


@pytest.mark.slow(keep=2)
@every_version
@pytest.mark.parametrize("name", [n for n in cuda_source.names() if n != "lstm_sequence"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles_without_spills(name, arch, lib):
    for dtype in ("float32", "float64"):
        found = compiled(name, arch, dtype, lib=lib)
        assert found
        assert set(found) == {(0, 0, 0)}


def plans(arch):
    """Every plan of the persistent kernel at some sizes: float, then double."""
    for itemsize, dtype in ((4, "float32"), (8, "float64")):
        for H in (128, 192, 256):
            for cluster in CLUSTERS if arch == "sm_90" and itemsize == 4 else (1,):
                for rows in ROWS:
                    plan = plan_of(H, itemsize, SHARED[arch], cluster, rows, arch == "sm_90")
                    if plan is not None:
                        yield dtype, plan


@pytest.mark.slow
@every_version
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_persistent_kernel_compiles_without_spills(arch, lib):
    found = {}
    for dtype, plan in plans(arch):
        options = sequence_options(plan)
        if (dtype, options) not in found:
            found[dtype, options] = compiled("lstm_sequence", arch, dtype, options, lib)
            assert len(found[dtype, options]) == 2
    assert all(
        spills == [(0, 0, 0)] * 2 for (dtype, _), spills in found.items() if dtype != "float64"
    )
    assert len(found) >= (15 if arch == "sm_90" else 6)


def sass():
    path = Path(__file__).parents[2] / "benchmarks" / "sass.py"
    spec = importlib.util.spec_from_file_location("sass", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_instructions_are_counted_by_class_and_width():
    counts = sass().parsed(
        ".text.some_kernel:\n"
        "        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;\n"
        "        /*0010*/              @!P0 LDG.E R8, desc[UR4][R2.64+0x10] ;\n"
        "        /*0020*/                   FFMA R4, R4, R5, R6 ;\n"
        "        /*0030*/                   NOP;\n"
        "        /*0040*/                   LDSM.16.M88.4 R4, [R9+0x40] ;\n"
        "        /*0050*/              @!PT LDS RZ, [RZ] ;\n"
        ".text.other:\n"
        "        /*0000*/               @P1 STL.64 [R1], R2 ;\n"
    )
    assert set(counts) == {"some_kernel", "other"}
    cells = dict(zip(sass().CLASSES, sass().cells(counts["some_kernel"]), strict=True))
    assert cells["global loads"] == "1 × 16 B, 1 × 4 B" and cells["global stores"] == "–"
    assert (cells["FFMA"], cells["local"], cells["all"]) == ("1", "0", "4")
    assert cells["shared loads"] == "1 × 16 B"
    assert sass().cells(counts["other"])[-2:] == ["1", "1"]


@pytest.mark.skipif(sass().disassembler() is None, reason=sass().MISSING)
@pytest.mark.parametrize("name", ["bf16", "column_sum", "embedding", "optimizer", "softmax_xent"])
def test_kernels_that_stream_load_16_bytes_at_a_time(name):
    cubin, _ = nvrtc.compile_cubin(cuda_source.source(name), "sm_90", ("-DREAL=float",))
    for kernel, counts in sass().instructions(cubin).items():
        local = [op for op in counts if op.startswith(("LDL", "STL", "LD.", "ST."))]
        assert not local, f"{kernel}: generic or local memory"
        if kernel not in ("average_forward", "clip_forward"):
            widths = {sass().width(op) for op in counts if op.startswith("LDG")}
            assert (8 if kernel == "column_sum_bf16" else 16) in widths, kernel
