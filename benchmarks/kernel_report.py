"""Registers, shared memory, spills, occupancy and instructions of a step's kernels, without a GPU.

Run `python benchmarks/kernel_report.py [sm_90]`; it prints the compiler's report, whose larger
kernels docs/gpu.md has, and a table of the disassembly. Needs NVRTC (pip install
nvidia-cuda-nvrtc), for the second nvdisasm (pip install nvidia-cuda-nvdisasm), and the package.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "harness"))

from host_cuda import nvrtc

import sass
from gpu_report import aligned
from lstm_music.ops.cuda import source
from lstm_music.ops.cuda.lstm_sequence import (
    bf16_sequence_options,
    bf16_sequence_rows,
    bf16_sequence_shared,
    sequence_options,
    sequence_plan,
    sequence_shared,
)

SHARED_BYTES = {"sm_75": 64 << 10, "sm_80": 163 << 10, "sm_90": 227 << 10}
WARPS = {"sm_75": 32, "sm_80": 64, "sm_90": 64}  # of a multiprocessor, at most
BLOCKS = {"sm_75": 16, "sm_80": 32, "sm_90": 32}
REGISTERS = 65_536
# Where a training step's time goes, but for cuBLAS's GEMMs: kernels by their file, and the threads
# of a block, which the persistent ones' plans say.
HOT = {
    "bf16": {"bf16_forward": 256},
    "column_sum": {"column_sum": 256, "column_sum_bf16": 256},
    "embedding": {"embedding_forward": 256, "embedding_sort": 256, "embedding_backward": 256},
    "lstm_sequence": {"lstm_sequence_forward": 0, "lstm_sequence_backward": 0},
    "lstm_sequence_bf16": {"lstm_sequence_bf16_forward": 0, "lstm_sequence_bf16_backward": 0},
    "optimizer": {"sum_squares_forward": 256, "adam_forward": 256},
    "softmax_head": {
        "softmax_head_copy": 256,
        "softmax_head_forward": 256,
        "softmax_head_merge": 256,
        "softmax_head_backward": 256,
    },
    "softmax_xent": {"softmax_xent_backward": 512},
}
HEAD_BYTES = 2 * 128 * (2 * 128 + 12) + 128
# Bytes that a launch asks for beside the declared.
DYNAMIC = {"softmax_head_backward": HEAD_BYTES, "softmax_head_forward": HEAD_BYTES}
ENTRY = re.compile(
    r"entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


class Kernel(NamedTuple):
    """A kernel as the compiler sees it; shared is static and dynamic bytes together."""

    name: str
    threads: int
    registers: int
    shared: int
    spills: int


def kernels(file: str, arch: str, options: tuple[str, ...] = ()) -> list[Kernel]:
    """Compile a source for float and return what the compiler reports of the hot kernels."""
    flags = ("-DREAL=float", "--ptxas-options=-v", *options)
    _, log = nvrtc.compile_cubin(source.text(file), arch, flags)
    found = []
    for entry in ENTRY.finditer(log):
        if entry["name"] not in HOT[file]:
            continue
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found.append(
            Kernel(
                entry["name"],
                HOT[file][entry["name"]],
                int(entry["registers"]),
                (int(shared[1]) if shared else 0) + DYNAMIC.get(entry["name"], 0),
                int(entry["stack"]) + int(entry["stores"]) + int(entry["loads"]),
            )
        )
    return found


def sequence_kernels(arch: str, B: int, H: int) -> list[Kernel]:
    """Return the persistent kernel's report at a size."""
    plan = sequence_plan(B, H, 4, 132, SHARED_BYTES[arch], arch == "sm_90")
    if plan is None:
        return []
    shared = sequence_shared(plan, H, 4)
    on_chip = min(H, plan.registers + 4 * plan.shared_quads)
    label = f" (H={H}, {plan.rows} row{'s' * (plan.rows > 1)} a block"
    label += f", {plan.cluster} blocks a cluster" * (plan.cluster > 1) + "; weights of a thread: "
    label += f"{plan.registers} in registers, {on_chip - plan.registers} shared"
    label += f", {H - on_chip} from L2" * (on_chip < H) + ")"
    return [
        k._replace(name=k.name + label, threads=plan.threads, shared=shared)
        for k in kernels("lstm_sequence", arch, sequence_options(plan))
    ]


def bf16_sequence_kernels(arch: str, B: int, H: int) -> list[Kernel]:
    """Return the report of the persistent kernel on the tensor cores at a size."""
    rows = bf16_sequence_rows(B, H, 132, SHARED_BYTES[arch])
    if rows is None or arch == "sm_75":
        return []
    return [
        k._replace(
            name=f"{k.name} (H={H}, {rows} rows a block)",
            threads=2 * H,
            shared=bf16_sequence_shared(rows, H, k.name.endswith("backward")),
        )
        for k in kernels("lstm_sequence_bf16", arch, bf16_sequence_options(rows, H))
    ]


def occupancy(k: Kernel, arch: str) -> float:
    """Return the predicted share of a multiprocessor's warps that can live at once."""
    warps = -(-k.threads // 32)
    granted = -(-k.registers // 8) * 8  # registers are granted by eights
    by_registers = REGISTERS // (granted * 32 * warps)
    # The system keeps 1 KiB of each block's shared memory; shared memory is at most 1 KiB more.
    by_shared = (SHARED_BYTES[arch] + 1024) // (k.shared + 1024)
    blocks = min(by_registers, by_shared, WARPS[arch] // warps, BLOCKS[arch])
    return blocks * warps / WARPS[arch]


def table(arch: str) -> str:
    """Return the report as Markdown."""
    files = [file for file in HOT if not file.startswith("lstm_sequence")]
    found = [k for file in files for k in kernels(file, arch)]
    for B, H in ((50, 128), (16, 192), (50, 256)):
        found += sequence_kernels(arch, B, H)
    for B, H in ((50, 128), (1000, 128)):
        found += bf16_sequence_kernels(arch, B, H)
    heads = "kernel; threads; registers; shared, bytes; spills, bytes; occupancy"
    lines = [
        [k.name, str(k.threads), str(k.registers), f"{k.shared:,}", str(k.spills),
         f"{occupancy(k, arch):.0%}"]
        for k in sorted(found, key=lambda k: k.name)
    ]  # fmt: skip
    return aligned([heads.split("; "), *lines], 1)


def disassembly(arch: str) -> str:
    """Return the hot kernels' instructions as Markdown, the persistent ones' at B = 50, H = 128."""
    plan = sequence_plan(50, 128, 4, 132, SHARED_BYTES[arch], arch == "sm_90")
    options = {
        "lstm_sequence": sequence_options(plan) if plan else (),
        "lstm_sequence_bf16": bf16_sequence_options(2, 128),
    }
    rows = [["kernel", *sass.CLASSES]]
    for file, names in HOT.items():
        flags = ("-DREAL=float", *options.get(file, ()))
        cubin, _ = nvrtc.compile_cubin(source.text(file), arch, flags)
        found = sass.instructions(cubin)
        rows += [[name, *sass.cells(found[name])] for name in names]
    return aligned(rows, 5)


def main(arch: str = "sm_90") -> str | None:
    """Print the tables; return what is wrong where there is nothing to print."""
    if nvrtc.library() is None:
        return "error: NVRTC isn't here: pip install nvidia-cuda-nvrtc"
    print(table(arch))
    print()
    print(disassembly(arch) if sass.disassembler() else f"no disassembly: {sass.MISSING}")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
