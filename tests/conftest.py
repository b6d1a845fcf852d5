import pytest

import gradcheck
from lstm_music import ops as backends
from lstm_music.errors import UserError

BACKENDS = [name for name in backends.BACKENDS if name != "auto"]


def usable_ops(backend, dtype):
    try:
        return backends.get_ops(backend, dtype)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=BACKENDS)
def ops(request):
    """Each backend in float64."""
    return usable_ops(request.param, "float64")


@pytest.fixture(
    scope="module",
    params=[(name, dtype) for name in BACKENDS for dtype in ("float64", "float32")],
    ids="-".join,
)
def any_ops(request):
    """Each backend in each precision."""
    return usable_ops(*request.param)


def pytest_terminal_summary(terminalreporter):
    if line := gradcheck.summary():
        terminalreporter.write_line(line)
