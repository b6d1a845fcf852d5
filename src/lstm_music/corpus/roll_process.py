"""The process that reads a file of piano rolls for `roll_files.read_rolls`, within limits.

    python -m lstm_music.corpus.roll_process FILE

It prints a line of JSON, {"error": …} or the lengths of the pieces, and then their frames as bits.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import scipy.io  # noqa: F401  before the limits, which it doesn't count against

from lstm_music.corpus.roll_files import LARGEST, packed, rolls_in
from lstm_music.errors import UserError

BASE = 160 << 20  # bytes of memory for any file
A_BYTE = {".mat": 512}  # and for each of its bytes: these are compressed
A_BYTE_OF_PICKLE = 32
MOST = 1 << 30
SECONDS = 120  # of a processor


def limit(path: Path) -> None:
    """Give this process little memory and time, and no file to write, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    size = min(path.stat().st_size, LARGEST)
    more = min(MOST, BASE + A_BYTE.get(path.suffix.lower(), A_BYTE_OF_PICKLE) * size)
    limits = {"RLIMIT_AS": in_use() + more, "RLIMIT_CPU": SECONDS, "RLIMIT_FSIZE": 0}
    for name, value in limits.items():
        which = getattr(resource, name)
        _, hard = resource.getrlimit(which)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(OSError, ValueError):  # macOS knows no limit of memory
            resource.setrlimit(which, (least, hard))


def in_use() -> int:
    """Return the bytes of address space in use; where that isn't known, a guess."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ImportError, ValueError):
        return 512 << 20


def main(path: Path) -> None:
    """Read a file and print what it holds."""
    out = sys.stdout.buffer
    try:
        if path.is_file():
            limit(path)
        lengths, data = packed(rolls_in(path))
        out.write(json.dumps(lengths).encode() + b"\n")
        for piece in data:
            out.write(piece)
    except UserError as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
    except MemoryError:
        reason = f"can't use '{path}' (it holds too much music): get the data set anew"
        out.write(json.dumps({"error": reason}).encode() + b"\n")


if __name__ == "__main__":
    np.packbits(np.zeros(8, np.uint8))  # loaded before there is little memory
    main(Path(sys.argv[1]))
