"""Arithmetic of compiled code whose bits don't depend on how and when it was compiled.

LLVM compiles a function more than once: alone, and again inside each caller. Which of these runs
depends on what was compiled just now and what was loaded from the cache. So it is given no freedom
(`fastmath`) to reorder sums or to contract multiply-adds: a sum is taken in lanes, side by side as
vector registers hold them, and a multiply-add is written as one, `fma`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from lstm_music.ops.cpu.jit import njit

add, multiply = ir.IRBuilder.fadd, ir.IRBuilder.fmul
inlined: Callable[[Any], Any] = intrinsic  # its own type is of the function not yet compiled


# Multiply-adds ----------------------------------------------------------------------------------


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return the instruction a·b + c of numbers or vectors of one type."""
    lanes = f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else ""
    one = a.type.element if lanes else a.type
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(a.type, [a.type] * 3),
        f"llvm.fmuladd.{lanes}f{32 if one == ir.FloatType() else 64}",
    )
    return builder.call(function, (a, b, c))


@inlined
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a·b + c, all of one type; rounded once where the processor has such an instruction."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return multiply_add(builder, *arguments)

    return (a(a, b, c), generate) if a == b == c and a in types.real_domain else None


# Pairs of bf16 -----------------------------------------------------------------------------------

FLOATS = ir.VectorType(ir.FloatType(), 16)


class _BFloat(ir.types.Type):  # type: ignore[misc]
    """LLVM's type of a number in bf16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


PAIRS = ir.VectorType(_BFloat(), 32)


def _avx512_bf16(builder: Any, name: str, kind: Any, *arguments: Any) -> Any:
    """Return an instruction of AVX512_BF16, whose numbers in bf16 are NaN, or 0 for a denormal."""
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(kind, [a.type for a in arguments]),
        f"llvm.x86.avx512bf16.{name}.512",
    )
    return builder.call(function, arguments)


def add_pairs(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return c + a₀·b₀ + a₁·b₁ in each of 16 lanes: a, b two bf16 a lane, c float32."""
    a, b = (builder.bitcast(pairs, PAIRS) for pairs in (a, b))
    return _avx512_bf16(builder, "dpbf16ps", FLOATS, c, a, b)


def _starts(context: Any, builder: Any, signature: Any, arguments: Any, kind: Any) -> list[Any]:
    """Return where each array of a call begins, as a pointer to a type."""
    return [
        builder.bitcast(context.make_array(array)(context, builder, value).data, kind.as_pointer())
        for array, value in zip(signature.args, arguments, strict=True)
    ]


def rounded(vectors: int, interleave: bool) -> Any:
    """Return a compiled `f(low, high, out)`: so many vectors of 32 bf16, two in a uint32.

    interleave: pairs of an element of low and one of high, else of neighbours, half a vector of low
    and half of high in turn. To nearest even; a NaN stays one, a denormal becomes 0.
    """
    order = [k // 2 + 16 * (k % 2) if interleave else k for k in range(32)]

    @intrinsic
    def rounded(typing: Any, low: Any, high: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            low, high, out = _starts(context, builder, signature, arguments, FLOATS)
            mask = ir.Constant(ir.VectorType(ir.IntType(32), 32), order)
            for v in range(vectors):
                at = ir.IntType(64)(v if interleave else 2 * v)
                halves = [builder.load(builder.gep(row, [at]), align=4) for row in (high, low)]
                found = _avx512_bf16(builder, "cvtne2ps2bf16", PAIRS, *halves)
                found = builder.bitcast(builder.shuffle_vector(found, found, mask), FLOATS)
                builder.store(found, builder.gep(out, [ir.IntType(64)(v)]), align=4)
            return context.get_dummy_value()

        return types.void(low, high, out), generate

    return rounded


def interleaved(vectors: int) -> Any:
    """Return a compiled `f(low, high, out)`: pairs of a bf16 of low and one of high, in turn.

    Of so many vectors of each; out has twice as many.
    """
    halves = ir.VectorType(ir.IntType(16), 32)

    @intrinsic
    def interleaved(typing: Any, low: Any, high: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            low, high, out = _starts(context, builder, signature, arguments, halves)
            for v in range(vectors):
                pair = [
                    builder.load(builder.gep(row, [ir.IntType(64)(v)]), align=4)
                    for row in (low, high)
                ]
                for part in range(2):
                    order = [16 * part + k // 2 + 32 * (k % 2) for k in range(32)]
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), 32), order)
                    to = builder.gep(out, [ir.IntType(64)(2 * v + part)])
                    builder.store(builder.shuffle_vector(*pair, mask), to, align=4)
            return context.get_dummy_value()

        return types.void(low, high, out), generate

    return interleaved


# Sums, products and maxima ----------------------------------------------------------------------

LANES = (64, 16, 1)  # running results side by side: as many as vector registers hold, then fewer


def _in_lanes(kinds: Sequence[Any], start: float, fold: Any, take: Any) -> Any:
    """Return what `intrinsic` asks for: a function of rows (n,) that folds all their elements.

    start: what no elements come to; fold(builder, a, b) makes one result of two, and
    take(builder, result, *elements) takes in an element of each row; both work on vectors.
    64 lanes take elements in turn while there are so many, then the upper lanes are folded onto
    the lower ones until there are 16, and so on to the last. Numba refuses rows not contiguous.
    """
    fitting = all(isinstance(k, types.Array) and (k.ndim, k.layout) == (1, "C") for k in kinds)
    if not fitting or len({kind.dtype for kind in kinds}) > 1:
        return None

    def halved(builder: Any, x: Any) -> Any:
        half = x.type.count // 2
        mask = ir.VectorType(ir.IntType(32), half)
        low, high = (ir.Constant(mask, list(range(k, k + half))) for k in (0, half))
        return fold(builder, *(builder.shuffle_vector(x, x, part) for part in (low, high)))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        real, align = context.get_data_type(kinds[0].dtype), kinds[0].dtype.bitwidth // 8
        rows = [
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(kinds, arguments, strict=True)
        ]
        n = builder.extract_value(rows[0].shape, 0)
        first, result = n.type(0), ir.Constant(ir.VectorType(real, LANES[0]), [start] * LANES[0])
        for lanes in LANES:
            while result.type.count > lanes:
                result = halved(builder, result)
            slot = cgutils.alloca_once_value(builder, result)  # type: ignore[no-untyped-call]
            count = builder.udiv(builder.sub(n, first), n.type(lanes))
            with cgutils.for_range(builder, count) as loop:
                at = builder.add(first, builder.mul(loop.index, n.type(lanes)))
                places = [builder.gep(row.data, [at]) for row in rows]
                elements = [
                    builder.load(builder.bitcast(place, result.type.as_pointer()), align=align)
                    for place in places
                ]
                builder.store(take(builder, builder.load(slot), *elements), slot)
            first = builder.add(first, builder.mul(count, n.type(lanes)))
            result = builder.load(slot)
        return builder.extract_element(result, ir.IntType(32)(0))

    return kinds[0].dtype(*kinds), generate


@inlined
def lane_sum(typing: Any, x: Any) -> Any:
    """Return the sum of x (n,)."""
    return _in_lanes([x], 0.0, add, add)


@inlined
def lane_product(typing: Any, x: Any) -> Any:
    """Return the product of x (n,)."""
    return _in_lanes([x], 1.0, multiply, multiply)


@inlined
def lane_max(typing: Any, x: Any) -> Any:
    """Return the largest of x (n,), -∞ of none; a NaN counts for nothing."""

    def larger(builder: Any, a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", b, a), b, a)

    return _in_lanes([x], -math.inf, larger, larger)


@inlined
def dot(typing: Any, x: Any, y: Any) -> Any:
    """Return the sum of x·y, both (n,)."""

    def take(builder: Any, result: Any, a: Any, b: Any) -> Any:
        return multiply_add(builder, a, b, result)

    return _in_lanes([x, y], 0.0, add, take)


# Exponentials -----------------------------------------------------------------------------------

LOG2E = np.float32(1.44269504088896341)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
EXP_MIN = np.float32(-87.0)
EXP_MAX = np.float32(88.0)
# exp(r) = 1 + r + r²·P(r) for |r| <= ln(2)/2; coefficients of the Cephes library's expf.
P0, P1, P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
P3, P4, P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, HALF, TWO = np.float32(1), np.float32(0.5), np.float32(2)
BIAS, MANTISSA = np.int32(127), np.int32(23)


def fast_exp(x: Any) -> Any:
    """Return exp(x) in x's own type; compiled by `_fast_exp`."""
    raise NotImplementedError


@njit(inline="always", error_model="numpy")
def _exp_float32(x):  # type: ignore[no-untyped-def]
    x = min(max(x, EXP_MIN), EXP_MAX)
    n = np.float32(math.floor(fma(x, LOG2E, HALF)))
    r = fma(-n, LN2_HIGH, x)
    r = fma(-n, LN2_LOW, r)
    y = fma(P0, r, P1)
    y = fma(y, r, P2)
    y = fma(y, r, P3)
    y = fma(y, r, P4)
    y = fma(y, r, P5)
    y = fma(y, r * r, r + ONE)
    power = np.int32((np.int32(n) + BIAS) << MANTISSA)
    return y * power.view(np.float32)


@overload(fast_exp, inline="always")
def _fast_exp(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_float32(x)
    return lambda x: math.exp(x)


def fast_tanh(x: Any) -> Any:
    """Return tanh(x) in x's own type; compiled by `_fast_tanh`."""
    raise NotImplementedError


@njit(inline="always", error_model="numpy")
def _tanh_float32(x):  # type: ignore[no-untyped-def]
    return ONE - TWO / (ONE + _exp_float32(TWO * x))


@overload(fast_tanh, inline="always")
def _fast_tanh(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _tanh_float32(x)
    return lambda x: math.tanh(x)


def fast_sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) in x's own type; compiled by `_fast_sigmoid`."""
    raise NotImplementedError


@njit(inline="always", error_model="numpy")
def _sigmoid_float32(x):  # type: ignore[no-untyped-def]
    return ONE - ONE / (ONE + _exp_float32(x))


@overload(fast_sigmoid, inline="always")
def _fast_sigmoid(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _sigmoid_float32(x)
    return lambda x: 0.5 + 0.5 * math.tanh(0.5 * x)
