"""Measure by how much a training differs between thread counts and backends of a CPU.

    python tools/determinism.py [--steps 300]

Trains the bundled corpus with one seed, and compares each way of computing with numba on one
thread: validation loss, and the root mean square of the weights' difference over that of the
weights. The first row is the same way twice.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

WAYS = (("numba", 1), ("numba", 1), ("numba", 2), ("numpy", 1), ("numpy", 2))


def main() -> int:
    """Train in each way, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = str(parser.parse_args().steps)
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for n, (backend, threads) in enumerate(WAYS):
            run = Path(folder) / f"{n}"
            words = ["bach", "--max-steps", steps, "--run", str(run), "--quiet"]
            words += ["--backend", backend, "--threads", str(threads)]
            subprocess.run(
                [sys.executable, "-m", "lstm_music.cli.train", *words],
                check=True,
                stdout=subprocess.DEVNULL,
                env=os.environ,
            )
            runs.append(run)
        for (backend, threads), run in list(zip(WAYS, runs, strict=True))[1:]:
            print(f"{backend}, {threads} threads: {compared(run, runs[0])}")
    return 0


def compared(run: Path, other: Path) -> str:
    """Return in words how much two runs differ."""
    a, b = (load_file(r / "checkpoints/latest/model.safetensors") for r in (run, other))
    squares = sum(float(np.sum((a[k] - b[k]).astype(np.float64) ** 2)) for k in a)
    whole = sum(float(np.sum(b[k].astype(np.float64) ** 2)) for k in b)
    losses = [(r / "metrics.csv").read_text().splitlines()[-1].split(",")[5] for r in (run, other)]
    sounds = [(r / "samples/sample-0001.mid").read_bytes() for r in (run, other)]
    same = "the same sample" if sounds[0] == sounds[1] else "another sample"
    return f"weights {np.sqrt(squares / whole):.2g} apart, losses {' and '.join(losses)}, {same}"


if __name__ == "__main__":
    sys.exit(main())
