"""How long it takes to search training sets of millions of tokens for copies.

    python benchmarks/memorisation.py [--tokens 23000000]

Random pieces of 3,000 notes (6,000 message tokens) are the training set; 50 samples of 400 notes
are searched, of which one is copied from it and one is copied and transposed.
"""

import argparse
import resource
import time

import numpy as np

from lstm_music.evaluation.music.excerpts import Music, in_order
from lstm_music.evaluation.music.memorisation import Index
from lstm_music.midi.piece import BAR, Notes

NOTES, SAMPLE, SAMPLES = 3000, 400, 50


def random_notes(rng: np.random.Generator, n: int) -> Notes:
    """Return notes of three lengths on a grid of sixteenths."""
    start = np.sort(rng.integers(0, n, n)) * 120
    length, pitch = rng.choice([120, 240, 480], n), rng.integers(40, 80, n)
    return in_order(np.stack([start, start + length, pitch], axis=1).astype(np.int32))


def main() -> None:
    """Print seconds, memory, and what was found of the copies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=23_000_000)
    tokens = parser.parse_args().tokens
    rng = np.random.default_rng(0)
    pieces = -(-tokens // (2 * NOTES))
    training = [Music(f"piece {k}", random_notes(rng, NOTES)) for k in range(pieces)]
    samples = [Music(f"sample {k}", random_notes(rng, SAMPLE)) for k in range(SAMPLES - 2)]
    part = training[pieces // 3].notes[500 : 500 + SAMPLE]
    part = part - np.array([1, 1, 0], np.int32) * (part[0, 0] // BAR * BAR)
    samples += [Music("copy", part), Music("transposed", part + np.array([0, 0, 3], np.int32))]
    before = time.perf_counter()
    index = Index(training)
    built = time.perf_counter()
    found = index.recall(samples)
    done = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{pieces * NOTES * 2:,} tokens: index {built - before:.1f} s, ", end="")
    print(f"{SAMPLES} samples {done - built:.1f} s, at most {memory:,.0f} MB")
    for recall in found[-2:]:
        print(f"{recall.name}: exactly {recall.exact}, transposed too {recall.transposed}")


if __name__ == "__main__":
    main()
