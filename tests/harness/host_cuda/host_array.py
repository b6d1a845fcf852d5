"""Arrays of the stand-in for CuPy: in the host's memory, and as hard to reach from there as CuPy's.

They aren't NumPy's: what CuPy's arrays have no method for fails here, and so does an array of the
host where one of the device belongs. What was never written is NaN (of integers -1), and guards
lie on both sides. While a stream captures, work is recorded instead of done; a read by the host or
work in another stream is then an error. A graph that is replayed after its memory was freed is one.
"""

import math
import threading
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from .compile import LaunchError

GUARD = 4096
ALIGNED = 512  # bytes: where CuPy's memory begins


class Memory:
    """What an allocator returns: so many bytes, guarded on both sides."""

    def __init__(self, size, pool=None):
        whole = np.empty(size + 2 * GUARD + ALIGNED, np.uint8)
        start = GUARD + -(whole.ctypes.data + GUARD) % ALIGNED
        self.root = whole[start - GUARD : start + size + GUARD]
        self.ptr = self.root.ctypes.data + GUARD
        self.pool = None if pool is None else weakref.ref(pool)


class Pool:
    """A cupy.cuda.MemoryPool. limit: of a request, in bytes."""

    def __init__(self):
        self.total, self.limit = 0, math.inf

    def malloc(self, size):
        if size > self.limit:
            raise OutOfMemoryError(f"no {size} bytes are left")
        self.total += size
        return Memory(size, self)

    def used_bytes(self):
        return self.total

    def total_bytes(self):
        return self.total

    def free_all_blocks(self):
        pass


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory's."""


class Step:
    """Recorded work on arrays, which must be there when it is replayed, or the pool they are of."""

    def __init__(self, work, arrays):
        self.work = work
        self.held = [(weakref.ref(a.memory), a.memory.pool) for a in arrays]

    def __call__(self):
        for memory, pool in self.held:
            if memory() is None and (pool is None or pool() in (None, DEFAULT_POOL)):
                raise LaunchError("a graph touches memory that was freed")
        self.work()


class Recorder:
    """The work of a capture, each with its node's name, and its stream; None while there is none.

    idle: what isn't recorded isn't done either, so that large shapes cost nothing.
    """

    steps: list | None = None
    stream = None
    idle = False


class State(threading.local):
    """What is current in a thread: its streams and allocators, the innermost last."""

    def __init__(self):
        self.streams, self.allocators = [], []


STATE, RECORDER = State(), Recorder()
DEFAULT_POOL = Pool()


@contextmanager
def idle():
    """Do no work meanwhile: only what a capture records of it is wanted."""
    RECORDER.idle = True
    try:
        yield
    finally:
        RECORDER.idle = False


def do(node, work, *arrays):
    """Do some work that touches arrays now, or record it under its node's name."""
    if RECORDER.steps is None:
        if not RECORDER.idle:
            work()
        return
    if not STATE.streams or STATE.streams[-1] is not RECORDER.stream:
        raise LaunchError("work in another stream while a graph is captured")
    RECORDER.steps.append((node, Step(work, arrays)))


def host_read(what):
    if RECORDER.steps is not None:
        raise LaunchError(f"{what} waits for the device while a graph is captured")


def guards_hold(root):
    """Return whether nobody wrote into the guards."""
    return (root[:GUARD] == 0xFF).all() and (root[-GUARD:] == 0xFF).all()


def allocate(size):
    """Return memory of the current allocator."""
    return (STATE.allocators or [DEFAULT_POOL.malloc])[-1](size)


def empty(shape, dtype):
    """Return an array of NaN, of integers of -1."""
    dtype = np.dtype(dtype)
    shape = tuple(shape) if isinstance(shape, tuple | list) else (int(shape),)
    size = math.prod(shape) * dtype.itemsize
    memory = allocate(size)
    memory.root[...] = 0xFF
    return HostArray(memory.root[GUARD : GUARD + size].view(dtype).reshape(shape), memory)


def from_host(a):
    """Return a copy of an array of the host."""
    host_read("a copy from the host")
    made = empty(a.shape, a.dtype)
    made.plain[...] = a
    return made


def plainly(a):
    """Return an array as NumPy's, a scalar as it is. Raises TypeError for one of the host."""
    if isinstance(a, HostArray):
        return a.plain
    if isinstance(a, np.ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return a


def devices(values):
    """Return the arrays of the device among some values."""
    return [a for a in values if isinstance(a, HostArray)]


def computed(node, function, inputs, out=None):
    """Return what a function of NumPy's makes of arrays and scalars, in out if given."""
    plain, arrays = [plainly(a) for a in inputs], devices(inputs)
    if out is None:
        with np.errstate(all="ignore"):  # a device warns of nothing
            found = np.asarray(function(*plain))
        out = empty(found.shape, found.dtype)
        if RECORDER.steps is None:
            out.plain[...] = found
            return out
    target = plainly(out)

    def work():
        np.copyto(target, function(*plain), casting="same_kind")

    do(node, work, *arrays, out)
    return out


class HostArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A cupy.ndarray, as far as we use it. plain: its numbers, for the stand-in alone."""

    def __init__(self, plain, memory, base=None):
        self.plain, self.memory, self.base = plain, memory, base

    def _seen_as(self, plain):
        return HostArray(plain, self.memory, self if self.base is None else self.base)

    shape = property(lambda self: self.plain.shape)
    dtype = property(lambda self: self.plain.dtype)
    ndim = property(lambda self: self.plain.ndim)
    size = property(lambda self: self.plain.size)
    nbytes = property(lambda self: self.plain.nbytes)
    itemsize = property(lambda self: self.plain.itemsize)
    strides = property(lambda self: self.plain.strides)
    flags = property(lambda self: self.plain.flags)
    T = property(lambda self: self._seen_as(self.plain.T))
    data = property(lambda self: SimpleNamespace(ptr=self.plain.ctypes.data))

    def __len__(self):
        return len(self.plain)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use asnumpy")

    def __array_function__(self, function, types, args, kwargs):
        return NotImplemented

    def __array_ufunc__(self, ufunc, method, *inputs, out=(None,), **kwargs):
        if method != "__call__":
            return NotImplemented
        return computed(ufunc.__name__, lambda *a: ufunc(*a, **kwargs), inputs, out[0])

    # Views ------------------------------------------------------------------------------------

    def view(self, dtype=None):
        return self._seen_as(self.plain.view(dtype))

    def reshape(self, *shape):
        made = self.plain.reshape(*shape)
        if np.shares_memory(made, self.plain) or not made.size:
            return self._seen_as(made)
        return self.copy().reshape(*shape)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if not any(isinstance(k, HostArray | np.ndarray | list) for k in keys):
            # With an ellipsis a single number too is a view.
            return self._seen_as(self.plain[keys if Ellipsis in keys else (*keys, ...)])
        keys = tuple(np.asarray(k) if isinstance(k, list) else k for k in keys)
        for k in keys:
            if isinstance(k, np.ndarray) or (isinstance(k, HostArray) and k.dtype == bool):
                host_read("such an index")
        plain = tuple(k.plain if isinstance(k, HostArray) else k for k in keys)
        return computed("gather", lambda a: a[plain], [self])

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        keys = key if isinstance(key, tuple) else (key,)
        plain = tuple(k.plain if isinstance(k, HostArray) else k for k in keys)
        target, given = self.plain, plainly(value)
        node = "copy" if isinstance(value, HostArray) else "fill"
        do(node, lambda: target.__setitem__(plain, given), self, *devices([value, *keys]))

    def swapaxes(self, axis1, axis2):
        return self._seen_as(self.plain.swapaxes(axis1, axis2))

    # Copies and numbers ---------------------------------------------------------------------------

    def fill(self, value):
        self[...] = value

    def copy(self):
        made = empty(self.shape, self.dtype)
        made[...] = self
        return made

    def astype(self, dtype, copy=True):
        if not copy and self.dtype == dtype:
            return self
        made = empty(self.shape, dtype)
        made[...] = self
        return made

    def set(self, arr, stream=None):
        """Copy from the host; a graph would copy what lies there when it is replayed."""
        host_read("set()")
        if not isinstance(arr, np.ndarray) or (arr.dtype, arr.shape) != (self.dtype, self.shape):
            raise TypeError("such an array cannot be set")
        self.plain[...] = arr

    def get(self):
        host_read("get()")
        return self.plain.copy()

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        return computed("sum", lambda a: np.sum(a, axis, dtype, keepdims=keepdims), [self], out)

    def max(self, axis=None, out=None, keepdims=False):
        return computed("max", lambda a: np.max(a, axis, keepdims=keepdims), [self], out)

    def all(self, axis=None, out=None):
        return computed("all", lambda a: np.all(a, axis), [self], out)

    def any(self, axis=None, out=None):
        return computed("any", lambda a: np.any(a, axis), [self], out)

    def clip(self, min=None, max=None, out=None):
        return computed("clip", lambda a: np.clip(a, min, max), [self], out)

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())
