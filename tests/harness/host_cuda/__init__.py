"""Kernels run on the CPU: the .cu sources compiled as C++ with host_cuda.h in front."""

from pathlib import Path

AS_CUPY = Path(__file__).with_name(
    "path"
)  # on Python's path, with tests/harness/, `import cupy` finds it
