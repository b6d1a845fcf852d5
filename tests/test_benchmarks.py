"""What few tests run: benchmarks and tools at least import, `pytest --benchmark` collects."""

import os
import subprocess
import sys

import pytest
from documentation import ROOT, tool

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
    row = rivals.compare("tiny", rounds=2, threads=1, modes=[])
    assert row["ours_tokens_per_second"] > 0 and row["share_of_bound"] > 0
    assert row["ours_peak_mb"] > 30 and row["rival"] == ""
