"""The commands on a GPU that isn't there, and on the stand-in for one."""

import json
import sys
from types import SimpleNamespace

import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from small import SMALL

from lstm_music.cli import evaluate, sample, train
from lstm_music.cli.common import run
from lstm_music.ops.cpu import numba_ops, panels
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.runs import opened
from lstm_music.sampling import device as device_sampling

COMMANDS = {"evaluate": evaluate, "sample": sample, "train": train}


@pytest.fixture
def call(capsys):
    """Run a command with no backend but what is given: its status and the lines it printed."""

    def call(name, *words):
        capsys.readouterr()
        status = run(COMMANDS[name].main, [str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out.splitlines(), err=err.splitlines())

    return call


def without_cupy():
    return None


def without_a_driver():
    class RuntimeError_(Exception):
        pass

    def count():
        raise RuntimeError_("cudaErrorInsufficientDriver: too old")

    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=RuntimeError_)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    ("module", "says"),
    [(without_cupy, "pip install 'lstm-music[cuda"), (without_a_driver, "install a newer driver")],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_gpu_each_command_says_so_in_one_line(
    call, train_small, monkeypatch, folder, name, module, says
):
    train_small("--max-steps", 1, "--run", "a")
    monkeypatch.setitem(sys.modules, "cupy", module())
    words = {"train": ["music", *SMALL, "--run", "b"]}.get(name, ["a"])
    done = call(name, *words, "--backend", "cupy")
    assert done.status == 2
    assert not done.out
    (line,) = done.err
    assert line.startswith("error: ")
    assert says in line
    assert not (folder / "runs" / "b").exists()


@pytest.mark.parametrize("backend", ["numpy", "numba", "auto"])
def test_tf32_is_for_a_gpu(call, monkeypatch, folder, backend):
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = call("train", "music", "--backend", backend, "--precision", "tf32")
    assert done.status == 2
    line = done.err[-1]
    assert line.startswith("error: --precision tf32 is for a GPU (--backend cupy)")
    assert not (folder / "runs").exists()


def test_bf16_is_for_a_gpu_or_a_processor_that_has_it(call, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = call("train", "music", "--backend", "numpy", "--precision", "bf16")
    assert done.status == 2
    assert done.err[-1].startswith("error: --precision bf16 is for a GPU (--backend cupy) or a ")
    assert "with numpy in fp32: leave --precision out" in done.err[-1]
    monkeypatch.setattr(panels, "HAS_BF16", False)
    for backend in ("auto", "numba"):
        done = call("train", "music", "--backend", backend, "--precision", "bf16")
        assert done.status == 2
        assert "AVX512_BF16" in done.err[-1]
        assert done.err[-1].endswith(": leave --precision out")
    assert not (folder / "runs").exists()


def test_training_says_and_takes_what_the_processor_has(call, monkeypatch, folder):
    """Without the instructions it is fp32's run, to the bit."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    words = ("train", "music", *SMALL, "--backend", "numba", "--threads", 1, "--max-steps", 2)
    asked = call(*words, "--precision", "fp32", "--run", "a")
    assert not any("bf16" in line for line in asked.out + asked.err)
    if panels.HAS_BF16:
        auto = call(*words, "--run", "b")
        assert any("numba backend, products in bf16" in line for line in auto.out + auto.err)
    monkeypatch.setattr(panels, "HAS_BF16", False)
    assert call(*words, "--run", "c").status == 0
    a, c = (
        (folder / "runs" / run / "checkpoints/latest/model.safetensors").read_bytes()
        for run in "ac"
    )
    assert a == c


@pytest.mark.skipif(not panels.HAS_BF16, reason="this processor has no AVX512_BF16")
@pytest.mark.slow
def test_a_run_in_bf16_is_repeated_by_one_that_resumes(call, monkeypatch, folder):
    """Of one thread: the same bits."""
    made = []
    monkeypatch.setattr(
        numba_ops,
        "bf16_products",
        lambda real=numba_ops.bf16_products: made.append(real()) or made[-1],
    )
    words = (*SMALL, "--backend", "numba", "--threads", 1, "--precision", "bf16")
    done = [
        call("train", "music", *words, "--max-steps", steps, "--run", run)
        for run, steps in (("a", 6), ("b", 3))
    ]
    more = ("--backend", "numba", "--threads", 1, "--precision", "bf16", "--max-steps", 6)
    done.append(call("train", "--resume", "--run", "b", *more))
    assert [one.status for one in done] == [0] * 3, done
    assert len(made) == 3
    whole, halves = (
        (folder / "runs" / run / "checkpoints/latest/model.safetensors").read_bytes()
        for run in "ab"
    )
    assert whole == halves


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
def test_a_run_on_the_stand_in_for_a_gpu(call, monkeypatch, folder):
    """Trained in bf16 and sampled on the device; a CPU samples the same checkpoint."""
    asked, made = [], []

    def stand_in(backend, dtype="float32", precision="fp32"):
        assert backend == "cupy"
        asked.append(precision)
        made.append(CupyOps(dtype, precision, cupy=HostCupy(("ascending",))))
        return made[-1]

    with monkeypatch.context() as patch:
        for module in (train, opened):
            patch.setattr(module, "get_ops", stand_in)
        patch.setattr(device_sampling, "ROWS", 2)
        words = ("--backend", "cupy", "--precision", "bf16", "--max-steps", 3, "--run", "a")
        done = call("train", "music", *SMALL, *words)
        assert done.status == 0, done.err
        assert asked == ["bf16", "fp32"]
        words = ("a", "--num", 3, "--length", 20, "--backend", "cupy", "--quiet", "--out")
        on_gpu = call("sample", *words, "gpu")
        assert made[-1].xp.launches["rules_advance"] > 0
    assert len(on_gpu.out) == 3
    assert "precision" not in json.dumps(json.loads((folder / "runs/a/config.json").read_text()))
    words = ("a", "--num", 3, "--length", 20, "--backend", "numpy", "--quiet", "--out")
    on_cpu = call("sample", *words, "cpu")
    assert [(folder / path).read_bytes() for path in on_gpu.out] == [
        (folder / path).read_bytes() for path in on_cpu.out
    ]
