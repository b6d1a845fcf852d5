"""Compare ways to learn the bundled Bach: the same minutes of one core each, then how they predict.

    python benchmarks/variants.py [NAME…] [--minutes 10] [--out DIR] [--parallel 1]

Each variant is trained until nothing gets better or the minutes are over, and then evaluated: nats
per note of the pieces held out (so that ways to read music compare), tokens a second, what its
samples sound like by numbers, and how much of them stands in the training pieces. A variant whose
run is there is not trained again. Prints a table, and writes DIR/variants.json.
"""

import argparse
import json
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AVERAGED = "--average 0.998 --anneal-factor 1 --early-stop 20"
EVENTS = (  # without what `bin/train bach` has for defaults of its own
    "--representation event --hidden 128 --dropout 0.2 --batch 50 --seq 50 --lr 0.005 "
    "--anneal-factor 0.5 --average 0 --transpose-augment 0 --early-stop 8"
)
MESSAGES = "--representation message"
VARIANTS = {
    "messages, flattened": f"{MESSAGES} --tracks flatten",
    "messages, merged": f"{MESSAGES} --tracks merge",
    "messages, merged, factored head": f"{MESSAGES} --tracks merge --head factored",
    "messages, merged, transposed": f"{MESSAGES} --tracks merge --transpose-augment 5",
    "events": EVENTS,
    "events, no dropout": f"{EVENTS} --dropout 0",
    "events, dropout 0.4": f"{EVENTS} --dropout 0.4",
    "events, transposed": f"{EVENTS} --transpose-augment 5",
    "events, averaged": f"{EVENTS} {AVERAGED}",
    "events, transposed, averaged": f"{EVENTS} --transpose-augment 5 {AVERAGED}",
    "events, 3 layers": f"{EVENTS} --layers 3",
    "events, wider": f"{EVENTS} --hidden 256 --dropout 0.4",
    "events, wider, averaged": f"{EVENTS} --hidden 256 --dropout 0.4 --lr 0.003 {AVERAGED}",
    "events, wider, transposed, averaged": (
        f"{EVENTS} --hidden 256 --dropout 0.3 --lr 0.003 --transpose-augment 5 {AVERAGED}"
    ),
    "events, 192 units, transposed, averaged, small batches": (
        f"{EVENTS} --hidden 192 --dropout 0.25 --lr 0.003 --batch 16 --seq 64 "
        f"--transpose-augment 5 {AVERAGED}"
    ),
    "events, wider, averaged, small batches": (
        f"{EVENTS} --hidden 256 --dropout 0.5 --lr 0.003 --batch 16 --seq 64 {AVERAGED}"
    ),
    "events, wider, transposed, averaged, small batches": (
        f"{EVENTS} --hidden 256 --dropout 0.3 --lr 0.003 --batch 16 --seq 64 "
        f"--transpose-augment 5 {AVERAGED}"
    ),
}
SAMPLING = ("--top-p", "0.9")  # for all alike, whatever their own default
SAMPLED = Path(__file__).parents[1] / "tools" / "check_samples.py"


def variant(name: str, options: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train and judge a variant, as far as that isn't done; return what is known of it."""
    folder = args.out / name.replace(", ", "-").replace(" ", "-")
    if folder.exists() and not (folder / "spent.json").exists():
        sys.exit(f"error: '{folder}' was interrupted: move it away, and it is trained anew")
    if not folder.exists():
        limits = ["--max-minutes", str(args.minutes), "--run", str(folder), "--quiet"]
        before = children_seconds()
        command("train", args.corpus, *options.split(), *limits, *args.compute)
        spent = {"cpu_minutes": (children_seconds() - before) / 60 if args.parallel == 1 else None}
        (folder / "spent.json").write_text(json.dumps(spent))
    spent = json.loads((folder / "spent.json").read_text())
    row: dict[str, Any] = {"name": name, "options": options, **spent, **of_training(folder)}
    for split in ("valid", "test"):
        file = folder / f"evaluation-{split}.json"
        if not file.exists():
            command("evaluate", str(folder), "--split", split, "--json", str(file), *args.compute)
        own = json.loads(file.read_text())[0]
        row |= {f"{key}_{split}": own[key] for key in ("nats_per_note", "nats_per_token")}
    music = folder / "music.json"
    if not music.exists():
        words = ["--num", "30", *SAMPLING, "--quiet", "--json", str(music)]
        command("evaluate", "--music", str(folder), *words)
    row |= of_music(music)
    samples = folder / "samples.json"
    if not samples.exists():
        words = ["--num", "100", "--length", "0", *SAMPLING, "--json", str(samples)]
        subprocess.run([sys.executable, str(SAMPLED), str(folder), *words], check=True)
    row["samples"] = json.loads(samples.read_text())["sampled"]
    print(line(row), flush=True)
    return row


def command(name: str, *words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", f"lstm_music.cli.{name}", *words], check=True)


def children_seconds() -> float:
    """Return the processor time of the processes that were begun and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_training(folder: Path) -> dict[str, Any]:
    """Return parameters, words, steps, seconds and tokens a second of a run."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    last = dict(zip(rows[0], rows[-1], strict=True))
    seconds, tokens = float(last["seconds"]), float(last["tokens"])
    config = json.loads((folder / "config.json").read_text())["model"]
    return {
        "steps": int(last["step"]), "epochs": float(last["epoch"]), "minutes": seconds / 60,
        "tokens_per_second": tokens / seconds if seconds else 0.0, "words": config["vocabulary"],
    }  # fmt: skip


def of_music(file: Path) -> dict[str, Any]:
    """Return how a run's music compares: overlap, shares of 12-note runs copied, of bars back."""
    sets = json.loads(file.read_text())["sets"]
    one = next(found for found in sets if found["kind"] == "run")
    copied = one["memorisation"]["share_12"]
    return {
        "overlap": one["overlap"], "copied": copied, "repeated_4": one["repetition"]["4"],
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    sampled = row["samples"]
    return (
        f"| {row['name']} | {row['words']} | {row['minutes']:.1f} | "
        f"{row['tokens_per_second']:,.0f} | {row['nats_per_note_valid']:.3f} | "
        f"{row['nats_per_note_test']:.3f} | {sampled['voices']:.2f} | "
        f"{sampled['known_chords']:.1%} | {row['overlap']['value']:.2f} | "
        f"{row['copied']['value']:.1%} | {row['repeated_4']['value']:.1%} |"
    )


def main() -> None:
    """Train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--corpus", default="bach")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training each, at most")
    parser.add_argument("--parallel", type=int, default=1, help="how many at once, a thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    args = parser.parse_args()
    args.compute = ["--threads", "1"]
    chosen = args.names or list(VARIANTS)
    if unknown := set(chosen) - set(VARIANTS):
        parser.error(f"no variant {', '.join(unknown)}: there are {'; '.join(VARIANTS)}")
    with ThreadPoolExecutor(args.parallel) as pool:
        rows = list(pool.map(lambda name: variant(name, VARIANTS[name], args), chosen))
    (args.out / "variants.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
