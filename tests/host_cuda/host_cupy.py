"""A stand-in for the module cupy whose kernels run on the CPU.

Arrays are NumPy's, with guards on both sides that a kernel must leave alone, and NaN where nothing
was written. A launch runs in more than one order of its threads and has to give the same bits.
While a stream captures, work is recorded instead of done, and a read by the host is an error.
"""

import ctypes
import math
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from .compile import HostModule, LaunchError

GUARD = 4096
RUNNING = threading.Lock()  # a kernel's threads are fibres, of one thread at a time
POINTERS_INSIDE = {"sum_squares_forward", "adam_forward"}  # what they touch isn't in the arguments


class Recorder:
    """The work of a capture, each with its node's name; None while there is none.

    idle: what isn't recorded isn't done either, so that large shapes cost nothing.
    """

    steps: list | None = None
    idle = False


RECORDER = Recorder()


@contextmanager
def idle():
    """Do no work meanwhile: only what a capture records of it is wanted."""
    RECORDER.idle = True
    try:
        yield
    finally:
        RECORDER.idle = False


def do(node, work):
    """Do some work now, or record it under its node's name."""
    if RECORDER.steps is not None:
        RECORDER.steps.append((node, work))
    elif not RECORDER.idle:
        work()


def host_read(what):
    if RECORDER.steps is not None:
        raise LaunchError(f"{what} reads from the device while a graph is captured")


class HostArray(np.ndarray):
    """An array of the stand-in."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        plain = [plainly(a) for a in inputs]
        kwargs = {k: plainly(v) for k, v in kwargs.items()}
        if out and out[0] is not None:
            target = plainly(out[0])
            work = getattr(ufunc, method)
            do(ufunc.__name__, lambda: work(*plain, out=(target,), **kwargs))
            return out[0]
        result = getattr(ufunc, method)(*plain, **kwargs)
        if not isinstance(result, np.ndarray):
            result = np.asarray(result)
        made = guarded(result.shape, result.dtype)
        target = plainly(made)
        target[...] = result
        if RECORDER.steps is not None:
            work = getattr(ufunc, method)
            do(ufunc.__name__, lambda: target.__setitem__(..., work(*plain, **kwargs)))
        return made

    def __array_function__(self, function, types, args, kwargs):
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        plain = [plainly(a) for a in args]
        kwargs = {k: plainly(v) for k, v in kwargs.items()}
        if out is not None:
            target = plainly(out)
            do(function.__name__, lambda: function(*plain, out=target, **kwargs))
            return out
        host_read(function.__name__)
        result = function(*plain, **kwargs)
        return hosted(result) if isinstance(result, np.ndarray) else result

    def sum(self, axis=None, dtype=None, out=None, **kwargs):
        return np.add.reduce(self, axis=axis, dtype=dtype, out=out)

    def __getitem__(self, key):
        if not isinstance(key, np.ndarray):
            return super().__getitem__(key)
        # A gather: work on the device, not a view.
        source, rows = plainly(self), plainly(key)
        made = hosted(source[rows])
        if RECORDER.steps is not None:
            target = plainly(made)
            do("gather", lambda: target.__setitem__(..., source[rows]))
        return made

    def copy(self, order="C"):
        made = guarded(self.shape, self.dtype)
        made[...] = self
        return made

    def __setitem__(self, key, value):
        target, value = plainly(self), plainly(value)
        node = "copy" if isinstance(value, np.ndarray) else "fill"
        do(node, lambda: target.__setitem__(key, value))

    def fill(self, value):
        self[...] = value

    def set(self, host, stream=None):
        """Copy from the host, as cupy.ndarray.set."""
        assert (host.dtype, host.shape) == (self.dtype, self.shape)
        self[...] = host.copy()

    def get(self):
        return asnumpy(self)

    def __float__(self):
        host_read("float()")
        return float(plainly(self)[()])

    def __int__(self):
        host_read("int()")
        return int(plainly(self)[()])

    def __bool__(self):
        host_read("bool()")
        return bool(plainly(self)[()])


def plainly(a):
    """Return an array of the stand-in as NumPy's own, anything else as it is."""
    if isinstance(a, HostArray):
        return a.view(np.ndarray)
    if isinstance(a, tuple | list):
        return tuple(plainly(x) for x in a)
    return a


def guarded(shape, dtype) -> HostArray:
    """Return an array of NaN (integers: -1) between guards of the same."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    size = math.prod(shape) * dtype.itemsize
    root = np.full(size + 2 * GUARD, 0xFF, np.uint8)
    return root[GUARD : GUARD + size].view(dtype).reshape(shape).view(HostArray)


def hosted(a) -> HostArray:
    made = guarded(a.shape, a.dtype)
    plainly(made)[...] = a
    return made


def root_of(a) -> np.ndarray:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def check_guards(name, arrays):
    for k, a in arrays:
        root = root_of(a)
        if root.dtype != np.uint8 or root.size < 2 * GUARD:
            raise LaunchError(f"argument {k} of {name} isn't a device array")
        if not ((root[:GUARD] == 0xFF).all() and (root[-GUARD:] == 0xFF).all()):
            raise LaunchError(f"{name} wrote outside its argument {k}")


def asnumpy(a):
    host_read("asnumpy")
    return np.array(plainly(a))


class Kernel:
    """A cupy.RawKernel."""

    def __init__(self, module, kernel) -> None:
        self.module, self.kernel = module, kernel
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(self, grid, block, args, shared_mem=0):
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise LaunchError(f"{self.kernel.name}: more shared memory than was asked for")
        if shared_mem > self.module.cupy.shared_bytes:
            raise LaunchError(f"{self.kernel.name}: more shared memory than there is")
        do(self.kernel.name, lambda: self._run(grid, block, args, shared_mem))

    def _run(self, grid, block, args, shared):
        cupy, name = self.module.cupy, self.kernel.name
        arrays = [(k, a) for k, a in enumerate(args) if isinstance(a, HostArray)]
        cupy.launches[name] = cupy.launches.get(name, 0) + 1
        raw = tuple(plainly(a) for a in args)
        orders = cupy.orders if name not in POINTERS_INSIDE else cupy.orders[:1]
        roots = [root_of(a) for _, a in arrays]
        before = [r.copy() for r in roots]
        first = None
        for order in orders:
            for r, b in zip(roots, before, strict=True):
                r[...] = b
            with RUNNING:
                self.kernel(grid, block, raw, shared, order)
            check_guards(name, arrays)
            if first is None:
                first = [r.copy() for r in roots]
            elif any((a != b).any() for a, b in zip(first, roots, strict=True)):
                raise LaunchError(f"{name}: the order of the threads changes the result")


class Module:
    def __init__(self, cupy, code, options) -> None:
        self.cupy = cupy
        self._host = HostModule(
            cupy.mutate(code), tuple(o for o in options if not o.startswith("-std"))
        )

    def get_function(self, name):
        return Kernel(self, self._host.get_function(name))


def from_bf16(bits):
    """Return the float32 numbers whose bf16 bits are given as uint16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gemm_ex(
    handle,
    ta,
    tb,
    m,
    n,
    k,
    alpha,
    a,
    a_type,
    lda,
    b,
    b_type,
    ldb,
    beta,
    c,
    c_type,
    ldc,
    compute,
    algo,
):
    """cublasGemmEx, column-major: C = alpha · op(A) · op(B) + beta · C."""
    # Factors in bf16 (14) are for sums in fp32 (compute 68).
    if a_type != b_type or (a_type != c_type and (a_type, c_type, compute) != (14, 0, 68)):
        raise LaunchError("gemmEx: types differ")
    if lda < (k if ta else m) or ldb < (n if tb else k) or ldc < m:
        raise LaunchError("gemmEx: a leading dimension is too small")
    real = ctypes.c_float if c_type == 0 else ctypes.c_double
    factor = [real.from_address(x).value for x in (alpha, beta)]

    def matrix(address, ld, rows, columns, kind=real):
        # Column-major: column j starts at j·ld.
        flat = np.ctypeslib.as_array((kind * (ld * (columns - 1) + rows)).from_address(address))
        strides = (flat.itemsize, ld * flat.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

    def factor_of(address, ld, rows, columns):
        if a_type != 14:
            return matrix(address, ld, rows, columns)
        return from_bf16(matrix(address, ld, rows, columns, ctypes.c_uint16))

    def work():
        left = factor_of(a, lda, k, m).T if ta else factor_of(a, lda, m, k)
        right = factor_of(b, ldb, n, k).T if tb else factor_of(b, ldb, k, n)
        out = matrix(c, ldc, m, n)
        product = left @ right
        # beta 0 must not read what C holds.
        out[...] = product if factor[1] == 0 else factor[0] * product + factor[1] * out

    do("gemm", work)
    return 0


def set_stream(handle, stream):
    """cublasSetStream: the stand-in has one stream."""
    return 0 if (handle, stream) == (1, Stream.ptr) else 1


class Stream:
    """A cupy.cuda.Stream; work is done when it is asked for."""

    ptr = 77

    def __init__(self, non_blocking=False) -> None:
        self.non_blocking = non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def begin_capture(self, mode=None):
        RECORDER.steps = []

    def end_capture(self):
        steps, RECORDER.steps = RECORDER.steps, None
        return SimpleNamespace(
            nodes=[node for node, _ in steps],
            launch=lambda stream=None: [work() for _, work in steps],
            upload=lambda s: None,
        )

    def synchronize(self):
        host_read("synchronize")

    def record(self):
        return Event()

    def wait_event(self, event):
        assert isinstance(event, Event)


class Event:
    """A cupy.cuda.Event; everything asked for is done."""

    def __init__(self, disable_timing=False) -> None:
        pass

    def record(self, stream):
        pass

    def synchronize(self):
        host_read("synchronize")


class Pool:
    def malloc(self, size):
        raise AssertionError("the stand-in's arrays come from NumPy")

    def used_bytes(self):
        return 0


class CompileException(Exception):
    pass


class HostCupy:
    """The module. orders: in which orders each launch runs; mutate changes a source's text."""

    int32, float64 = np.int32, np.float64
    # CuPy's own cuBLAS refuses to be captured, so the stand-in has none.
    cublas_library = SimpleNamespace(
        cublasSetStream_v2=set_stream,
        cublasSetWorkspace_v2=lambda handle, address, size: 0 if address == size else 1,
        cublasGemmEx=gemm_ex,
    )

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
        attributes = {
            "MultiProcessorCount": multiprocessors,
            "MaxSharedMemoryPerBlockOptin": shared_bytes,
        }
        self.cuda = SimpleNamespace(
            Device=lambda: SimpleNamespace(
                attributes=attributes, compute_capability=compute_capability
            ),
            device=SimpleNamespace(get_cublas_handle=lambda: 1),
            compiler=SimpleNamespace(CompileException=CompileException),
            Stream=Stream,
            get_current_stream=Stream,
            Event=Event,
            alloc_pinned_memory=bytearray,
            alloc=lambda size: SimpleNamespace(ptr=size),  # for cuBLAS's workspace alone
            MemoryPool=Pool,
            using_allocator=lambda malloc: Stream(),
            runtime=SimpleNamespace(streamCaptureModeRelaxed=2),
        )

    def RawModule(self, code, options):
        return Module(self, code, options)

    def empty(self, shape, dtype=np.float64):
        return guarded(shape, dtype)

    def zeros(self, shape, dtype=np.float64):
        made = guarded(shape, dtype)
        plainly(made)[...] = 0
        return made

    def empty_like(self, a):
        return guarded(a.shape, a.dtype)

    def zeros_like(self, a):
        return self.zeros(a.shape, a.dtype)

    def arange(self, *args, dtype=None):
        return hosted(np.arange(*args, dtype=dtype))

    def asarray(self, a, dtype=None):
        a = plainly(a) if isinstance(a, HostArray) else np.asarray(a)
        return hosted(a.astype(dtype or a.dtype))

    def ascontiguousarray(self, a):
        return a if a.flags.c_contiguous else hosted(a)

    def asnumpy(self, a):
        return asnumpy(a)

    def flatnonzero(self, a):
        host_read("flatnonzero")
        return hosted(np.flatnonzero(plainly(a)))

    def __getattr__(self, name):
        return getattr(np, name)
