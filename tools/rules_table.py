"""Write the table of the sampling rules for CUDA: python tools/rules_table.py

kernels/rules_table.cuh has what sampling/rules.py tells: the names of kinds, phases, facts, classes
and fields, what must hold, and which phase follows. For the page, report/rules_script.py makes it.
"""

from pathlib import Path
from typing import Any

from lstm_music.ops.cuda.structs import agreement
from lstm_music.report.rules_script import constants
from lstm_music.sampling import rules
from lstm_music.sampling.device import PIECE, RULES

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "kernels" / "rules_table.cuh"
SAID = "// Written by tools/rules_table.py from src/lstm_music/sampling/rules.py: change that.\n"


def main() -> None:
    """Write the file."""
    HEADER.write_text(header(), "utf-8")
    print(HEADER.relative_to(ROOT))


def header() -> str:
    """Return the table in CUDA."""
    names = "".join(f"constexpr int {name} = {n};\n" for name, n in constants().items())
    kinds = len(rules.KINDS)
    tables = [
        f"__device__ const int {name}[][{kinds}] = {{\n"
        + "".join(
            f"    {{{', '.join(map(str, row))}}},  // {phase}\n"
            for phase, row in zip(rules.PHASES, table.tolist(), strict=True)
        )
        + "};\n"
        for name, table in (("NEEDS", rules.needs_table()), ("NEXT", rules.next_table()))
    ]
    structs = [
        f"struct {name} {{\n" + wrapped(f"int {field};" for field in dtype.names) + "};\n"
        # All of one size, so that theirs says where each lies.
        + agreement(f"sizeof({name})", dtype.itemsize) + "\n"
        for name, dtype in (("Piece", PIECE), ("Rules", RULES))
    ]  # fmt: skip
    return "\n".join([SAID, names, *tables, *structs])


def wrapped(words: Any) -> str:
    """Return words in lines."""
    return "".join(f"    {word}\n" for word in words)


if __name__ == "__main__":
    main()
