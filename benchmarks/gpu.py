"""Everything about a GPU in one command: checks first, then speeds beside PyTorch's.

Run `PYTHONPATH=src python benchmarks/gpu.py [--minutes 8] [--parts agree,steps] [--out DIR]` where
CuPy is, and, for the rivals, a CUDA build of torch; mido, sound and pictures aren't needed.
`--smoke` does everything once, at small sizes: the first call on a GPU. Each part (gpu_parts.py)
has a limit, and its processes are ended with all that they started where they take longer.
--minutes is kept whatever happens. What was found is in DIR/<gpu>-<date>.json and .md after each
row; beside them lie what the processes printed (-log.txt) and what the tests, compute-sanitizer
and Nsight Compute wrote. Without a GPU: status 2 and one line.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_parts import Session
from gpu_report import TABLES, goal_table, part_lines

ROOT = Path(__file__).resolve().parents[1]
# Each part's limit in seconds, by worth: an H200 is expected to take half of it.
LIMITS = {
    "agree": 90, "steps": 130, "compiled": 100, "loss": 50, "recurrent": 60, "sampling": 30,
    "rest": 40, "tests": 90, "sanitizers": 90, "kernels": 30, "others": 40, "profile": 60,
}  # fmt: skip
SMOKE_SHARE = 1 / 8  # of the time, that a part of --smoke may take


def first_output(command: list[str]) -> str:
    """Return the first line that a program writes, "unknown" where it can't be run."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def describe(session: Session, out: Path, commit: str | None) -> bool:
    """Find out what the machine is and where results go; return whether there is a GPU."""
    session.run("machine", 40)
    machine: dict[str, Any] = session.found.setdefault("machine", {})
    if "gpu" not in machine:
        return False
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    revision = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    machine |= {"date": date, "commit": commit or first_output(revision)}
    machine |= {"driver": first_output(driver), "sizes": "smoke" if session.small else "full"}
    out.mkdir(parents=True, exist_ok=True)
    name = f"{machine['gpu']}-{date[:10]}{'-smoke' if session.small else ''}"
    session.path = out / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return True


def chosen(text: str) -> list[str]:
    """Return the parts named, all of them for "all"; raises ValueError for an unknown one."""
    names = list(LIMITS) if text == "all" else text.split(",")
    for name in names:
        if name not in LIMITS:
            raise ValueError(f"unknown part '{name}': choose of {', '.join(LIMITS)}")
    return names


def run_parts(session: Session, names: list[str], show: Callable[[str], None]) -> None:
    """Run the parts in order while there is time."""
    for name in names:
        before = {table: len(session.found.get(table, ())) for table in TABLES}
        session.run(name, SMOKE_SHARE * session.seconds if session.small else LIMITS[name])
        part_lines(session.found, before, show)
        took, left = session.found["seconds"].get(name, 0), session.end - time.monotonic()
        show(f"{name}: {took:.1f} s, {max(left, 0):.0f} s left")


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="a hard limit (default: 8)")
    parser.add_argument("--parts", default="all", help=f"of {','.join(LIMITS)} (default: all)")
    parser.add_argument("--smoke", action="store_true", help="everything once, at small sizes")
    parser.add_argument("--hidden", type=int, default=128, help="units of --smoke (default: 128)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--commit", help="of a copy without git's folder")
    args = parser.parse_args()
    try:
        names = chosen(args.parts)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = Session(Path(folder) / "results", args.minutes, args.hidden * args.smoke)
        if not describe(session, args.out, args.commit):
            reason = next(iter(session.found["errors"].values()), "the GPU doesn't answer")
            print(f"error: {reason}", file=sys.stderr)
            return 2
        run_parts(session, names, lambda text: print(text, flush=True))
    session.write()
    print(goal_table(session.found))
    print(f"{session.path}.md")
    return 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # without a wait for a process that hangs in the driver
