"""A stand-in for the module cupy whose kernels run on the CPU.

A launch runs in more than one order of its threads and has to give the same bits. There is what we
use of CuPy 14.2, under its names and with its arguments, and no more: host_array.py says how its
arrays differ from NumPy's.
"""

import itertools
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from .compile import HostModule, LaunchError
from .host_array import (
    DEFAULT_POOL,
    RECORDER,
    STATE,
    HostArray,
    OutOfMemoryError,
    Pool,
    allocate,
    computed,
    devices,
    do,
    empty,
    from_host,
    guards_hold,
    host_read,
    idle,  # noqa: F401
)
from .host_cublas import CUBLAS, HANDLE

RUNNING = threading.Lock()  # a kernel's threads are fibres, of one thread at a time
POINTERS_INSIDE = {"sum_squares_forward", "adam_forward"}  # what they touch isn't in the arguments


# Kernels ----------------------------------------------------------------------------------------


class Kernel:
    """A cupy.RawKernel."""

    def __init__(self, module, kernel) -> None:
        self.module, self.kernel = module, kernel
        self._most_shared = 48 << 10

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if size > self.module.cupy.shared_bytes:
            raise LaunchError(f"{self.kernel.name}: more shared memory than there is")
        self._most_shared = size

    def __call__(self, grid, block, args, *, shared_mem=0):
        name = self.kernel.name
        for size in (grid, block):
            if not isinstance(size, tuple) or not 0 < len(size) <= 3 or min(size) < 1:
                raise LaunchError(f"{name}: {size} is no tuple of one to three sizes")
        if shared_mem > self._most_shared:
            raise LaunchError(f"{name}: more shared memory than was asked for")
        for k, a in enumerate(args):
            if isinstance(a, np.ndarray):
                raise LaunchError(f"argument {k} of {name} isn't a device array")
        roots = [(k, a.memory.root) for k, a in enumerate(args) if isinstance(a, HostArray)]
        plain = tuple(a.plain if isinstance(a, HostArray) else a for a in args)
        do(name, lambda: self._run(grid, block, plain, roots, shared_mem), *devices(args))

    def _run(self, grid, block, args, roots, shared):
        cupy, name = self.module.cupy, self.kernel.name
        cupy.launches[name] = cupy.launches.get(name, 0) + 1
        before = [root.copy() for _, root in roots]
        first = None
        for order in cupy.orders if name not in POINTERS_INSIDE else cupy.orders[:1]:
            for (_, root), was in zip(roots, before, strict=True):
                root[...] = was
            with RUNNING:
                self.kernel(grid, block, args, shared, order)
            for k, root in roots:
                if not guards_hold(root):
                    raise LaunchError(f"{name} wrote outside its argument {k}")
            if first is None:
                first = [root.copy() for _, root in roots]
            elif any((a != root).any() for a, (_, root) in zip(first, roots, strict=True)):
                raise LaunchError(f"{name}: the order of the threads changes the result")


class Module:
    """A cupy.RawModule: compiled as the first kernel is asked for."""

    def __init__(self, cupy, code, options) -> None:
        if not isinstance(options, tuple):
            raise TypeError(f"Expected tuple, got {type(options).__name__}")
        self.cupy = cupy
        self._host = HostModule(
            cupy.mutate(code), tuple(o for o in options if not o.startswith("-std"))
        )

    def get_function(self, name):
        return Kernel(self, self._host.get_function(name))


class CompileException(Exception):
    """As cupy.cuda.compiler's."""


# Streams ----------------------------------------------------------------------------------------

PTRS = itertools.count(64)


class Stream:
    """A cupy.cuda.Stream; work is done when it is asked for."""

    def __init__(self, null=False, non_blocking=False) -> None:
        self.ptr, self.is_non_blocking = 0 if null else next(PTRS), non_blocking

    def __enter__(self):
        STATE.streams.append(self)
        return self

    def __exit__(self, *error):
        STATE.streams.pop()

    def begin_capture(self, mode=None):
        if not self.ptr:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if RECORDER.steps is not None:
            raise LaunchError("a graph is captured already")
        RECORDER.steps, RECORDER.stream = [], self

    def end_capture(self):
        if RECORDER.stream is not self:
            raise RuntimeError("this stream doesn't capture")
        steps, RECORDER.steps, RECORDER.stream = RECORDER.steps, None, None
        return Graph(steps)

    def synchronize(self):
        host_read("synchronize")

    def record(self, event=None):
        return event or Event()

    def wait_event(self, event):
        assert isinstance(event, Event)


NULL_STREAM = Stream(null=True)


def current_stream():
    """Return the innermost stream, the default one outside of all."""
    return STATE.streams[-1] if STATE.streams else NULL_STREAM


class Graph:
    """A cupy.cuda.Graph. nodes: what it does, by name."""

    def __init__(self, steps) -> None:
        self.steps, self.nodes = [step for _, step in steps], [node for node, _ in steps]

    def launch(self, stream=None):
        for step in self.steps:
            step()

    def upload(self, stream=None):
        pass


class Event:
    """A cupy.cuda.Event; everything asked for is done."""

    def __init__(self, block=False, disable_timing=False) -> None:
        self.disable_timing, self.at = disable_timing, None

    def record(self, stream=None):
        self.at = None if self.disable_timing else time.perf_counter()

    def synchronize(self):
        host_read("synchronize")


def get_elapsed_time(start_event, end_event):
    """As cupy.cuda.get_elapsed_time: milliseconds."""
    return 1e3 * (end_event.at - start_event.at)


# The module -------------------------------------------------------------------------------------


@contextmanager
def using_allocator(allocator=None):
    """As cupy.cuda.using_allocator."""
    STATE.allocators.append(allocator or DEFAULT_POOL.malloc)
    try:
        yield
    finally:
        STATE.allocators.pop()


class HostRuntime:
    """As cupy.cuda.runtime. marks: a profiler's."""

    streamCaptureModeRelaxed = 2

    class CUDARuntimeError(RuntimeError):
        """As cupy's."""

    def __init__(self, properties):
        self.properties, self.marks = properties, []

    def getDeviceCount(self):
        return 1

    def getDeviceProperties(self, device):
        return self.properties

    def runtimeGetVersion(self):
        return 13000

    def driverGetVersion(self):
        return 13000

    def memGetInfo(self):
        return 1 << 30, 3 << 30

    def deviceSynchronize(self):
        host_read("deviceSynchronize")

    def profilerStart(self):
        self.marks.append("start")

    def profilerStop(self):
        self.marks.append("stop")


class HostCupy:
    """The module. orders: in which orders each launch runs; mutate changes a source's text."""

    __version__ = "stand-in"
    # CuPy's own cuBLAS refuses to be captured, so the stand-in has none.
    cublas_library = CUBLAS

    def __init__(
        self,
        orders=("ascending", "descending"),
        multiprocessors=4,
        shared_bytes=227 << 10,
        compute_capability="90",
    ) -> None:
        self.orders, self.shared_bytes = orders, shared_bytes
        self.launches = {}
        self.mutate = lambda code: code
        self._default = DEFAULT_POOL
        attributes = {
            "MultiProcessorCount": multiprocessors,
            "MaxSharedMemoryPerBlockOptin": shared_bytes,
        }
        properties = {"name": b"stand-in on a CPU", "multiProcessorCount": multiprocessors}
        properties |= {"major": 9, "minor": 0, "l2CacheSize": 50 << 20, "totalGlobalMem": 80 << 30}
        self.cuda = SimpleNamespace(
            Device=lambda device=None: SimpleNamespace(
                attributes=attributes, compute_capability=compute_capability
            ),
            device=SimpleNamespace(get_cublas_handle=lambda: HANDLE),
            compiler=SimpleNamespace(CompileException=CompileException),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            Stream=Stream,
            get_current_stream=current_stream,
            Event=Event,
            get_elapsed_time=get_elapsed_time,
            alloc_pinned_memory=bytearray,
            alloc=allocate,
            MemoryPool=Pool,
            set_allocator=lambda allocator: None,
            using_allocator=using_allocator,
            runtime=HostRuntime(properties),
        )

    def RawModule(self, *, code, options=()):
        return Module(self, code, options)

    def get_default_memory_pool(self):
        return DEFAULT_POOL

    # Arrays -----------------------------------------------------------------------------------

    def empty(self, shape, dtype=float):
        return empty(shape, dtype)

    def zeros(self, shape, dtype=float):
        made = empty(shape, dtype)
        made[...] = 0
        return made

    def empty_like(self, prototype):
        if not prototype.flags.c_contiguous:
            raise LaunchError("empty_like of such a view keeps its strides")
        return empty(prototype.shape, prototype.dtype)

    def zeros_like(self, a):
        made = self.empty_like(a)
        made[...] = 0
        return made

    def arange(self, start, stop=None, step=1, dtype=None):
        given = (start,) if stop is None else (start, stop, step)
        return computed("arange", lambda: np.arange(*given, dtype=dtype), [])

    def asarray(self, a, dtype=None):
        """As CuPy's: an array of the device of that type is the result itself."""
        if isinstance(a, HostArray):
            return a.astype(a.dtype if dtype is None else dtype, copy=False)
        return from_host(np.asarray(a, dtype))

    def ascontiguousarray(self, a):
        return a if a.flags.c_contiguous else a.copy()

    def asnumpy(self, a):
        return a.get() if isinstance(a, HostArray) else np.asarray(a)

    def concatenate(self, tup):
        return computed("concatenate", lambda *plain: np.concatenate(plain), tup)

    def flatnonzero(self, a):
        host_read("flatnonzero")
        return computed("flatnonzero", np.flatnonzero, [a])

    def sum(self, a, axis=None, dtype=None, out=None):
        return a.sum(axis, dtype, out)

    def where(self, condition, x, y):
        return computed("where", np.where, [condition, x, y])


def element_wise(name):
    """Return a function of NumPy's as CuPy has it: of arrays of the device and scalars."""
    function = getattr(np, name)

    def applied(self, *inputs, out=None):
        return computed(name, function, inputs, out)

    return applied


for _name in [
    "add", "exp", "expm1", "isfinite", "log", "logaddexp", "maximum", "multiply", "sqrt", "tanh",
]:  # fmt: skip
    setattr(HostCupy, _name, element_wise(_name))
