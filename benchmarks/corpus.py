"""What preparing a corpus costs: time beside mido's own, workers, memory by number of files.

    python benchmarks/corpus.py FOLDER --sizes 400 1600 3871 --json FILE

Each preparation runs in a process of its own with an empty cache, on links to the first files of
the folder in an order drawn by a seed. Rounds are interleaved; medians are printed.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PREPARE = """
import json, sys, time
from pathlib import Path
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.corpus.parsing import Workers

started = time.perf_counter()
corpus = load_corpus(sys.argv[1], reading=Reading(), workers=Workers(int(sys.argv[2])))
seconds = time.perf_counter() - started
def fields(status):
    return dict(line.split(":", 1) for line in status.read_text().splitlines())
def peak(process):
    return int(process["VmHWM"].split()[0]) / 1024
own = fields(Path("/proc/self/status"))
others = [fields(status) for status in Path("/proc").glob("[0-9]*/status")]
workers = [peak(other) for other in others if other["PPid"] == own["Pid"] and "VmHWM" in other]
print(json.dumps({
    "seconds": seconds, "pieces": len(corpus.pieces), "tokens": len(corpus.ids),
    "words": len(corpus.vocabulary),
    "peak_mb": peak(own), "worker_peak_mb": max(workers, default=0),
}))
"""
MIDO = """
import io, json, sys, time
from pathlib import Path
import mido

files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
started = time.perf_counter()
for data in files:
    try:
        mido.MidiFile(file=io.BytesIO(data), clip=True)
    except Exception:
        pass
print(json.dumps({"seconds": time.perf_counter() - started, "files": len(files)}))
"""


def measured(program: str, *args: str, cache: Path | None = None) -> dict[str, Any]:
    """Run a program and return the JSON that it prints (Linux alone)."""
    environment = os.environ | ({"LSTM_MUSIC_CACHE": str(cache)} if cache else {})
    command = [sys.executable, "-c", program, *args]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def prepared(folder: Path, jobs: int) -> dict[str, Any]:
    """Prepare a folder with an empty cache; then again with a full one."""
    with tempfile.TemporaryDirectory() as cache:
        first = measured(PREPARE, str(folder), str(jobs), cache=Path(cache))
        started = time.perf_counter()
        measured(PREPARE, str(folder), str(jobs), cache=Path(cache))
        return first | {"second_run_seconds": time.perf_counter() - started}


def part_of(files: Sequence[Path], n: int, into: Path) -> Path:
    """Make a folder of links to the first n files."""
    folder = into / str(n)
    folder.mkdir()
    for file in files[:n]:
        (folder / file.name).symlink_to(file)
    return folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of MIDI files")
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 1600])
    parser.add_argument("--timed", type=int, default=0, help="files to time with (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = sorted(args.folder.resolve().iterdir())
    random.Random(0).shuffle(files)
    report: dict[str, Any] = {"memory": {}, "rounds": []}
    with tempfile.TemporaryDirectory() as made:
        timed = part_of(files, args.timed or len(files), Path(made))
        for _ in range(args.rounds):
            report["rounds"].append(
                {
                    "mido": measured(MIDO, str(timed))["seconds"],
                    "one": prepared(timed, 1)["seconds"],
                    **{f"two_{key}": value for key, value in prepared(timed, 2).items()},
                }
            )
            print(report["rounds"][-1], flush=True)
        for n in args.sizes:
            folder = Path(made) / str(n)
            row = prepared(folder if folder.exists() else part_of(files, n, Path(made)), 2)
            report["memory"][n] = row
            print(n, row, flush=True)
    if report["rounds"]:
        rows = report["rounds"]
        report["over_mido"] = statistics.median(r["one"] / r["mido"] for r in rows)
        report["speed_up"] = statistics.median(r["one"] / r["two_seconds"] for r in rows)
        print(f"1 worker over mido alone: {report['over_mido']:.2f}")
        print(f"2 workers over 1: {report['speed_up']:.2f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
