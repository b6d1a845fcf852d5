"""Products of a wide softmax whose logits' gradient d is rounded to bf16 once, where it is made.

A row of d lies in the first half of its logits, two neighbours in a uint32: as d·Wᵀ reads it, whose
terms are columns. For hᵀ·d, whose terms are rows, pairs of rows are interleaved. In float32 d took
twice the memory, and was rounded by each product.
"""

from collections.abc import Callable

import numpy as np
from numba import types

from lstm_music.arrays import Array
from lstm_music.ops.cpu.arithmetic import interleaved
from lstm_music.ops.cpu.bf16 import (
    DEPTH,
    KEPT,
    MATRIX,
    PACKED,
    PAIRS,
    PANEL,
    PANELS,
    ROWS,
    VECTOR,
    Products,
    add_panels,
    pack,
    pack_down,
    packed_shape,
    quick,
)
from lstm_music.ops.cpu.jit import njit, prange
from lstm_music.ops.workspace import Workspace

WORDS = PANEL // 2  # uint32 of a panel's columns, two neighbours in each

_whole = interleaved(PANEL // (2 * VECTOR))


@quick(PAIRS, types.intp, PACKED, PACKED)
def _interleave(d, words, edge, out):  # type: ignore[no-untyped-def]
    """Write d (K, ≥ words), of neighbours, to out (panels, ⌈K / 2⌉, PANEL), of rows.

    edge (1, 2, WORDS): scratch.
    """
    K, (low, high) = len(d), edge[0]
    for k in range(0, K, 2):
        for p in range(-(-words // WORDS)):
            some = slice(p * WORDS, min((p + 1) * WORDS, words))
            n = some.stop - some.start
            if n == WORDS and k + 1 < K:
                _whole(d[k, some], d[k + 1, some], out[p, k // 2])
                continue
            for j in range(WORDS):
                low[j] = d[k, some.start + j] if j < n else 0
                high[j] = d[k + 1, some.start + j] if j < n and k + 1 < K else 0
            _whole(low, high, out[p, k // 2])


@quick()
def _times_packed(d, w, out, edges):  # type: ignore[no-untyped-def]
    """As `times_packed`, in this thread."""
    pairs = w.shape[1]
    for k in range(0, pairs, DEPTH):
        some = w[:, k : k + DEPTH]
        for m in range(0, len(d), PANEL):
            rows = d[m : m + PANEL, k : k + some.shape[1]]
            add_panels(rows, some, out[m : m + PANEL], k > 0, edges[:ROWS])


@njit(
    cache=True,
    parallel=True,
    signature_or_function=types.void(PAIRS, PACKED, MATRIX, KEPT, types.intp),
)
def times_packed(d, w, out, work, parts):  # type: ignore[no-untyped-def]
    """Compute out = d·W for d (M, ≥ K / 2), of neighbours, and W (K, N) as `bf16.pack` has it.

    Parts share the rows of out (M, N). work: a `Scratch` of as many parts.
    """
    M = len(out)
    groups = -(-M // ROWS)
    for part in prange(parts):
        first, last = part * groups // parts * ROWS, (part + 1) * groups // parts * ROWS
        last = min(last, M)
        if first < last:
            _times_packed(d[first:last], w, out[first:last], work.edges[part])


@quick()
def _add_turned(h, d, out, adds, work, part):  # type: ignore[no-untyped-def]
    """As `add_turned`, in this thread."""
    (K, M), N = h.shape, out.shape[1]
    down, panels, edges = work.down[part], work.panels[part], work.edges[part]
    for n in range(0, N, PANELS * PANEL):
        some = out[:, n : n + PANELS * PANEL]
        for k in range(0, K, 2 * DEPTH):
            pairs = -(-min(2 * DEPTH, K - k) // 2)
            words = -(-some.shape[1] // 2)
            _interleave(d[k : k + 2 * DEPTH, n // 2 :], words, down[:, :2, :WORDS], panels)
            for m in range(0, M, PANEL):
                columns = h[k : k + 2 * DEPTH, m : m + PANEL]
                pack_down(columns, down, edges[ROWS:])
                x = down[0, :pairs, : columns.shape[1]].T
                y = some[m : m + PANEL]
                add_panels(x, panels[:, :pairs], y, adds or k > 0, edges[:ROWS])


@njit(
    cache=True,
    parallel=True,
    signature_or_function=types.void(MATRIX, PAIRS, MATRIX, types.boolean, KEPT, types.intp),
)
def add_turned(h, d, out, adds, work, parts):  # type: ignore[no-untyped-def]
    """Compute out = hᵀ·d, or add it, for h (K, M) float32 and d (K, ≥ N / 2), of neighbours.

    Parts share the columns of out (M, N). work: a `Scratch` of as many parts.
    """
    N = out.shape[1]
    groups = -(-N // PANEL)
    for part in prange(parts):
        first, last = part * groups // parts * PANEL, (part + 1) * groups // parts * PANEL
        last = min(last, N)
        if first < last:
            _add_turned(h, d[:, first // 2 :], out[:, first:last], adds, work, part)


def backward(products: Products, W: Array, work: Workspace) -> Callable[..., None]:
    """Return what goes back from gradients d of logits h·W: f(h, d, dh, dW, adds).

    h (N, H); d (N, ≥ V / 2) uint32, of neighbours; dh (N, H), overwritten; dW (H, V), overwritten
    or added to.
    """
    W_T = work.part("packed", np.uint32).array("W_T", packed_shape(W.T))
    pack(W.T, W_T, products.threads)

    def back(h: Array, d: Array, dh: Array, dW: Array, adds: bool) -> None:
        times_packed(d, W_T, dh, products.work, products.threads)
        add_turned(h, d, dW, adds, products.work, products.threads)

    return back
