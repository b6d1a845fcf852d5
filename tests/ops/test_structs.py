"""Structs that Python fills and kernels read: each is laid out as NumPy says, and read by name."""

import numpy as np
import pytest
from host_cuda import nvrtc
from host_cuda.compile import COMPILER, HostModule
from host_cuda.host_cupy import HostCupy

from lstm_music.ops.cuda import source, structs
from lstm_music.ops.cuda.cupy_ops import CupyOps

on_cpu = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
with_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="no NVRTC here (pip install nvidia-cuda-nvrtc)"
)

# Every kind of member, in an order that leaves gaps.
MIXED = [
    ("flag", np.uint8),
    ("weight", np.float64),
    ("bounds", np.int32, (3,)),
    ("values", structs.pointer_to("const float")),
    ("sign", np.int8),
    ("table", np.uint32, (2, 2)),
    ("small", np.float32),
    ("size", np.uint64),
    ("offset", np.int64),
]
ROWS = [
    {
        "flag": 200 + n, "weight": 0.1 + n, "bounds": (-n, 7, 2**31 - 1), "values": 0, "sign": -n,
        "table": ((1, 2), (n, 2**32 - 1)), "small": 0.5 * n, "size": 2**63 + n, "offset": -(2**40),
    }
    for n in range(3)
]  # fmt: skip
READ = """
extern "C" __global__ void read_mixed(const Mixed* mixed, double* out)
{
    const Mixed& m = mixed[blockIdx.x];
    const double found[] = {
        (double)m.flag, m.weight, (double)m.bounds[0], (double)m.bounds[2], (double)(m.values == 0), (double)m.sign,
        (double)m.table[1][0], (double)m.table[1][1], (double)m.small, (double)m.size, (double)m.offset};
    for (int k = 0; k < 11; ++k) out[11 * blockIdx.x + k] = found[k];
}
"""  # noqa: E501


def read_back(dtype):
    """What a kernel reads of ROWS, by its host build."""
    code = "\n".join((structs.c_struct("Mixed", dtype), READ))
    kernel = HostModule(code).get_function("read_mixed")
    out = np.zeros((len(ROWS), 11))
    kernel((len(ROWS),), (1,), (structs.packed(dtype, ROWS), out))
    return out


@on_cpu
def test_a_kernel_reads_what_python_wrote():
    expected = [
        [
            row["flag"], row["weight"], row["bounds"][0], row["bounds"][2], 1, row["sign"],
            *row["table"][1], row["small"], row["size"], row["offset"],
        ]
        for row in ROWS
    ]  # fmt: skip
    np.testing.assert_array_equal(read_back(np.dtype(MIXED, align=True)), expected)


@on_cpu
def test_another_layout_is_refused():
    with pytest.raises(ValueError, match=r"Mixed\.weight lies at 1, and in C at 8"):
        read_back(np.dtype(MIXED))  # without the gaps
    aligned = np.dtype(MIXED, align=True)
    kinds, offsets = zip(*structs.fields(aligned).values(), strict=True)
    offsets = [
        offset + 4 * (name == "weight") for name, offset in zip(aligned.names, offsets, strict=True)
    ]
    moved = {"names": aligned.names, "formats": kinds, "offsets": offsets}
    with pytest.raises(ValueError, match=r"Mixed\.weight lies at 12, and in C at 8"):
        read_back(np.dtype(moved | {"itemsize": aligned.itemsize}))
    formats = {"names": aligned.names, "formats": kinds, "itemsize": aligned.itemsize + 8}
    with pytest.raises(RuntimeError, match=r"sizeof\(Mixed\) is not"):
        read_back(np.dtype(formats | {"offsets": [aligned.fields[n][1] for n in aligned.names]}))


@with_nvrtc
def test_nvrtc_lays_them_out_as_numpy_does():
    code = structs.c_struct("Mixed", np.dtype(MIXED, align=True)) + READ
    assert nvrtc.compile_cubin(code, "sm_90")[0]
    for member in ("float weight;", "double weight[2];"):
        with pytest.raises(nvrtc.CompileError, match=r"sizeof\(Mixed::weight\) is not 8"):
            nvrtc.compile_cubin(code.replace("double weight;", member), "sm_90")


def test_members_are_given_by_their_names():
    dtype = np.dtype([("a", np.int32), ("b", np.float64)], align=True)
    found = structs.packed(dtype, [{"b": 0.5, "a": 1}, {"a": 2, "b": 1.5}])
    assert found.dtype == np.uint8 and found.shape == (32,)
    assert found.view(dtype).tolist() == [(1, 0.5), (2, 1.5)]
    for row in ({"a": 1}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(KeyError, match=r"members \['[bc]'\]"):
            structs.packed(dtype, [row])


@pytest.mark.parametrize("name", structs.GENERATED)
def test_what_is_generated_is_in_the_sources_and_nowhere_else(name):
    assert not (source.FOLDER / name).exists()
    files = {file: (source.FOLDER / f"{file}.cu").read_text("utf-8") for file in source.names()}
    using = [file for file, text in files.items() if f'#include "{name}"' in text]
    assert using
    for struct, dtype in structs.GENERATED[name].items():
        for file in using:
            assert source.text(file).count(f"struct {struct} {{") == 1
            assert structs.agreement(f"sizeof({struct})", dtype.itemsize) in source.text(file)


@on_cpu
def test_a_member_written_otherwise_in_c_does_not_compile():
    ops = CupyOps("float64", cupy=HostCupy())
    ops.xp.mutate = lambda code: code.replace("double decay;", "float decay[4];")
    with pytest.raises(RuntimeError, match=r"sizeof\(Tensor::decay\) is not 8"):
        ops.sum_squares(ops.asarray(np.ones(3)))
