"""Count what can be wrong with samples, and how they sound by numbers, beside real pieces.

    python tools/check_samples.py RUN [--num 100] [--length 600] [--temperature 1.0] [--json FILE]

An orphan is a note-off for a silent note, looked for among the sampled tokens; a stuck note lasts
longer in the MIDI file, read back, than all but a thousandth of the corpus's. Harmony: at each
onset where three or more pitch classes sound, whether they are a triad or seventh chord of common
practice.
"""

import argparse
import io
import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from lstm_music.cli.sample import find_checkpoint
from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import raw_tracks, write_midi
from lstm_music.midi.piece import Piece, notes_of
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.sampling.from_checkpoint import composer_of
from lstm_music.sampling.options import Options
from lstm_music.tokenizers.messages import SPECIALS, TRACK_END

# Intervals above the root: major, minor, diminished, augmented triads; the usual sevenths.
CHORDS = (
    (0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8),
    (0, 4, 7, 10), (0, 3, 7, 10), (0, 4, 7, 11), (0, 3, 6, 10), (0, 3, 6, 9),
)  # fmt: skip
WORD = re.compile("(?:note-)?(off|on)-([0-9]+)(?:-[0-9]+)?")  # of a message or an event
KNOWN = {frozenset((root + i) % 12 for i in chord) for chord in CHORDS for root in range(12)}


def faults(words: Sequence[str]) -> tuple[int, int]:
    """Return the orphan note-offs and the empty tracks among a sample's tokens."""
    sounding: set[int] = set()
    orphans = empty = struck = 0
    for word in words:
        event = WORD.fullmatch(word)
        if event is None:
            empty += struck == 0 and word == TRACK_END
            if word in SPECIALS:
                sounding, struck = set(), 0
            continue
        kind, pitch = int(event[1] == "on"), int(event[2])
        orphans += not kind and pitch not in sounding
        (sounding.add if kind else sounding.discard)(pitch)
        struck += kind
    return orphans, empty


def stuck(piece: Piece, longest_note: int) -> int:
    """Return how many notes last too long, once written as MIDI and read."""
    file = io.BytesIO()
    write_midi(piece, file)
    tracks = map(notes_of, raw_tracks(file.getvalue()))
    return sum(int((notes[:, 1] - notes[:, 0] > longest_note).sum()) for notes in tracks)


def harmony(piece: Piece) -> tuple[int, int, list[int]]:
    """Return the sonorities of three or more pitch classes, the known ones, and voices sounding."""
    notes = np.concatenate([notes_of(track) for track in piece.tracks])
    onsets = np.unique(notes[:, 0])
    full = known = 0
    voices = []
    for onset in onsets:
        pitches = notes[(notes[:, 0] <= onset) & (notes[:, 1] > onset), 2]
        voices.append(len(pitches))
        classes = frozenset(int(p) % 12 for p in pitches)
        if len(classes) >= 3:
            full += 1
            known += classes in KNOWN
    return full, known, voices


def report(name: str, pieces: Iterable[Piece]) -> dict[str, float]:
    """Print one line on the harmony of some pieces; return what it says."""
    rows = [harmony(piece) for piece in pieces]
    full, known = sum(r[0] for r in rows), sum(r[1] for r in rows)
    voices = np.array(list(chain.from_iterable(r[2] for r in rows)))
    told = {
        "pieces": len(rows),
        "voices": float(voices.mean()),
        "full_onsets": full / len(voices),
        "known_chords": known / max(full, 1),
    }
    print(
        f"{name}: {len(rows)} pieces, {told['voices']:.2f} voices at an onset, "
        f"{told['full_onsets']:.0%} of onsets with 3 or more pitch classes, "
        f"{told['known_chords']:.1%} of those known chords"
    )
    return told


def main() -> None:
    """Sample, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--length", type=lambda n: int(n) or None, default=600)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, help="default: the composer's own")
    parser.add_argument("--corpus", default="bach")
    parser.add_argument("--json", type=Path, help="write harmony and voices as JSON")
    args = parser.parse_args()
    checkpoint, _ = find_checkpoint(args.run)
    name, layout = (checkpoint.meta["tokenizer"].get(key) for key in ("name", "layout"))
    if name not in ("message", "event"):
        parser.error("a piano roll has no note-offs to go wrong: name a run of messages or events")
    about = checkpoint.meta["corpus"]
    ops, parts = get_ops("numpy"), checkpoint.words
    model = Model(checkpoint.config, ops, parameters=checkpoint.parameters, words=parts)
    composer = composer_of(checkpoint, model)
    top_p = composer.top_p if args.top_p is None else args.top_p
    options = Options(args.length, None, args.temperature, top_p=top_p, seed=1)
    ids = composer.compose([[] for _ in range(args.num)], options, lambda *_: None)
    words = [[checkpoint.vocabulary.word(id) for id in piece] for piece in ids]
    found = [faults(piece) for piece in words]
    pieces = [composer.piece(piece, options, "sample") for piece in ids]
    pitches = [
        len(np.unique(np.concatenate([notes_of(t)[:, 2] for t in p.tracks]))) for p in pieces
    ]
    endless = [stuck(piece, about["longest_note"]) for piece in pieces]
    print(f"{args.num} samples of {args.length or 'a piece of'} tokens, {name}s, {layout} tracks:")
    print(
        f"  with an orphan note-off {sum(f[0] > 0 for f in found)}, a stuck note "
        f"{sum(n > 0 for n in endless)}, an empty track {sum(f[1] > 0 for f in found)}, "
        f"fewer than 8 pitches {sum(n < 8 for n in pitches)}"
    )
    print(
        f"  different pitches: fewest {min(pitches)}, median {np.median(pitches):.0f}; "
        f"tracks {np.mean([len(p.tracks) for p in pieces]):.1f}"
    )
    told = {"sampled": report("  sampled", pieces)}
    corpus = load_corpus(args.corpus, reading=Reading(name, tracks=layout))
    told["held_out"] = report("  held out", [corpus.decoded(p) for p in corpus.splits["valid"]])
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
