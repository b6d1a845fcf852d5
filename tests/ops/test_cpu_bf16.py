"""Products in bf16 on a CPU, of --precision bf16, against their rounded factors in float64."""

import sys

import numpy as np
import pytest

from lstm_music import ops as backends
from lstm_music.errors import UserError
from lstm_music.ops import NumpyOps
from lstm_music.ops.cpu import panels

LAYOUTS = ["rows", "turned", "slice", "turned slice"]
SIZES = [(37, 131, 97), (67, 257, 521), (131, 513, 61), (33, 1031, 577), (64, 32, 64)]
SIZES += [(32, 8, 16)]  # the smallest
needs_bf16 = pytest.mark.skipif(not panels.HAS_BF16, reason="this processor has no AVX512_BF16")


def rounded(x):
    """The nearest bf16 of float32 numbers, by arithmetic: 8 binary digits, ties to even."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.round(mantissa * 256), exponent - 8)


def laid(a, layout):
    """An array of a's numbers that lies in memory as a layout says."""
    turned = a.T if "turned" in layout else a
    if "slice" not in layout:
        turned = turned.copy(order="C")
        return turned.T if "turned" in layout else turned
    wider = np.full((len(turned) + 3, turned.shape[1] + 5), np.nan, np.float32)
    wider[2:-1, 3:-2] = turned
    return wider[2:-1, 3:-2].T if "turned" in layout else wider[2:-1, 3:-2]


def factors(M, K, N):
    rng = np.random.default_rng(0)
    return (rng.normal(0, 1, shape).astype(np.float32) for shape in ((M, K), (K, N)))


@pytest.fixture(scope="module")
def ops():
    return backends.get_ops("numba", precision="bf16")


@needs_bf16
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_a_product_is_that_of_the_rounded_factors(ops, of_a, of_b, sizes):
    a, b = factors(*sizes)
    expected, terms = rounded(a) @ rounded(b), np.abs(rounded(a)) @ np.abs(rounded(b))
    wider = np.full((len(a), b.shape[1] + 1), np.nan, np.float32)
    out = wider[:, :-1]
    ops.matmul(laid(a, of_a), laid(b, of_b), out)
    assert (np.abs(out - expected) <= 1e-6 * terms).all()
    exact, terms_exact = a.astype(np.float64) @ b, np.abs(a).astype(np.float64) @ np.abs(b)
    assert (np.abs(out - exact) <= (2 * 2**-8 + 2**-16 + 1e-6) * terms_exact).all()
    ops.matmul_add(laid(a, of_a), laid(b, of_b), out)
    assert (np.abs(out - 2 * expected) <= 2e-6 * terms).all()
    assert np.isnan(wider[:, -1]).all()


@needs_bf16
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("M", "N"), [(131, 13), (13, 131), (9, 700)])
def test_parts_are_the_whole(threads, M, N):
    from lstm_music.ops.cpu.bf16 import Products

    a, b = factors(M, 77, N)
    out, again = np.full((2, M, N), np.nan, np.float32)
    whole, parts = Products(1), Products(threads)
    for beta in (0, 1):  # added where parts overlap: twice
        whole(a, b, out, beta)
        parts(a, b, again, beta)
        np.testing.assert_array_equal(out, again)


@needs_bf16
def test_each_part_has_scratch_of_its_own():
    from lstm_music.ops.cpu.bf16 import Products

    a, b = factors(131, 77, 13)
    products, out = Products(3), np.empty((131, 13), np.float32)
    for array in products.work:
        array.view(np.uint32)[...] = 12345
    for layout in ("rows", "turned"):
        products(laid(a, layout), b, out, 0)
    for array in products.work:
        assert all((part.view(np.uint32) != 12345).any() for part in array)


@needs_bf16
def test_a_rows_bits_do_not_depend_on_its_company(ops):
    a, b = factors(70, 300, 130)
    out, alone = np.empty((70, 130), np.float32), np.empty((9, 130), np.float32)
    ops.matmul(a, b, out)
    for first in (0, 1, 58, 61):
        ops.matmul(a[first : first + 9], b, alone)
        np.testing.assert_array_equal(alone, out[first : first + 9])


@needs_bf16
@pytest.mark.parametrize("of_b", ["rows", "turned"])
@pytest.mark.parametrize("of_a", ["rows", "turned"])
@pytest.mark.parametrize("at", [0, 15, 33, 40])
def test_what_is_no_number_stays_so_and_the_tiniest_are_0(ops, of_a, of_b, at):
    """Of factors of 41 terms, one of them special, in places that are packed in each way."""
    a, b = factors(33, 41, 70)
    tiny = np.float32(1e-40)
    special = np.array([np.nan, np.inf, -np.inf, tiny, 3e37, 3.4e38], np.float32)
    a[: len(special), at] = special
    a[8], b[:, 69] = tiny, tiny
    with np.errstate(invalid="ignore", over="ignore"):
        expected = rounded(a).astype(np.float32).astype(np.float64) @ rounded(b)
        terms = np.abs(rounded(a)) @ np.abs(rounded(b))
    out = np.empty((33, 70), np.float32)
    ops.matmul(laid(a, of_a), laid(b, of_b), out)
    assert np.isnan(out[0]).all()
    for row in (1, 2, 5):  # the last rounds to infinity
        assert not np.isfinite(out[row]).any()
    np.testing.assert_array_equal(np.sign(out[1:3, :69]), np.sign(expected[1:3, :69]))
    finite = np.s_[3:5, :69]
    assert (np.abs(out[finite] - expected[finite]) <= 1e-6 * terms[finite] + 1e-37).all()
    assert not out[8].any()
    assert not out[6:, 69].any()  # tiny times tiny, and times what is not


@needs_bf16
def test_ties_are_rounded_to_even(ops):
    n = np.arange(16, dtype=np.float32)
    exact = np.float32(1) + n * np.float32(2**-8)  # every other: a tie
    out = np.empty((16, 16), np.float32)
    ops.matmul(np.diag(exact), np.eye(16, dtype=np.float32), out)
    np.testing.assert_array_equal(np.diag(out), rounded(exact))
    assert not np.array_equal(rounded(exact), exact)


@needs_bf16
@pytest.mark.parametrize(("T", "B", "H"), [(5, 9, 48), (3, 16, 67)])
def test_gradients_are_those_of_float64_but_for_rounding(ops, T, B, H):
    """A layer forward and back: the relative error of a sum of rounded products is below 2⁻⁸."""
    rng = np.random.default_rng(1)
    reference = NumpyOps("float64")
    x, Wh, b = rng.normal(0, 1, (T, B, 4 * H)), rng.normal(0, H**-0.5, (H, 4 * H)), np.zeros(4 * H)
    keep = (rng.random((T, B)) < 0.8).astype(float)
    dy = rng.normal(0, 1, (T, B, H))
    found = {}
    for each in (reference, ops, backends.get_ops("numba")):
        gates, weights, bias, kept, d = (each.asarray(v.copy()) for v in (x, Wh, b, keep, dy))
        c, h = (np.empty((T + 1, B, H), each.dtype) for _ in range(2))
        state = [np.zeros((B, H), each.dtype) for _ in range(2)]
        each.lstm_sequence_forward(
            gates, weights, bias, kept, *state, c, h, *state, each.workspace()
        )
        y = h[1:].copy()
        dh, dc = np.empty((2, B, H), each.dtype)
        each.lstm_sequence_backward(
            gates, weights, kept, c, h, d, None, None, dh, dc, bias, each.workspace()
        )
        found[each] = np.concatenate([v.ravel() for v in (y, gates, dh, dc, bias)])
    exact, half, single = found.values()
    scale = np.abs(exact).max()
    errors = [np.abs(half - exact).max() / scale, np.abs(single - exact).max() / scale]
    assert errors[1] < 1e-5 < errors[0] < T * 2**-8


def test_a_processor_without_the_instructions_says_so(monkeypatch):
    monkeypatch.setattr(panels, "HAS_BF16", False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UserError, match=r"no instructions for bf16.*leave --precision out"):
        backends.get_ops("numba", precision="bf16")
    found = backends.get_ops("auto", precision="bf16")
    assert (found.name, found.precision) == ("numba", "fp32")


@needs_bf16
@pytest.mark.parametrize(("M", "K", "N"), [(7, 64, 64), (64, 7, 64), (64, 64, 15)])
def test_products_too_small_to_win_are_not_rounded(ops, M, K, N):
    a, b = factors(M, K, N)
    out = np.empty((M, N), np.float32)
    ops.matmul(a, b, out)
    np.testing.assert_allclose(out, a.astype(np.float64) @ b, rtol=0, atol=1e-5)


@needs_bf16
def test_float64_is_not_rounded():
    ops = backends.get_ops("numba", "float64", "bf16")
    a, b = (x.astype(np.float64) for x in factors(9, 20, 33))
    out = np.empty((9, 33))
    ops.matmul(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("has", [False, True])
def test_auto_takes_bf16_where_the_processor_has_it(monkeypatch, has):
    if has and not panels.HAS_BF16:
        pytest.skip("this processor has no AVX512_BF16")
    monkeypatch.setattr(panels, "HAS_BF16", has)
    monkeypatch.setitem(sys.modules, "cupy", None)
    for backend in ("auto", "numba"):
        assert backends.get_ops(backend, precision="auto").precision == ("bf16" if has else "fp32")
    assert backends.get_ops("numba", "float64", "auto").precision == "fp32"
    assert backends.get_ops("numpy", precision="auto").precision == "fp32"
    assert backends.get_ops("numba").precision == "fp32"


@needs_bf16
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(
    ("N", "H", "V"), [(64, 64, 64), (67, 65, 129), (300, 66, 1601), (515, 130, 513)]
)
def test_gradients_rounded_in_their_row_give_the_same_bits(monkeypatch, N, H, V, parts):
    """As those that each product rounds: with rests of each kind, and rows of no target."""
    from lstm_music.arrays import Mixture
    from lstm_music.ops.cpu import bf16, losses

    rng = np.random.default_rng(N)
    h, W, b = (rng.normal(0, 0.3, s).astype(np.float32) for s in ((N, H), (H, V), V))
    targets = rng.integers(-1, V, N).astype(np.int32)
    own, copied = np.log(rng.uniform(0.1, 0.5, (2, N)).astype(np.float32))
    monkeypatch.setattr("lstm_music.ops.workspace.LOGITS_BYTES", 200 * V * 4)  # several chunks
    found = []
    for fewest in (64, 10**9):
        monkeypatch.setattr(losses, "FEWEST", fewest)
        ops = backends.get_ops("numba", precision="bf16")
        ops.bf16 = bf16.Products(parts)
        made = [np.full(s, np.nan, np.float32) for s in (N, (N, H), (H, V), V)]
        work = ops.workspace()
        ops.linear_softmax_xent(h, W, b, targets, 0.5, *made, work, Mixture(own, copied))
        found.append(made)
        assert ("packed" in work._parts) == (fewest == 64)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
