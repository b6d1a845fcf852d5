"""Launches kernels/optimizer.cu: the norm of all gradients, clipping and Adam, a launch each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array, RowGradient
from lstm_music.ops.cuda import structs
from lstm_music.ops.cuda.launch import Launcher, blocks
from lstm_music.ops.cuda.layout import extent, pointer
from lstm_music.ops.reference.maths import BETA1, BETA2, EPS, Adam

CHUNK = 4096  # as in optimizer.cu


class Parameter(NamedTuple):
    """What Adam needs of one parameter.

    where is for a gradient of slots alone. decay: how much of p, times the learning rate, goes at
    each step. mean: moves towards p after each step.
    """

    p: Array
    g: Array | RowGradient
    m: Array
    v: Array
    where: Array | None = None
    decay: float = 0.0
    mean: Array | None = None


@dataclass(frozen=True)
class Table:
    """Parameters as optimizer.cu reads them; blocks of Adam and of the sum of squares."""

    tensors: Array
    count: int
    blocks: int
    norm_blocks: int
    alive: tuple[Parameter, ...]  # the pointers' arrays, kept from being freed


def sum_squares(ops: Launcher, g: Array) -> float:
    """As NumpyOps.sum_squares: waits for the device."""
    table = table_of(ops, [Parameter(g, g, g, g)])
    partial = ops.xp.empty(table.norm_blocks, np.float64)
    _sum_squares(ops, table, partial)
    return float(partial.sum())


def adam_step(
    ops: Launcher,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    how: Adam,
) -> None:
    """As NumpyOps.adam_step, in one launch."""
    table = table_of(ops, [Parameter(p, g, m, v, decay=how.decay)])
    _adam(ops, table, how)


def adam_step_rows(
    ops: Launcher,
    p: Array,
    g: RowGradient,
    m: Array,
    v: Array,
    how: Adam,
) -> None:
    """As NumpyOps.adam_step_rows, without a dense gradient."""
    where = ops.xp.zeros(len(p), np.int32)
    where[g.rows] = ops.xp.arange(len(g.rows), dtype=np.int32)
    rows = ops.asarray(g.rows, np.int32)
    parameter = Parameter(p, RowGradient(rows, g.values), m, v, where, how.decay)
    _adam(ops, table_of(ops, [parameter]), how)


def _adam(ops: Launcher, table: Table, how: Adam) -> None:
    inputs = structs_on_device(ops, structs.STEP_INPUTS, step_inputs(how))
    nothing = dict.fromkeys(structs.fields(structs.STEP_RESULTS), 0.0)
    results = structs_on_device(ops, structs.STEP_RESULTS, nothing | {"scale": how.scale})
    adam_all(ops, table, inputs, results, how.beta1, how.beta2, how.eps)


def step_inputs(
    how: Adam, gradient_scale: float = 1.0, clip: float = 0.0, dropout_step: int = 0
) -> dict[str, float]:
    """Return the members of `structs.STEP_INPUTS`."""
    correct1, correct2 = how.corrections
    return {
        "lr": how.lr,
        "correct1": correct1,
        "correct2": correct2,
        "gradient_scale": gradient_scale,
        "clip": clip,
        "dropout_step": dropout_step & 0xFFFFFFFF,
    }


def structs_on_device(ops: Launcher, dtype: np.dtype[Any], *rows: Mapping[str, Any]) -> Array:
    """Return structs in device memory, as bytes; rows: their members by name."""
    return ops.asarray(structs.packed(dtype, rows), np.uint8)


def table_of(ops: Launcher, parameters: list[Parameter]) -> Table:
    """Return parameters as `clip_all` and `adam_all` take them; pointers must stay valid."""
    tensors = []
    first = first_g = 0
    for each in parameters:
        tensors.append(tensor_of(each) | {"first": first, "first_g": first_g})
        first += blocks(extent(each.p), CHUNK)
        first_g += blocks(extent(gradient_of(each)), CHUNK)
    packed = structs_on_device(ops, structs.TENSOR, *tensors)
    return Table(packed, len(tensors), first, first_g, tuple(parameters))


def tensor_of(each: Parameter) -> dict[str, Any]:
    """Return the members of a parameter's `structs.TENSOR`, but for its blocks."""
    gradient = gradient_of(each)
    alike = [a for a in (each.p, each.m, each.v, each.mean) if a is not None]
    slots, width, rows, where = 0, 0, 0, 0
    if isinstance(each.g, RowGradient):
        assert each.where is not None
        slots, width = gradient.shape
        rows, where = pointer(each.g.rows), pointer(each.where)
    else:
        alike.append(gradient)
    return {
        "p": pointer(each.p),
        "g": pointer(gradient),
        "m": pointer(each.m),
        "v": pointer(each.v),
        "rows": rows,
        "where": where,
        "mean": 0 if each.mean is None else pointer(each.mean),
        "decay": each.decay,
        "size": extent(*alike),
        "width": width,
        "slots": slots,
    }


def gradient_of(each: Parameter) -> Array:
    """Return the elements of a parameter's gradient: all, or those of its rows."""
    return each.g.values if isinstance(each.g, RowGradient) else each.g


def _sum_squares(ops: Launcher, table: Table, partial: Array) -> None:
    ops.launch(
        "optimizer", "sum_squares_forward", (table.norm_blocks,), (256,),
        table.tensors, np.int32(table.count), partial,
    )  # fmt: skip


def clip_all(
    ops: Launcher, table: Table, losses: Array, inputs: Array, results: Array, partial: Array
) -> None:
    """Write the loss, the norm of all gradients and their factor to results, a STEP_RESULTS.

    inputs: a STEP_INPUTS, both as bytes; partial (table.norm_blocks,) float64 is scratch.
    """
    _sum_squares(ops, table, partial)
    ops.launch(
        "optimizer", "clip_forward", (1,), (1024,),
        partial, np.int32(table.norm_blocks), losses, np.int32(losses.size), inputs, results,
    )  # fmt: skip


def adam_all(
    ops: Launcher,
    table: Table,
    inputs: Array,
    results: Array,
    beta1: float = BETA1,
    beta2: float = BETA2,
    eps: float = EPS,
    rate: float = 0.0,
) -> None:
    """Take a step of Adam with every parameter, in one launch; inputs, results as of `clip_all`.

    Then each mean moves towards its parameter by a share `rate` of their difference.
    """
    ops.launch(
        "optimizer", "adam_forward", (table.blocks,), (256,),
        table.tensors, np.int32(table.count), inputs, results,
        np.float64(beta1), np.float64(beta2), np.float64(eps), np.float64(rate),
    )  # fmt: skip


def average_step(ops: Launcher, p: Array, mean: Array, rate: float) -> None:
    """As NumpyOps.average_step, in one launch."""
    n = extent(p, mean)
    ops.launch(
        "optimizer", "average_forward", (blocks(n, 256),), (256,),
        p, mean, np.uint64(n), ops.real(rate),
    )  # fmt: skip


def results_by_name(results: Array) -> dict[str, float]:
    """Return the members of a STEP_RESULTS that was read from the device."""
    (row,) = results.view(structs.STEP_RESULTS).tolist()
    return dict(zip(structs.fields(structs.STEP_RESULTS), row, strict=True))
