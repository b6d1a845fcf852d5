"""Check the wheel as a newcomer would: build it, install it away from the source, run each command.

    python tools/check_wheel.py [--keep DIR]

Builds sdist and wheel of the files that git tracks, as they are now, the wheel from the sdist;
compares what they hold with those files; installs the wheel in a new environment; and runs every
command in an empty folder, where nothing of the source can help. Takes some minutes, and a package
index, from which the dependencies come. Prints a line for each trial; exits with 1 if one fails.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "src/lstm_music/"
LINKED = ("kernels/", PACKAGE + "kernels/")  # the folder that the package holds by a link
MOST_MB = 12.0
PATIENCE = 600  # seconds a command may take

WHERE = "import lstm_music, pathlib; print(pathlib.Path(lstm_music.__file__).parent)"
KERNELS = """
from lstm_music.ops.cuda.source import names, text
print(len([text(name) for name in names()]), "kernel files")
"""
NAMES = "from lstm_music.cli.commands import COMMANDS; print(*COMMANDS)"


class Trial(NamedTuple):
    """A command: its words; the status it ends with; words of its output; files that it leaves."""

    words: str
    status: int = 0
    says: str = ""
    leaves: tuple[str, ...] = ()


TRIALS = (
    Trial("", 2, "error: usage: lstm-music"),
    Trial("--help", 0, "usage: lstm-music"),
    Trial("sample --bars 4 --seed 7 --wav --png --out first.mid", 0, "first.mid",
          ("first.mid", "first.wav", "first.png")),
    Trial("sample jsb --bars 4 --out jsb.mid", 0, "jsb.mid", ("jsb.mid",)),
    Trial("sample muse --bars 4 --out muse.mid", 0, "muse.mid", ("muse.mid",)),
    Trial("sample --bars 4 --svg", 2, "pip install music21 verovio"),
    Trial("sample --baseline chord-frequency --corpus bach --bars 4 --out chords.mid", 0, "",
          ("chords.mid",)),
    Trial("reproduce baselines --scale smoke --out again", 0, "", ("again/results.md",)),
    Trial("corpus bach --json bach.json --figure bach.png", 0, "410", ("bach.json", "bach.png")),
    Trial("train bach --max-steps 20 --run words", 0, "stopped by", ("runs/words/metrics.csv",)),
    Trial("train --resume --run words --max-steps 30", 0, "resumed at step 20"),
    Trial("train bach --representation chord --max-steps 20 --run chords", 0, "stopped by"),
    Trial("train bach --representation note --head nade --max-steps 20 --run notes", 0, "stopped"),
    Trial("train bach --backend numpy --max-steps 2 --run plain", 0, "numpy backend"),
    Trial("train bach --backend cupy --max-steps 2 --run gpu", 2, "error: "),
    Trial("sample words --bars 2 --wav --png --out second.mid", 0, "second.mid",
          ("second.mid", "second.wav", "second.png")),
    Trial("sample notes --bars 2 --out third.mid", 0, "third.mid", ("third.mid",)),
    Trial("evaluate words notes --json table.json", 0, "nats", ("table.json",)),
    Trial("evaluate --baseline note-unigram --corpus bach", 0, "note-unigram"),
    Trial("evaluate --music words --num 4 --bars 4 --figure bars.png", 0, "words", ("bars.png",)),
    Trial("figures words", 0, "loss.png", ("runs/words/figures/loss.png",)),
    Trial("report words", 0, "report.html", ("runs/words/report.html",)),
    Trial("completion", 0, "complete -o default"),
    Trial("listen bach --port 0", 2, "pip install flask waitress"),
    Trial("sample no-such-run", 2, "lstm-music train bach"),
)  # fmt: skip
LISTEN = "listen bach --num 2 --seconds 4 --port 0"


def main() -> int:
    """Run all checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep what was built in this folder"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = copied(place / "source")
        wheel, sdist = build(source, place)
        faults = [*check_wheel(wheel, source), *check_sdist(sdist), *try_all(place, wheel)]
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for path in (wheel, sdist):
                shutil.copy(path, args.keep)
    print("all is well" if not faults else f"{len(faults)} faults")
    return bool(faults)


# Building ---------------------------------------------------------------------------------------


def tracked() -> list[str]:
    """Return the paths of the files that git tracks and that are there."""
    out = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    return [name for name in out.decode().split("\0") if name and os.path.lexists(ROOT / name)]


def copied(source: Path) -> Path:
    """Copy the tracked files to a folder; return it."""
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    return source


def build(source: Path, place: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return the paths of wheel and sdist."""
    python = environment(place / "builder")
    quietly([python, "-m", "pip", "install", "build"], place)
    began = time.perf_counter()
    quietly([python, "-m", "build", "--outdir", str(place / "dist"), str(source)], place)
    (wheel,), (sdist,) = place.glob("dist/*.whl"), place.glob("dist/*.tar.gz")
    for path in (wheel, sdist):
        print(f"built {path.name}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"      in {time.perf_counter() - began:.1f} s")
    return wheel, sdist


def environment(folder: Path) -> str:
    """Make an environment with pip; return its Python."""
    venv.create(folder, with_pip=True, symlinks=os.name == "posix")
    return str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")


def quietly(words: Sequence[str], cwd: Path) -> None:
    """Run a command that must succeed; show its output where it doesn't."""
    done = subprocess.run(
        words, cwd=cwd, env=clean(cwd), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nerror: this failed: {' '.join(words)}")


def clean(home: Path) -> dict[str, str]:
    """Return an environment in which nothing points to the source or to the user's own files."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"LSTM_MUSIC_CACHE": str(home / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


# Contents ---------------------------------------------------------------------------------------


def check_wheel(wheel: Path, source: Path) -> Iterator[str]:
    """Yield, and print, what the wheel lacks of the package in a source folder."""
    size = wheel.stat().st_size / 1e6
    if size > MOST_MB:
        yield fault(f"the wheel has {size:.1f} MB, more than {MOST_MB:g}")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    wanted = {name.replace(*LINKED) for name in tracked() if name.startswith(LINKED[0])}
    wanted |= {name for name in tracked() if name.startswith(PACKAGE) and (source / name).is_file()}
    for name in sorted(wanted):
        if held.get(name.removeprefix("src/")) != (source / name).read_bytes():
            yield fault(f"not in the wheel as in the source: {name}")
    print(f"wheel: {len(wanted)} files of the package, compared byte by byte")


def check_sdist(sdist: Path) -> Iterator[str]:
    """Yield, and print, what of the project the sdist lacks."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    names = [name for name in tracked() if not Path(name).parts[0].startswith(".")]
    for name in names:
        if name not in held:
            yield fault(f"not in the sdist: {name}")
    print(f"sdist: {len(names)} files of the project looked for")


def fault(line: str) -> str:
    """Print what is wrong, and return it."""
    print("FAULT", line, flush=True)
    return line


# Commands ---------------------------------------------------------------------------------------


def try_all(place: Path, wheel: Path) -> Iterator[str]:
    """Install the wheel in a new environment and yield, and print, which trials failed."""
    python, work = environment(place / "user"), place / "work"
    work.mkdir()
    began = time.perf_counter()
    quietly([python, "-m", "pip", "install", str(wheel)], work)
    print(f"installed in {time.perf_counter() - began:.0f} s", flush=True)
    command = str(Path(python).with_name("lstm-music"))
    where = told([python, "-c", WHERE], work)
    if not where.startswith(str(place / "user")):
        yield fault(f"the package is not the installed one, but {where}")
    print(told([python, "-c", KERNELS], work))
    names = told([python, "-c", NAMES], work).split()
    for name in names:
        yield from try_one(command, Trial(f"{name} --help", 0, f"usage: lstm-music {name}"), work)
    for name in set(names) - {trial.words.partition(" ")[0] for trial in (*TRIALS, Trial(LISTEN))}:
        yield fault(f"no trial of '{name}': add one to TRIALS")
    for trial in TRIALS:
        yield from try_one(command, trial, work)
    quietly([python, "-m", "pip", "install", f"{wheel}[listen]"], work)
    yield from try_listening(command, work)


def told(words: Sequence[str], cwd: Path) -> str:
    """Return what a command prints."""
    out = subprocess.run(words, cwd=cwd, env=clean(cwd), capture_output=True, check=True).stdout
    return out.decode().strip()


def try_one(command: str, trial: Trial, work: Path) -> Iterator[str]:
    """Run a trial and yield, and print, what is wrong with it."""
    began = time.perf_counter()
    done = subprocess.run(
        [command, *trial.words.split()], cwd=work, env=clean(work), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    out = done.stdout + done.stderr
    missing = [name for name in trial.leaves if not (work / name).is_file()]
    in_one_line = trial.status != 2 or len(done.stderr.splitlines()) == 1
    good = done.returncode == trial.status and trial.says in out and not missing and in_one_line
    good = good and "Traceback" not in out and (" bin/" not in out or trial.words == "completion")
    seconds = time.perf_counter() - began
    print(f"{'ok   ' if good else 'FAULT'} {seconds:5.1f} s  lstm-music {trial.words}", flush=True)
    if not good:
        print(f"it ended with {done.returncode}, without {missing}, and printed:\n{out}")
        yield trial.words
    elif trial.status == 2:
        print(f"               {done.stderr.strip()}")


def try_listening(command: str, work: Path) -> Iterator[str]:
    """Serve a listening test, read its page, and end it by Ctrl-C; yield what is wrong."""
    # Where this runs in the background, a child would ignore Ctrl-C as it does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [command, *LISTEN.split()], cwd=work, env=clean(work), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("http"):
            break
    page = ""
    if lines and lines[-1].startswith("http"):
        with urllib.request.urlopen(lines[-1].strip(), timeout=30) as answer:
            page = answer.read().decode()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    if "<html" not in page or process.returncode != 130:
        yield fault(f"'{LISTEN}' ended with {process.returncode}:\n{''.join(lines)}{rest}")
    else:
        print(f"ok             lstm-music {LISTEN} (page read, ended by Ctrl-C)")


if __name__ == "__main__":
    sys.exit(main())
