"""Instructions of each kernel by class, from NVIDIA's disassembler: no GPU.

The disassembler comes as a wheel (pip install nvidia-cuda-nvdisasm) or on PATH with a CUDA toolkit.
"""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

MISSING = "the disassembler isn't here: pip install nvidia-cuda-nvdisasm"
# In order: a column's heading, and what the instructions that it counts begin with.
CLASSES = {
    "global loads": "LDG",
    "global stores": "STG",
    "shared loads": "LDS",
    "shared stores": "STS",
    "FFMA": "FFMA",
    "matrix": "HMMA|IMMA|DMMA|HGMMA|IGMMA|QGMMA",
    "special": "MUFU",
    "barriers": "BAR|UCGABAR_WAIT|SYNCS.PHASECHK",
    "fences": "MEMBAR.ALL.GPU|MEMBAR.SC|CCTL.IVALL",
    "local": "LDL|STL",
    "all": "",
}
BY_WIDTH = ("LDG", "STG", "LDS", "STS")
KERNEL = re.compile(r"^\.text\.(\w+):$")
# "  /*0130*/   @!P0 LDG.E.128.CONSTANT R4, ..." -> LDG.E.128.CONSTANT
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
NEVER = re.compile(r"@!U?PT\s")  # done by no thread: what the compiler fills waits with


def disassembler() -> str | None:
    """Return the path of nvdisasm, None where there is none."""
    try:
        spec = importlib.util.find_spec("nvidia.cu13")
    except ModuleNotFoundError:
        spec = None
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "bin" / "nvdisasm"
        if path.exists():
            return str(path)
    return shutil.which("nvdisasm")


def instructions(cubin: bytes) -> dict[str, Counter[str]]:
    """Return how often each kernel of a binary has each instruction, a loop's once."""
    program = disassembler()
    if program is None:
        raise FileNotFoundError(MISSING)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [program, "--print-code", file.name], capture_output=True, text=True, check=True
        )
    return parsed(done.stdout)


def parsed(text: str) -> dict[str, Counter[str]]:
    """Return the counts that a disassembly shows, by kernel and instruction."""
    found: dict[str, Counter[str]] = {}
    kernel = Counter[str]()
    for line in text.splitlines():
        if head := KERNEL.match(line):
            kernel = found.setdefault(head[1], Counter())
        elif (op := INSTRUCTION.match(line)) and op[1] != "NOP" and not NEVER.search(line):
            kernel[op[1]] += 1
    return found


def width(op: str) -> int:
    """Return the bytes of a thread that a load or store moves: LDG.E.128 -> 16."""
    if op.startswith("LDSM"):  # so many matrices, each 4 bytes of a lane: LDSM.16.M88.4
        return 4 * int(op.rsplit(".", maxsplit=1)[-1])
    for part in op.split("."):
        if part in ("128", "64"):
            return int(part) // 8
        if part in ("U8", "S8", "U16", "S16"):
            return int(part[1:]) // 8
    return 4


def cells(counts: Counter[str]) -> list[str]:
    """Return a row's cells by CLASSES; loads and stores by their width, as "4 × 16 B, 1 × 4 B"."""
    row = []
    for names in CLASSES.values():
        of_class = {op: n for op, n in counts.items() if re.match(names, op)}
        if names in BY_WIDTH:
            widths = Counter[int]()
            for op, n in of_class.items():
                widths[width(op)] += n
            shown = (f"{n} × {size} B" for size, n in sorted(widths.items(), reverse=True))
            row.append(", ".join(shown) or "–")
        else:
            row.append(str(sum(of_class.values())))
    return row
