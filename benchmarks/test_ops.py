"""Each fused op, NumPy's beside Numba's, at the paper's sizes: `pytest --benchmark`.

Numba overrides an op only where this table shows that it wins.
"""

from collections.abc import Callable

import numpy as np
import pytest

from lstm_music.ops import NumpyOps, get_ops
from lstm_music.ops.reference.maths import Adam

T, B, E, H = 50, 50, 128, 128
N = T * B
D, K = 88, 128  # notes of a piano, hidden units of a NADE


@pytest.fixture(params=["numpy", "numba"])
def ops(request: pytest.FixtureRequest) -> NumpyOps:
    return get_ops(request.param)


@pytest.fixture
def real() -> Callable[..., np.ndarray]:
    rng = np.random.default_rng(0)
    return lambda *shape: rng.normal(0, 0.1, shape).astype(np.float32)


@pytest.fixture
def measure(benchmark, rounds) -> Callable[[str, Callable[[], object]], None]:
    """Time a call, in the table of its op."""

    def timed(op: str, call: Callable[[], object]) -> None:
        benchmark.group = op
        benchmark.pedantic(call, **rounds(15))

    return timed


def test_matmul(measure, ops, real):
    x, Wx, out = real(N, E), real(E, 4 * H), real(N, 4 * H)
    measure("matmul (2500, 128)·(128, 512)", lambda: ops.matmul(x, Wx, out))


def test_gradient_of_weights(measure, ops, real):
    x, d, out = real(N, E), real(N, 4 * H), real(E, 4 * H)
    measure("matmul (128, 2500)·(2500, 512)", lambda: ops.matmul(x.T, d, out))


def test_lstm_sequence_forward(measure, ops, real):
    gates, Wh, b, work = real(T, B, 4 * H), real(H, 4 * H), real(4 * H), ops.workspace()
    c, h, h0, c0 = real(T + 1, B, H), real(T + 1, B, H), real(B, H), real(B, H)
    measure(
        "lstm_sequence_forward",
        lambda: ops.lstm_sequence_forward(gates, Wh, b, None, h0, c0, c, h, h0, c0, work),
    )


def test_lstm_sequence_backward(measure, ops, real):
    gates, Wh, db, work = real(T, B, 4 * H), real(H, 4 * H), real(4 * H), ops.workspace()
    c, h, dy, dh, dc = *(real(T + 1, B, H) for _ in "ch"), real(T, B, H), real(B, H), real(B, H)

    def call():
        gates[...] = 0.1  # activations; the op leaves gradients in their place
        ops.lstm_sequence_backward(gates, Wh, None, c, h, dy, None, None, dh, dc, db, work)

    measure("lstm_sequence_backward", call)


@pytest.mark.parametrize("V", [951, 35_509])
def test_linear_softmax_xent(measure, ops, real, V):
    h, W, b, work = real(N, H), real(H, V), real(V), ops.workspace()
    targets = np.random.default_rng(1).integers(0, V, N, dtype=np.int32)
    losses, dh, dW, db = real(N), real(N, H), real(H, V), real(V)
    measure(
        f"linear_softmax_xent V={V}",
        lambda: ops.linear_softmax_xent(h, W, b, targets, 1 / N, losses, dh, dW, db, work),
    )


@pytest.mark.parametrize("V", [951, 35_509])
def test_linear_softmax_nll(measure, ops, real, V):
    h, W, b, work, losses = real(N, H), real(H, V), real(V), ops.workspace(), real(N)
    targets = np.random.default_rng(1).integers(0, V, N, dtype=np.int32)
    measure(
        f"linear_softmax_nll V={V}",
        lambda: ops.linear_softmax_nll(h, W, b, targets, losses, work),
    )


def test_embedding_backward(measure, ops, real):
    ids, dx = np.random.default_rng(1).integers(0, 951, N, dtype=np.int32), real(N, E)
    measure("embedding_backward", lambda: ops.embedding_backward(ids, dx))


@pytest.fixture
def notes() -> np.ndarray:
    """As in piano rolls: one note in twenty is on."""
    return (np.random.default_rng(1).random((N, D)) < 0.05).astype(np.uint8)


def test_note_embedding_forward(measure, ops, real, notes):
    W, out = real(D, E), real(N, E)
    measure("note_embedding_forward", lambda: ops.note_embedding_forward(W, notes, out))


def test_note_embedding_backward(measure, ops, real, notes):
    dx, dW = real(N, E), real(D, E)
    measure("note_embedding_backward", lambda: ops.note_embedding_backward(notes, dx, dW))


def test_sigmoid_xent(measure, ops, real, notes):
    logits, losses = real(N, D), real(N)
    measure("sigmoid_xent", lambda: ops.sigmoid_xent(logits, notes, losses, 1 / N))


def test_nade_xent(measure, ops, real, notes):
    visible, hidden, losses, work = real(N, D), real(N, K), real(N), ops.workspace()
    W, U, dW, dU = real(D, K), real(D, K), real(D, K), real(D, K)
    measure(
        "nade_xent",
        lambda: ops.nade_xent(visible, hidden, notes, W, U, 1 / N, losses, dW, dU, work),
    )


def test_nade_nll(measure, ops, real, notes):
    visible, hidden, losses, W, U = real(N, D), real(N, K), real(N), real(D, K), real(D, K)

    def call():
        hidden[...] = 0  # else each call would add the notes' weights to it
        ops.nade_nll(visible, hidden, notes, W, U, losses)

    measure("nade_nll", call)


def test_nade_sample(measure, ops, real):
    """64 pieces, as they are drawn."""
    visible, W, U = real(64, D) - 3, real(D, K), real(D, K)
    draws, out = np.random.default_rng(1).random((64, D)), np.empty((64, D), np.uint8)
    hidden = real(64, K)

    def call():
        hidden[...] = 0
        ops.nade_sample(visible, hidden, W, U, draws, 1.0, out)

    measure("nade_sample, 64 rows", call)


def test_average_step(measure, ops, real):
    p, mean = real(H, 35_509), real(H, 35_509)
    measure("average_step (128, 35509)", lambda: ops.average_step(p, mean, 0.01))


def test_dropout(measure, ops, real):
    x = real(N, H)
    measure("dropout", lambda: ops.dropout(x, 0.2, 0, 1, 2))


@pytest.mark.parametrize("V", [951, 35_509])
def test_adam_step(measure, ops, real, V):
    p, g, m, v = real(V, H), real(V, H), real(V, H), real(V, H) ** 2
    measure(
        f"adam_step V={V}",
        lambda: ops.adam_step(p, g, m, v, Adam(1e-3, 1)),
    )


@pytest.mark.parametrize("V", [951, 35_509])
def test_adam_step_rows(measure, ops, real, V):
    p, m, v = real(V, E), real(V, E), real(V, E) ** 2
    ids = np.random.default_rng(1).integers(0, V, N, dtype=np.int32)
    g = ops.embedding_backward(ids, real(N, E))
    measure(
        f"adam_step_rows V={V}",
        lambda: ops.adam_step_rows(p, g, m, v, Adam(1e-3, 1)),
    )


def test_sum_squares(measure, ops, real):
    g = real(H, 35_509)
    measure("sum_squares (128, 35509)", lambda: ops.sum_squares(g))
