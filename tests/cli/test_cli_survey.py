"""What bin/train and bin/corpus say of a corpus before it is learnt, and what they choose."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small import SMALL, track_of

from lstm_music.cli import train_options
from lstm_music.corpus.load import PLAYED, Reading, load_corpus
from lstm_music.midi.files import read_midi, write_midi
from lstm_music.midi.grid import Moved, on_grid
from lstm_music.midi.piece import TICK, Part, Piece
from lstm_music.midi.repair import merge_tracks

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
    assert lines[1].startswith("new run runs/a: ")  # in parts: nothing is left out
    merged = ok("train", "music", *SIZE, "--max-steps", 2, "--run", "b", "--no-parts")
    assert merged[1].startswith("left out: 16 tracks (merged)")
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
    assert lines[0].startswith("resumed at step 2")


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


# On a grid ----------------------------------------------------------------------------------------


@pytest.fixture
def played(folder):
    write_played(folder / "played")
    return sorted((folder / "played").iterdir())


def lies_on(piece, step):
    return all((track[:, TICK] % step == 0).all() for track in piece.tracks)


@pytest.mark.parametrize("how", ["message", "event"])
def test_played_music_is_learnt_as_written(ok, folder, played, how):
    words = ("--representation", how, "--grid", "24,16", "--tracks", "merge")
    lines = ok("corpus", "played", *words)
    moved = next(line for line in lines if line.startswith("on the grid 16,24: 120 onsets moved"))
    assert " onsets off the grid" in next(line for line in lines if line.startswith("left out"))
    lines = ok("train", "played", *SIZE, *words, "--max-steps", 2, "--run", "a")
    assert lines[1] == moved
    assert kept(folder, "a")["grid"] == "16,24"
    meta = json.loads((folder / "runs/a/checkpoints/latest/meta.json").read_text())
    assert meta["tokenizer"]["grid"] == "16,24"
    for path in map(Path, ok("sample", "a", "--length", 60, "--num", 4, "--quiet")):
        assert lies_on(read_midi(path, ""), 40)
    ok("train", "--resume", "--run", "a", "--max-steps", 4, "--quiet")
    assert ok("evaluate", "a")


def test_a_grid_asks_for_events(ok, folder, played):
    lines = ok("train", "played", *SIZE, "--grid", 48, "--max-steps", 2, "--run", "a")
    assert lines[1].startswith("on the grid 48: 120 onsets moved by ")
    assert (kept(folder, "a")["representation"], kept(folder, "a")["grid"]) == ("event", 48)


@pytest.mark.parametrize("how", ["message", "event"])
def test_a_primer_is_put_on_the_same_grid(ok, command, folder, played, how):
    words = ("--representation", how, "--grid", 16)
    ok("train", "played", *SIZE, *words, "--max-steps", 2, "--run", "a", "--quiet")
    # All of what training saw is known: nothing stands in, and no one is told so.
    words = ("--primer", played[0], "--primer-start", "--length", 90, "--quiet")
    done = command("sample", "a", *words)
    (path,), said = done.out, done.err
    assert not any("new to the model" in line for line in said)
    placed = on_grid(read_midi(played[0], ""), 16)
    begin = merge_tracks(placed)[:20]
    assert np.array_equal(merge_tracks(read_midi(Path(path), ""))[:20], begin)


def test_what_a_grid_does_is_counted(played, folder):
    plain = load_corpus("played", reading=Reading("event"))
    placed = load_corpus("played", reading=Reading("event", grid=16))
    assert plain.key != placed.key
    assert plain.notes == placed.notes  # as read, so that nats a note compare
    pieces = [read_midi(path, path.name) for path in played]
    moves = Moved()
    on = [on_grid(piece, 16, moves) for piece in pieces]
    left = sum(len(merge_tracks(piece)) // 2 for piece in on)
    assert placed.moved == replace(moves, joined=sum(placed.notes) - left)
    assert placed.moved.joined > 0
    assert plain.moved == Moved()
    assert [placed.decoded(n).notes["start"].tolist() for n in range(4)] == [
        [tick for tick, kind, _ in merge_tracks(piece).tolist() if kind] for piece in on
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--grid", "7"], "the grid must divide 1920, not be 7"),
        (["--grid", "16,7"], "the grid must divide 1920, not be 7"),
        (["--grid", "16,x"], "'x' is not a whole number from 1 to 1920"),
        (["--grid", ""], "'' is not a whole number"),
        (["--grid", "16,24", "--representation", "chord"], "give one number for frames"),
    ],
)
def test_a_grid_that_is_none_is_one_line(fails, words, says):
    assert says in fails("train", "music", *words)
    assert says in fails("corpus", "music", *words)
