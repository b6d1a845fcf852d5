"""NVRTC from its pip wheel, through ctypes: compiles for a GPU where there is none."""

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


@cache
def library() -> ctypes.CDLL | None:
    """Return NVRTC, None where its wheel (the extra `nvrtc`) isn't installed."""
    for package in ("nvidia.cu13", "nvidia.cuda_nvrtc"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            spec = None
        for folder in spec.submodule_search_locations or () if spec else ():
            lib = Path(folder) / "lib"
            for path in sorted(lib.glob("libnvrtc.so*")):
                # Loaded first, so that NVRTC finds it wherever it lies.
                for builtins in sorted(lib.glob("libnvrtc-builtins.so*")):
                    ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
                return ctypes.CDLL(str(path))
    return None


class CompileError(AssertionError):
    """What the compiler said."""


def _text(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(lib, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def compile_cubin(source: str, arch: str, options: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """Return the machine code for an architecture such as sm_90, and the compiler's log."""
    lib = library()
    assert lib is not None
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    flags = [f"-arch={arch}", "-std=c++17", *options]
    array = (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
    failed = lib.nvrtcCompileProgram(program, len(flags), array)
    log = _text(lib, program, "ProgramLog").rstrip(b"\0").decode()
    cubin = b"" if failed else _text(lib, program, "CUBIN")
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise CompileError(log)
    return cubin, log
