"""What few tests run: benchmarks and tools at least import, `pytest --benchmark` collects."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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


def test_the_table_has_a_row_a_case_and_says_where_there_is_no_gpu(monkeypatch):
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "table", module)  # where dataclasses look
    spec.loader.exec_module(module)
    found = module.Throughput()
    found.add("training", "numpy", 1000, 4000)
    found.add("training", "numba", 2000, 4000)
    found.add("sampling", "numba", 1234, 12340)
    found.missing["cupy"] = "no CuPy"
    none = [module.NO_GPU, "-", "-"]
    assert found.table()[1:] == [
        ["training", "1,000", "25%", "2,000", "50%", "2.00", *none],
        ["sampling", "not run", "-", "1,234", "10%", "-", *none],
    ]
    del found.missing["cupy"]
    found.add("training", "cupy", 30000, 40000)
    assert found.table()[1][-3:] == ["30,000", "75%", "15.00"]
