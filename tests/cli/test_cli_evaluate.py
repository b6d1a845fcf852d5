import json
import math
import os
import shutil
from pathlib import Path

import pytest
from small import (
    SMALL,
    flip,
    metrics,
    small_corpus,
    small_model,
    small_rolls,
    track_of,
    write_music,
)

from lstm_music.evaluation.frames import PUBLISHED, score_baseline, score_chords, score_notes
from lstm_music.evaluation.likelihood import token_count, unigram_nats
from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Piece
from lstm_music.network.baselines import fit_baseline
from lstm_music.network.model import Model
from lstm_music.ops import get_ops
from lstm_music.runs.opened import open_run
from lstm_music.training.validation import mean_nats

KEYS = ["name", "nats_per_token", "nats_per_frame", "frame_accuracy", "frames", "tokens"]
REPO = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LSTM_MUSIC_DATA", REPO.parent / "shared" / "data"))
needs_jsb = pytest.mark.skipif(
    not (DATA / "piano-roll" / "JSB_Chorales.mat").exists(),
    reason="no JSB_Chorales.mat in LSTM_MUSIC_DATA",
)


@pytest.fixture
def run(train_small, folder):
    train_small("--max-steps", 50, "--run", "a", "--quiet", "--lr", 0.02)
    return folder / "runs" / "a"


@pytest.fixture
def results(ok):
    """Evaluate, and return what --json wrote."""

    def call(*words):
        ok("evaluate", *words, "--json", "results.json")
        with open("results.json", encoding="utf-8") as file:
            return json.load(file)

    return call


def test_a_run_and_its_baselines(run, results, folder):
    rows = results("a")
    corpus = small_corpus(folder)
    tokens = sum(corpus.lengths[p] for p in corpus.splits["test"])
    assert [row["name"] for row in rows] == ["a", "unigram", "untrained"]
    for row in rows:
        assert list(row) == [*KEYS, "perplexity", "nats_per_note", "notes"]
        assert [row[key] for key in KEYS[2:]] == [None, None, None, tokens]
        assert row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))
    trained, unigram, untrained = (row["nats_per_token"] for row in rows)
    assert unigram == unigram_nats(corpus, "test")
    fresh = small_model(corpus, seed=0, copy=True)
    assert untrained == pytest.approx(mean_nats(fresh, corpus, "test", 3, 5))
    assert trained < untrained


def test_the_validation_loss_is_that_of_training(run, results):
    valid = [float(row["loss"]) for row in metrics(run) if row["split"] == "valid"]
    (row, *_) = results("a", "--split", "valid")
    assert row["nats_per_token"] == pytest.approx(min(valid), abs=1e-6)


def test_the_table_shows_what_the_json_holds(run, ok):
    lines = ok("evaluate", "a", "--split", "train", "--json", "x.json")
    heads = [*("train", "nats", "per", "token"), *("nats", "per", "note", "tokens")]
    assert lines[0].split() == heads
    with open("x.json", encoding="utf-8") as file:
        rows = json.load(file)
    for line, row in zip(lines[1:], rows, strict=True):
        nats = [f"{row[key]:.4f}" for key in ("nats_per_token", "nats_per_note")]
        assert line.split() == [row["name"], *nats, str(row["tokens"])]


def test_several_runs_and_checkpoints(run, results, train_small):
    train_small("--max-steps", 1, "--run", "b", "--quiet", "--tracks", "merge", "--layers", 1)
    step = "runs/a/checkpoints/step-00000050"
    rows = results("a", "b", step)
    names = [row["name"] for row in rows]
    assert names == ["a", "unigram", "untrained", "b", "unigram", "untrained", step, *names[1:3]]
    assert rows[1] == rows[7]
    assert rows[2] == rows[8]
    assert rows[4]["tokens"] != rows[1]["tokens"]
    assert rows[0]["nats_per_token"] != rows[6]["nats_per_token"]  # the best is an earlier one


def test_the_corpus_may_be_named(run, results, folder):
    own = results("a")
    shutil.copytree(folder / "music", folder / "copy")
    assert results("a", "--corpus", "copy") == own
    assert results("a", "--corpus", "bach", "--data", "copy") == own
    assert results("a", "--data", "copy") == own
    shutil.copytree(run / "checkpoints" / "best", folder / "alone")
    alone = results("alone", "--corpus", "music")
    assert [row["nats_per_token"] for row in alone] == [row["nats_per_token"] for row in own]


def test_the_source_of_a_run_is_found_from_anywhere(run, results, folder, monkeypatch):
    own = results("a")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert results("../runs/a")[1:] == own[1:]


def test_other_tokens_are_refused(run, fails, folder):
    write_music(folder / "other", pieces=3, notes=7)
    line = fails("evaluate", "a", "--corpus", "other")
    assert "the tokens of 'other' are not those that 'a' was trained on" in line
    assert line.endswith("use the run's own corpus")
    (folder / "music" / "0.mid").unlink()
    assert "the corpus has changed, train a new run" in fails("evaluate", "a")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say what to evaluate: a run, or --baseline with --corpus"),
        (["--corpus", "music"], "say what to evaluate: a run, or --baseline with --corpus"),
        (["--baseline", "random"], "say what to evaluate --baseline random on, with --corpus"),
        (["a", "--baseline", "random"], "on, with --corpus"),
        (["--baseline", "guess", "--corpus", "music"], "invalid choice: 'guess'"),
        (["--baseline", "random", "--corpus", "jsb"], "with --data JSB_Chorales.mat"),
        (["--baseline", "random", "--corpus", "music", "--grid", "7"], "the grid must divide 1920"),
        (["b"], "no run or checkpoint 'b'"),
        (["a", "b"], "no run or checkpoint 'b'"),
        (["a", "--split", "all"], "invalid choice: 'all'"),
        (["a", "--corpus", "bahc"], "unknown corpus 'bahc'"),
        (["a", "--data", "none"], "no file or folder 'none'"),
        (["alone"], "'alone' is not in a run's folder: say what to evaluate on with --corpus"),
    ],
)
def test_bad_input_is_one_line(run, fails, folder, words, says):
    shutil.copytree(run / "checkpoints" / "best", folder / "alone")
    assert says in fails("evaluate", *words)


def test_results_that_cant_be_written_are_printed_all_the_same(run, command):
    done = command("evaluate", "a", "--json", "music/0.mid/a.json")
    assert done.status == 2
    assert len(done.out) == 4
    (line,) = done.err
    assert line == (
        "error: can't write 'music/0.mid/a.json' (Not a directory): choose another place, "
        "or free some space"
    )


def test_a_run_that_lost_its_description(run, fails, results):
    (run / "config.json").write_text("{}")
    assert "say what to evaluate on with --corpus" in fails("evaluate", "a")
    assert results("a", "--corpus", "music")


def test_a_damaged_checkpoint(run, command, fails):
    flip(run / "checkpoints" / "best" / "model.safetensors", 0.5)
    done = command("evaluate", "a")
    assert done.status == 0
    assert "is damaged" in done.err[0]
    assert "is damaged" in fails("evaluate", "runs/a/checkpoints/best")


def test_training_options_are_no_options_here(fails):
    assert "unrecognized arguments" in fails("evaluate", "a", *SMALL)


# Frames -----------------------------------------------------------------------------------------


@pytest.fixture(params=["chord", "sigmoid", "nade", "biaxial"])
def roll_run(request, train_rolls, folder):
    """The kind of a run on frames; the run is `r`."""
    train_rolls(request.param, "--max-steps", 40, "--run", "r", "--quiet", "--lr", 0.02)
    return request.param


def test_a_run_on_frames_and_its_baselines(roll_run, results, folder):
    rows = results("r")
    corpus = small_rolls(folder, "chord" if roll_run == "chord" else "note")
    frames = sum(map(len, corpus.split_frames("test")))
    assert [row["name"] for row in rows] == ["r", "note-unigram", "chord-frequency", "untrained"]
    for row in rows:
        assert list(row)[: len(KEYS)] == KEYS
        assert row["frames"] == frames
        assert 0 <= row["frame_accuracy"] <= 1
        assert row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))
    checkpoint, _ = open_run("r", print)
    trained = Model(checkpoint.config, get_ops("numpy"), parameters=checkpoint.parameters)
    fresh = Model(checkpoint.config, get_ops("numpy"), seed=0)
    for row, model in ((rows[0], trained), (rows[3], fresh)):
        if roll_run == "chord":
            score, share = score_chords(model, corpus, "test", 3, 5)
            assert row["back_off"] == pytest.approx(share, abs=1e-6)
            assert row["tokens"] == token_count(corpus, "test")
            assert row["nats_per_token"] == pytest.approx(mean_nats(model, corpus, "test", 3, 5))
        else:
            score = score_notes(model, corpus, "test", 3, 5)
            assert row["tokens"] == frames
            assert row["nats_per_token"] == row["nats_per_frame"]
        assert row["nats_per_frame"] == pytest.approx(score.nats_per_frame, rel=1e-5)
        by_piece = score.nats_per_frame_by_piece
        assert row["nats_per_frame_by_piece"] == pytest.approx(by_piece, rel=1e-5)
        assert row["frame_accuracy"] == score.accuracy
    for row in rows[1:3]:
        train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
        score = score_baseline(fit_baseline(row["name"], train, valid), corpus.split_frames("test"))
        assert row["nats_per_frame"] == row["nats_per_token"] == score.nats_per_frame
        assert row["frame_accuracy"] == score.accuracy
    assert rows[0]["nats_per_token"] < rows[3]["nats_per_token"]


def test_notes_are_the_same_in_all_layouts(train_small, results, folder):
    """The notes of merged tracks, whatever the layout writes; of frames, held ones are joined."""
    both = [[(0, 480, 60), (480, 960, 62)], [(0, 480, 60), (480, 600, 50)]]  # 3 notes, not 4
    for path in (folder / "music").iterdir():
        write_midi(Piece("", [track_of(notes) for notes in both]), path)  # one piece is the test
    how = {
        "flatten": ("--tracks", "flatten"), "merge": ("--tracks", "merge"),
        "event": ("--representation", "event"), "chord": ("--representation", "chord"),
        "note": ("--representation", "note"),
    }  # fmt: skip
    for name, words in how.items():
        train_small("--max-steps", 1, "--run", name, "--quiet", *words)
        for row in results(name):
            per, unit = ("frame", "frames") if row["frames"] else ("token", "tokens")
            assert row["notes"] == 3
            total = row[f"nats_per_{per}"] * row[unit]
            assert row["nats_per_note"] == pytest.approx(total / row["notes"])
    (row,) = results("--baseline", "random", "--corpus", "music")
    assert row["nats_per_note"] == pytest.approx(4 * 88 * math.log(2) / 3)


def test_the_validation_loss_of_frames_is_that_of_training(roll_run, results, folder):
    found = metrics(folder / "runs" / "r")
    valid = [float(row["loss"]) for row in found if row["split"] == "valid"]
    (row, *_) = results("r", "--split", "valid")
    assert row["nats_per_token"] == pytest.approx(min(valid), abs=2e-6)


def test_the_table_of_frames_shows_what_the_json_holds(roll_run, ok):
    lines = ok("evaluate", "r", "--json", "x.json")
    assert lines[0].split() == [
        "test", "nats", "per", "frame", "accuracy", "by", "piece", "nats", "per", "token",
        "nats", "per", "note", "perplexity", "frames",
    ]  # fmt: skip
    with open("x.json", encoding="utf-8") as file:
        rows = json.load(file)
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.split() == [
            row["name"],
            f"{row['nats_per_frame']:.4f}",
            f"{row['frame_accuracy']:.1%}",
            f"{row['nats_per_frame_by_piece']:.4f}",
            f"{row['nats_per_token']:.4f}",
            f"{row['nats_per_note']:.4f}",
            f"{row['perplexity']:.4g}",
            str(row["frames"]),
        ]


def test_messages_beside_frames_have_no_frames(run, train_rolls, ok):
    train_rolls("sigmoid", "--max-steps", 1, "--run", "r", "--quiet")
    lines = ok("evaluate", "a", "r")
    nats, accuracy, by_piece = lines[1].split()[1:4]
    assert (nats, accuracy, by_piece) == ("-", "-", "-")


def test_a_runs_reading_is_that_of_its_evaluation(train_rolls, results, folder):
    how = {"grid": 16, "max_polyphony": 1, "common_key": "A", "transpose_augment": 2, "seed": 3}
    words = [w for name, v in how.items() for w in (f"--{name.replace('_', '-')}", v)]
    train_rolls("chord", *words, "--max-steps", 9, "--run", "r", "--quiet")
    corpus = small_rolls(folder, "chord", **how)
    (row, unigram, *_) = results("r")
    assert row["frames"] == sum(map(len, corpus.split_frames("test")))
    train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
    score = score_baseline(fit_baseline("note-unigram", train, valid), corpus.split_frames("test"))
    assert unigram["nats_per_frame"] == score.nats_per_frame
    checkpoint, _ = open_run("r", print)
    model = Model(checkpoint.config, get_ops("numpy"), parameters=checkpoint.parameters)
    expected = score_chords(model, corpus, "test", 3, 5)[0].nats_per_frame
    assert row["nats_per_frame"] == pytest.approx(expected, rel=1e-5)


def test_other_chords_are_refused_and_other_notes_are_not(train_rolls, fails, results, folder):
    for kind in ("chord", "nade"):
        train_rolls(kind, "--max-steps", 1, "--run", kind, "--quiet")
    write_music(folder / "other", pieces=3, notes=7)
    assert "the tokens of 'other' are not those" in fails("evaluate", "chord", "--corpus", "other")
    assert results("nade", "--corpus", "other")[0]["frames"] < 20


@pytest.mark.parametrize("kind", ["random", "note-unigram", "chord-frequency"])
def test_a_baseline_alone(results, folder, kind):
    (row,) = results("--baseline", kind, "--corpus", "music", "--split", "valid")
    assert list(row)[: len(KEYS)] == KEYS
    assert row["name"] == kind
    corpus = small_rolls(folder)
    train, valid = corpus.split_frames("train"), corpus.split_frames("valid")
    score = score_baseline(fit_baseline(kind, train, valid), valid)
    assert row["nats_per_frame"] == row["nats_per_token"] == score.nats_per_frame
    assert row["frames"] == row["tokens"] == score.frames
    if kind == "random":
        assert row["nats_per_frame"] == pytest.approx(88 * math.log(2))
    (finer,) = results("--baseline", kind, "--corpus", "music", "--split", "valid", "--grid", 16)
    assert finer["frames"] > 1.9 * row["frames"]


def test_a_baseline_stands_above_runs(roll_run, results, ok):
    rows = results("r", "--baseline", "random", "--corpus", "music")
    names = ["random", "r", "note-unigram", "chord-frequency", "untrained"]
    assert [row["name"] for row in rows] == names
    assert not [line for line in ok("evaluate", "r") if "published" in line]


def published(lines):
    """What is printed below the table."""
    begins = [n for n, line in enumerate(lines) if line.startswith("published for ")]
    return lines[begins[0] :] if begins else []


@needs_jsb
def test_published_results_stand_below_the_very_same_frames(ok, train_small):
    jsb = ("--corpus", "jsb", "--data", DATA)
    first, *rows = published(ok("evaluate", "--baseline", "random", *jsb))
    assert first == "published for jsb, test:"
    assert [line.split()[-7:] for line in rows] == [
        [f"{nats:.4f}", f"{percent}%" if percent else "-", *"-----"]
        for _, nats, percent in PUBLISHED["jsb"]
    ]
    assert [line[: line.index("  ")] for line in rows] == [name for name, *_ in PUBLISHED["jsb"]]
    assert not published(ok("evaluate", "--baseline", "random", *jsb, "--split", "valid"))
    how = ("--representation", "note", "--batch", 50, "--seq", 100, "--max-steps", 1, "--quiet")
    for run, more in (
        ("plain", ()),
        ("thinned", ("--max-polyphony", 3)),
        ("c", ("--common-key", "C")),
    ):
        ok("train", "jsb", "--data", DATA, *SMALL, *how, *more, "--run", run)
        assert bool(published(ok("evaluate", run))) == (run == "plain")
