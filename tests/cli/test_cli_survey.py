"""What bin/train and bin/corpus say of a corpus before it is learnt, and what they choose."""

import json

import numpy as np
import pytest
from small import SMALL, track_of

from lstm_music.cli import train_options
from lstm_music.corpus.load import PLAYED
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece

SIZE = [word for word in SMALL if word not in ("--tracks", "flatten")]
GRID = "lie on a grid of 48 to a whole note"


def write_played(folder, pieces=4):
    """Pieces whose notes begin at any tick, each as loud as it likes."""
    folder.mkdir()
    for seed in range(pieces):
        rng = np.random.default_rng(seed)
        starts = np.cumsum(rng.integers(1, 40, 30)) * 7 + 1
        notes = [(int(t), int(t) + 5, int(rng.integers(60, 72))) for t in starts]
        loud = rng.integers(30, 100, 30).astype(np.int32)
        piece = Piece("", [track_of(notes)], parts=(Part("", 6),), velocities=(loud,))
        write_midi(piece, folder / f"{seed}.mid")


def kept(folder, run):
    return json.loads((folder / "runs" / run / "config.json").read_text())["reading"]


def test_written_music_is_read_as_events(ok, folder):
    lines = ok("train", "music", *SIZE, "--max-steps", 2, "--run", "a")
    assert lines[0] == f"written: 160 of 160 onsets {GRID}; read as events"
    assert lines[1].startswith("left out: 16 tracks (merged)")
    assert lines[2].startswith("new run runs/a: ")
    assert kept(folder, "a")["representation"] == "event"


def test_played_music_is_read_as_what_suits_it(ok, folder):
    write_played(folder / "played")
    lines = ok("train", "played", *SIZE, "--max-steps", 2, "--run", "a")
    assert lines[0].startswith("played: ")
    assert lines[0].endswith(f" of 120 onsets {GRID}; read as {PLAYED}s")
    assert kept(folder, "a")["representation"] == PLAYED
    lines = ok("train", "played", "--representation", "message", *SIZE, "--max-steps", 2)
    assert lines[0].startswith("left out: 120 velocities (")
    assert "1 program" in lines[0]


def test_a_run_goes_on_as_what_it_began_as(ok, folder):
    ok("train", "music", *SIZE, "--max-steps", 2, "--run", "a")
    lines = ok("train", "--resume", "--run", "a", "--max-steps", 4)
    assert not any("read as" in line for line in lines)
    assert lines[0].startswith("left out: 16 tracks")
    assert lines[1].startswith("resumed at step 2")


@pytest.mark.parametrize("words", [["--quiet"], ["--representation", "message", "--quiet"]])
def test_quiet_says_nothing_of_it(ok, words):
    (line,) = ok("train", "music", *SIZE, "--max-steps", 2, "--run", "a", *words)
    assert line.endswith(".mid")


@pytest.mark.parametrize("name", ["corpus", "train"])
def test_of_one_file_it_is_said_that_nothing_is_held_out(ok, name):
    words = [*SIZE, "--max-steps", 2, "--run", "a"] if name == "train" else []
    lines = ok(name, "music/0.mid", *words)
    assert "valid and test are the training piece: what they measure is memory" in lines
    assert not any("memory" in line for line in ok("corpus", "music"))


def test_a_corpus_says_how_it_is_played_and_what_is_lost(ok, folder):
    write_played(folder / "played")
    lines = ok("corpus", "played", "--tracks", "merge", "--json", "x.json")
    survey = json.loads((folder / "x.json").read_text())["survey"]
    told = [line for line in lines if line.startswith(("played:", "left out"))]
    different = len(survey["velocities"])
    assert told[0].endswith(f"of 120 onsets {GRID}")
    assert told[1] == f"left out: 120 velocities ({different} different), 1 program"


def test_options_that_ask_for_something_need_no_survey(ok, folder, monkeypatch):
    monkeypatch.setattr(train_options, "survey_corpus", None)
    lines = ok("train", "music", *SIZE, "--tracks", "merge", "--max-steps", 2, "--run", "a")
    assert not any("read as" in line for line in lines)
    assert kept(folder, "a")["representation"] == "message"
