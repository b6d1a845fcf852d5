"""NVRTC from its pip wheel, through ctypes: compiles as CuPy does, where there is no GPU."""

import ctypes
import importlib.util
import os
from functools import cache
from pathlib import Path

MORE = "LSTM_MUSIC_NVRTC"  # in the environment: a folder with another version of the wheel
# What CuPy 14.2 adds to a RawModule's options (cupy/cuda/compiler.py), but for include paths.
BY_CUPY = ("-ftz=true", "--device-as-default-execution-space")


def folders() -> list[Path]:
    """Return where the libraries of wheels may lie: those installed, then another version's."""
    found = []
    for package in ("nvidia.cu13", "nvidia.cuda_nvrtc"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            spec = None
        found += [Path(f) / "lib" for f in spec.submodule_search_locations or ()] if spec else []
    more = os.environ.get(MORE)
    return [*found, *sorted(Path(more).glob("nvidia/*/lib"))] if more else found


@cache
def libraries() -> tuple[ctypes.CDLL, ...]:
    """Return each version of NVRTC that is here, the installed one first."""
    found = []
    for folder in folders():
        for path in sorted(folder.glob("libnvrtc.so*")):
            # Loaded first, so that NVRTC finds it wherever it lies.
            for builtins in sorted(folder.glob("libnvrtc-builtins.so*")):
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            found.append(ctypes.CDLL(str(path)))
    return tuple(found)


def library() -> ctypes.CDLL | None:
    """Return NVRTC, None where its wheel isn't installed."""
    return next(iter(libraries()), None)


def version_of(lib: ctypes.CDLL) -> str:
    """Return a library's version, such as 13.0."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    lib.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


class CompileError(AssertionError):
    """What the compiler said."""


def _text(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(lib, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def compile_cubin(
    source: str, arch: str, options: tuple[str, ...] = (), lib: ctypes.CDLL | None = None
) -> tuple[bytes, str]:
    """Return the machine code for an architecture such as sm_90, and the compiler's log.

    Compiled as CuPy would, by lib or the version that is installed.
    """
    lib = lib or library()
    assert lib is not None
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    flags = [*options, "-std=c++17", *BY_CUPY, f"-arch={arch}"]
    array = (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
    failed = lib.nvrtcCompileProgram(program, len(flags), array)
    log = _text(lib, program, "ProgramLog").rstrip(b"\0").decode()
    cubin = b"" if failed else _text(lib, program, "CUBIN")
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise CompileError(log)
    return cubin, log
