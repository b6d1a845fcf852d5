"""Every kernel compiles for the GPUs that matter, without a GPU: by NVRTC from its pip wheel."""

import importlib.util
import re
from itertools import product
from pathlib import Path

import pytest
from host_cuda import nvrtc

from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.lstm_sequence import (
    CLUSTERS,
    EXCHANGES,
    ROWS,
    plan_of,
    sequence_options,
    sequence_plan,
)

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
every_version = pytest.mark.parametrize("lib", nvrtc.libraries(), ids=nvrtc.version_of)
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
SHARED = {"sm_75": 64 << 10, "sm_80": 163 << 10, "sm_90": 227 << 10}
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def compiled(name, arch, dtype, options=(), lib=None):
    """Return stack and spill bytes of each kernel of a source."""
    flags = (source.real_option(dtype), "--ptxas-options=-v", *options)
    cubin, log = nvrtc.compile_cubin(source.text(name), arch, flags, lib)
    assert cubin
    return [tuple(map(int, found)) for found in SPILLS.findall(log)]


@pytest.mark.slow(keep=2)
@every_version
@pytest.mark.parametrize("name", [n for n in source.names() if n != "lstm_sequence"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles_without_spills(name, arch, lib):
    for dtype in ("float32", "float64"):
        found = compiled(name, arch, dtype, lib=lib)
        assert found
        assert set(found) == {(0, 0, 0)}


def plans(arch):
    """Every plan of the persistent kernel at some sizes: float, then double."""
    for itemsize, dtype in ((4, "float32"), (8, "float64")):
        clusters = CLUSTERS if arch == "sm_90" and itemsize == 4 else (1,)
        for H, cluster, rows in product((128, 192, 256), clusters, ROWS):
            plan = plan_of(H, itemsize, SHARED[arch], cluster, rows)
            if plan is not None:
                for exchange in EXCHANGES if cluster > 1 else EXCHANGES[:1]:
                    yield dtype, plan._replace(exchange=exchange)


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
            if (dtype, plan.bound) != ("float64", 1024):
                assert found[dtype, options] == [(0, 0, 0)] * 2, options
    assert len(found) >= (24 if arch == "sm_90" else 6)


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


def instructions(name, arch, *options):
    cubin, _ = nvrtc.compile_cubin(source.text(name), arch, ("-DREAL=float", *options))
    return sass().instructions(cubin)


@pytest.mark.skipif(sass().disassembler() is None, reason=sass().MISSING)
def test_a_clusters_steps_have_no_fence():
    plan = sequence_plan(50, 128, 4, 132, SHARED["sm_90"], clusters=True)
    assert plan.cluster > 1
    fences = {}
    for exchange in EXCHANGES:
        options = sequence_options(plan._replace(exchange=exchange))
        for kernel, counts in instructions("lstm_sequence", "sm_90", *options).items():
            stores = sum(n for op, n in counts.items() if op.startswith("STAS.128"))
            assert (stores > 0) == (exchange == "mbarrier"), kernel
            cells = dict(zip(sass().CLASSES, sass().cells(counts), strict=True))
            fences[exchange, kernel] = int(cells["fences"])
    # One meeting before the first step, a fence and an invalidation; else one more at each step.
    for (exchange, kernel), n in fences.items():
        assert n == 2 if exchange == plan.exchange else n > 2, (exchange, kernel)


@pytest.mark.skipif(sass().disassembler() is None, reason=sass().MISSING)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_weights_going_back_are_loaded_16_bytes_at_a_time(arch):
    plan = sequence_plan(50, 128, 4, 132, SHARED[arch], arch == "sm_90")
    counts = instructions("lstm_sequence", arch, *sequence_options(plan))["lstm_sequence_backward"]
    assert not [op for op in counts if op.startswith(("LDL", "STL", "LD.", "ST."))]
    loads = sum(n for op, n in counts.items() if op.startswith("LDG") and sass().width(op) == 16)
    assert loads >= plan.registers // 4


@pytest.mark.skipif(sass().disassembler() is None, reason=sass().MISSING)
@pytest.mark.parametrize("name", ["bf16", "column_sum", "embedding", "optimizer", "softmax_xent"])
def test_kernels_that_stream_load_16_bytes_at_a_time(name):
    cubin, _ = nvrtc.compile_cubin(source.text(name), "sm_90", ("-DREAL=float",))
    for kernel, counts in sass().instructions(cubin).items():
        local = [op for op in counts if op.startswith(("LDL", "STL", "LD.", "ST."))]
        assert not local, f"{kernel}: generic or local memory"
        if kernel not in ("average_forward", "clip_forward"):
            widths = {sass().width(op) for op in counts if op.startswith("LDG")}
            assert (8 if kernel == "column_sum_bf16" else 16) in widths, kernel
