from types import SimpleNamespace

import pytest
from small import COMPUTE, SMALL, write_music

from lstm_music.cli import corpus, evaluate, figures, report, sample, train
from lstm_music.cli.common import run
from lstm_music.rendering import score

COMMANDS = {
    "corpus": corpus, "evaluate": evaluate, "figures": figures, "report": report,
    "sample": sample, "train": train,
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a cache of its own and a small corpus, `music`."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LSTM_MUSIC_DATA", raising=False)
    work = tmp_path / "work"
    write_music(work / "music")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def command(capsys):
    """Run a command in this process: its status, and the lines it printed."""

    def call(name, *words):
        words = [str(word) for word in words]
        if name != "corpus":
            words += COMPUTE
        capsys.readouterr()
        status = run(COMMANDS[name].main, words)
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out.splitlines(), err=err.splitlines())

    return call


@pytest.fixture
def ok(command):
    """Run a command that should succeed without a word of complaint; return its lines."""

    def call(*words):
        done = command(*words)
        assert done.status == 0
        assert not done.err
        return done.out

    return call


@pytest.fixture
def fails(command):
    """Run a command that should fail; return its one line, without `error: `."""

    def call(*words):
        done = command(*words)
        assert done.status == 2
        assert not done.out
        (line,) = done.err
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return call


@pytest.fixture
def draw(command):
    """Draw figures; return the lines, and those on standard error but that there are no scores."""

    def call(*words):
        done = command("figures", *words, "--bars", 2)
        assert done.status == 0
        here = score.is_available()
        return done.out, [line for line in done.err if here or "no scores" not in line]

    return call


@pytest.fixture
def train_small(ok):
    """Train a small model on `music`: train_small("--max-steps", 9, "--run", "a")."""
    return lambda *words: ok("train", "music", *SMALL, *words)


@pytest.fixture
def train_rolls(train_small):
    """Train on frames of `music`: train_rolls("nade", …) or train_rolls("chord", …)."""

    def call(kind, *words):
        chords = ("--representation", "chord")
        notes = ("--representation", "note", "--head", kind, "--nade", 5)
        return train_small(*(chords if kind == "chord" else notes), *words)

    return call
