"""The recurrent product on the tensor cores, of --precision bf16, on the CPU stand-in.

Each step is held to float64 arithmetic on what the kernel itself rounds: h, Wh and the gates'
gradients that it left behind. So a difference is one of a single step, and no tie that rounds the
other way can hide it.
"""

from typing import NamedTuple

import numpy as np
import pytest
import test_contract as contract
import test_cuda_nvrtc
from host_cuda import nvrtc
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from hypothesis import given
from hypothesis import strategies as st
from test_bf16 import rounded
from test_lstm_sequence import backward_case, forward_case

from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.ops.cuda.device import PRECISIONS
from lstm_music.ops.cuda.lstm_sequence import (
    LARGEST_BF16_H,
    bf16_sequence_options,
    bf16_sequence_rows,
    bf16_sequence_shared,
)

on_cpu = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
with_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
RTOL = 1e-5
FORWARD, BACKWARD = "lstm_sequence_forward", "lstm_sequence_backward"
# T, B, H, multiprocessors, and the rows of a block that follow.
SHAPES = [
    (1, 1, 16, 132, 2),
    (7, 8, 16, 1, 8),
    (2, 3, 32, 132, 2),
    (6, 11, 32, 3, 4),
    (3, 11, 48, 2, 8),
    (2, 5, 112, 132, 2),
    (6, 8, 128, 132, 2),
    (3, 11, 128, 3, 4),
    (2, 50, 128, 7, 8),
]


def bf16_ops(multiprocessors=132, **given):
    return CupyOps("float32", "bf16", cupy=HostCupy(multiprocessors=multiprocessors, **given))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def doubles(args):
    """Arguments in float64; keep of ones where there is none."""
    args = {k: a.astype(np.float64) for k, a in args.items() if isinstance(a, np.ndarray)}
    return {"keep": np.ones(next(iter(args.values())).shape[:2])} | args


def forward_steps(case, found):
    """What each step forward gives by itself, from the h and c that the kernel left before it."""
    a = doubles(case.args)
    c, h = (found[k].astype(np.float64) for k in "ch")
    kept = a["keep"][:, :, None]
    recurrent = rounded(kept * h[:-1]).astype(np.float64) @ rounded(a["Wh"]).astype(np.float64)
    i, f, g, o = np.split(a["gates"] + a["b"] + recurrent, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    cells = f * kept * c[:-1] + i * g
    hs = o * np.tanh(cells)
    return {
        "gates": np.concatenate([i, f, g, o], axis=-1),
        "c": np.concatenate([a["c0"][None], cells]),
        "h": np.concatenate([a["h0"][None], hs]),
        "hT": hs[-1],
        "cT": cells[-1],
    }


def backward_steps(case, found):
    """What each step back gives, from the gates' gradients that the kernel left after it."""
    a = doubles(case.args)
    Wh = rounded(a["Wh"]).astype(np.float64)
    dh, dc, gates = a.get("dhT", 0), a.get("dcT", 0), np.empty(a["gates"].shape)
    for t in reversed(range(len(gates))):
        i, f, g, o = np.split(a["gates"][t], 4, axis=-1)
        kept, tanh_c, d = a["keep"][t][:, None], np.tanh(a["c"][t + 1]), a["dy"][t] + dh
        dc = dc + d * o * (1 - tanh_c**2)
        slopes = (
            dc * g * i * (1 - i), dc * kept * a["c"][t] * f * (1 - f),
            dc * i * (1 - g**2), d * tanh_c * o * (1 - o),
        )  # fmt: skip
        gates[t] = np.concatenate(slopes, axis=-1)
        dc = dc * f * kept
        dh = kept * (rounded(found["gates"][t]).astype(np.float64) @ Wh.T)
    h = np.concatenate([a["keep"][:, :, None] * a["h"][:-1], a["h"][-1:]])
    return {"gates": gates, "h": h, "dh": dh, "dc": dc, "db": gates.sum((0, 1))}


STEPS = {FORWARD: (forward_case, forward_steps), BACKWARD: (backward_case, backward_steps)}


def check(ops, op, T, B, H, keep):
    """Hold a sequence to its steps; return it and the case."""
    make, steps = STEPS[op]
    case = contract.rounded(make(np.random.default_rng(0), T, B, H, keep))
    found = contract.run(ops, op, case)
    for name, a in steps(case, found).items():
        assert np.isfinite(found[name]).all(), f"{op}: {name} isn't finite"
        contract.assert_close(found[name], a, RTOL, 1.0, name)
    return case, found


@pytest.mark.slow(keep=2)
@on_cpu
@pytest.mark.parametrize("op", STEPS)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_step_is_that_of_rounded_factors(shape, keep, op):
    *sizes, multiprocessors, rows = shape
    assert bf16_sequence_rows(*sizes[1:], multiprocessors, 227 << 10) == rows
    ops = bf16_ops(multiprocessors)
    check(ops, op, *sizes, keep)
    sums = {"column_sum": 1} if op == BACKWARD else {}
    assert ops.xp.launches == {op.replace("sequence", "sequence_bf16"): 1} | sums


@on_cpu
@pytest.mark.parametrize("op", STEPS)
def test_a_sequence_is_that_of_the_reference_within_bf16(op):
    case = contract.rounded(STEPS[op][0](np.random.default_rng(0), 50, 4, 128, True))
    exact = contract.run(NumpyOps("float64"), op, case)
    for precision, most, least in (("fp32", 1e-6, 0), ("bf16", 5e-3, 1e-4)):
        ops = CupyOps("float32", precision, cupy=HostCupy(("ascending",), 132))
        found = contract.run(ops, op, case)
        for name, a in exact.items():
            if op == BACKWARD and name == "h":  # kept or not, never computed
                contract.assert_close(found[name], a, RTOL)
                continue
            error = np.linalg.norm(found[name] - a) / np.linalg.norm(a)
            print(op, precision, name, f"{error:.1e}")
            assert least <= error < most, (precision, name)


@on_cpu
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("at", ["gates", "c0", "h0", "Wh", "b"])
def test_a_state_shows_that_a_gate_state_or_weight_is_no_number(at):
    T, B, H = 4, 5, 32
    clean = forward_case(np.random.default_rng(0), T, B, H, keep=False)
    for n in range(4) if at in ("gates", "b") else (0,):  # a gate of each kind
        args = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in clean.args.items()}
        where = {"gates": (0, 1, 17 + n * H), "b": 17 + n * H, "Wh": (3, 70)}.get(at, (1, 17))
        args[at][where] = np.nan
        found = contract.run(bf16_ops(), FORWARD, clean._replace(args=args))
        bad = [1] if at in ("gates", "c0", "h0") else range(B)
        assert np.isnan(found["h"][-1, bad]).all() and np.isnan(found["gates"][2, bad]).any()
        others = np.delete(found["h"][1:], bad, axis=1)
        assert np.isfinite(others).all()


@on_cpu
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("at", ["gates", "c", "dy", "dhT", "dcT", "Wh"])
def test_gradients_show_that_one_or_a_gate_is_no_number(at):
    T, B, H = 4, 5, 32
    clean = backward_case(np.random.default_rng(0), T, B, H, keep=False)
    for n in range(4) if at == "gates" else (0,):
        args = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in clean.args.items()}
        where = {"gates": (T - 1, 1, 17 + n * H), "Wh": (3, 70)}.get(at, (T - 1, 1, 17))
        args[at][where[-args[at].ndim :]] = np.nan
        found = contract.run(bf16_ops(), BACKWARD, clean._replace(args=args))
        bad = range(B) if at == "Wh" else [1]
        assert np.isnan(found["dh"][bad]).all() and np.isnan(found["gates"][0, bad]).any()
        assert np.isfinite(np.delete(found["dh"], bad, axis=0)).all()


def used(ops, H=32, shift=0):
    """Run a sequence both ways; return whether it was on the tensor cores."""
    for op, (make, _) in STEPS.items():
        case = make(np.random.default_rng(0), 2, 3, H, True)
        args = {name: contract.on_device(ops, a) for name, a in case.args.items()}
        if shift:
            wide = ops.asarray(np.zeros(H * 4 * H + shift))
            wide[shift:] = args["Wh"].reshape(-1)
            args["Wh"] = wide[shift:].reshape(H, 4 * H)
        getattr(ops, op)(**args)
    names = {name.removesuffix("_forward").removesuffix("_backward") for name in ops.xp.launches}
    names -= {"column_sum"}
    (name,) = names
    return name == "lstm_sequence_bf16"


@on_cpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_bf16_on_a_device_with_tensor_cores_uses_them(precision):
    for capability in ("75", "80", "90", "120"):
        for dtype in ("float32", "float64"):
            ops = CupyOps(dtype, precision, cupy=HostCupy(compute_capability=capability))
            assert ops.tensor_cores == (capability != "75")
            assert used(ops) == (ops.tensor_cores and (dtype, precision) == ("float32", "bf16"))


@on_cpu
def test_what_does_not_fit_is_left_to_the_other_kernel():
    assert used(bf16_ops(), 128)
    assert not used(bf16_ops(), 24)
    assert not used(bf16_ops(), 144)
    assert used(bf16_ops(), 32, shift=4)
    assert not used(bf16_ops(), 32, shift=1)  # loads of 16 bytes need their alignment


@given(
    B=st.integers(1, 2000), H=st.integers(1, 300), multiprocessors=st.integers(1, 132),
    kib=st.sampled_from([64, 99, 163, 227]),
)  # fmt: skip
def test_a_plan_fits_the_device(B, H, multiprocessors, kib):
    rows = bf16_sequence_rows(B, H, multiprocessors, kib << 10)
    if rows is None:
        large = kib < 163 and 2 * multiprocessors < B
        assert H % 16 or H > LARGEST_BF16_H or large
        return
    assert rows in (2, 4, 8) and H % 16 == 0
    assert bf16_sequence_shared(rows, H, False) <= bf16_sequence_shared(rows, H, True) <= kib << 10
    assert rows == 2 or (rows // 2) * multiprocessors < B  # no more than it takes


# Bugs planted in the kernels' text ----------------------------------------------------------------


class Mutation(NamedTuple):
    """What to replace in the source's text, and the op that must then fail."""

    op: str
    before: str
    after: str


MUTATIONS = {
    "the barrier before the next step": Mutation(
        FORWARD, "__syncthreads();  // the new h is whole", "//"
    ),
    "inputs that nobody waits for": Mutation(
        FORWARD, "copies_wait<STAGES - 2>();\n        __sync",
        "copies_wait<STAGES - 1>();\n        __sync",
    ),
    "inputs copied too soon": Mutation(
        FORWARD, "fetch(t + STAGES - 1);", "fetch(t + STAGES);"
    ),
    "one place for the old h and the new": Mutation(
        FORWARD, "LSTM_ROWS * STATE_WIDTH - current", "current"
    ),
    "a reset that the product forgets": Mutation(
        FORWARD, "rounded(kept[p] * out)", "rounded(out)"
    ),
    "a reset that the cell forgets": Mutation(
        FORWARD, "cell[p] = kept[p] * now;", "cell[p] = now;"
    ),
    "a reset before the first step dropped": Mutation(
        FORWARD, "cell[p] = kept * before[0];", "cell[p] = before[0];"
    ),
    "a wrong column": Mutation(FORWARD, "n / 2 % 2 : n % LSTM_ROWS", "n % 2 : n % LSTM_ROWS"),
    "a wrong row of a fragment": Mutation(FORWARD, "q / 2 ? c[2 + p] : c[p]", "c[p]"),
    "odd steps of the sum dropped": Mutation(
        FORWARD, "(own.accumulator(acc[gate][0], p) + own.accumulator(acc[gate][1], p))",
        "own.accumulator(acc[gate][0], p)",
    ),
    "a row of Wh for the next": Mutation(FORWARD, "(from + 4 * H)", "(from)"),
    "rows beyond the batch": Mutation(FORWARD, "return first + row(p) <= last;", "return true;"),
    "rows beyond the batch, going back": Mutation(
        BACKWARD, "return first + row(p) <= last;", "return true;"
    ),
    "a final state that is the one before": Mutation(
        FORWARD, "hT[own.at(p)] = results[p][5]", "hT[own.at(p)] = h0[own.at(p)]"
    ),
    "an initial state that isn't kept": Mutation(
        FORWARD, "if (own.exists(p)) c[own.at(p)] = before[0], h[own.at(p)] = before[1];", ""
    ),
    "a state before a reset that counts": Mutation(
        BACKWARD, "if (slopes[p].kept == 0) h", "if (false) h"
    ),
    "the last step left in registers": Mutation(FORWARD, "    write(T - 1);", "    "),
    "the barrier before the parts are read": Mutation(
        BACKWARD, "__syncthreads();  // all partials", "//"
    ),
    "the barrier before the first copies over others": Mutation(
        BACKWARD, "__syncthreads();  // nobody reads the inputs", "//"
    ),
    "parts of two steps in one place": Mutation(
        BACKWARD, "partials + (uint32)t % 2 * WARPS * partial", "partials"
    ),
    "a warp's part counted twice": Mutation(
        BACKWARD, "total[w % 2] += of_warp[w * partial]", "total[w % 2] += of_warp[partial]"
    ),
    "a reset dropped going back": Mutation(
        BACKWARD, "bf16_pair(slope.kept * d[p][0],", "bf16_pair(d[p][0],"
    ),
    "a reset of the cell dropped": Mutation(BACKWARD, "to.forget = f * kept", "to.forget = f"),
    "keep of the wrong step": Mutation(BACKWARD, "fetch_keep(t - 2);", "fetch_keep(t - 1);"),
    "a cell that forgets the step before": Mutation(BACKWARD, "cell[p] = before;", ""),
    "a bias's gradient of the last step alone": Mutation(
        BACKWARD, "bias(p / 2, gate) += d[p][gate]", "bias(p / 2, gate) = d[p][gate]"
    ),
    "a bias's gradient of half the rows": Mutation(BACKWARD, "lanes < 2 * UNITS", "lanes < 1"),
    "another row's gradient": Mutation(BACKWARD, "if (column_row % 2) x[n] = other;", ""),
    "another unit's gradient": Mutation(
        BACKWARD, "4 * (2 * own.q + s / 2) + q", "4 * (2 * own.q) + q"
    ),
    "o's slope for g's": Mutation(
        BACKWARD, "(gate == 3 ? total : dcell[p])", "(gate == 2 ? total : dcell[p])"
    ),
}  # fmt: skip


def check_all(op, mutate):
    """Hold sequences with two and with four rows a block, longer than the inputs kept at once."""
    for T, B, H, multiprocessors in ((6, 5, 32, 132), (6, 11, 48, 3)):
        ops = bf16_ops(multiprocessors)
        ops.xp.mutate = mutate
        check(ops, op, T, B, H, True)


@on_cpu
@pytest.mark.parametrize("op", STEPS)
def test_the_checks_pass_without_a_mutation(op):
    check_all(op, lambda code: code)


@pytest.mark.slow(keep=2)
@on_cpu
@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_mutations_are_caught(mutation):
    planted = []

    def mutate(code):
        planted.append(mutation.before in code)
        return code.replace(mutation.before, mutation.after)

    with pytest.raises(AssertionError):
        check_all(mutation.op, mutate)
    assert any(planted), "the text to change is no longer in the kernel"


# What the compiler makes of it --------------------------------------------------------------------

SIZES = [(H, 2) for H in range(16, LARGEST_BF16_H + 1, 16)]
SIZES += [(H, rows) for H in (16, 112, 128) for rows in (4, 8)]


@pytest.mark.slow
@with_nvrtc
@test_cuda_nvrtc.every_version
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_compiles_without_spills_at_each_size(arch, lib):
    for H, rows in SIZES:
        options = bf16_sequence_options(rows, H)
        found = test_cuda_nvrtc.compiled("lstm_sequence_bf16", arch, "float32", options, lib)
        assert found == [(0, 0, 0)] * 2, (H, rows)


@with_nvrtc
@pytest.mark.skipif(
    test_cuda_nvrtc.sass().disassembler() is None, reason=test_cuda_nvrtc.sass().MISSING
)
@pytest.mark.parametrize("H", [48, 128])
def test_the_product_is_on_the_tensor_cores(H):
    sass = test_cuda_nvrtc.sass()
    code = source.text("lstm_sequence_bf16")
    found = {}
    for arch in ("sm_75", "sm_80", "sm_90"):
        options = ("-DREAL=float", *bf16_sequence_options(2, H))
        cubin, _ = nvrtc.compile_cubin(code, arch, options)
        for kernel, counts in sass.instructions(cubin).items():
            local = [op for op in counts if op.startswith(("LDL", "STL", "LD.", "ST."))]
            assert not local, f"{kernel}: generic or local memory"
            cells = dict(zip(sass.CLASSES, sass.cells(counts), strict=True))
            found[arch, kernel] = int(cells["matrix"])
    assert len(found) == 6
    # A warp multiplies 4H·16 weights, 256 at a time.
    for (arch, kernel), products in found.items():
        assert products == (0 if arch == "sm_75" else 4 * H // 16), (arch, kernel)
