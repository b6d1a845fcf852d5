"""Where what can be made again is kept, and what happens where nothing can be written."""

import ast
import importlib
import inspect
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from numba.core.registry import CPUDispatcher
from small import without_override

import lstm_music
from lstm_music import files as cache
from lstm_music.errors import UserError
from lstm_music.ops.cpu import jit
from lstm_music.ops.cuda import device
from lstm_music.sampling import automaton as sampling_automaton
from lstm_music.sampling.compiled_rules import AUTOMATON

PACKAGE = Path(lstm_music.__file__).parent
NOWHERE = "/dev/null/home"  # not even the superuser makes a folder there


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, and a user without a home."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("HOME", NOWHERE)
    for name in ("LSTM_MUSIC_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    cache.temporary_folder.cache_clear()
    yield folder
    cache.temporary_folder.cache_clear()


def test_the_cache_is_the_users_and_can_be_named(monkeypatch, tmp_path, temporary, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "lstm-music"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.cache_folder() == tmp_path / "x" / "lstm-music"
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"
    assert capsys.readouterr().err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]  # asking makes nothing


def homeless():
    raise RuntimeError("no home")


@pytest.mark.parametrize("home", ["unwritable", "none"])
def test_without_a_home_it_is_a_temporary_one_of_this_user_alone(
    monkeypatch, temporary, capsys, home
):
    if home == "none":
        monkeypatch.setattr(Path, "home", homeless)
    folder = cache.cache_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.cache_folder() == folder
    (line,) = capsys.readouterr().err.splitlines()  # said once
    assert line.startswith("note: ") and f"'{folder}'" in line
    cache.temporary_folder.cache_clear()
    assert cache.cache_folder() == folder  # and found again by the next process


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
@pytest.mark.parametrize("taken", ["open to others", "a link", "a file"])
def test_a_temporary_folder_that_others_may_write_is_not_believed(tmp_path, temporary, taken):
    name = temporary / f"lstm-music-{os.getuid()}"
    if taken == "open to others":
        name.mkdir()
        name.chmod(0o777)
    elif taken == "a link":
        name.symlink_to(tmp_path)
    else:
        name.touch()
    folder = cache.cache_folder()
    assert folder != name and folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700


def test_of_several_ranks_one_says_it(monkeypatch, temporary, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert cache.cache_folder().is_dir()
    assert capsys.readouterr().err == ""


def unwritable():
    raise FileNotFoundError(2, "No usable temporary directory found")


def test_where_nothing_can_be_written_code_is_compiled_each_time(monkeypatch, temporary, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", unwritable)
    with pytest.raises(UserError, match="set TMPDIR to one that can"):
        cache.cache_folder()
    monkeypatch.setattr(jit, "can_write", lambda folder: False)
    assert jit.code_folder() is None
    monkeypatch.setattr(jit, "FOLDER", None)
    one_more = jit.njit(cache=True)(lambda x: x + 1)
    assert one_more(1) == 2
    assert one_more.stats.cache_path is None


# Compiled code ----------------------------------------------------------------------------------


def test_each_version_of_the_sources_has_a_folder_and_old_ones_go(monkeypatch, tmp_path):
    (tmp_path / "ops" / "cpu").mkdir(parents=True)
    (tmp_path / "ops" / "cpu" / "blas.py").write_text("PANEL = 64\n")
    monkeypatch.setattr(jit, "PACKAGE", tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    first = jit.code_folder()
    assert first.parent == tmp_path / "__pycache__"
    first.mkdir(parents=True)
    assert jit.code_folder() == first
    (tmp_path / "ops" / "cpu" / "blas.py").write_text("PANEL = 32\n")
    second = jit.code_folder()
    assert second != first and first.exists()
    os.utime(first, (0, 0))
    assert jit.code_folder() == second and not first.exists()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert jit.code_folder() == tmp_path / "named" / second.name
    monkeypatch.setenv("NUMBA_CACHE_DIR", NOWHERE)
    assert jit.code_folder() == second


def test_a_version_is_all_files_whose_code_and_constants_are_compiled():
    needed = set()
    modules = pkgutil.walk_packages(lstm_music.__path__, "lstm_music.")
    for name in (m.name for m in modules if ".ops.cuda" not in m.name):  # those are CuPy's
        module = importlib.import_module(name)
        functions = AUTOMATON if module is sampling_automaton else vars(module)
        compiled = [f for f in functions.values() if isinstance(f, CPUDispatcher)]
        used = {name for function in compiled for name in function.py_func.__code__.co_names}
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("lstm_music"):
                path = PACKAGE.parent.joinpath(*node.module.split("."))
                for alias in node.names:
                    if (alias.asname or alias.name) in used:
                        needed.add(path / f"{alias.name}.py" if path.is_dir() else f"{path}.py")
    needed = {Path(path) for path in needed}
    assert {path.stem for path in needed} > {"arithmetic", "philox", "rules", "messages"}
    assert needed - set(jit.sources()) == set()


COMPUTE = """
import numpy as np
from lstm_music.ops import get_ops

mean = np.zeros(4, np.float32)
get_ops("numba").average_step(np.ones(4, np.float32), mean, 0.5)
print(*mean)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drops the superuser's powers, Linux's way")
def test_a_package_that_cannot_be_written_and_no_home(temporary, tmp_path):
    """As installed by root and used by somebody else."""
    shutil.copytree(
        PACKAGE, tmp_path / "lib" / "lstm_music", ignore=shutil.ignore_patterns("__pycache__")
    )
    folders = [path for path in (tmp_path / "lib").rglob("*") if path.is_dir()]
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "lib"), "TMPDIR": str(temporary),
    }  # fmt: skip
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = [
            subprocess.run(
                [sys.executable, "-c", COMPUTE], env=environment, capture_output=True, text=True,
                check=False, preexec_fn=without_override,
            )
            for _ in range(2)
        ]  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    kept = temporary / f"lstm-music-{os.getuid()}"
    for process in done:
        assert process.stdout == "0.5 0.5 0.5 0.5\n", process.stderr
        (line,) = process.stderr.splitlines()
        assert line.startswith("note: ") and f"'{kept}'" in line
    assert len(list(kept.rglob("*average_step*.nbc"))) == 1


# CuPy's kernels ---------------------------------------------------------------------------------


def test_cupys_kernels_are_kept_where_it_can_write(monkeypatch, temporary, tmp_path):
    device.keep_kernels()
    assert os.environ["CUPY_CACHE_DIR"] == str(cache.temporary_folder() / "cupy")
    for variable, value in ("CUPY_CACHE_DIR", "named"), ("HOME", str(tmp_path)):
        monkeypatch.delenv("CUPY_CACHE_DIR")
        monkeypatch.setenv(variable, value)
        before = os.environ.get("CUPY_CACHE_DIR")
        device.keep_kernels()
        assert os.environ.get("CUPY_CACHE_DIR") == before
