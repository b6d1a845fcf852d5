"""The way past CuPy to cuBLAS, with a library of our own in its place."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest
from host_cuda.compile import COMPILER

from lstm_music.errors import UserError
from lstm_music.ops.cuda import cublas

SOURCE = """
static long long seen[22];
static int failing;
extern "C" void fail_from_now_on() { failing = 13; }
extern "C" long long argument(int n) { return seen[n]; }
extern "C" int cublasSetStream_v2(void* handle, void* stream)
{
    seen[18] = (long long)handle, seen[19] = (long long)stream;
    return 0;
}
extern "C" int cublasSetWorkspace_v2(void* handle, void* where, unsigned long size)
{
    seen[20] = (long long)where, seen[21] = size;
    return seen[18] != (long long)handle;
}
extern "C" int cublasGemmEx(
    void* handle, int ta, int tb, int m, int n, int k, const void* alpha,
    const void* A, int a_type, int lda, const void* B, int b_type, int ldb,
    const void* beta, void* C, int c_type, int ldc, int compute, int algorithm)
{
    const long long found[] = {
        ta, tb, m, n, k, (long long)alpha, (long long)A, a_type, lda, (long long)B, b_type, ldb,
        (long long)beta, (long long)C, c_type, ldc, compute, algorithm};
    for (int at = 0; at < 18; ++at) seen[at] = found[at];
    return failing;
}
"""
HANDLE, STREAM = 2**40 + 1, 2**41 + 2


def stand_in(version=13020):
    return SimpleNamespace(
        cuda=SimpleNamespace(
            device=SimpleNamespace(get_cublas_handle=lambda: HANDLE),
            alloc=lambda size: SimpleNamespace(ptr=2**42 + size),
            get_current_stream=lambda: SimpleNamespace(ptr=STREAM),
            runtime=SimpleNamespace(runtimeGetVersion=lambda: version),
        )
    )


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
def test_the_arguments_arrive_and_failures_are_told(tmp_path, monkeypatch):
    source = tmp_path / "fake.cpp"
    source.write_text(SOURCE)
    library = tmp_path / "libcublas.so.13"
    subprocess.run([COMPILER, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setitem(cublas.NAMES, sys.platform, str(tmp_path / "libcublas.so.{}"))
    found = cublas.Cublas(stand_in())
    args = [1, 0, 3, 4, 5, 2**50, 2**51, 14, 8, 2**52, 14, 9, 2**53, 2**54, 0, 10, 68, -1]
    found.gemm_ex(*args)
    fake = ctypes.CDLL(str(library))
    fake.argument.restype = ctypes.c_longlong
    assert [fake.argument(n) for n in range(18)] == args
    assert [fake.argument(n) for n in (18, 19)] == [HANDLE, STREAM]
    size = cublas.WORKSPACE
    assert [fake.argument(n) for n in (20, 21)] == [2**42 + size, size]
    fake.fail_from_now_on()
    with pytest.raises(RuntimeError, match="status 13"):
        found.gemm_ex(*args)


def test_a_library_that_is_missing_is_told():
    with pytest.raises(UserError, match=r"cuBLAS isn't found.*cuda99.*--backend numba"):
        cublas.Cublas(stand_in(99000))
