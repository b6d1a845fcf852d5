"""What few tests run: benchmarks and tools at least import, `pytest --benchmark` collects."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from documentation import ROOT, tool

from lstm_music.ops import NumpyOps
from lstm_music.ops.cpu.panels import HAS_BF16

SCRIPTS = sorted(path for name in ("benchmarks", "tools") for path in (ROOT / name).glob("*.py"))
OPTIONAL = {"atheris", "soundfile", "torch"}  # those that a script can do nothing without
IMPORTED = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error.name)
"""


def python(*words):
    # As if no tests were running: pytest-benchmark asks whether pytest-xdist began it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("folder", ["benchmarks", "tools"])
def test_every_script_imports(folder):
    code = f"import sys; sys.path[:0] = ['{folder}', 'tests']\n{IMPORTED}"
    names = [path.stem for path in SCRIPTS if path.parent.name == folder]
    done = python("-c", code, *names)
    assert done.returncode == 0, done.stderr
    missing = [line.split() for line in done.stdout.splitlines()]
    assert [(name, module) for name, module in missing if module not in OPTIONAL] == []


def test_the_benchmarks_collect():
    done = python("-m", "pytest", "--benchmark", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        assert f"benchmarks/{path.name}::" in done.stdout


def test_the_table_has_backends_below_each_other_and_says_which_are_missing():
    found = tool("conftest", "benchmarks").Throughput()
    found.add("training", "numpy", 1000, 4000)
    found.add("sampling", "numpy", 1234, 12340)
    found.add("training", "numba", 2000, 4000)
    found.missing["cupy"] = "no CuPy"
    found.ceilings["CPU"] = {"fp32": 2e11, "bytes": 4.5e10}
    assert found.lines()[2:] == [
        "| training | numpy | 1,000 | 25% |",
        "| training | numba | 2,000 | 50% |",
        "| sampling | numpy | 1,234 | 10% |",
        "bound, from what was measured first on the CPU: 200 GFLOP/s of a GEMM, 45.0 GB/s",
        "cupy: no CuPy",
    ]


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("method", ["step", "sampling"])
def test_ours_and_the_bound_are_timed_in_processes_of_their_own(monkeypatch, method):
    rivals = tool("rivals", "benchmarks")
    case = rivals.Case("", 300, 3, 4 if method == "step" else 1, 8)
    monkeypatch.setitem(rivals.CASES, "tiny", rivals.Timed(method, case, 5, method != "step"))
    row = rivals.summary("tiny", rivals.compare("tiny", rounds=2, threads=1, modes=[]))
    assert row["ours_fp32_tokens_per_second"] > 0 and row["share_of_fp32_bound"] > 0
    half = HAS_BF16 and method == "step"
    assert (row["ours_bf16_tokens_per_second"] > 0) == half
    assert (row["share_of_bf16_bound"] > 0) == half and row["bf16_bound_of"] == "ours" * half
    assert row["ours_peak_mb"] > 30 and row["rival"] == ""


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("method", ["step", "sampling"])
def test_pytorch_is_timed_in_all_its_precisions(monkeypatch, method):
    pytest.importorskip("torch", reason="PyTorch, the rival, is not installed")
    rivals = tool("rivals", "benchmarks")
    case = rivals.BACH._replace(V=50, B=2, T=4 if method == "step" else 1, H=16, E=8)
    monkeypatch.setitem(rivals.CASES, "tiny", rivals.Timed(method, case, 2))
    entries = rivals.entries_of

    def theirs(*given):  # ours: the test above
        return [entry for entry in entries(*given) if "pytorch" in entry.row["who"]]

    monkeypatch.setattr(rivals, "entries_of", theirs)
    rows = rivals.compare("tiny", rounds=1, threads=1, modes=["eager"])
    assert all(row["seconds"] > 0 and row["peak_mb"] > 30 for row in rows), rows
    names = [f"pytorch eager {precision}" for precision in ("fp32", "bf16")]
    if method == "step":
        names = ["pytorch", *names, "pytorch eager rounded", "pytorch eager bf16, logits too"]
    assert [row["who"] for row in rows] == names
    kinds = ["bf16" if name == "pytorch" or "bf16" in name else "fp32" for name in names]
    assert [row["precision"] for row in rows] == kinds


def test_the_quickest_of_each_side_counts():
    rivals = tool("rivals", "benchmarks")
    took = [
        ("ours", "fp32", "ours", 2), ("ours", "bf16", "ours", 1), ("bound", "fp32", "ours", 1.5),
        ("bound", "bf16", "ours", 0.5), ("bound", "bf16", "pytorch", 0.25),
        ("torch", "fp32", "eager", 6), ("torch", "fp32", "compile", 5),
        ("torch", "bf16", "half", 3),
    ]  # fmt: skip
    rows = [
        {"side": side, "precision": precision, "who": who, "seconds": seconds, "peak_mb": seconds}
        for side, precision, who, seconds in took
    ]
    N = rivals.CASES["train-bach"].case.N
    rows.append({"side": "torch", "precision": "bf16", "who": "compile", "error": "no compiler"})
    row = rivals.summary("train-bach", rows)
    assert row == {
        "case": "train-bach", "ours_fp32_tokens_per_second": N / 2,
        "ours_bf16_tokens_per_second": N, "rival_tokens_per_second": N / 3, "rival": "half",
        "ratio": 3, "rival_fp32_tokens_per_second": N / 5, "rival_fp32": "compile",
        "ratio_fp32": 2.5, "ours_peak_mb": 1, "rival_peak_mb": 3, "share_of_fp32_bound": 0.75,
        "fp32_bound_of": "ours",
        "share_of_bf16_bound": 0.25, "bf16_bound_of": "pytorch",
    }  # fmt: skip


def test_the_bound_multiplies_what_a_step_multiplies():
    rivals = tool("rivals", "benchmarks")
    case, shapes = rivals.BACH, rivals.parameter_shapes(rivals.config_of(rivals.BACH))
    products = list(rivals.gemms(case))
    multiplied = sum(rows * inputs * outputs for _, rows, inputs, outputs in products)
    weights = sum(
        math.prod(shapes[name])
        for name in shapes
        if len(shapes[name]) == 2 and name not in ("embedding.W", "copy.R")
    )
    assert multiplied == 3 * case.N * weights
    rng = np.random.default_rng(0)
    for a, b, out in rivals.operands(set(products), lambda *shape: rng.random(shape)):
        assert (a @ b).shape == out.shape


def test_bachs_case_is_what_training_on_bach_trains():
    rivals = tool("rivals", "benchmarks")
    meta = json.loads((ROOT / "src/lstm_music/data/bach-model/meta.json").read_text("utf-8"))
    assert rivals.config_of(rivals.BACH).to_json() == meta["model"]
    settings = {"batch": rivals.BACH.B, "seq": rivals.BACH.T, "average": rivals.BACH.average}
    assert settings.items() <= meta["settings"].items()
    steps = rivals.steps_of(rivals.BACH, NumpyOps())
    assert steps.averages.rate == pytest.approx(1 - rivals.BACH.average)
