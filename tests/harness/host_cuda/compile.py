"""Compile the text of a .cu file with the system's C++ compiler and launch its kernels."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("host_cuda.h")
COMPILER = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
KERNEL = re.compile(
    r'extern "C" __global__ void (?:CLUSTERED )?(?:__launch_bounds__\([^)]*\) )?(\w+)'
)
# As strict as the device: no reordering of sums. -O1 compiles fast and runs fast enough.
FLAGS = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-w", "-D_GNU_SOURCE"]
FLAGS += ["-U_FORTIFY_SOURCE", "-fno-stack-protector", "-fvisibility=default", "-Bsymbolic"]
ORDERS = {"ascending": 0, "descending": 1, "shuffled": 2}


def cache_folder() -> Path:
    """Where compiled kernels are kept, by a hash of all that goes into them."""
    user = getattr(os, "getuid", lambda: "")()
    path = Path(tempfile.gettempdir()) / f"lstm-music-host-cuda-{user}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def build(source: str, options: tuple[str, ...] = ()) -> Path:
    """Return the shared library of a source with its includes already in it."""
    names = KERNEL.findall(source)
    text = f'#include "{HEADER}"\n{source}\n' + "".join(f"HOST_KERNEL({n})\n" for n in names)
    headers = [path.read_text() for path in sorted(HEADER.parent.glob("*.h"))]
    key = "\0".join([text, *headers, *FLAGS, *options, str(COMPILER)])
    path = cache_folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".so")
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            cpp, so = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
            cpp.write_text(text)
            command = [str(COMPILER), *FLAGS, *options, str(cpp), "-o", str(so)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            so.replace(path)
    return path


class LaunchError(AssertionError):
    """A launch that a GPU would refuse, hang on, or compute nonsense for."""


class HostKernel:
    """A kernel that runs on the CPU. Calling it checks every argument's kind and size."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name, self.library = name, library
        self._launch = getattr(library, f"launch_{name}")
        self._launch.restype = ctypes.c_char_p
        describe = getattr(library, f"signature_{name}")
        describe.restype = ctypes.c_char_p
        self.signature = describe().decode().split()

    def __call__(self, grid, block, args, shared_mem: int = 0, order: str = "ascending") -> None:
        """Launch as a cupy.RawKernel: arrays, NumPy scalars, or None for a null pointer."""
        if len(args) != len(self.signature):
            raise LaunchError(f"{self.name} takes {len(self.signature)} arguments, not {len(args)}")
        holders = [
            self._holder(k, want, a)
            for k, (want, a) in enumerate(zip(self.signature, args, strict=True))
        ]
        pointers = (ctypes.c_void_p * len(holders))(*[h.ctypes.data for h in holders])
        three = ctypes.c_uint * 3
        shapes = [three(*(*s, 1, 1, 1)[:3]) for s in (grid, block)]
        self.library.host_cuda_order(ORDERS[order])
        failure = self._launch(*shapes, ctypes.c_size_t(shared_mem), pointers)
        if failure:
            raise LaunchError(f"{self.name}: {failure.decode()}")

    def _holder(self, k: int, want: str, a) -> np.ndarray:
        """Return the 8 bytes or fewer that a launch passes on for an argument."""
        where = f"argument {k} of {self.name}"
        if want == "P8":
            if isinstance(a, np.ndarray):
                # A matrix may be the first columns of a wider one.
                if not (a.flags.c_contiguous or (a.ndim == 2 and a.strides[1] == a.itemsize)):
                    raise LaunchError(f"{where} isn't contiguous")
                return np.array([a.ctypes.data], np.uint64)
            if isinstance(a, np.uint64) and a == 0:
                return np.zeros(1, np.uint64)
            raise LaunchError(f"{where} is a pointer; got {a!r}")
        if not isinstance(a, np.generic):
            raise LaunchError(f"{where} is {want}; got a plain {type(a).__name__}")
        if a.dtype.kind + str(a.dtype.itemsize) != want:
            raise LaunchError(f"{where} is {want}; got {a.dtype}")
        return np.array([a])


class HostModule:
    """The kernels of one source, as a cupy.RawModule."""

    def __init__(self, source: str, options: tuple[str, ...] = ()) -> None:
        self._library = ctypes.CDLL(str(build(source, options)))

    def get_function(self, name: str) -> HostKernel:
        return HostKernel(self._library, name)
