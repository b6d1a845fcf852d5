"""A folder with the name of a corpus: which is taken is said, in every command that takes one."""

import shutil
from pathlib import Path

import pytest
from small import COMPUTE, SMALL, write_music

from listening import tone
from lstm_music.cli import listen, music
from lstm_music.cli.common import run
from lstm_music.corpus.sources import NAMED
from lstm_music.listening import making

WARNING = "warning: 'bach' is the corpus of that name, not what lies here: write ./bach for that"


@pytest.fixture
def both(folder, train_small, monkeypatch):
    """A run, and a folder ./bach of other music; the corpus of that name is as small."""
    train_small("--max-steps", 1, "--run", "a", "--quiet")
    write_music(folder / "bach", pieces=30, notes=30)
    shutil.make_archive("few", "zip", write_music(folder / "few", pieces=24, notes=30))
    monkeypatch.setattr("lstm_music.corpus.sources.resources.files", lambda _: Bundle(folder))


class Bundle:
    """The package's files, with a small corpus."""

    def __init__(self, folder):
        self.folder = folder

    def joinpath(self, _):
        return self.folder / "few.zip"


def test_training_says_which_corpus_it_takes(both, command):
    words = (*SMALL, "--max-steps", 1)
    done = command("train", "bach", *words, "--run", "named")
    assert done.err == [WARNING]
    assert "new run runs/named: 20 pieces" in done.out[0]
    done = command("train", "./bach", *words, "--run", "own")
    assert not done.err and "new run runs/own: 24 pieces" in done.out[0]
    assert not command("train", "bach", "--data", "bach", *words, "--run", "data").err
    assert not command("train", "--resume", "--run", "named", "--max-steps", 2).err
    assert not command("train", "bach", *words, "--run", "quiet", "--quiet").err
    shutil.rmtree("bach")
    assert not command("train", "bach", *words, "--run", "alone").err


@pytest.mark.parametrize(
    "words",
    [
        ("corpus", "{}"),
        ("evaluate", "--baseline", "random", "--corpus", "{}"),
        ("sample", "--baseline", "random", "--corpus", "{}", "--bars", 2),
    ],
    ids=lambda words: words[0],
)
def test_commands_say_which_corpus_they_take(both, command, words):
    for name, warned in (("bach", [WARNING]), ("./bach", [])):
        assert command(*(str(word).format(name) for word in words)).err == warned


def test_a_reference_and_a_control_are_said_too(both, capsys, monkeypatch):
    rows = [("people", "tone", True, tone(1)), ("a", "tone", False, tone(1))]
    played = []
    monkeypatch.setattr(making, "human", lambda source, *_: played.append(source) or [])
    monkeypatch.setattr(making, "sound_of_file", lambda *_: played.append("file"))
    monkeypatch.setattr(making, "clips_of", lambda *_: (rows, 1.0, -18.0))
    judged = ["--num", "2", "--bars", "2", "--split", "train", "--quiet", *COMPUTE]
    for n, (name, warned) in enumerate((("bach", [WARNING]), ("./bach", []))):
        made = ["--control", name, "--make-only", "--db", f"{n}.sqlite"]
        for main, words in ((music.main, ["--reference", name, *judged]), (listen.main, made)):
            assert run(main, ["a", *words]) == 0
            err = capsys.readouterr().err.splitlines()
            assert [line for line in err if "lies here" in line] == warned
        control = listen.named(name)._replace(control=True)
        making.sounds_of(control, making.Asked(2, 2, 0, "", print), drums=False, tempo=90.0)
    assert played == ["bach", "file", "file"]


def test_errors_of_named_corpora_name_what_lies_here(folder, fails):
    for name in sorted({*NAMED} - {"bach"}):
        words = ("corpus", name, "--representation", "chord")
        assert "lies here" not in fails(*words)
        write_music(folder / name, pieces=3)
        assert f", or write ./{name} for what lies here" in fails(*words)
        if name != "classical":
            assert f"./{name}" in fails("corpus", name)
        assert f"./{name}" not in fails(*words, "--data", "nowhere")
        assert Path(name).is_dir()
