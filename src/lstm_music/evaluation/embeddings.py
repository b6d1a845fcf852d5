"""What an embedding has learnt of pitch: which rows to look at, their order, their map."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lstm_music.arrays import Array
from lstm_music.errors import UserError
from lstm_music.midi.roll import LOWEST, NOTES
from lstm_music.network.model import init_parameters
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import Checkpoint
from lstm_music.tokenizers import chords, events, messages, performance
from lstm_music.tokenizers.vocabulary import Vocabulary

PAPERS_DELTA = 60  # ticks: the paper's figure 6 shows the messages of this duration
FEW = 10  # of a kind, below which another duration shows more
LEAST = 5  # points without which there is nothing to see
SHUFFLES = 1000
PERPLEXITY = 10.0


class Points(NamedTuple):
    """Rows of an embedding that stand for a pitch each.

    vectors (n, E) float64; pitches (n,); ons (n,) bool: note-ons, or all but note-offs; what: what
    they are, in words.
    """

    vectors: Array
    pitches: Array
    ons: Array
    what: str


class PitchOrder(NamedTuple):
    """Spearman's rank correlation of embedding distance and pitch distance, over pairs.

    rho: of the model; shuffled_mean, shuffled_max: with pitches dealt out at random.
    """

    rho: float
    shuffled_mean: float
    shuffled_max: float


class Separation(NamedTuple):
    """The share of rows whose nearest row (Euclidean) is of the same kind, note-on or note-off.

    share: of the model; shuffled_mean, shuffled_max: with the kinds dealt out at random.
    """

    share: float
    shuffled_mean: float
    shuffled_max: float


def pitch_points(checkpoint: Checkpoint) -> Points:
    """Return the rows that stand for single notes and that training has moved.

    Of messages, those of one duration: 60 ticks, as in the paper, or else the one that the most
    pitches have in both kinds; of a factored head, whose durations have rows of their own, all
    classes; of a biaxial network, what tells notes apart. Raises UserError where there are fewer
    than 5, or a new network's are all 0.
    """
    representation = checkpoint.meta["tokenizer"]["name"]
    if checkpoint.words is not None:
        rows, what = _class_rows(checkpoint.vocabulary, checkpoint.words[0]), "notes on and off"
    elif representation == "message":
        rows, what = _message_rows(checkpoint.vocabulary)
    elif representation in ("event", "performance"):
        parse = events.parse if representation == "event" else performance.parse
        rows, what = _event_rows(checkpoint.vocabulary, parse), "note-ons and note-offs"
    elif representation == "chord":
        rows, what = _single_notes(checkpoint.vocabulary), "chords of one note"
    else:
        rows, what = [(n, LOWEST + n, True) for n in range(NOTES)], "notes"
    table = np.array(sorted(rows, key=lambda row: row[1:]), np.int64).reshape(-1, 3)
    moved = table[_moved(checkpoint)[table[:, 0]]]
    table = moved if len(moved) else table  # of an untrained model, all are as good
    if len(table) < LEAST:
        raise UserError(
            f"the model knows fewer than {LEAST} {what}, too few to see an order: train it on a "
            "larger corpus"
        )
    vectors = checkpoint.parameters[table_of(checkpoint)][table[:, 0]].astype(np.float64)
    if not vectors.any():
        raise UserError(f"the model doesn't tell {what} apart before it is trained: train it")
    return Points(vectors, table[:, 1], table[:, 2] == 1, what)


def _message_rows(vocabulary: Vocabulary) -> tuple[list[tuple[int, int, bool]], str]:
    """Return row, pitch and whether it is a note-on, of the messages of one duration."""
    parsed = [(row, messages.parse(word)) for row, word in enumerate(vocabulary.words)]
    found = [(row, *message) for row, message in parsed if message is not None]
    counts = Counter((kind, delta) for _, kind, _, delta in found)

    def shown(delta: int) -> tuple[int, int]:
        both = counts[0, delta], counts[1, delta]
        return min(both), sum(both)

    deltas = sorted({delta for _, delta in counts})
    delta = max(deltas, key=shown, default=0)
    if shown(PAPERS_DELTA)[0] >= FEW:
        delta = PAPERS_DELTA
    rows = [(row, pitch, kind == 1) for row, kind, pitch, d in found if d == delta]
    return rows, f"messages {delta} ticks after the last"


def _event_rows(
    vocabulary: Vocabulary, parse: Callable[[str], tuple[int, ...] | None]
) -> list[tuple[int, int, bool]]:
    """Return row, pitch and whether it is a note-on, of the words parsed that have a pitch."""
    parsed = [(row, parse(word)) for row, word in enumerate(vocabulary.words)]
    found = [(row, *event[:2]) for row, event in parsed if event is not None]
    of_notes = (word for word in found if word[1] in events.OF_NOTES)
    return [(row, pitch, kind != events.OF_NOTES[0]) for row, kind, pitch in of_notes]


def _class_rows(vocabulary: Vocabulary, classes: Array) -> list[tuple[int, int, bool]]:
    """Return row, pitch and whether it is a note-on, of the classes that aren't specials."""
    found = zip(classes.tolist(), map(messages.parse, vocabulary.words), strict=True)
    return list({(row, word[1], word[0] == 1) for row, word in found if word is not None})


def table_of(checkpoint: Checkpoint) -> str:
    """Return the name of the table of the embedding whose rows are pitches."""
    if checkpoint.config.head == "biaxial":
        return "embedding.pitch"
    return "embedding.W" if checkpoint.words is None else "embedding.Wc"


def _single_notes(vocabulary: Vocabulary) -> list[tuple[int, int, bool]]:
    parsed = [(row, chords.parse(word)) for row, word in enumerate(vocabulary.words)]
    return [(row, chord[0], True) for row, chord in parsed if chord is not None and len(chord) == 1]


def _moved(checkpoint: Checkpoint) -> Array:
    """Return which rows point elsewhere than before training: the others never occurred."""
    seed = checkpoint.meta.get("settings", {}).get("seed", 0)
    before = init_parameters(checkpoint.config, get_ops("numpy"), seed)[table_of(checkpoint)]
    after = checkpoint.parameters[table_of(checkpoint)]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = (before * after).sum(axis=1) / np.maximum(lengths, 1e-30)
    moved: Array = cosines < 1 - 1e-5  # weight decay only shrinks a row
    return moved


def pitch_order(checkpoint: Checkpoint, seed: int = 0) -> PitchOrder:
    """Return how well pitches are ordered in an embedding, by the pairs of each kind.

    Raises UserError as `pitch_points`.
    """
    return order_of(pitch_points(checkpoint), seed)


def order_of(points: Points, seed: int = 0) -> PitchOrder:
    """Return how well pitches are ordered; seed: of the shuffles."""
    from scipy.stats import rankdata

    kinds = [np.flatnonzero(points.ons), np.flatnonzero(~points.ons)]
    pairs = [np.array(np.triu_indices(len(kind), 1)) for kind in kinds]
    first, second = np.concatenate(
        [kind[pair] for kind, pair in zip(kinds, pairs, strict=True)], axis=1
    )
    near = rankdata(np.linalg.norm(points.vectors[first] - points.vectors[second], axis=1))
    intervals = np.abs(points.pitches[first] - points.pitches[second])
    rank_of = np.zeros(128)  # shuffling within a kind leaves the intervals, and so their ranks
    rank_of[intervals] = rankdata(intervals)

    def correlation(pitches: Array) -> float:
        far = rank_of[np.abs(pitches[first] - pitches[second])]
        return float(np.corrcoef(near, far)[0, 1])

    rng = np.random.default_rng(seed)
    shuffled = []
    for _ in range(SHUFFLES):
        pitches = points.pitches.copy()
        for kind in kinds:
            pitches[kind] = rng.permutation(pitches[kind])
        shuffled.append(correlation(pitches))
    return PitchOrder(correlation(points.pitches), float(np.mean(shuffled)), max(shuffled))


def separation_of(points: Points, seed: int = 0) -> Separation | None:
    """Return how well note-ons lie apart from note-offs; seed: of the shuffles.

    It is the accuracy of a nearest neighbour that is left out (Cover & Hart 1967). None where all
    rows are of one kind.
    """
    from scipy.spatial.distance import cdist

    ons = points.ons
    if ons.all() or not ons.any():
        return None
    distances = cdist(points.vectors, points.vectors)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    rng = np.random.default_rng(seed)
    deals = [rng.permutation(ons) for _ in range(SHUFFLES)]
    shuffled = [float(np.mean(dealt == dealt[nearest])) for dealt in deals]
    return Separation(float(np.mean(ons == ons[nearest])), float(np.mean(shuffled)), max(shuffled))


def tsne(vectors: Array, seed: int, perplexity: float) -> Array:
    """Return a map (n, 2) of vectors (n, E), by t-SNE (van der Maaten & Hinton 2008)."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    made: Any = TSNE(perplexity=perplexity, random_state=seed, init="pca")
    with threadpool_limits(1):  # so few points that threads would mostly wait for each other
        places: Array = made.fit_transform(vectors)
    return places


def fitting_perplexity(wanted: float, points: int) -> float:
    """Return the perplexity, at most a third of the points that a point has beside it."""
    return min(wanted, (points - 1) / 3)
