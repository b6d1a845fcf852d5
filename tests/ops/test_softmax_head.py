"""The softmax layer on the tensor cores, kernels/softmax_head.cu, on the CPU stand-in."""

import numpy as np
import pytest
from host_cuda import nvrtc
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from test_bf16 import head, problem, rounded
from test_cuda_nvrtc import SPILLS, every_version, sass

from lstm_music.arrays import Mixture
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda import softmax_head, source
from lstm_music.ops.cuda.cupy_ops import CupyOps

here = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
with_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC isn't here: pip install nvidia-cuda-nvrtc"
)
# One multiprocessor, so that a block has several tiles.
SHAPES = [(1, 64, 1), (23, 64, 67), (130, 128, 301), (257, 64, 128), (300, 192, 129), (5, 256, 260)]
SEGMENTS = [(100, 64, 700), (700, 64, 100)]  # several of W's tiles; of h's


def bf16_ops(**options):
    return CupyOps("float32", "bf16", cupy=HostCupy(multiprocessors=1, **options))


def scaled(N, H, V):
    h, W, b, targets = problem(N, H, V)
    return h, W / np.sqrt(H, dtype=np.float32), b, targets


def mixture(N, seed=0):
    """Shares of rows of which some copy nothing, one leaves the network nothing at all."""
    own, copied = np.log(np.random.default_rng(seed).random((2, N))).astype(np.float32)
    copied[::3] = -np.inf
    own[N // 2], copied[N // 2] = -200, -0.1
    return Mixture(own, copied)


def of_rounded_factors(h, W, b, targets, scale, mix=None):
    """A head in float64 but for its factors and the logits' gradient in bf16."""
    h, W = (rounded(a).astype(np.float64) for a in (h, W))
    logits, losses = h @ W + b, np.empty(len(h))
    NumpyOps("float64").softmax_xent(logits, targets, losses, scale, mix)
    d = rounded(logits).astype(np.float64)
    return {"losses": losses, "dh": d @ W.T, "dW": h.T @ d, "db": logits.sum(axis=0)}


def assert_near(found, expected):
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5, atol=1e-6)
    for name in ("dh", "dW", "db"):
        # A gradient next to a tie may round to the other side: a unit of its last place.
        size = np.linalg.norm(expected[name])
        assert np.linalg.norm(found[name] - expected[name]) <= 1e-4 * size + 1e-6, name


@pytest.mark.slow(keep=2)
@here
@pytest.mark.parametrize("shape", SHAPES + SEGMENTS)
def test_a_head_is_that_of_rounded_factors(shape):
    ops, given = bf16_ops(), scaled(*shape)
    assert_near(head(ops, *given, 0.3), of_rounded_factors(*given, 0.3))
    assert ops.xp.launches["softmax_head_backward"] and "softmax_xent_backward" not in (
        ops.xp.launches
    )


@here
@pytest.mark.parametrize("shape", [SHAPES[2], SEGMENTS[1]])
def test_a_head_of_a_mixture(shape):
    ops, given, mix = bf16_ops(), scaled(*shape), mixture(shape[0])
    expected = of_rounded_factors(*given, 0.3, mix)
    assert_near(head(ops, *given, 0.3, mix), expected)
    assert not np.allclose(expected["losses"], of_rounded_factors(*given, 0.3)["losses"])


@here
def test_words_in_chunks_give_what_all_at_once_give(monkeypatch):
    given = scaled(200, 64, 700)
    monkeypatch.setattr(softmax_head, "GRADIENT_BYTES", 2 * 256 * 300)
    assert [s.stop for s in softmax_head.word_chunks(200, 700)] == [256, 512, 700]
    assert_near(head(bf16_ops(), *given, 1.0), of_rounded_factors(*given, 1.0))


@here
def test_rows_without_a_target_have_neither_loss_nor_gradient():
    h, W, b, _ = scaled(9, 64, 70)
    found = head(bf16_ops(), h, W, b, np.full(9, -1), 1.0)
    assert not any(a.any() for a in found.values())


@here
def test_large_logits_neither_overflow_nor_vanish():
    h, W, b, targets = scaled(40, 64, 140)
    W *= 100
    b[7] = -3e4
    given = h, W, b, targets
    assert_near(head(bf16_ops(), *given, 1.0), of_rounded_factors(*given, 1.0))


@here
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_no_number_shows(value):
    h, W, b, targets = scaled(140, 64, 150)
    targets[130] = 5
    h[130, 2] = value
    found = head(bf16_ops(), h, W, b, targets, 1.0)
    assert np.isnan(found["losses"][130]) and np.isnan(found["dh"][130]).all()
    assert np.isnan(found["dW"]).any() and np.isnan(found["db"]).all()
    h, W, b, targets = scaled(140, 64, 150)
    b[149] = value
    found = head(bf16_ops(), h, W, b, targets, 1.0)
    assert not np.isfinite(found["losses"][targets >= 0]).any()


MUTATIONS = {
    "stationary rows are read before they come": (
        "__syncthreads();  // the stationary rows have come", "",
    ),
    "stationary rows are overwritten": ("__syncthreads();  // streamed ones may take", "//"),
    "a tile is read before it comes": ("__syncthreads();  // this tile has come", ""),
    "a tile is overwritten": ("__syncthreads();  // nobody reads this tile any more", ""),
    "copies that nobody waits for": ("} else copies_wait<0>()", "} else copies_wait<1>()"),
    "the tile of the transposed copy": ("__syncthreads();  // the tile is whole", ""),
    "words beyond the last that count": ("v < V ? b[v] : NEVER", "v < V ? b[v] : 0"),
    "rows in the order of their banks": ("r / 2) + 2 * (matrix / 2) + r % 2;", "r / 2) + matrix;"),
    "eights at another row's place": ("8 * (matrix % 2 ^ swizzle(row))", "8 * (matrix % 2)"),
    "sums that begin anew": ("float total = totals[r][threadIdx.x];", "float total = 0;"),
    "a target of another row": ("1u << (distance + 4 * half + n)", "1u << (distance + n)"),
    "a target that isn't taken away": ("if (hits)", "if (false)"),
    "words counted from their chunk's first": ("slab, word + first + row);", "slab, first + row);"),
    "half of a row's maxima": (
        "2 * blockIdx.x + warp / 4] = running[r]", "2 * blockIdx.x] = running[r]",
    ),
    "a scale forgotten": ("+ log2_sum - log2f(row_scale)", "+ log2_sum"),
    "a mixture that doesn't share its scale": ("scale * (float)loss.share", "scale"),
    "a mixture's target of the whole scale": (
        "scale = stage.of->scales[slab + 8 * (lane % 4) + n];", "scale = 0.3f;",
    ),
    "another row's scale": ("scales[slab + 8 * (lane % 4) + n]", "scales[slab + n]"),
    "a sum that isn't scaled to the new maximum": (
        "exp2_of(LOG2_E * (running[r].maximum - maximum))", "1",
    ),
    "a segment of W that begins too soon": ("begin = blockIdx.x * length", "begin = 0 * length"),
    "a segment of h that begins too soon": ("begin = blockIdx.y * length", "begin = 0 * length"),
}  # fmt: skip


@pytest.mark.slow(keep=1)
@here
@pytest.mark.parametrize("name", MUTATIONS)
def test_planted_bugs_are_caught(name, monkeypatch):
    monkeypatch.setattr(softmax_head, "GRADIENT_BYTES", 2 * 256 * 300)
    before, after = MUTATIONS[name]
    assert before in source.text("softmax_head")
    ops = bf16_ops()
    ops.xp.mutate = lambda code: (
        code.replace(before, after) if "softmax_head_forward" in code else code
    )
    with pytest.raises(AssertionError):
        for shape in ((257, 64, 301), *SEGMENTS):
            given, mix = scaled(*shape), mixture(shape[0])
            assert_near(head(ops, *given, 0.3, mix), of_rounded_factors(*given, 0.3, mix))


@here
@pytest.mark.parametrize(
    ("H", "options"),
    [(64, {"compute_capability": "75"}), (80, {}), (320, {}), (256, {"shared_bytes": 99 << 10})],
)
def test_elsewhere_logits_are_computed(H, options):
    ops = bf16_ops(**options)
    head(ops, *scaled(5, H, 19), 1.0)
    assert "softmax_xent_backward" in ops.xp.launches
    assert "softmax_head_backward" not in ops.xp.launches


def test_segments_fill_the_rounds():
    cases = ((20, 278, 264), (278, 20, 264), (5, 1035, 264), (1, 1, 2))
    for stationary, streamed, at_once in cases:
        length = softmax_head.segment_length(stationary, streamed, at_once)
        blocks = stationary * -(-streamed // length)
        assert 1 <= length <= streamed
        rounds = -(-blocks // at_once)
        # What the device could do in that time, and what is done.
        assert rounds * length * at_once < 1.35 * stationary * streamed or blocks < at_once


@pytest.mark.parametrize("N", [1, 127, 128, 2500, 20_000])
@pytest.mark.parametrize("V", [1, 600, 35_509, 175_467, 10_000_000])
def test_chunks_cover_the_words_and_have_room(N, V):
    chunks = softmax_head.word_chunks(N, V)
    assert [c.start for c in chunks] == [0, *(c.stop for c in chunks[:-1])]
    assert chunks[-1].stop == V and all(c.start % softmax_head.TILE == 0 for c in chunks)
    words = max(c.stop - c.start for c in chunks)
    assert words == chunks[0].stop
    needed = 2 * softmax_head.TILE**2 * softmax_head.tiles(N) * softmax_head.tiles(words)
    assert needed <= softmax_head.GRADIENT_BYTES or words <= softmax_head.TILE


@pytest.mark.slow
@with_nvrtc
@every_version
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("H", [64, 128, 192, 256])
def test_it_compiles_without_spills(arch, H, lib):
    flags = ("-DREAL=float", "--ptxas-options=-v", *softmax_head.options(H))
    cubin, log = nvrtc.compile_cubin(source.text("softmax_head"), arch, flags, lib)
    assert [tuple(map(int, found)) for found in SPILLS.findall(log)] == [(0, 0, 0)] * 4
    if sass().disassembler() is None:
        return
    counts = sass().instructions(cubin)
    for name in ("softmax_head_forward", "softmax_head_backward"):
        products = sum(n for op, n in counts[name].items() if op.startswith("HMMA.16816.F32.BF16"))
        assert products == 4 * 2 * H // 16
        assert not any(op.startswith(("LDL", "STL", "LD.", "ST.")) for op in counts[name])
        assert any(op.startswith("LDGSTS") and op.endswith("128") for op in counts[name])
