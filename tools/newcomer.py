"""Try the README as a newcomer: a fresh clone, an empty HOME, each of its commands as it stands.

    python tools/newcomer.py CLONE [--only WORD] [--reports DIR]
    python tools/newcomer.py CLONE --wheel FILE.whl

CLONE: where to clone what is committed here; nothing may be there yet. Every line of README's
command blocks, and every command in its sentences, runs there in its order, with a limit appended
where it would take long (LIMITS), and what it names filled in: files of one's own, the newest run.
Each must exit with 0 and complain of nothing. Prints a line a command: its status, its seconds.
Exits with 1 where one fails. With --reports it also runs the slow tests, and writes what pytest
reports of both tiers to DIR/quick.xml and DIR/slow.xml. With --wheel bin/NAME is `lstm-music NAME`
of a wheel, which is installed in a new environment and run in an empty folder, where nothing of
the source can help.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`((?:bin/|pytest)[^`]*)`")
OPEN = re.compile(r"…|\[|-n N")  # a pattern, not a command
PATIENCE = 1800  # seconds a command may take, on a machine that is busy
QUICK, ALL = "bin/test", "bin/test --all"
LIMITS = (  # what a line begins with, and what is appended to it
    ("bin/train", "--max-minutes 0.2"),
    ("bin/evaluate --music", "--num 4 --bars 4"),
    ("bin/reproduce", "baselines --scale smoke"),
    ("bin/listen", "--num 1 --seconds 4 --port 0"),
    (ALL, "-m slow"),  # the others have just run
    ("pytest --benchmark", "--quick"),
)
# What a command may say on standard error: that it makes or completes its environment.
MEANT = re.compile(
    r"bin/\w+: (making|updating) the Python environment .*"
    r"|warning: interrupted.*"
)
# What bin/play says where no instrument is connected.
ALONE = re.compile("error: (this system has no MIDI ports|no MIDI input|no instrument) .*")
SILENCED = ("PYTHON", "VIRTUAL_ENV", "CONDA", "XDG_", "LSTM_MUSIC", "NUMBA", "HYPOTHESIS", "MPL")
# A piano-roll file of the form of Boulanger-Lewandowski's: MATLAB cells of frames by 88 keys.
ROLLS = """
import sys
import numpy as np
from scipy.io import savemat
from lstm_music.corpus.load import Reading, load_corpus
corpus = load_corpus("bach", reading=Reading("note"))
def cell(split):
    rolls = [piece for piece in corpus.split_frames(split)][:20]
    cells = np.empty((1, len(rolls)), object)
    for k, roll in enumerate(rolls):
        cells[0, k] = np.asarray(roll, np.uint8)
    return cells
savemat(sys.argv[1], {f"{s}data": cell(s) for s in ("train", "valid", "test")})
"""


def main() -> int:
    """Clone, run every command, print how each ended; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clone", type=Path, metavar="CLONE")
    parser.add_argument("--only", default="", metavar="WORD", help="commands that hold this word")
    parser.add_argument("--reports", type=Path, metavar="DIR", help="where pytest's reports go")
    parser.add_argument("--wheel", type=Path, metavar="FILE.whl", help="what to try instead")
    args = parser.parse_args()
    clone = args.clone.resolve()
    # As on Windows, where git turns line ends into its own, but for what .gitattributes says.
    crlf = ["-c", "core.autocrlf=true"]
    subprocess.run(["git", "clone", "--quiet", *crlf, str(ROOT), str(clone)], check=True)
    newcomer = Newcomer(clone)
    if args.wheel:
        newcomer.install(args.wheel.resolve())
    failed = []
    for line in command_lines((clone / "README.md").read_text("utf-8")):
        if args.only not in line or (line == ALL and not args.reports):
            continue
        if args.wheel and (line.startswith(QUICK) or not line.startswith("bin/")):
            continue  # of a clone alone
        report = []
        if args.reports and line in (QUICK, ALL):
            name = "quick" if line == QUICK else "slow"
            report = ["--junitxml", str(args.reports.resolve() / f"{name}.xml")]
        if not newcomer.tries(line, report):
            failed.append(line)
    print(f"README: {len(failed)} of {newcomer.tried} commands failed", flush=True)
    return bool(failed)


def command_lines(text: str) -> Iterator[str]:
    """Yield the README's command lines, without comments, each once, the blocks' first."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    lines += [span for span in SPAN.findall(BLOCK.sub("", text)) if " " in span]
    seen = set()
    for line in lines:
        command = line.partition("#")[0].strip()
        if command and command not in seen and not OPEN.search(command):
            seen.add(command)
            yield command


class Newcomer:
    """Somebody with a clone, an empty home, and some music of their own."""

    def __init__(self, clone: Path) -> None:
        self.clone, self.home = clone, clone.with_name(f"{clone.name}-home")
        self.place, self.python = clone, clone / ".venv" / "bin" / "python"
        self.tried, self.shell = 0, ""
        for name in ("tmp", "programs", "my-midi"):
            (self.home / name).mkdir(parents=True)
        opener = self.home / "programs" / ("open" if sys.platform == "darwin" else "xdg-open")
        opener.write_text('#!/bin/sh\ntest -s "$1"\n')
        opener.chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(SILENCED)}
        path = f"{self.home / 'programs'}{os.pathsep}{os.environ['PATH']}"
        self.environ = kept | {
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "PATH": path,
        }

    def install(self, wheel: Path) -> None:
        """Put a wheel into a new environment, and go to an empty folder."""
        self.place = self.home / "work"
        self.place.mkdir()
        venv.create(self.home / "venv", with_pip=True, symlinks=True)
        self.python = self.home / "venv" / "bin" / "python"
        extras = [self.python, "-m", "pip", "install", "--quiet", f"{wheel}[listen,play,score]"]
        subprocess.run(extras, cwd=self.place, env=self.environ, check=True)
        self.environ["PATH"] = f"{self.python.parent}{os.pathsep}{self.environ['PATH']}"

    def tries(self, line: str, also: Sequence[str] = ()) -> bool:
        """Run a command with its limit and other words; return whether all was well, and print."""
        self.tried += 1
        limit = [more for start, more in LIMITS if line.startswith(start)]
        full = " ".join([line, *limit, *map(shlex.quote, also)])
        command = self.shell + self.filled(full)
        if self.place is not self.clone:
            command = command.replace("bin/", "lstm-music ", 1)
        begun = time.perf_counter()
        until_stopped = line.startswith(("bin/listen", "bin/play"))
        status, out, err = (self.served if until_stopped else self.ran)(command)
        complaints = [said for said in err.splitlines() if said and not MEANT.fullmatch(said)]
        if line.startswith(". "):  # what a shell reads holds for all that follows
            self.shell += f"{line} && "
        well = status == 0 and not complaints and "Traceback" not in out
        well = well and (self.place is self.clone or " bin/" not in out)
        seconds = time.perf_counter() - begun
        print(f"{'ok   ' if well else 'FAULT'} {status:3} {seconds:6.1f} s  {full}", flush=True)
        if not well:
            print(f"{out[-4000:]}\n{err[-4000:]}", flush=True)
        return well

    def filled(self, line: str) -> str:
        """Return a line with what it names in place: files of one's own, made now, and a run."""
        if "~/my-midi" in line or "mine.mid" in line:
            for k in range(8):
                shutil.copy(self.clone / "docs" / "sample.mid", self.home / "my-midi" / f"{k}.mid")
            shutil.copy(self.clone / "docs" / "sample.mid", self.place / "mine.mid")
        if "examples/" in line and self.place is not self.clone:
            shutil.copytree(self.clone / "examples", self.place / "examples", dirs_exist_ok=True)
        if "JSB_Chorales.mat" in line:
            words = [self.python, "-c", ROLLS, "JSB_Chorales.mat"]
            subprocess.run(words, cwd=self.place, env=self.environ, check=True)
        if "runs/NAME" in line:
            newest = max((self.place / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
            line = line.replace("NAME", newest.name)
        return line.replace("--data DIR", f"--data {shlex.quote(str(self.home))}")

    def ran(self, command: str) -> tuple[int, str, str]:
        """Run a command as a shell does; return its exit status and what it printed."""
        try:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.place, env=self.environ, text=True,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 124, "", f"it took more than {PATIENCE} s"
        return done.returncode, done.stdout, done.stderr

    def served(self, command: str) -> tuple[int, str, str]:
        """Begin a command that serves a page, read the page, end it by Ctrl-C.

        Or one that plays along, where there is an instrument; where none is, that is all it says.
        """
        # Where this runs in the background, a child would ignore Ctrl-C as it does.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.place, env=self.environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        lines, page = [], ""
        for line in process.stdout:
            lines.append(line)
            if line.startswith("http"):
                with urllib.request.urlopen(line.strip(), timeout=30) as answer:
                    page = answer.read().decode()
            elif line.startswith("play on "):
                page = line
            if page:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
        said = [line for line in err.splitlines() if not MEANT.fullmatch(line)]
        if process.returncode == 2 and len(said) == 1 and ALONE.fullmatch(said[0]):
            return 0, "".join(lines) + out, ""
        well = process.returncode == 130 and re.search("<html|^play on ", page)
        status = 0 if well else process.returncode or 1
        return status, "".join(lines) + out, err


if __name__ == "__main__":
    sys.exit(main())
