"""What a user reads where the GPU can't be used."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from host_cuda.host_cupy import CompileException, HostCupy

from lstm_music import ops as backends
from lstm_music.errors import UserError
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import Allocator


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UserError) as error:
        backends.get_ops("cupy")
    assert "pip install" in one_line(error)


class RuntimeError_(Exception):
    pass


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("cudaErrorInsufficientDriver: too old", "install a newer driver"),
        ("cudaErrorNoDevice: none", "nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer(monkeypatch, said, answer):
    def count():
        raise RuntimeError_(said)

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=RuntimeError_)
    fake = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(UserError) as error:
        backends.get_ops("cupy")
    assert answer in one_line(error)


def test_auto_falls_back_to_the_cpu_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert backends.get_ops("auto").name in ("numba", "numpy")
    said = capsys.readouterr().err
    assert said.startswith("note: using the CPU: ")
    assert said.count("\n") == 1


def test_auto_says_nothing_where_there_is_no_sign_of_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert backends.get_ops("auto").name in ("numba", "numpy")
    assert capsys.readouterr().err == ""


def test_too_little_memory():
    class Full(Exception):
        pass

    def malloc(size):
        raise Full

    cupy = SimpleNamespace(cuda=SimpleNamespace(memory=SimpleNamespace(OutOfMemoryError=Full)))
    pool = SimpleNamespace(malloc=malloc, used_bytes=lambda: 3 << 30)
    with pytest.raises(UserError) as error:
        Allocator(cupy, pool)(1 << 30)
    assert "no 1,024 MB left beside the 3,072 MB in use: lower --batch" in one_line(error)


def test_a_kernel_that_does_not_compile():
    cupy = HostCupy()

    def refuse(code, options):
        raise CompileException("line 1\nline 2")

    cupy.RawModule = refuse
    ops = CupyOps(cupy=cupy)
    with pytest.raises(UserError) as error:
        ops.sum_squares(ops.asarray([1.0]))
    assert "use --backend numba" in one_line(error)


def test_an_unknown_precision():
    with pytest.raises(UserError, match="fp32, tf32, bf16"):
        backends.get_ops("cupy", precision="fp8")
