"""Write the table of the sampling rules for CUDA and the page: python tools/rules_table.py

kernels/rules_table.cuh and report/browser/rules_table.js have what sampling/rules.py tells: the
names of kinds, phases, facts, classes and fields, what must hold, and which phase follows.
"""

from pathlib import Path
from typing import Any

from lstm_music.midi import piece as midi
from lstm_music.ops.cuda.structs import agreement
from lstm_music.sampling import rules
from lstm_music.sampling.automaton import FIELDS
from lstm_music.sampling.device import PIECE, RULES
from lstm_music.tokenizers.messages import PITCHES

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "kernels" / "rules_table.cuh"
SCRIPT = ROOT / "src" / "lstm_music" / "report" / "browser" / "rules_table.js"
SAID = "// Written by tools/rules_table.py from src/lstm_music/sampling/rules.py: change that.\n"
CLASSES = "OFFS TRACK_ENDS PIECE_ENDS ONS CHORDS BARS PLACES"
OTHERS = "TOLD UNTOLD NEVER NONE FAR NO_LIMIT SILENT"
TICKS = ("LAST_TICK", "TICKS_PER_QUARTER", "WHOLE_NOTE")


def main() -> None:
    """Write both files."""
    for path, text in ((HEADER, header()), (SCRIPT, script())):
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))


def constants() -> dict[str, int]:
    """Return what the names of kinds, phases, facts and classes, and other numbers, stand for."""
    names = (*rules.KINDS, *rules.PHASES, *rules.FACTS, *CLASSES.split(), *OTHERS.split())
    ticks = {name: vars(midi)[name] for name in TICKS}
    return {"PITCHES": PITCHES, **ticks, **{name: vars(rules)[name] for name in names}}


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


def script() -> str:
    """Return the table in JavaScript."""
    names = "".join(f"const {name} = {n};\n" for name, n in constants().items())
    tables = [
        f"const {name} = [\n"
        + "".join(
            f"  [{', '.join(map(str, row))}], // {phase}\n"
            for phase, row in zip(rules.PHASES, table.tolist(), strict=True)
        )
        + "];\n"
        for name, table in (("NEEDS", rules.needs_table()), ("NEXT", rules.next_table()))
    ]
    fields = "const FIELDS = [\n" + wrapped(f'"{field}",' for field in FIELDS) + "];\n"
    return "\n".join([SAID, names, *tables, fields])


def wrapped(words: Any) -> str:
    """Return words in lines."""
    return "".join(f"    {word}\n" for word in words)


if __name__ == "__main__":
    main()
