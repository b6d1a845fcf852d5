"""What bin/reproduce makes of a run once it is trained: likelihoods, music, embedding, figures."""

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lstm_music.cli import chorales, evaluate, figures, music
from lstm_music.cli.common import warn, write
from lstm_music.errors import UserError
from lstm_music.evaluation.embeddings import order_of, pitch_points, separation_of
from lstm_music.network.baselines import BASELINES as FREQUENCIES
from lstm_music.reproduction.experiments import BASELINES
from lstm_music.reproduction.outcome import Ledger
from lstm_music.runs.checkpoint import CHECKPOINTS, LINKS, linked
from lstm_music.runs.opened import open_run

FILES = {
    "valid": "evaluation-valid.json",
    "test": "evaluation-test.json",
    "music": "music.json",
    "chorales": "chorales.json",
    "embedding": "embedding.json",
    "figures": "figures",
}


class Subject(NamedTuple):
    """What is judged: a name, the run's folder, its corpus in options, those of bin/train, limits.

    chorales: whether it learnt music in four parts.
    """

    name: str
    folder: Path
    corpus: list[str]
    training: list[str]
    limits: list[str]
    chorales: bool


def judge(one: Subject, args: argparse.Namespace, ledger: Ledger) -> int:
    """Make what is said of a subject, as far as it isn't made of its best checkpoint; count it."""
    best = checkpoint_name(one.folder)
    made = ledger.of(one.name).get("made", {})
    one.folder.mkdir(parents=True, exist_ok=True)
    worked = 0
    for name, make in products(one, args).items():
        if made.get(name) == best and (one.folder / FILES[name]).exists():
            continue
        say(args, f"{one.name}: {name}")
        try:
            with silenced(args.quiet):
                make()
        except UserError as error:
            warn(f"{one.name}: {name} is left out: {error}")
            continue
        made[name] = best
        worked += 1
        ledger.note(one.name, made=made)
    return worked


def checkpoint_name(source: Path) -> str:
    """Return the name of the checkpoint that a run is judged by."""
    found = [linked(source / CHECKPOINTS, link) for link in LINKS]
    return next((path.name for path in found if path is not None), source.name)


def products(one: Subject, args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return what is made of a subject, by name: likelihoods, music, embedding, figures, craft."""
    name, given = str(one.folder), compute(args)
    place = one.corpus if args.scale != "smoke" else one.corpus[:1]  # a run knows its own pieces
    where = ["--corpus", *place]
    size = ["--num", "4", "--bars", "6"] if args.scale == "smoke" else ["--num", str(args.num)]
    drawn = one.folder / FILES["figures"]

    def likelihood(split: str) -> int:
        to = ["--json", str(one.folder / FILES[split])]
        return evaluate.main([name, *where, "--split", split, *to, *given])

    def composed() -> int:
        to = ["--json", str(one.folder / FILES["music"]), "--figure", str(drawn / "bars.png")]
        return music.main([name, *where, *size, *to, *given, *["--quiet"] * args.quiet])

    def craft() -> int:
        return chorales.main([name, *size, "--json", str(one.folder / FILES["chorales"]), *given])

    def embedding() -> None:
        points = pitch_points(open_run(name, warn)[0])
        apart = separation_of(points)
        content = {
            "what": points.what, "rows": len(points.pitches),
            "order": order_of(points)._asdict(), "separation": apart and apart._asdict(),
        }  # fmt: skip
        write(json.dumps(content, indent=2).encode(), one.folder / FILES["embedding"])

    made: dict[str, Callable[[], object]] = {
        "valid": lambda: likelihood("valid"),
        "test": lambda: likelihood("test"),
        "music": composed,
        "embedding": embedding,
        "figures": lambda: figures.main([name, "--out", str(drawn), *size[2:], *given]),
    }
    return made | {"chorales": craft} if one.chorales else made


def judge_baselines(corpus: list[str], args: argparse.Namespace, ledger: Ledger) -> None:
    """Evaluate frequencies of notes and chords, and coin tosses, on both splits."""
    made = ledger.of(BASELINES).get("made", {})
    folder = args.out / BASELINES
    folder.mkdir(parents=True, exist_ok=True)
    for kind in FREQUENCIES:
        for split in ("valid", "test"):
            name = f"{kind}-{split}"
            if name not in made:
                say(args, f"{BASELINES}: {name}")
                words = ["--baseline", kind, "--corpus", *corpus, "--split", split]
                with silenced(args.quiet):
                    evaluate.main([*words, "--json", str(folder / f"{name}.json"), *compute(args)])
                made[name] = kind
                ledger.note(BASELINES, made=made)


# What a command does ---------------------------------------------------------------------------


def compute(args: argparse.Namespace) -> list[str]:
    """Return the options that say where to compute."""
    threads = [] if args.threads is None else ["--threads", str(args.threads)]
    return ["--backend", args.backend, *threads]


@contextlib.contextmanager
def silenced(quiet: bool) -> Iterator[None]:
    """Keep standard output from the screen, if quiet."""
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        yield


def say(args: argparse.Namespace, line: str) -> None:
    """Print a line, unless the user asked for silence."""
    if not args.quiet:
        print(line, flush=True)
