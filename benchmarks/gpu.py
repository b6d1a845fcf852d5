"""Everything about a GPU in one command: checks first, then speeds beside PyTorch's.

Run `PYTHONPATH=src python benchmarks/gpu.py [--minutes 8] [--parts agree,steps] [--out DIR]` where
CuPy is, and, for the rivals, a CUDA build of torch; mido, sound and pictures aren't needed.
`--smoke` does everything once, at small sizes: the first call on a GPU. Each part is a process of
its own (gpu_parts.py) with a limit of its own, and is ended with all that it started where it takes
longer. --minutes is kept whatever happens. What was found is in DIR/<gpu>-<date>.json and .md at
all times, five seconds old at most; beside them lie what the programs printed (-log.txt) and what
the tests, compute-sanitizer and Nsight Compute wrote. Without a GPU: status 2 and one line.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_tools as tools
from gpu_report import TABLES, goal_table, merged, part_lines, write

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("gpu_parts.py")
# Each part's limit in seconds, by worth: an H200 is expected to take half of it.
LIMITS = {
    "agree": 90, "steps": 130, "compiled": 100, "loss": 50, "recurrent": 60, "sampling": 30,
    "rest": 40, "tests": 90, "sanitizers": 90, "kernels": 30, "others": 40, "profile": 60,
}  # fmt: skip
SMOKE_SHARE = 1 / 8  # of the time, that a part of --smoke may take
LEAST = 4.0  # seconds that must be left for a part to begin
RESERVE = 3.0  # seconds kept for the page
LOOK = 5.0  # seconds between looks at what a part has found
LOGS = ("tests", "sanitizers", "profile")  # files of tools


class Run:
    """One run of the command: what was found, where it goes, and the time that is left.

    folder: of the parts' own files. H: of --smoke, the hidden units; 0 for the sizes that count.
    """

    def __init__(
        self,
        minutes: float,
        folder: Path,
        H: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.folder, self.H, self.seconds = clock, folder, H, 60 * minutes
        self.end = clock() + self.seconds
        self.found: dict[str, Any] = {"hidden": H, "errors": {}, "not run": [], "seconds": {}}
        self.path = folder / "results"

    def left(self) -> float:
        """Return the seconds left, without those kept for the page."""
        return self.end - self.clock() - RESERVE

    def part(self, name: str, limit: float) -> None:
        """Run a part within its limit and what is left; take what it found as it finds it."""
        limit = min(limit, self.left())
        if limit < LEAST:
            self.found["not run"].append(name)
            self.write()
            return
        known = {key: self.found[key] for key in ("ceilings",) if key in self.found}
        (self.folder / "known.json").write_text(json.dumps(known), "utf-8")
        begun, file, before = self.clock(), self.folder / f"{name}.json", self.found
        # It ends itself a little sooner.
        command = [sys.executable, str(PROGRAM), name, str(file), str(limit - 2), str(self.H)]
        with Path(f"{self.path}-log.txt").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            status = None
            while status is None and self.clock() - begun < limit:
                status = waited(process, min(LOOK, begun + limit - self.clock()))
                self.found = merged(before, file)
                self.write()
        tools.end_session(process.pid)  # it may have left processes behind
        waited(process, RESERVE / 2)
        self.found = merged(before, file)
        if status is None:
            self.found["errors"][name] = f"ended at its limit of {limit:.0f} s"
        elif status:
            self.found["errors"][name] = f"the process died with status {status}"
        self.found["seconds"][name] = self.clock() - begun
        self.write()

    def write(self) -> None:
        """Write the results and their page, and beside them what tools wrote."""
        write(self.found, self.path)
        for name in LOGS:
            file = self.folder / f"{name}.txt"
            if file.exists():
                Path(f"{self.path}-{name}.txt").write_bytes(file.read_bytes())


def waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return a process's status, None where it hasn't ended in time."""
    try:
        return process.wait(max(seconds, 0))
    except subprocess.TimeoutExpired:
        return None


def first_output(command: list[str]) -> str:
    """Return the first line that a program writes, "unknown" where it can't be run."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


def describe(run: Run, out: Path, commit: str | None) -> bool:
    """Find out what the machine is and where results go; return whether there is a GPU."""
    run.part("machine", 40)
    machine: dict[str, Any] = run.found.setdefault("machine", {})
    if "gpu" not in machine:
        return False
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    revision = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    machine |= {"date": date, "commit": commit or first_output(revision)}
    machine |= {"driver": first_output(driver), "sizes": "smoke" if run.H else "full"}
    out.mkdir(parents=True, exist_ok=True)
    name = f"{machine['gpu']}-{date[:10]}{'-smoke' if run.H else ''}"
    run.path = out / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return True


def chosen(text: str) -> list[str]:
    """Return the parts named, all of them for "all"; raises ValueError for an unknown one."""
    names = list(LIMITS) if text == "all" else text.split(",")
    for name in names:
        if name not in LIMITS:
            raise ValueError(f"unknown part '{name}': choose of {', '.join(LIMITS)}")
    return names


def run_parts(run: Run, names: list[str], show: Callable[[str], None]) -> None:
    """Run the parts in order while there is time; write what was found after each."""
    for name in names:
        before = {table: len(run.found.get(table, ())) for table in TABLES}
        run.part(name, SMOKE_SHARE * run.seconds if run.H else LIMITS[name])
        part_lines(run.found, before, show)
        took = run.found["seconds"].get(name, 0)
        show(f"{name}: {took:.1f} s, {max(run.left(), 0):.0f} s left")


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
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        run = Run(args.minutes, Path(folder), args.hidden if args.smoke else 0)
        if not describe(run, args.out, args.commit):
            reason = next(iter(run.found["errors"].values()), "the GPU doesn't answer")
            print(f"error: {reason}", file=sys.stderr)
            return 2
        run_parts(run, names, lambda text: print(text, flush=True))
        run.write()
    print(goal_table(run.found))
    print(f"{run.path}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
