"""A folder in which commands run, in this process, and all that each of them gives."""

import csv
import importlib
import io
import json
import os
import re
import shlex
import shutil
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import scipy.io
from matplotlib.figure import Figure
from midi_mutations import mutated
from safetensors.numpy import load_file
from small import TIMES, piece_of, track_of, write_music

from lstm_music.errors import UserError
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.runs.checkpoint import write_checkpoint
from lstm_music.runs.opened import open_run
from unchanged import hash_of
from unchanged.cases import LEARNT, OLD, RUNS, SIZE
from unchanged.drawing import drawn, text_of

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "checkpoints"
NUDGE = 1e-4  # of each weight: a hundred times what processors differ by
EDGES = ("frame_accuracy",)  # fields that a last bit may move by a whole count
STEADY_FIGURES = (
    "loss.png",
    "tokens.png",
    "primer.png",
)  # the others: t-SNE, and a network's music
ABSENT = ("midirenderer", "pretty_midi", "verovio")  # a report is the same with and without


class Result(NamedTuple):
    """What a command gave, as JSON has it.

    whole: all of it. steady: what doesn't depend on the last bits of sums; of music that is asked
    of `Place.is_steady`.
    """

    whole: Any
    steady: Any


class Place:
    """A folder with small music, in which commands run one after the other.

    Where it lies shows in no result. Runs are made when a command first names them.
    """

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        write_music(folder / "music")
        write_music(folder / "long", pieces=12, notes=50)
        write_drums(folder)
        write_rolls(folder / "rolls.mat")
        write_midi(piece_of(100, notes=24), folder / "primer.mid")
        write_music(folder / "faulty", pieces=5)
        whole = [path.read_bytes() for path in sorted((folder / "faulty").iterdir())]
        for seed in range(16):
            (folder / "faulty" / f"damaged-{seed:02}.mid").write_bytes(mutated(seed, whole))
        for name in OLD:
            shutil.copytree(OLD_RUNS / name, folder / "runs" / name, symlinks=True)

    def result(self, line):
        """Run a command; return what it gives."""
        name, *words = shlex.split(line)
        with self.entered():
            for word in words:
                self._make(word)
            shutil.rmtree("out", ignore_errors=True)
            Path("out").mkdir()
            try:
                return GIVES[name](words)
            except UserError as error:
                return Result(["error", str(error)], ["error", str(error)])

    @contextmanager
    def entered(self):
        """Be in the folder, with a cache of its own; and wait for no disk."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            cache = {"LSTM_MUSIC_CACHE": str(self.folder / "cache")}
            with mock.patch.dict(os.environ, cache), mock.patch.object(os, "fsync"):
                os.environ.pop("LSTM_MUSIC_DATA", None)
                yield
        finally:
            os.chdir(before)

    def _make(self, name):
        known = {k: f"{words} --max-steps 1 --lr 1e-30" for k, words in RUNS.items()} | LEARNT
        if name in known and not Path("runs", name).exists():
            call("train", f"{older(known[name])} {SIZE} --run {name} --quiet".split())

    def is_steady(self, line):
        """Whether composing gives the same with the network's weights nudged, up and down."""
        words = shlex.split(line)
        if "--baseline" in words:  # of counts; or of a network that no file holds
            return "untrained" not in words
        others = [
            self.result(shlex.join(["sample", self.nudged(words[1], sign), *words[2:]]))
            for sign in (1, -1)
        ]
        return all(other == self.result(line) for other in others)

    def nudged(self, name, sign):
        """The path of a copy of a run's network, each weight moved by about NUDGE of itself."""
        copy = self.folder / "nudged" / f"{name}{sign}"
        with self.entered():
            self._make(name)
            if not copy.exists():
                checkpoint, rng = open_run(name, print)[0], np.random.default_rng(0)
                moved = {
                    key: p * (1 + sign * NUDGE * rng.standard_normal(p.shape)).astype(p.dtype)
                    for key, p in sorted(checkpoint.parameters.items())
                }
                copy.mkdir(parents=True)
                write_checkpoint(copy, checkpoint.meta["step"], moved, {}, checkpoint.meta)
        return str(next((copy / "checkpoints").glob("step-*")))


# Music ------------------------------------------------------------------------------------------


def write_drums(folder):
    """Folders of drums alone, `beats`, and of a melody with drums, `bands`."""
    kit = (36, 42, 38, 42)
    for name in ("beats", "bands"):
        (folder / name).mkdir()
    for seed in range(6):
        beat = track_of([(240 * n, 240 * n + 120, kit[(n + seed) % 4]) for n in range(40)])
        tune = piece_of(seed, 1, 30).tracks[0]
        write_midi(Piece("", [beat], drums=(True,)), folder / "beats" / f"{seed}.mid")
        write_midi(Piece("", [tune, beat], drums=(False, True)), folder / "bands" / f"{seed}.mid")


def write_rolls(path):
    """A file of piano rolls as Boulanger-Lewandowski's are: broken triads, and silence."""
    rng = np.random.default_rng(5)
    sets = {}
    for split, pieces in (("train", 6), ("valid", 2), ("test", 2)):
        sets[f"{split}data"] = np.empty((1, pieces), object)
        for n in range(pieces):
            frames = np.zeros((24 + n, 88))
            for t, root in enumerate(rng.integers(30, 42, len(frames)).tolist()):
                frames[t, [root, root + 4, root + 7][: t % 4]] = 1
            sets[f"{split}data"][0, n] = frames
    scipy.io.savemat(path, sets)


# Commands ---------------------------------------------------------------------------------------


def call(name, words):
    """Run a command in one thread, with NumPy unless its words say otherwise; return its lines.

    In fp32, which every processor has.
    """
    words = list(words)
    if name != "corpus":
        words += ["--threads", "1"]
        words += [] if "--backend" in words else ["--backend", "numpy"]
        words += ["--precision", "fp32"] if name == "train" else []
    printed, warned = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"lstm_music.cli.{name}").main
    with redirect_stdout(printed), redirect_stderr(warned):
        assert main(words) == 0, f"{name} {words}"
    return [text.getvalue().splitlines() for text in (printed, warned)]


def sampled(words):
    """What bin/sample prints and writes."""
    lines = call("sample", [*words, "--out", "out"])
    pieces = [hash_of(path.read_bytes()) for path in sorted(Path("out").iterdir())]
    assert pieces
    return Result([*lines, pieces], None)


def trained(words):
    """The losses of a run, its weights, what the optimiser keeps, its sample, its settings."""
    run = Path("out/run")
    if "--resume" in words:
        old = words.index("--run") + 1
        shutil.copytree(Path("runs", words[old]), run, symlinks=True)
        words = [*words[:old], str(run), *words[old + 1 :]]
    else:
        words = [*older(" ".join(words)).split(), "--run", str(run)]
        words += [] if "--usual-size" in words else SIZE.split()
    _, warned = call("train", [word for word in words if word != "--usual-size"])
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    losses = [[row["split"], int(row["step"]), float(row["loss"])] for row in rows]
    latest = run / "checkpoints" / "latest"
    tensors = {
        file: hash_of(*map(bytes_of, sorted(load_file(latest / f"{file}.safetensors").items())))
        for file in ("model", "train")
    }
    music = [hash_of(path.read_bytes()) for path in sorted((run / "samples").iterdir())]
    config = json.loads((run / "config.json").read_text("utf-8"))
    settings = [config.get(name) for name in ("model", "tokenizer", "reading", "training")]
    if not settings[0].get("copy"):  # as those of runs that are older than the option
        settings[0].pop("copy", None)
    if not settings[3].get("sampled_softmax"):
        settings[3].pop("sampled_softmax", None)
    return Result([rows, tensors, music, warned, settings], losses)


def older(line):
    """Options of what most commands are older than, where they ask for nothing else.

    Those are a copy gate, averages in place of annealing, but for `bin/train bach`, and messages.
    """
    asks = ("--representation", "--tracks", "--head", "--min-count")
    first, *others = line.split()
    named = first == "bach" or any(option in line for option in asks)
    words = [] if first == "bach" else ["--anneal-factor", "0.5", "--average", "0"]
    words += others if named else [*others, "--representation", "message"]
    return " ".join([first, *words, *([] if "--copy" in line else ["--no-copy"])])


def bytes_of(item):
    """A named array with its type and shape as bytes."""
    name, array = item
    return f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes()


def evaluated(words):
    """What bin/evaluate prints and writes as JSON."""
    printed, warned = call("evaluate", [*words, "--json", "out/out.json"])
    table = json.loads(Path("out/out.json").read_text("utf-8"))
    if "--music" not in words:
        steady = [{k: v for k, v in row.items() if k not in EDGES} for row in table]
    else:  # music without a network in it
        steady = [s for s in table["sets"] if s["kind"] != "run" and s["name"] != "untrained"]
    return Result([printed, warned, table], steady)


def counted(words):
    """What bin/corpus prints and writes as JSON."""
    printed, warned = call("corpus", [*words, "--json", "out/out.json"])
    table = json.loads(Path("out/out.json").read_text("utf-8"))
    return Result([printed, warned, table], [printed, warned, table])


def pictured(words):
    """The data of what bin/figures draws, by its files' names."""
    figures = {}

    def keep(figure, path, **settings):
        figures[Path(path)] = drawn(figure)
        Path(path).write_bytes(b"PNG")

    with mock.patch.object(Figure, "savefig", keep), without(*ABSENT):
        printed, _ = call("figures", [*words, "--out", "out"])
    named = dict(zip([line.split()[0] for line in printed], figures.values(), strict=True))
    named = {Path(name).name: data for name, data in named.items()}
    steady = {name: data for name, data in named.items() if name in STEADY_FIGURES}
    return Result([printed, named], steady)


def reported(words):
    """The words of a page, the notes of its samples; no sounds, scores and pictures."""
    with without(*ABSENT):
        call("report", [*words, "--out", "out/out.html"])
    page = Path("out/out.html").read_text("utf-8")
    said = text_of(page.replace(sys.executable, "python"))
    return Result(said, [re.sub(r"[\d.,]+", "#", line) for line in said["text"]])


def without(*modules):
    """Have modules be as if they weren't installed."""
    return mock.patch.dict(sys.modules, dict.fromkeys(modules))


GIVES = {
    "sample": sampled, "train": trained, "evaluate": evaluated, "corpus": counted,
    "figures": pictured, "report": reported,
}  # fmt: skip
