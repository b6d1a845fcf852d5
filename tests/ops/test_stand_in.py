"""The stand-in for CuPy is as hard to please: what works on it and fails on CuPy hides a fault."""

import gc
import json

import numpy as np
import pytest
from host_cuda import names
from host_cuda.compile import COMPILER, LaunchError
from host_cuda.host_cupy import HostCupy, Pool

from lstm_music.ops.cuda.capture import captured
from lstm_music.ops.cuda.cupy_ops import CupyOps

needs_compiler = pytest.mark.skipif(
    not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)"
)


@pytest.fixture
def xp():
    return HostCupy(("ascending",))


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda a, host: a + host, TypeError),
        (lambda a, host: host * a, TypeError),
        (lambda a, host: np.maximum(a, host), TypeError),
        (lambda a, host: np.asarray(a), TypeError),
        (lambda a, host: np.concatenate([a, a]), TypeError),
        (lambda a, host: a.__setitem__(..., host), ValueError),
        (lambda a, host: a.max(initial=0), TypeError),
        (lambda a, host: a.mean(), AttributeError),
        (lambda a, host: a.set(host.astype(np.float32)), TypeError),
    ],
)
def test_arrays_are_not_numpys(xp, use, error):
    with pytest.raises(error):
        use(xp.zeros(3), np.ones(3))


def test_the_module_has_what_cupy_has_and_no_more(xp):
    with pytest.raises(AttributeError):
        xp.linalg  # noqa: B018
    with pytest.raises(AttributeError):
        xp.cuda.nccl  # noqa: B018
    a = xp.zeros(3)
    assert xp.asarray(a) is a and xp.asarray(a, np.float64) is a  # CuPy copies nothing
    assert xp.asarray(a, np.float32) is not a
    assert np.float32(2) * xp.asarray(np.ones(3, np.float32)).sum() == 6
    b = a[1:]
    b += 1
    np.testing.assert_array_equal(xp.asnumpy(a), [0, 1, 1])


@needs_compiler
def test_launches_take_tuples_and_arrays_of_the_device(xp):
    with pytest.raises(TypeError, match="tuple"):
        xp.RawModule(code="", options=["-std=c++17"])
    ops = CupyOps(cupy=xp)
    with pytest.raises(LaunchError, match="isn't a device array"):
        ops.average_step(np.zeros(3, np.float32), xp.zeros(3, np.float32), 0.5)
    kernel = ops.kernel("optimizer", "average_forward")
    with pytest.raises(LaunchError, match="no tuple"):
        kernel([1], (256,), ())
    with pytest.raises(LaunchError, match="more shared memory"):
        kernel.max_dynamic_shared_size_bytes = 1 << 20


def in_a_graph(xp, work, stream=None, beside=None):
    """Capture some work in a stream, done in another if that is given."""
    stream = stream or xp.cuda.Stream()
    with beside or stream:
        return captured(xp, stream, work)


def test_what_a_graph_cannot_hold(xp):
    a = xp.zeros(3)
    for work in (
        lambda: float(a[0]),
        lambda: xp.asarray([1.0]),
        lambda: a.set(np.zeros(3)),
        lambda: a[a > 0],
        lambda: a[np.array([0])],
        lambda: xp.flatnonzero(a),
        lambda: xp.cuda.runtime.deviceSynchronize(),
    ):
        with pytest.raises(LaunchError, match="waits for the device"):
            in_a_graph(xp, work)
    with pytest.raises(LaunchError, match="another stream"):
        in_a_graph(xp, lambda: a.fill(1), beside=xp.cuda.Stream())
    with pytest.raises(RuntimeError, match="default"):
        xp.cuda.get_current_stream().begin_capture()
    graph = in_a_graph(xp, lambda: a.fill(1))
    assert not a.any()
    graph.launch()
    assert a.all()


@pytest.mark.parametrize("pool", [None, Pool()])
def test_a_graph_of_freed_memory_needs_a_pool_of_its_own(xp, pool):
    out = xp.zeros(3)

    def work():
        with xp.cuda.using_allocator(pool.malloc if pool else None):
            part = xp.empty(3)
        part.fill(2)
        out[...] = part

    graph = in_a_graph(xp, work)
    gc.collect()
    if pool is None:
        with pytest.raises(LaunchError, match="freed"):
            graph.launch()
    else:
        graph.launch()
        assert xp.asnumpy(out).tolist() == [2, 2, 2]


def test_all_that_the_stand_in_has_cupy_has_with_the_same_arguments():
    known = json.loads(names.FILE.read_text("utf-8"))
    for name, arguments in names.offered().items():
        assert name in known, f"{name}: see names.py, where CuPy is"
        assert set(arguments) <= set(known[name]), name
    assert known["cupy"].startswith("14.")
