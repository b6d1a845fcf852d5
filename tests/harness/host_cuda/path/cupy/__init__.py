"""The stand-in under CuPy's name: with this folder's parent on its path, a program finds a GPU."""

from host_cuda.host_cupy import HostCupy

from . import cuda  # noqa: F401

_MODULE = HostCupy(orders=("ascending",), multiprocessors=132)  # as an H200


def __getattr__(name: str) -> object:
    return getattr(_MODULE, name)
