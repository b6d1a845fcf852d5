"""Paths with a byte that is no UTF-8: of corpora, runs, pieces and all that is written."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import COMPUTE, SMALL, target, write_music

from lstm_music.cli import corpus, evaluate, figures, listen, report, sample, train
from lstm_music.cli.common import run
from lstm_music.listening.study import Study

COMMANDS = {
    "corpus": corpus, "evaluate": evaluate, "figures": figures, "listen": listen,
    "report": report, "sample": sample, "train": train,
}  # fmt: skip
ODD = os.fsdecode(b"d\xfcr")
SHOWN = "d\ufffdr"


@pytest.fixture
def place(folder, monkeypatch):
    """A working folder with a name that is no text, and a corpus in it with another."""
    try:
        (folder / ODD).mkdir()
    except OSError:
        pytest.skip("names are text on this file system")
    write_music(folder / ODD / ODD, pieces=20)
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(folder / ODD / "cache"))
    monkeypatch.chdir(folder / ODD)
    return folder / ODD


@pytest.fixture
def done(place, monkeypatch):
    """Run a command that should succeed; return its lines, in bytes."""

    def call(name, *words):
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        words = [*map(str, words), *(COMPUTE if name not in ("corpus", "listen") else ())]
        status = run(COMMANDS[name].main, words)
        out, err = (stream.buffer.getvalue() for stream in streams)
        assert (status, err) == (0, b"")
        return out.splitlines()

    return call


@pytest.fixture
def trained(done):
    """Train a small model on such a corpus, in such a run's folder."""
    return done("train", ODD, *SMALL, "--max-steps", 20, "--run", ODD)


def test_a_run_is_trained_resumed_and_used(trained, done, place):
    run_folder = place / "runs" / ODD
    described = json.loads((run_folder / "config.json").read_text("ascii"))
    assert described["source"]["corpus"] == str(place.resolve() / ODD)
    assert done("train", "--resume", "--max-steps", 25)[0].startswith(
        b"resumed at step 20 runs/d\xfcr: "
    )
    assert target(run_folder, "latest") == "step-00000025"
    (path, picture) = done("sample", ODD, "--length", 20, "--png", "--quiet", "--out", f"out{ODD}")
    assert path == b"outd\xfcr/sample-0001.mid" and picture == b"outd\xfcr/sample-0001.png"
    assert Path(os.fsdecode(path)).is_file() and Path(os.fsdecode(picture)).is_file()
    primer = ("--primer", f"{ODD}.mid", "--out", f"new{ODD}.mid", "--length", 20, "--png")
    shutil.copy(f"{ODD}/0.mid", f"{ODD}.mid")
    assert done("sample", ODD, *primer)[0].endswith(b" tokens of d\xfcr.mid)")
    done("evaluate", ODD, "--json", f"{ODD}/new/{ODD}.json")
    rows = json.loads(Path(f"{ODD}/new/{ODD}.json").read_text("ascii"))
    assert rows[0]["name"] == ODD


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_what_is_to_be_typed_is_read_by_the_shell(trained):
    more, go_on = (
        b"bin/sample runs/d\xfcr --num 4 --temperature 0.9",
        b"bin/train --resume --run runs/d\xfcr --max-minutes 30",
    )
    for line, words in zip(trained[-2:], (more, go_on), strict=True):
        command = line.partition(b":")[2].decode("ascii")
        said = subprocess.run(["bash", "-c", f"echo {command}"], check=True, capture_output=True)
        assert said.stdout == words + b"\n"


@pytest.mark.slow
def test_pages_and_figures_show_such_names(trained, done):
    done("figures", ODD, "--bars", 1, "--out", f"figures{ODD}")
    assert len(list(Path(f"figures{ODD}").glob("*.png"))) == 6
    shutil.copy(f"{ODD}/0.mid", f"{ODD}.mid")
    done("figures", f"{ODD}.mid")
    assert Path(f"figures/{ODD}.png").is_file()
    done("report", ODD, "--out", f"{ODD}.html")
    page = Path(f"{ODD}.html").read_text("utf-8")
    assert f"<title>{SHOWN} – lstm-music</title>" in page
    assert f"“{SHOWN}”" in page
    music = ("--num", 2, "--bars", 2)
    done("evaluate", "--music", ODD, *music, "--json", f"{ODD}.json", "--figure", f"{ODD}.png")
    assert Path(f"{ODD}.json").is_file() and Path(f"{ODD}.png").is_file()


def test_a_corpus_is_counted(done):
    Path(f"{ODD}/bad{ODD}.mid").write_bytes(b"rubbish")
    files = {kind: f"{ODD}.{kind}" for kind in ("json", "csv", "png")}
    lines = done("corpus", ODD, "--json", files["json"], "--skipped", files["csv"],
                 "--figure", files["png"])  # fmt: skip
    assert lines[0] == b"d\xfcr, flatten tracks"
    assert json.loads(Path(files["json"]).read_text("ascii"))["pieces"] == 20
    with Path(files["csv"]).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == f"bad{SHOWN}.mid"


def test_a_listening_test_is_made(place, done):
    shutil.copy(f"{ODD}/0.mid", f"{ODD}.mid")
    sources = (f"{ODD}.mid", f"n{ODD}={ODD}/1.mid", "--control", f"h{ODD}={ODD}/2.mid")
    done("listen", *sources, "--db", f"{ODD}.sqlite", "--seconds", 2, "--title", ODD, "--make-only")
    clips = Study(Path(f"{ODD}.sqlite")).clips
    assert {clip.system for clip in clips} == {SHOWN, f"n{SHOWN}", f"h{SHOWN}"}
    done("listen", "--results", f"{ODD}.sqlite")
    assert f"n{SHOWN}" in Path(f"{ODD}.json").read_text("utf-8")
    assert f"n{SHOWN}" in Path(f"{ODD}.html").read_text("utf-8")
    done("listen", "--db", f"{ODD}.sqlite", "--export", f"page{ODD}")
    assert Path(f"page{ODD}/index.html").is_file()


@pytest.mark.parametrize("name", ["\ud800", "a\0b", 7, None])
def test_a_strangers_run_that_names_no_file_is_refused(train_small, fails, folder, name):
    train_small("--max-steps", 1, "--run", "a")
    path = folder / "runs/a/config.json"
    described = json.loads(path.read_text())
    described["source"]["corpus"] = name
    path.write_text(json.dumps(described))
    assert "is damaged" in fails("train", "--resume", "--run", "a", "--max-steps", 2)
    assert "is missing or damaged" in fails("evaluate", "a")


@pytest.mark.parametrize("name", ["$x$", r"$\frac$", "a_b^c"])
def test_a_figure_of_music_with_any_name_is_drawn(folder, ok, name):
    shutil.copytree("music", name)
    ok("corpus", name, "--figure", "a.png")
    assert Path("a.png").is_file()
