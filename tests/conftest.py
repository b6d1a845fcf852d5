import sys

import browser
import gradcheck
import numba
import pytest
import real_ports
from host_cuda import AS_CUPY
from threadpoolctl import threadpool_limits

import unchanged
from lstm_music import ops as backends
from lstm_music.errors import UserError

BACKENDS = ["numpy", "numba"]
NOT_HERE = {}  # backends that can't be used here, and why

try:
    backends.get_ops("cupy")
    BACKENDS.append("cupy")
except UserError as error:
    NOT_HERE["cupy"] = str(error)
if (reason := real_ports.why_not_real()) is not None:
    NOT_HERE["rtmidi of mido"] = reason


@pytest.fixture(scope="module", params=BACKENDS)
def ops(request):
    """Each backend in float64."""
    return backends.get_ops(request.param, "float64")


@pytest.fixture(
    scope="module",
    params=[(name, dtype) for name in BACKENDS for dtype in ("float64", "float32")],
    ids="-".join,
)
def any_ops(request):
    """Each backend in each precision."""
    return backends.get_ops(*request.param)


@pytest.fixture
def cupy_module(monkeypatch):
    """Have `import cupy` find the stand-in."""
    monkeypatch.syspath_prepend(AS_CUPY)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
        del sys.modules[name]


def pytest_configure(config):
    """One thread for each process of pytest-xdist: they share the cores."""
    if hasattr(config, "workerinput"):
        numba.set_num_threads(1)
        threadpool_limits(1)


# What was measured: each process of pytest-xdist sends its own to the one that prints.


def pytest_sessionfinish(session):
    if (sent := getattr(session.config, "workeroutput", None)) is not None:
        sent["checks"] = [tuple(check) for check in gradcheck.checks]
        sent["lines"] = browser.MEASURED
        sent["compared"] = [tuple(one) for one in unchanged.compared]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    sent = getattr(node, "workeroutput", {})
    gradcheck.checks += [gradcheck.Check(*check) for check in sent.get("checks", ())]
    browser.MEASURED += sent.get("lines", ())
    unchanged.compared += [unchanged.Comparison(*one) for one in sent.get("compared", ())]


def pytest_terminal_summary(terminalreporter):
    for name, reason in NOT_HERE.items():
        terminalreporter.write_line(f"backend {name} not tested here: {reason}")
    for line in browser.MEASURED:
        terminalreporter.write_line(line)
    for line in filter(None, (gradcheck.summary(), unchanged.summary())):
        terminalreporter.write_line(line)
