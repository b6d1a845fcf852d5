"""Products whose factors are rounded to bf16 and whose sums are float32, by AVX512_BF16.

An instruction multiplies 16 pairs by 16 pairs and adds each pair's two products to a sum. Pairs are
of consecutive k, two bf16 in a uint32. The factors are rounded while they are packed: the streamed
one into panels of PANEL columns (panels, K / 2, PANEL), some rows of the other into (rows, K / 2),
in whichever of the two orders is quickly written. Each sum is one chain over k, in order: a row's
bits don't depend on its company.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types

from lstm_music.arrays import Array
from lstm_music.ops.cpu.arithmetic import rounded
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.cpu.tile import tile
from lstm_music.ops.workspace import empty

PANEL = 64  # columns of a panel, and packed rows at once
ROWS = 4  # that share each load of a weight
VECTOR = 16  # pairs, or float32, of a vector register
DEPTH = 128  # pairs of k at once: a panel stays in the first-level cache
PANELS = 8  # packed panels at once, which stay in the second-level cache


class Scratch(NamedTuple):
    """What each part of a product packs its factors into."""

    across: Array  # (parts, PANEL, DEPTH) uint32: rows, or a panel's columns, as they lie
    down: Array  # (parts, 1, DEPTH, PANEL) uint32: rows that lie down
    panels: Array  # (parts, PANELS, DEPTH, PANEL) uint32
    edges: Array  # (parts, ROWS + 2, PANEL) float32: what is ragged


def scratch(parts: int) -> Scratch:
    """Return scratch for products in so many parts."""
    return Scratch(
        empty(np, (parts, PANEL, DEPTH), np.uint32),
        empty(np, (parts, 1, DEPTH, PANEL), np.uint32),
        empty(np, (parts, PANELS, DEPTH, PANEL), np.uint32),
        empty(np, (parts, ROWS + 2, PANEL), np.float32),
    )


# One version for matrices of any strides: else each combination of them is compiled anew.
MATRIX = types.Array(types.float32, 2, "A")
EDGE = types.Array(types.float32, 2, "C")
PAIRS, PACKED = (types.Array(types.uint32, n, "A") for n in (2, 3))
KEPT = typeof(scratch(1))  # type: ignore[no-untyped-call]
SIGNATURE = types.void(MATRIX, MATRIX, MATRIX, types.boolean, KEPT, types.intp)


def quick(*kinds: Any) -> Any:
    """Return a decorator that compiles what makes no array, for these types if given.

    Without counts of references, which would take as long as a tile: see `jit.njit_module`.
    """
    signature = types.void(*kinds) if kinds else None
    return njit(cache=True, _nrt=False, signature_or_function=signature)


_down = rounded(PANEL // VECTOR, interleave=True)
_across, _across_one = rounded(PANEL // VECTOR, interleave=False), rounded(1, interleave=False)
_four_add, _four_set = tile(ROWS, PANEL), tile(ROWS, PANEL, adds=False)
_one_add, _one_set = tile(1, PANEL), tile(1, PANEL, adds=False)


# Packing ----------------------------------------------------------------------------------------


@quick()
def _pack_pair(low, high, out, edge):  # type: ignore[no-untyped-def]
    """Write pairs of low (n,) and high (n,) or (0,), n <= PANEL, to out (PANEL,); zeros beyond."""
    if len(low) == PANEL == len(high):
        _down(low, high, out)
        return
    for j in range(PANEL):
        edge[0, j] = low[j] if j < len(low) else 0
        edge[1, j] = high[j] if j < len(high) else 0
    _down(edge[0], edge[1], out)


@quick(MATRIX, PACKED, EDGE)
def pack_down(b, out, edge):  # type: ignore[no-untyped-def]
    """Round b (K, N), rows contiguous, in pairs of rows to out (⌈N / PANEL⌉, ⌈K / 2⌉, PANEL).

    edge (2, PANEL): scratch.
    """
    K, N = b.shape
    for k in range(0, K, 2):
        low, high = b[k], b[K - 1, :0] if k + 1 == K else b[k + 1]
        for p in range(-(-N // PANEL)):
            j = p * PANEL
            _pack_pair(low[j : j + PANEL], high[j : j + PANEL], out[p, k // 2], edge)


@quick(MATRIX, PAIRS, EDGE)
def pack_across(a, out, edge):  # type: ignore[no-untyped-def]
    """Round a (M, K), rows contiguous, in pairs of neighbours to out (≥ M, ≥ ⌈K / 32⌉ · 16)."""
    M, K = a.shape
    wide, whole = K - K % (2 * PANEL), K - K % (2 * VECTOR)
    for m in range(M):
        row, to = a[m], out[m]
        for k in range(0, wide, 2 * PANEL):
            _across(row[k:], row[k + VECTOR :], to[k // 2 :])
        for k in range(wide, whole, 2 * VECTOR):
            _across_one(row[k:], row[k + VECTOR :], to[k // 2 :])
        if whole < K:
            for i in range(2 * VECTOR):
                edge[0, i] = row[whole + i] if whole + i < K else 0
            _across_one(edge[0], edge[0, VECTOR:], to[whole // 2 :])


@quick(MATRIX, PACKED, PAIRS, EDGE)
def pack_panels(b, out, across, edge):  # type: ignore[no-untyped-def]
    """Round b (K, N), whose rows or columns are contiguous, to out (panels, ⌈K / 2⌉, PANEL).

    across (PANEL, ≥ ⌈K / 32⌉ · 16): scratch.
    """
    if b.strides[1] == b.itemsize:
        pack_down(b, out, edge)
        return
    K, N = b.shape
    for p in range(-(-N // PANEL)):
        some, to = b[:, p * PANEL : (p + 1) * PANEL], out[p]
        pack_across(some.T, across, edge)
        n = some.shape[1]
        for k in range(-(-K // 2)):
            for j in range(n):
                to[k, j] = across[j, k]
            for j in range(n, PANEL):
                to[k, j] = 0


@quick()
def _add_narrow(x, w, y, adds, edge):  # type: ignore[no-untyped-def]
    """As `add_panels`, of a panel of which out has less than all columns."""
    R, N = y.shape
    for first in range(0, R, ROWS):
        n = min(ROWS, R - first)
        for r in range(n):
            for j in range(N):
                edge[r, j] = y[first + r, j] if adds else 0
        if n == ROWS:
            _four_add(x[first : first + ROWS], w, edge)
        else:
            for r in range(n):
                _one_add(x[first + r : first + r + 1], w, edge[r : r + 1])
        for r in range(n):
            for j in range(N):
                y[first + r, j] = edge[r, j]


# Products ---------------------------------------------------------------------------------------


@quick(PAIRS, PACKED, MATRIX, types.boolean, EDGE)
def add_panels(x, w, out, adds, edge):  # type: ignore[no-untyped-def]
    """Compute out = x·w, or add it. x (R, K / 2), w (panels, K / 2, PANEL), out (R, N).

    edge (ROWS, PANEL): scratch.
    """
    R, N = out.shape
    whole = R - R % ROWS
    for p in range(-(-N // PANEL)):
        y = out[:, p * PANEL : (p + 1) * PANEL]
        if y.shape[1] < PANEL:
            _add_narrow(x, w[p], y, adds, edge)
            continue
        for r in range(0, whole, ROWS):
            if adds:
                _four_add(x[r : r + ROWS], w[p], y[r : r + ROWS])
            else:
                _four_set(x[r : r + ROWS], w[p], y[r : r + ROWS])
        for r in range(whole, R):
            if adds:
                _one_add(x[r : r + 1], w[p], y[r : r + 1])
            else:
                _one_set(x[r : r + 1], w[p], y[r : r + 1])


@quick()
def _multiply(a, b, out, adds, work, part):  # type: ignore[no-untyped-def]
    """As `product`, in this thread, with scratch of its own."""
    across, down = work.across[part], work.down[part]
    panels, edges = work.panels[part], work.edges[part]
    edge, lies = edges[ROWS:], a.strides[1] == a.itemsize
    (M, K), N = a.shape, b.shape[1]
    for n in range(0, N, PANELS * PANEL):
        some = out[:, n : n + PANELS * PANEL]
        for k in range(0, K, 2 * DEPTH):
            pairs = -(-min(2 * DEPTH, K - k) // 2)
            pack_panels(b[k : k + 2 * DEPTH, n : n + PANELS * PANEL], panels, across, edge)
            w, adding = panels[:, :pairs], adds or k > 0
            for m in range(0, M, PANEL):
                rows, y = a[m : m + PANEL, k : k + 2 * DEPTH], some[m : m + PANEL]
                if lies:
                    pack_across(rows, across, edge)
                    add_panels(across[:, :pairs], w, y, adding, edges[:ROWS])
                else:
                    pack_down(rows.T, down, edge)
                    add_panels(down[0, :pairs, : len(rows)].T, w, y, adding, edges[:ROWS])


@njit(cache=True, parallel=True, signature_or_function=SIGNATURE)
def product(a, b, out, adds, work, parts):  # type: ignore[no-untyped-def]
    """Compute out = a·b, or add it, in parts side by side: of out's rows or columns, if more.

    a (M, K), b (K, N), each row-major or a transposed view, whole or a slice; out (M, N), rows
    contiguous; all float32. work: a `Scratch` of as many parts.
    """
    M, N = out.shape
    step, length = (ROWS, M) if M >= N else (PANEL, N)
    groups = -(-length // step)
    for part in prange(parts):
        first, last = part * groups // parts * step, (part + 1) * groups // parts * step
        last = min(last, length)
        if first < last:
            if M >= N:
                _multiply(a[first:last], b, out[first:last], adds, work, part)
            else:
                _multiply(a, b[:, first:last], out[:, first:last], adds, work, part)


def packed_shape(W: Array) -> tuple[int, int, int]:
    """Return the shape of W (K, N) packed for `step_product`, uint32."""
    K, N = W.shape
    return -(-N // PANEL), -(-K // 2), PANEL


@njit(cache=True, parallel=True, signature_or_function=types.void(MATRIX, PACKED, types.intp))
def pack(W, out, parts):  # type: ignore[no-untyped-def]
    """Pack W (K, N), row-major or a transposed view, as `step_product` reads it."""
    panels, pairs = len(out), -(-W.shape[0] // (2 * VECTOR)) * VECTOR
    for part in prange(parts):
        first, last = part * panels // parts, (part + 1) * panels // parts
        across, edge = np.empty((PANEL, pairs), np.uint32), np.empty((2, PANEL), np.float32)
        if first < last:
            pack_panels(W[:, first * PANEL : last * PANEL], out[first:last], across, edge)


@njit(cache=True, signature_or_function=types.void(MATRIX, PACKED, MATRIX))
def step_product(a, w, out):  # type: ignore[no-untyped-def]
    """Compute out = a·W in this thread, for a (R, K) of few rows and W packed before."""
    R, K = a.shape
    x = np.empty((R, -(-K // (2 * VECTOR)) * VECTOR), np.uint32)
    edges = np.empty((ROWS + 2, PANEL), np.float32)
    pack_across(a, x, edges[ROWS:])
    add_panels(x[:, : -(-K // 2)], w, out, False, edges[:ROWS])


class Products:
    """Products of matrices of any size, with scratch of so many threads."""

    def __init__(self, threads: int) -> None:
        self.threads, self.work = threads, scratch(threads)

    def __call__(self, a: Array, b: Array, out: Array, beta: float) -> None:
        """Compute out = a·b + beta·out, beta 0 or 1; see `product`."""
        product(a, b, out, beta != 0, self.work, self.threads)
