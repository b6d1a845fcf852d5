"""Say how samples sound by numbers, beside real pieces: python tools/check_samples.py RUN

At each onset, how many voices sound, and where three or more pitch classes do, whether they are a
triad or seventh chord of common practice. That samples are well formed, tests hold.
"""

import argparse
from collections.abc import Iterable
from itertools import chain

import numpy as np

from lstm_music.cli.sample import find_checkpoint
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.runs.opened import model_of
from lstm_music.sampling.from_checkpoint import composer_of

# Intervals above the root: major, minor, diminished, augmented triads; the usual sevenths.
CHORDS = (
    (0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8),
    (0, 4, 7, 10), (0, 3, 7, 10), (0, 4, 7, 11), (0, 3, 6, 10), (0, 3, 6, 9),
)  # fmt: skip
KNOWN = {frozenset((root + i) % 12 for i in chord) for chord in CHORDS for root in range(12)}


def harmony(piece: Piece) -> tuple[int, int, list[int]]:
    """Return the sonorities of three or more pitch classes, the known ones, and voices sounding."""
    notes = np.concatenate([notes_of(track) for track in piece.tracks])
    full = known = 0
    voices = []
    for onset in np.unique(notes[:, 0]):
        pitches = notes[(notes[:, 0] <= onset) & (notes[:, 1] > onset), 2]
        voices.append(len(pitches))
        classes = frozenset((pitches % 12).tolist())
        if len(classes) >= 3:
            full += 1
            known += classes in KNOWN
    return full, known, voices


def report(name: str, pieces: Iterable[Piece]) -> None:
    """Print one line on the harmony of some pieces."""
    rows = [harmony(piece) for piece in pieces]
    full, known = sum(r[0] for r in rows), sum(r[1] for r in rows)
    voices = list(chain.from_iterable(r[2] for r in rows))
    print(
        f"{name}: {len(rows)} pieces, {np.mean(voices):.2f} voices at an onset, "
        f"{full / len(voices):.0%} of onsets with 3 or more pitch classes, "
        f"{known / max(full, 1):.1%} of those known chords"
    )


def main() -> None:
    """Sample, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--length", type=lambda n: int(n) or None, default=600)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, help="default: the composer's own")
    parser.add_argument("--corpus", default="bach")
    args = parser.parse_args()
    checkpoint, _ = find_checkpoint(args.run)
    composer = composer_of(checkpoint, model_of(checkpoint, "auto"))
    options = composer.options(
        length=args.length, temperature=args.temperature, top_p=args.top_p, seed=1
    )
    ids = composer.compose([[] for _ in range(args.num)], options, lambda *_: None)
    report("sampled", [composer.piece(piece, options, "sample") for piece in ids])
    corpus = load_corpus(args.corpus, reading=Reading(tracks="merge"))
    report("held out", [corpus.decoded(p) for p in corpus.splits["valid"]])


if __name__ == "__main__":
    main()
