"""What sdist and wheel hold. `tools/newcomer.py --wheel` installs it and runs the commands."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_BYTES = 12_000_000
COMPILED = ("*.py[co]", "__pycache__", "*.nb[ic]", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the source, by what is installed here: name -> content, and size."""
    pytest.importorskip("setuptools", minversion="77", reason="pip install 'setuptools>=77'")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "kernels"):
        ignored = shutil.ignore_patterns(*COMPILED)
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    offline = os.environ | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*build, "--quiet", "--wheel-dir", "made"], cwd=folder, env=offline,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (folder / "made").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, path.stat().st_size


def package_files():
    """The package's files, by their names in it, but for what is compiled as it runs."""
    package = ROOT / "src" / "lstm_music"
    found = {path.relative_to(package.parent).as_posix(): path for path in package.rglob("*")}
    found |= {f"lstm_music/kernels/{path.name}": path for path in (ROOT / "kernels").iterdir()}
    compiled = {".pyc", ".nbi", ".nbc"}
    return {n: p for n, p in found.items() if p.is_file() and p.suffix not in compiled}


def test_everything_of_the_package_is_in_the_wheel(wheel):
    held, size = wheel
    files = package_files()
    kinds = ".py .typed .cu .cuh .zip .safetensors .json .md .js .html .css"
    assert {Path(name).suffix for name in files} >= set(kinds.split())
    missing = [name for name, path in files.items() if held.get(name) != path.read_bytes()]
    assert not missing
    assert size < MOST_BYTES


def test_nothing_else_is_in_the_wheel(wheel):
    held, _ = wheel
    others = {name for name in held if ".dist-info/" not in name} - set(package_files())
    assert not others


def test_the_wheel_says_what_it_is(wheel):
    held, _ = wheel
    said = {Path(name).name: content.decode() for name, content in held.items()
            if ".dist-info/" in name}  # fmt: skip
    assert "lstm-music = lstm_music.cli:main" in said["entry_points.txt"]
    assert "License-Expression: MIT" in said["METADATA"]
    assert said["LICENSE"] == (ROOT / "LICENSE").read_text("utf-8")
    for extra in ("cuda12", "cuda13", "classical", "score", "listen", "play"):
        assert f"Provides-Extra: {extra}" in said["METADATA"]


def test_the_sdist_is_the_project(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="pip install 'setuptools>=77'")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no clone: git knows no files here")
    names = [n for n in listed.stdout.decode().split("\0") if n and os.path.lexists(ROOT / n)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name, follow_symlinks=False)
    build = "from setuptools import build_meta; build_meta.build_sdist('made')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "made").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in names if not name.startswith(".")} <= held
