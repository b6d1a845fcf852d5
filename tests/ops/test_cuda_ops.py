"""CupyOps on the CPU: every op, its kernels and its launches, against NumpyOps.

The kernels are those that run on a GPU, compiled as C++ (tests/harness/host_cuda/).
"""

from types import SimpleNamespace

import numpy as np
import pytest
import test_contract as contract
import test_notes
from gradcheck import check_gradients, dense
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from hypothesis import given, settings
from hypothesis import strategies as st
from small import as_read, random_recall, words_of

from lstm_music.arrays import NO_NOTES, Batch, RowGradient
from lstm_music.network.config import HEADS, Config, State
from lstm_music.network.model import Model, init_parameters
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda import gemm, optimizer, structs
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.gemm import leading

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
        patch.setattr(contract.workspace, "LOGITS_BYTES", size)
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
    for op in ("sigmoid_xent", "sigmoid_nll", "nade_xent", "nade_nll"):
        for bad in (np.nan, np.inf, -np.inf):
            contract.test_a_loss_of_notes_shows_that_a_logit_is_no_number(cuda_ops, op, bad)
    for op in ("nade_xent", "nade_nll"):
        contract.test_a_loss_of_notes_shows_that_a_hidden_unit_is_no_number(cuda_ops, op)


def test_leading_dimensions():
    a = np.zeros((3, 5))
    assert leading(a) == (0, 5)
    assert leading(a.T) == (1, 5)
    assert leading(a[:, :2]) == (0, 5)
    assert leading(a[:1]) == (0, 5)


# Notes ------------------------------------------------------------------------------------------

# N, D, K: what a warp, a block of 128, or NADE_PARTS holds, and a little more.
NOTE_SHAPES = [(1, 1, 1), (3, 88, 130), (2, 131, 33), (130, 33, 5), (7, 32, 64)]
SHARES = (0.0, 0.05, 0.5, 1.0)  # of the notes that are on


def note_cases(rng, N, D, K, share):
    """A case of each op of notes; K is the embedding's width too."""
    on = (rng.random((N, D)) < share).astype(np.uint8)
    targets = on.copy()
    targets[:: 4 if N > 1 else 2, 0] = NO_NOTES if share else 0
    unset = {name: np.full(s, np.nan) for name, s in {"dW": (D, K), "dU": (D, K)}.items()}
    weights = {"W": rng.normal(size=(D, K)), "U": rng.normal(size=(D, K)) / np.sqrt(K)}
    biases = {"visible": rng.normal(size=(N, D)) - 2, "hidden": rng.normal(size=(N, K))}
    loss = {"targets": targets, "losses": np.full(N, np.nan)}
    logits = {"logits": rng.normal(size=(N, D))}
    draws = contract.clear_draws(rng, weights | biases, 0.7)
    notes = {"draws": draws, "temperature": 0.7, "out": np.full((N, D), 7, np.uint8)}
    embedded = {"W": weights["W"], "x": on, "out": np.full((N, K), np.nan)}
    gradient = {"x": on, "dx": rng.normal(size=(N, K)), "dW": unset["dW"]}
    work = {"work": contract.WORK, "scale": 0.3}
    case, scratch = contract.Case, ("visible", "hidden", "logits")
    return {
        "note_embedding_forward": case(embedded, ("out",), unit=1),
        "note_embedding_backward": case(gradient, ("dW",), unit=1),
        "sigmoid_xent": case(logits | loss | {"scale": 0.3}, ("logits", "losses"), unit=0.3),
        "sigmoid_nll": case(logits | loss, ("losses",), scratch),
        "nade_xent": case(
            weights | biases | loss | unset | work,
            ("visible", "hidden", "losses", "dW", "dU"), unit=0.3 * np.sqrt(N),
        ),
        "nade_nll": case(weights | biases | loss, ("losses",), scratch),
        "nade_sample": case(weights | biases | notes, ("out",), scratch),
    }  # fmt: skip


@pytest.mark.slow(keep=3)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", NOTE_SHAPES, ids=str)
def test_notes_of_every_size(cuda_ops, shape, share):
    for op, case in note_cases(np.random.default_rng(0), *shape, share).items():
        contract.compare(cuda_ops, op, case)


def test_more_rows_of_notes_than_a_block_looks_at_at_once(cuda_ops):
    rng, (N, D, E) = np.random.default_rng(0), (300, 3, 5)
    x, dx = (rng.random((N, D)) < 0.3).astype(np.uint8), rng.normal(size=(N, E))
    case = contract.Case({"x": x, "dx": dx, "dW": np.full((D, E), np.nan)}, ("dW",), unit=1)
    contract.compare(cuda_ops, "note_embedding_backward", case)


@pytest.mark.parametrize("name", [n for n in dir(test_notes) if n.startswith("test_gradient")])
def test_gradients_of_notes(name):
    getattr(test_notes, name)(CupyOps("float64", cupy=HostCupy(("shuffled",))))


def test_nade_is_a_distribution(cuda_ops):
    test_notes.test_nade_gives_each_set_of_notes_its_probability(cuda_ops, 0)


def test_draws_may_be_of_either_type():
    ops = CupyOps("float32", cupy=HostCupy())
    case = note_cases(np.random.default_rng(0), 5, 9, 4, 0.5)["nade_sample"]
    args = {k: contract.on_device(ops, v) for k, v in case.args.items()}
    ops.nade_sample(**args)
    expected = ops.to_numpy(args["out"])
    args["draws"] = ops.asarray(case.args["draws"], np.float64)
    args["out"] = ops.asarray(np.full_like(expected, 7), np.uint8)
    ops.nade_sample(**args)
    np.testing.assert_array_equal(ops.to_numpy(args["out"]), expected)


# The optimiser ----------------------------------------------------------------------------------


def test_each_parameter_has_its_own_decay_and_mean_in_one_launch(cuda_ops):
    rng, lr, rate = np.random.default_rng(0), 0.1, 0.25
    decays, found = (0.0, 0.3, 0.0), []
    for decay, mean in zip(decays, (None, rng.normal(size=9), rng.normal(size=9)), strict=True):
        p, g, m = rng.normal(size=(3, 9))
        arrays = [cuda_ops.asarray(a) for a in (p, g, m, rng.random(9))]
        at = None if mean is None else cuda_ops.asarray(mean)
        found.append(optimizer.Parameter(*arrays, None, decay, at))
    before = [[None if a is None else cuda_ops.to_numpy(a) for a in f if not np.isscalar(a)]
              for f in found]  # fmt: skip
    inputs = dict.fromkeys(structs.fields(structs.STEP_INPUTS), 0)
    inputs |= {"lr": lr, "correct1": 1.5, "correct2": 2.5}
    results = dict.fromkeys(structs.fields(structs.STEP_RESULTS), 0) | {"scale": 0.5}
    sent = optimizer.structs_on_device(cuda_ops, structs.STEP_INPUTS, inputs)
    scale = optimizer.structs_on_device(cuda_ops, structs.STEP_RESULTS, results)
    cuda_ops.adam_all(cuda_ops.table(found), sent, scale, 0.9, 0.99, 1e-3, rate)
    rtol = contract.RTOL[cuda_ops.dtype.name]
    for after, (p, g, m, v, _, mean), decay in zip(found, before, decays, strict=True):
        m, v = 0.9 * m + 0.1 * 0.5 * g, 0.99 * v + 0.01 * 0.25 * g * g
        p = (1 - lr * decay) * p - lr * 1.5 * m / (np.sqrt(2.5 * v) + 1e-3)
        contract.assert_close(cuda_ops.to_numpy(after.p), p, rtol, 0.1)
        if mean is not None:
            moved = mean + rate * (p - mean)
            contract.assert_close(cuda_ops.to_numpy(after.mean), moved, rtol, 0.1)


# Whole models -----------------------------------------------------------------------------------


def whole_model(ops, parameters, config, states, arrays):
    """A model of some parameters, a batch and a state on a backend."""
    x, y, keep, recall = arrays
    x, y, recall = (a if a is None else ops.asarray(a, a.dtype) for a in (x, y, recall))
    batch = Batch(x, y, ops.asarray(keep), 5, recall=recall)
    given = {k: ops.asarray(v) for k, v in parameters.items()}
    model = Model(config, ops, parameters=given, words=words_of(config))
    state = State(*(ops.asarray(s) for s in states))
    return model, batch, state


def model_case(config, T=3, B=2):
    rng = np.random.default_rng(0)
    parameters = init_parameters(config, REFERENCE, 1)
    if config.reads_notes:
        x, y = ((rng.random((T, B, config.vocabulary + k)) < 0.3).astype(np.uint8) for k in (1, 0))
        x, y[0, 0, 0] = as_read(rng, config, x), NO_NOTES
    else:
        x, y = rng.integers(config.vocabulary, size=(2, T, B), dtype=np.int32)
        y[0, 0] = -1
    keep = np.ones((T, B))
    keep[2, 1] = keep[0, 0] = 0
    states = rng.normal(size=(2, config.layers, B, config.rows * config.hidden))
    asked = y[..., 0] != NO_NOTES if config.reads_notes else y >= 0
    recall = random_recall(rng, asked, config.copy) if config.copy else None
    return parameters, config, states, (x, y, keep, recall)


def dense_on_host(ops, grads, parameters):
    found = {}
    for name, g in grads.items():
        if isinstance(g, RowGradient):
            rows = RowGradient(ops.to_numpy(g.rows), ops.to_numpy(g.values))
            found[name] = dense(rows, parameters[name].shape)
        else:
            found[name] = ops.to_numpy(g)
    return found


@pytest.mark.slow(keep=1)
@pytest.mark.parametrize("copy", [0, 2])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_of_a_whole_model(head, copy):
    ops = CupyOps("float64", cupy=HostCupy(("shuffled",)))
    sizes = {"nade": 3, "classes": 3, "deltas": 2, "copy": copy}
    config = Config(vocabulary=4, embedding=2, hidden=3, layers=2, head=head, **sizes)
    case = model_case(config)
    model, batch, state = whole_model(ops, *case)
    _, grads, _ = model.loss_and_grads(batch, state)
    found = dense_on_host(ops, grads, case[0])

    def loss():
        model, batch, state = whole_model(ops, *case)
        return float(ops.to_numpy(model.losses(batch, state)[0]).sum()) / batch.targets

    check_gradients(loss, case[0], found)


@pytest.mark.parametrize(
    ("hidden", "dropout", "copy"), [(4, 0.0, 0), (4, 0.4, 3), (37, 0.0, 2), (37, 0.4, 0)]
)
@pytest.mark.parametrize("head", HEADS)
def test_a_whole_model_gives_what_the_reference_gives(cuda_ops, head, dropout, hidden, copy):
    sizes = {"nade": 11, "classes": 5, "deltas": 3, "copy": copy}
    config = Config(19, embedding=7, hidden=hidden, dropout=dropout, head=head, **sizes)
    case = model_case(config, T=4, B=5)
    results = []
    for ops in (REFERENCE, cuda_ops):
        model, batch, state = whole_model(ops, *case)
        losses = ops.to_numpy(model.losses(batch, state)[0]).copy()
        loss, grads, final = model.loss_and_grads(batch, state, seed=5, step=2)
        h, c = (ops.to_numpy(a) for a in final)
        results.append(
            dense_on_host(ops, grads, case[0])
            | {"h": h, "c": c, "loss": np.array(loss), "losses": losses}
        )
    expected, found = results
    rtol = contract.RTOL[cuda_ops.dtype.name]
    for name, a in expected.items():
        contract.assert_close(found[name], a, rtol, name=name)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_precisions_ask_cublas_for_their_arithmetic(precision):
    cupy = HostCupy()
    asked = []

    def gemm_ex(*args):
        asked.append(args[-2])
        return 0

    cupy.cublas_library = SimpleNamespace(**vars(cupy.cublas_library) | {"cublasGemmEx": gemm_ex})
    ops = CupyOps("float32", precision, cupy=cupy)
    a = ops.asarray(np.eye(2))
    ops.matmul(a, a, ops.asarray(np.eye(2)))
    assert asked == [gemm.COMPUTE_TYPES[precision]]
