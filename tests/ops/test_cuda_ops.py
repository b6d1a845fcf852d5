"""CupyOps on the CPU: every op, its kernels and its launches, against NumpyOps.

The kernels are those that run on a GPU, compiled as C++ (tests/host_cuda/).
"""

import numpy as np
import pytest
import test_contract as contract
from hypothesis import given, settings
from hypothesis import strategies as st

from gradcheck import check_gradients, dense
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from lstm_music.model import Batch, Config, Model, State, init_parameters
from lstm_music.ops import NumpyOps, cupy_ops
from lstm_music.ops.cupy_ops import CupyOps, leading, sequence_plan, sequence_shared
from lstm_music.ops.numpy_ops import RowGradient

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
REFERENCE = NumpyOps("float64")


@pytest.fixture(scope="module", params=["float64", "float32"])
def cuda_ops(request):
    """CupyOps whose device is this CPU."""
    return CupyOps(request.param, cupy=HostCupy())


@pytest.mark.parametrize("op", contract.CASES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_op_agrees_with_the_reference(cuda_ops, op, data):
    contract.compare(cuda_ops, op, data.draw(contract.CASES[op]()))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("op", ["linear_softmax_xent", "linear_softmax_nll"])
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_chunks_of_rows_give_what_the_whole_gives(cuda_ops, op, rows, data):
    case = data.draw(contract.CASES[op]())
    with pytest.MonkeyPatch.context() as patch:
        size = rows * len(case.args["b"]) * cuda_ops.dtype.itemsize
        patch.setattr(contract.numpy_ops, "LOGITS_BYTES", size)
        contract.compare(cuda_ops, op, case)


def test_signatures_are_the_contracts(cuda_ops):
    contract.test_signatures_are_the_contracts(cuda_ops)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nothing_hides_that_something_is_no_number(cuda_ops):
    contract.test_a_state_shows_that_a_gate_is_no_number(cuda_ops)
    contract.test_a_sum_of_squares_shows_that_an_element_is_no_number(cuda_ops)
    for op in ("softmax_xent", "softmax_nll"):
        for bad in (np.nan, np.inf):
            contract.test_a_loss_shows_that_a_logit_is_no_number(cuda_ops, op, bad)


@pytest.mark.parametrize("at", ["gates", "c", "h"])
def test_a_sequence_shows_that_a_gate_or_state_is_no_number(cuda_ops, at):
    case = forward_case(np.random.default_rng(0), 3, 4, 5, keep=False)
    # Of the sequence's second row: unit 0 of the state, or a gate of each kind in turn.
    for n in range(4) if at == "gates" else (0,):
        args = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in case.args.items()}
        args[at][0, 1, 5 * n] = np.nan
        found = contract.run(cuda_ops, "lstm_sequence_forward", case._replace(args=args))
        if at != "h":
            assert np.isnan(found["h"][1, 1, 0])
        assert np.isnan(found["h"][2, 1]).all()
        assert np.isfinite(found["h"][1:, [0, 2, 3]]).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_loss_of_notes_shows_that_a_logit_is_no_number(cuda_ops):
    logits, targets, losses = (cuda_ops.asarray(np.zeros(s)) for s in ((2, 3), (2, 3), 2))
    logits[0, 1] = np.nan
    cuda_ops.sigmoid_xent(logits, targets, losses, 1.0)
    assert np.isnan(cuda_ops.to_numpy(losses)).tolist() == [True, False]
    assert np.isnan(cuda_ops.to_numpy(logits)[0]).tolist() == [False, True, False]


# The persistent LSTM kernel ---------------------------------------------------------------------


def forward_case(rng, T, B, H, keep):
    states = np.full((2, T + 1, B, H), contract.UNSET)
    states[:, 0] = rng.normal(size=(2, B, H))
    args = {
        "gates": rng.normal(size=(T, B, 4 * H)),
        "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
        "b": rng.normal(size=4 * H),
        "keep": (rng.random((T, B)) < 0.6).astype(float) if keep else None,
        "c": states[0],
        "h": states[1],
        "work": contract.WORK,
    }
    return contract.Case(args, ("gates", "c", "h"))


def backward_case(rng, T, B, H, keep):
    args = {
        "gates": contract.activations(rng, T, B, 4 * H),
        "Wh": rng.normal(size=(H, 4 * H)) / np.sqrt(H),
        "keep": (rng.random((T, B)) < 0.6).astype(float) if keep else None,
        "c": rng.normal(size=(T + 1, B, H)),
        "dy": rng.normal(size=(T, B, H)),
        "dh": rng.normal(size=(B, H)),
        "dc": rng.normal(size=(B, H)),
        "work": contract.WORK,
    }
    return contract.Case(args, ("gates", "dh", "dc"))


# H, multiprocessors (few: several rows a block), shared memory (little: weights from the L2 cache).
SHAPES = [
    (1, 1, 1, 132, 227),
    (3, 2, 37, 132, 227),
    (2, 5, 33, 2, 227),
    (2, 7, 40, 1, 227),
    (3, 3, 97, 1, 40),
    (2, 2, 128, 132, 227),
    (2, 2, 128, 132, 64),
    (2, 1, 200, 132, 99),
    (1, 3, 256, 1, 227),
    (2, 2, 257, 132, 227),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_whole_sequence_in_one_launch(shape, dtype):
    T, B, H, multiprocessors, kib = shape
    ops = CupyOps(dtype, cupy=HostCupy(("shuffled",), multiprocessors, kib << 10))
    rng = np.random.default_rng(0)
    for keep in (False, True):
        contract.compare(ops, "lstm_sequence_forward", forward_case(rng, T, B, H, keep))
        contract.compare(ops, "lstm_sequence_backward", backward_case(rng, T, B, H, keep))
    # One launch a sequence: two forward, two backward.
    persistent = H <= cupy_ops.LARGEST_H
    assert ops.xp.launches.get("lstm_sequence_forward", 0) == (2 if persistent else 0)
    assert ops.xp.launches.get("lstm_cell_forward", 0) == (0 if persistent else 2 * T)


@given(
    B=st.integers(1, 2000),
    H=st.integers(1, 300),
    itemsize=st.sampled_from([4, 8]),
    kib=st.sampled_from([64, 99, 163, 227]),
)
def test_a_plan_fits_the_device(B, H, itemsize, kib):
    plan = sequence_plan(B, H, itemsize, 132, kib << 10)
    if plan is None:
        assert H > cupy_ops.LARGEST_H
        return
    assert 4 * H <= plan.threads <= plan.bound <= 1024
    assert sequence_shared(plan, H, itemsize) <= kib << 10
    assert plan.held <= -(-H // 4)


def test_at_the_papers_size_no_weight_is_read_from_device_memory_again():
    plan = sequence_plan(50, 128, 4, 132, 227 << 10)
    assert plan.rows == 1
    assert plan.registers + 4 * plan.held >= 128


def test_leading_dimensions():
    a = np.zeros((3, 5))
    assert leading(a) == (0, 5)
    assert leading(a.T) == (1, 5)
    assert leading(a[:, :2]) == (0, 5)
    assert leading(a[:1]) == (0, 5)


# Sigmoid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "D"), [(1, 1), (5, 88), (3, 131)])
@pytest.mark.parametrize("masked", [False, True])
def test_sigmoid_xent(cuda_ops, N, D, masked):
    rng = np.random.default_rng(0)
    logits, targets = 5 * rng.normal(size=(N, D)), (rng.random((N, D)) < 0.3).astype(float)
    counted = (rng.random(N) < 0.5).astype(float) if masked else None
    device = [cuda_ops.asarray(a) for a in (logits, targets, np.full(N, np.nan))]
    cuda_ops.sigmoid_xent(*device, 0.7, None if counted is None else cuda_ops.asarray(counted))
    weight = np.ones(N) if counted is None else counted
    p = 1 / (1 + np.exp(-logits))
    nats = -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).sum(axis=1)
    rtol = contract.RTOL[cuda_ops.dtype.name]
    contract.assert_close(cuda_ops.to_numpy(device[2]), weight * nats, rtol, 1)
    expected = 0.7 * weight[:, None] * (p - targets)
    contract.assert_close(cuda_ops.to_numpy(device[0]), expected, rtol, 1)


# Whole models -----------------------------------------------------------------------------------


def whole_model(ops, parameters, config, states, arrays):
    """Losses, gradients and final state of a model of some parameters, all on the host."""
    x, y, keep = arrays
    batch = Batch(ops.asarray(x, "int32"), ops.asarray(y, "int32"), ops.asarray(keep), y.size - 1)
    model = Model(config, ops, parameters={k: ops.asarray(v) for k, v in parameters.items()})
    state = State(*(ops.asarray(s) for s in states))
    return model, batch, state


def model_case(config, T=3, B=2):
    rng = np.random.default_rng(0)
    parameters = init_parameters(config, REFERENCE, 1)
    x, y = rng.integers(config.vocabulary, size=(2, T, B), dtype=np.int32)
    y[0, 0] = -1
    keep = np.ones((T, B))
    keep[2, 1] = keep[0, 0] = 0
    states = rng.normal(size=(2, config.layers, B, config.hidden))
    return parameters, config, states, (x, y, keep)


def dense_on_host(ops, grads, parameters):
    found = {}
    for name, g in grads.items():
        if isinstance(g, RowGradient):
            rows = RowGradient(ops.to_numpy(g.rows), ops.to_numpy(g.values))
            found[name] = dense(rows, parameters[name].shape)
        else:
            found[name] = ops.to_numpy(g)
    return found


def test_gradients_of_a_whole_model():
    ops = CupyOps("float64", cupy=HostCupy(("shuffled",)))
    case = model_case(Config(vocabulary=4, embedding=2, hidden=3, layers=2))
    model, batch, state = whole_model(ops, *case)
    _, grads, _ = model.loss_and_grads(batch, state)
    found = dense_on_host(ops, grads, case[0])

    def loss():
        model, batch, state = whole_model(ops, *case)
        return float(ops.to_numpy(model.losses(batch, state)[0]).sum()) / batch.targets

    check_gradients(loss, case[0], found)


@pytest.mark.parametrize("hidden", [4, 37])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_whole_model_gives_what_the_reference_gives(cuda_ops, dropout, hidden):
    case = model_case(Config(19, embedding=7, hidden=hidden, layers=2, dropout=dropout), T=4, B=5)
    results = []
    for ops in (REFERENCE, cuda_ops):
        model, batch, state = whole_model(ops, *case)
        loss, grads, final = model.loss_and_grads(batch, state, seed=5, step=2)
        h, c = (ops.to_numpy(a) for a in final)
        results.append(
            dense_on_host(ops, grads, case[0]) | {"h": h, "c": c, "loss": np.array(loss)}
        )
    expected, found = results
    rtol = contract.RTOL[cuda_ops.dtype.name]
    for name, a in expected.items():
        contract.assert_close(found[name], a, rtol, name=name)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_precisions_ask_cublas_for_their_arithmetic(precision):
    cupy = HostCupy()
    asked = []
    gemm = cupy.cuda.cublas.gemmEx
    cupy.cuda.cublas.gemmEx = lambda *args: (asked.append(args[-2]), gemm(*args))
    ops = CupyOps("float32", precision, cupy=cupy)
    a = ops.asarray(np.eye(2))
    ops.matmul(a, a, ops.asarray(np.eye(2)))
    assert asked == [cupy_ops.COMPUTE_TYPES[precision]]
