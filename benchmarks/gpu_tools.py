"""Programs that benchmarks/gpu.py runs, each with a limit: tests, compute-sanitizer, a profiler.

What they write goes to a file as they write it, so that it is there whatever becomes of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("gpu_checks.py")
TESTS = (
    "tests/ops",
    "tests/network/test_model.py",
    "tests/network/test_lstm.py",
    "tests/network/test_heads.py",
)
# Central differences call a loss a thousand times each: a few are enough.
CHOSEN = "cupy and (not gradients or single_note or other_shapes or factored_model or nade)"
SMOKE = ("tests/ops/test_contract.py",), "cupy-float32 and embedding_forward"
TOOLS = ("memcheck", "racecheck")
SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")
END = 5.0  # seconds that a program has to end once it is killed


class Done(NamedTuple):
    """How a program ended: None for one that was ended at its limit; the lines it wrote."""

    status: int | None
    lines: list[str]

    def said(self, limit: float) -> str:
        """Return its last line, and whether it was ended at its limit."""
        last = self.lines[-1]
        return last if self.status is not None else f"not finished in {limit:.0f} s: {last}"


def limited(command: list[str], limit: float, file: Path) -> Done:
    """Run a program whose output goes to the end of a file; end it and all it started if late."""
    with file.open("ab") as out:
        begin = out.tell()
        program = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = program.wait(max(limit, 0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end_session(program.pid)  # it may have left processes behind
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the driver stays
        program.wait(END)
    text = file.read_bytes()[begin:].decode("utf-8", "replace")
    return Done(status, text.strip().splitlines() or ["no output"])


def end_session(number: int) -> None:
    """Kill all processes of a session, whatever groups they made, where /proc tells of them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == number:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):  # it has just ended
            continue


def run_tests(limit: float, file: Path, smoke: bool = False) -> dict[str, Any]:
    """Run the ops' and models' tests of the cupy backend; return pytest's summary and failures.

    One after another and each by name, so that the last one of the file is the one that hangs.
    """
    paths, chosen = SMOKE if smoke else (TESTS, CHOSEN)
    options = ["-v", "-p", "no:cacheprovider", "--tb=short", "--maxfail=20", "-k", chosen]
    command = [sys.executable, "-m", "pytest", *options, *paths]
    begun = time.monotonic()
    done = limited(command, limit, file)
    failures = [line for line in done.lines if line.startswith(("FAILED", "ERROR"))]
    found = {"summary": done.said(limit), "failures": failures[:20]}
    return {**found, "status": done.status, "seconds": time.monotonic() - begun}


def run_sanitizer(tool: str, limit: float, file: Path, small: bool = False) -> str:
    """Launch every kernel in every way under compute-sanitizer; return its last line.

    small: no layer of more than 64 units but one.
    """
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "compute-sanitizer isn't here"
    command = [program, "--tool", tool, sys.executable, str(PROGRAM), "every"]
    command.append("64" if small else "256")
    return limited(command, limit, file).said(limit)


def run_profiler(variant: str, limit: float, file: Path, small: bool = False) -> str:
    """Run one training step under Nsight Compute, clocks left alone."""
    program = shutil.which("ncu")
    if program is None:
        return "ncu isn't here"
    command = [program, "--clock-control", "none", "--profile-from-start", "off"]
    command += [word for section in SECTIONS for word in ("--section", section)]
    command += [sys.executable, str(PROGRAM), "step", variant, "128" if small else "0"]
    return limited(command, limit, file).said(limit)
