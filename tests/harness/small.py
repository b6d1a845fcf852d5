"""Small music, small corpora and small runs for the tests."""

import csv
import ctypes
import signal
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np

from lstm_music.corpus.load import Reading, load_corpus
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece
from lstm_music.network.biaxial import PLACES
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.ops.reference.copying import BUCKETS, HIT, NOTHING
from lstm_music.runs.checkpoint import CHECKPOINTS, linked
from lstm_music.runs.folder import new_run
from lstm_music.runs.settings import Settings
from lstm_music.tokenizers.messages import word_parts
from lstm_music.training.trainer import Trainer


def heed_signals():
    """Begin a process that heeds signals, even where the tests run in one that doesn't (nohup)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


DROP_CAPABILITY, OVERRIDE = 24, 1  # prctl's PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def without_override():
    """Begin a process in which the superuser, too, obeys permissions."""
    ctypes.CDLL(None).prctl(DROP_CAPABILITY, OVERRIDE, 0, 0, 0)


COMPUTE = ("--backend", "numpy", "--threads", "1")
SMALL = tuple(  # every option whose default may change
    word
    for option in (
        ("--tracks", "flatten"), ("--hidden", "8"), ("--embedding", "8"), ("--layers", "2"),
        ("--dropout", "0.3"), ("--batch", "3"), ("--seq", "5"), ("--optimizer", "adam"),
        ("--lr", "0.003"), ("--clip", "5"), ("--anneal-factor", "0.5"), ("--anneal-patience", "2"),
        ("--average", "0"),
    )
    for word in option
)  # fmt: skip

DURATIONS = (120, 240, 480)
PITCHES = (60, 62, 64, 65, 67)


def track_of(notes):
    """A track's messages from (start, end, pitch)."""
    rows = [(start, 1, pitch) for start, _, pitch in notes]
    rows += [(end, 0, pitch) for _, end, pitch in notes]
    return np.array(sorted(rows), np.int32)


def melody(rng, notes, low=0):
    """A track of notes one after the other, now and then a rest between."""
    now, made = 0, []
    for _ in range(notes):
        now += int(rng.choice((0, 0, 0, 240)))
        end = now + int(rng.choice(DURATIONS))
        made.append((now, end, int(rng.choice(PITCHES)) + low))
        now = end
    return track_of(made)


def piece_of(seed, tracks=2, notes=10):
    """A random piece."""
    rng = np.random.default_rng(seed)
    return Piece(f"piece-{seed}", [melody(rng, notes, -12 * k) for k in range(tracks)])


def write_music(folder, pieces=8, tracks=2, notes=10):
    """A folder of small MIDI files; every call writes the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(pieces):
        write_midi(piece_of(seed, tracks, notes), folder / f"{seed}.mid")
    return folder


def small_corpus(folder, layout="flatten", **music):
    """A prepared corpus of small music."""
    path = folder / "music"
    where = str(path if path.exists() else write_music(path, **music))
    return load_corpus(where, reading=Reading(tracks=layout))


def small_events(folder, **music):
    """The same music as events."""
    return load_corpus(str(write_music(folder / "music", **music)), reading=Reading("event"))


def small_performances(folder, **music):
    """The same music as performances."""
    music = str(write_music(folder / "music", **music))
    return load_corpus(music, reading=Reading("performance"))


def small_ensembles(folder):
    """Music of a flute and drums, each with dynamics of its own, as performances in parts."""
    music = folder / "ensembles"
    music.mkdir(parents=True)
    who = {"parts": (Part("Flute", 73), Part("Kit")), "drums": (False, True)}
    for seed in range(8):
        piece, rng = piece_of(seed, notes=20), np.random.default_rng(seed)
        loud = [rng.integers(40, 60, 20), rng.integers(90, 110, 20)]
        write_midi(replace(piece, velocities=tuple(loud), **who), music / f"{seed}.mid")
    return load_corpus(str(music), reading=Reading("performance", parts=True, drums=True))


def small_rolls(folder, representation="note", music=None, **reading):
    """The same music as a RollCorpus: small_rolls(folder, "chord", grid=16, max_polyphony=1)."""
    path = folder / "music"
    where = str(path if path.exists() else write_music(path, **(music or {})))
    return load_corpus(where, reading=Reading(representation, **reading))


def random_recall(rng, asked, K):
    """What a copy gate reads, (…, K): candidates of every kind of run, a third of them right.

    Some are missing, and all of them where nothing is asked.
    """
    recall = rng.integers(BUCKETS, size=(*asked.shape, K)) + HIT * (
        rng.random((*asked.shape, K)) < 0.3
    )
    recall[(rng.random(recall.shape) < 0.3) | ~asked[..., None]] = NOTHING
    return recall.astype(np.uint8)


def as_read(rng, config, x):
    """Note vectors x (…, D + 1) as a network reads them: a biaxial one beside what lies around."""
    if config.head != "biaxial":
        return x
    shape, K = x.shape[:-1], config.copy
    place, buckets = (
        rng.integers(most, size=(*shape, n)) for most, n in ((PLACES, 1), (BUCKETS + 1, K))
    )
    told = rng.integers(2, size=(*shape, K * config.vocabulary))
    return np.concatenate([x, place, told, buckets], axis=-1).astype(np.uint8)


def words_of(config):
    """Classes and deltas for a factored head's vocabulary, of any size; None of another head.

    Class 0 has no deltas. With (C - 1) · D + 1 words, each class has each delta once.
    """
    if config.head != "factored":
        return None
    words = [(0, -1), *product(range(1, config.classes), range(config.deltas))]
    table = np.array([words[n % len(words)] for n in range(config.vocabulary)], np.int32)
    return tuple(np.ascontiguousarray(column) for column in table.T)


def small_model(corpus, seed=0, hidden=8, layers=2, dropout=0.0, head=None, ops=None, copy=False):
    """An untrained model for a corpus, on NumPy; for note vectors with a sigmoid head."""
    notes = corpus.tokenizer_json()["name"] == "note"
    words = word_parts(corpus.vocabulary) if head == "factored" else None
    config = Config(
        len(corpus.vocabulary), hidden, hidden, layers, dropout,
        head=head or ("sigmoid" if notes else "softmax"), nade=6, **counts_of(words),
        copy=corpus.recall.candidates if copy else 0,
    )  # fmt: skip
    return Model(config, ops or get_ops("numpy"), seed, words=words)


def counts_of(words):
    """The fields of Config that say how many classes and deltas there are."""
    classes, deltas = (int(part.max()) + 1 for part in words) if words else (0, 0)
    return {"classes": classes, "deltas": deltas}


def small_trainer(corpus, run, dropout=0.3, resume=False, show=None, head=None, **settings):
    """A trainer of a small model, 18 windows an epoch; its warnings are a list, `warnings`."""
    chosen = Settings(**{"batch": 3, "seq": 5, "early_stop": 0, "seed": 1, "lr": 0.02} | settings)
    model = small_model(corpus, chosen.seed, dropout=dropout, head=head)
    warnings = []
    trainer = Trainer(corpus, model, chosen, Path(run), show or nothing, warnings.append)
    trainer.warnings = warnings
    if resume:
        trainer.resume()
    else:
        source = {"corpus": corpus.name, "data": None}
        reading = asdict(Reading(corpus.tokenizer_json()["name"]))
        new_run(Path(run), model.config, corpus, chosen, source, reading)
    return trainer


def nothing(report):
    """Show nothing."""


def metrics(run):
    """The rows of metrics.csv without what the clock says."""
    with (Path(run) / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


TIMES = ("seconds", "tokens_per_second")


def target(run, link):
    """The name of the checkpoint that a link of a run points to, or None."""
    found = linked(Path(run) / CHECKPOINTS, link)
    return found and found.name


def flip(path, at):
    """Change a bit of the byte at a share, 0 to 1, of a file's length."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)
