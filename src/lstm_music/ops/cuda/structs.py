"""Structs that Python fills and kernels read, each defined once: here, as a structured dtype.

What a kernel includes as one of `GENERATED` is written from these: the struct, and assertions that
the compiler lays it out as NumPy does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstm_music.arrays import Array

C_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int32": "int", "uint32": "unsigned int",
    "int64": "long long", "uint64": "unsigned long long", "float32": "float", "float64": "double",
}  # fmt: skip


def pointer_to(c_type: str) -> np.dtype[Any]:
    """Return the type of a member that holds where an array of a C type lies, 0 for null."""
    return np.dtype(np.uint64, metadata={"c_type": f"{c_type}*"})


# One parameter. A dense gradient has rows = null; one of rows is as embedding_backward leaves it.
TENSOR = np.dtype(
    [
        ("p", pointer_to("REAL")),
        ("g", pointer_to("const REAL")),
        ("m", pointer_to("REAL")),
        ("v", pointer_to("REAL")),
        ("rows", pointer_to("const int")),  # (slots,)
        ("where", pointer_to("const int")),  # (V,)
        ("mean", pointer_to("REAL")),  # the running mean of p, or null
        ("decay", np.float64),  # of p by itself: a share of the learning rate
        ("size", np.uint64),  # elements of p
        ("width", np.uint64),  # E, the length of a row
        ("slots", np.uint64),  # slots * width elements of g, where it is one of rows
        ("first", np.uint64),  # the first block of this tensor, of Adam
        ("first_g", np.uint64),  # the same of sum_squares
    ],
    align=True,
)

# What the host sends a step beside its batch, in device memory: a captured graph reads it anew.
STEP_INPUTS = np.dtype(
    [
        ("lr", np.float64),
        ("correct1", np.float64),  # 1 / (1 - beta1^t)
        ("correct2", np.float64),
        ("gradient_scale", np.float64),  # makes g the gradient of the mean loss: 1 / targets
        ("clip", np.float64),  # largest norm, 0 for any
        ("dropout_step", np.uint32),  # which masks
    ],
    align=True,
)

# What a step comes to: clip_forward writes it.
STEP_RESULTS = np.dtype(
    [
        ("norm", np.float64),  # of the gradients
        ("scale", np.float64),  # what Adam multiplies them by
        ("loss", np.float64),  # the mean
        ("loss_sum", np.float64),  # added to until the host reads and clears it, as norm_sum
        ("norm_sum", np.float64),
        ("failed", np.float64),  # steps since loss or norm wasn't finite: Adam changes nothing
    ],
    align=True,
)

# What a kernel may include: the name, and the structs that it then has.
GENERATED = {
    "optimizer_structs.cuh": {
        "Tensor": TENSOR,
        "StepInputs": STEP_INPUTS,
        "StepResults": STEP_RESULTS,
    }
}


def generated(name: str) -> str | None:
    """Return the text of a generated header, None for a name that isn't one."""
    structs = GENERATED.get(name)
    if structs is None:
        return None
    return "\n".join(c_struct(struct, dtype) for struct, dtype in structs.items())


def c_struct(name: str, dtype: np.dtype[Any]) -> str:
    """Return a struct in C, with assertions that it is laid out as the dtype.

    Members are numbers, pointers, and arrays of these. Where they lie follows from their sizes and
    alignments, which are asserted: not every NVRTC knows offsetof. Raises ValueError for a dtype
    that no C struct is like.
    """
    members = fields(dtype)
    lines = [f"struct {name} {{"]
    lines += [f"    {declaration(member, kind)};" for member, (kind, _) in members.items()]
    lines += ["};", agreement(f"sizeof({name})", dtype.itemsize)]
    end = 0
    for member, (kind, offset) in members.items():
        begin = -(-end // kind.alignment) * kind.alignment
        if begin != offset:
            raise ValueError(f"{name}.{member} lies at {offset}, and in C at {begin}")
        end = begin + kind.itemsize
        lines.append(agreement(f"sizeof({name}::{member})", kind.itemsize))
        lines.append(agreement(f"alignof(decltype({name}::{member}))", kind.alignment))
    return "\n".join(lines) + "\n"


def agreement(expression: str, expected: int) -> str:
    """Return an assertion in C that an expression has the value that Python reckons with."""
    return f'static_assert({expression} == {expected}, "{expression} is not {expected}");'


def declaration(name: str, dtype: np.dtype[Any]) -> str:
    """Return a member's declaration in C."""
    lengths = "".join(f"[{length}]" for length in dtype.shape)
    kind = dtype.base
    c_type = kind.metadata["c_type"] if kind.metadata else C_TYPES[kind.name]
    return f"{c_type} {name}{lengths}"


def fields(dtype: np.dtype[Any]) -> dict[str, tuple[np.dtype[Any], int]]:
    """Return the members of a structured dtype in their order: type and offset of each."""
    assert dtype.fields is not None and dtype.names is not None
    return {name: dtype.fields[name][:2] for name in dtype.names}


def packed(dtype: np.dtype[Any], rows: Sequence[Mapping[str, Any]]) -> Array:
    """Return structs as a kernel reads them, end to end in bytes: (rows · itemsize,) uint8.

    rows: the members of each by their names, all of them; raises KeyError for one too many or few.
    """
    names = list(fields(dtype))
    out = np.zeros(len(rows), dtype)
    for n, row in enumerate(rows):
        if row.keys() != set(names):
            raise KeyError(f"members {sorted(row.keys() ^ set(names))}")
        out[n] = tuple(row[name] for name in names)
    return out.view(np.uint8)


def member(struct: Array, dtype: np.dtype[Any], name: str) -> Array:
    """Return a view of one member, (1,), of a struct as `packed` gives it, on the host or not."""
    kind, offset = fields(dtype)[name]
    return struct[offset : offset + kind.itemsize].view(kind)
