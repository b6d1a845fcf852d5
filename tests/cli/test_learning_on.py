"""bin/train --from: runs that begin with a trained model."""

import json
import re
import shutil

import numpy as np
import pytest
from small import SMALL, metrics, target, track_of, write_music

from lstm_music.midi.files import write_midi
from lstm_music.midi.piece import Part, Piece
from lstm_music.report.told import RunReport, settings_of
from lstm_music.runs.checkpoint import read_checkpoint


@pytest.fixture
def grown(folder):
    """The corpus with two more pieces, whose pitches are new, so that it has new words."""
    write_music(folder / "grown")
    for n in range(2):
        notes = [(240 * k, 240 * k + 90, 50 + (k + n) % 3) for k in range(12)]
        write_midi(Piece(f"new {n}", [track_of(notes)]), folder / "grown" / f"new-{n}.mid")
    return folder / "grown"


def read(run, link="latest"):
    return read_checkpoint((run / "checkpoints" / link).resolve())


def contents(run):
    """The arrays of a run's last checkpoint, and its losses."""
    folder = run / "checkpoints" / "latest"
    files = [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "train")]
    return files, metrics(run)


@pytest.mark.parametrize(
    "kind", ["message", "event", "factored", "chord", "nade", "sigmoid", "biaxial"]
)
def test_a_corpus_that_grew_is_gone_on_with(train_small, ok, folder, grown, kind):
    """What both have words for is as it was, the model is judged before the first step."""
    options = {
        "message": (), "event": ("--representation", "event"), "factored": ("--head", "factored"),
        "chord": ("--representation", "chord"), "nade": ("--head", "nade", "--nade", 5),
        "sigmoid": ("--representation", "note"), "biaxial": ("--head", "biaxial", "--nade", 5),
    }[kind]  # fmt: skip
    train_small("--max-steps", 20, "--run", "a", "--quiet", *options)
    lines = ok("train", "grown", "--from", "a", "--max-steps", 1, "--run", "b", "--lr", 1e-30)
    before, after = read(folder / "runs" / "a", "best"), read(folder / "runs" / "b")
    step = before.meta["step"]
    assert any(line.startswith(f"new run runs/b from a, step {step}") for line in lines)
    assert after.meta["origin"] == {"name": "a", "step": step}
    assert after.config.hidden == 8 and after.config.head == before.config.head
    assert after.meta["tokenizer"] == before.meta["tokenizer"]
    for name, p in before.parameters.items():
        if name.startswith("lstm") or kind in ("nade", "sigmoid", "biaxial"):
            np.testing.assert_array_equal(after.parameters[name], p)
    if kind in ("message", "event", "chord"):
        assert len(after.vocabulary) > len(before.vocabulary)
        for word in before.vocabulary.words:
            there, here = after.vocabulary.get(word), before.vocabulary.id(word)
            if there is not None:
                rows = (
                    after.parameters["embedding.W"][there],
                    before.parameters["embedding.W"][here],
                )
                np.testing.assert_array_equal(*rows)
    rows = metrics(folder / "runs" / "b")
    assert [(row["step"], row["split"]) for row in rows] == [("0", "valid"), ("1", "valid")]


def test_it_begins_where_the_model_was_on_its_own_corpus(train_small, ok, folder):
    train_small("--max-steps", 36, "--run", "a", "--quiet")
    ok("train", "music", "--from", "a", "--max-steps", 1, "--run", "b", "--quiet")
    best = [row for row in metrics(folder / "runs" / "a") if row["split"] == "valid"]
    (first, _) = metrics(folder / "runs" / "b")
    assert first["loss"] == min(row["loss"] for row in best)


def test_what_is_not_given_is_as_the_model_was_trained(train_small, ok, folder):
    train_small("--max-steps", 2, "--run", "a", "--average", 0.9, "--quiet", "--no-copy")
    more = ("--dropout", 0.1, "--lr", 0.5, "--optimizer", "sgd", "--copy", "--hidden", 8)
    ok("train", "music", "--from", "a", "--max-steps", 2, "--run", "b", "--quiet")
    ok("train", "music", "--from", "runs/a", "--max-steps", 2, "--run", "c", "--quiet", *more)
    ok("train", "music", "--from", "b", "--max-steps", 2, "--run", "d", "--quiet",
       "--optimizer", "rmsprop")  # fmt: skip
    config = {n: json.loads((folder / "runs" / n / "config.json").read_text()) for n in "abcd"}
    of = {n: (c["training"], c["model"]) for n, c in config.items()}
    assert of["b"] == of["a"]
    assert config["b"]["reading"]["tracks"] == "flatten"
    assert config["c"]["source"]["origin"] == {"name": "runs/a", "step": 2}
    assert of["c"][0] == of["a"][0] | {"lr": 0.5, "optimizer": "sgd"}
    assert of["c"][1]["copy"] > 0 == of["a"][1]["copy"] and of["c"][1]["dropout"] == 0.1
    assert of["d"][0]["lr"] == 0.002  # that of another optimiser is no good


def test_what_a_biaxial_run_has_learnt_goes_on_with_a_memory(train_small, ok, folder):
    """What candidates tell it begins as in a new network, all else as it was."""
    how = ("--head", "biaxial", "--nade", 5, "--no-copy")
    train_small(*how, "--max-steps", 3, "--run", "a", "--quiet")
    more = ("--copy", "--lr", 1e-30, "--max-steps", 1, "--run", "b", "--quiet")
    ok("train", "music", "--from", "a", *more)
    before, after = read(folder / "runs" / "a", "best"), read(folder / "runs" / "b")
    assert after.config.copy > 0 == before.config.copy
    for name, p in before.parameters.items():
        np.testing.assert_array_equal(after.parameters[name][: len(p)], p)
    assert len(after.parameters["embedding.W"]) > len(before.parameters["embedding.W"])
    ok("sample", "b", "--length", 9, "--out", "b.mid", "--quiet")


@pytest.mark.parametrize(
    ("other", "words", "says"),
    [
        ("muse", ("--head", "biaxial"), "'muse' was trained with --head nade: leave --head out"),
        ("a", ("--head", "nade"), "'a' was trained with --head biaxial: leave --head out"),
        ("a", ("--hidden", 9), "'a' was trained with --hidden 8: leave --hidden out"),
        ("a", ("--nade", 9), "'a' was trained with --nade 5: leave --nade out"),
        ("a", ("--embedding", 9), "'a' was trained with --embedding 8: leave --embedding out"),
        ("a", ("--representation", "event"), "with --representation note: leave --rep"),
    ],
)
def test_a_biaxial_network_and_another_dont_begin_with_each_other(
    train_small, fails, folder, other, words, says
):
    if other == "a":
        train_small("--head", "biaxial", "--nade", 5, "--max-steps", 1, "--run", "a", "--quiet")
    assert says in fails("train", "music", "--from", other, *words, "--run", "b")
    assert not (folder / "runs" / "b").exists()


def test_a_bundled_model_learns_on(ok, folder):
    words = ("--from", "bach", "--max-steps", 1, "--run", "a", "--threads", 1)
    lines = ok("train", "music", *words)
    (line,) = (line for line in lines if line.startswith("new run runs/a from bach, step "))
    assert " with " in line
    after = read(folder / "runs" / "a")
    assert after.config.hidden == 192 and after.meta["tokenizer"]["name"] == "event"
    ok("sample", "a", "--length", 20, "--out", "a.mid")


def test_a_corpus_with_no_word_in_common_is_begun_with_all_the_same(train_small, ok, folder):
    """But for the piece's end: chords of other octaves."""
    train_small("--max-steps", 2, "--run", "a", "--quiet", "--representation", "chord")
    (folder / "other").mkdir()
    for n in range(6):
        notes = [(480 * k, 480 * k + 400, 80 + (k + n) % 5) for k in range(20)]
        notes += [(480 * k, 480 * k + 400, 90 + k % 3) for k in range(20)]
        write_midi(Piece(f"{n}", [track_of(notes)]), folder / "other" / f"{n}.mid")
    lines = ok("train", "other", "--from", "a", "--max-steps", 2, "--run", "b")
    assert " with 1 of " in lines[0] or " with 2 of " in lines[0]  # and rests


def test_a_run_that_began_with_a_model_goes_on_exactly(train_small, ok, folder, grown):
    train_small("--max-steps", 20, "--run", "a", "--quiet")
    begin = ("train", "grown", "--from", "a", "--quiet")
    ok(*begin, "--max-steps", 30, "--run", "whole")
    ok(*begin, "--max-steps", 7, "--run", "cut")
    shutil.rmtree(folder / "runs" / "a")  # it needs it no more
    ok("train", "--resume", "--run", "cut", "--max-steps", 30, "--quiet")
    whole, cut = (contents(folder / "runs" / name) for name in ("whole", "cut"))
    # The one that stopped inside an epoch judged where it stopped.
    assert whole[0] == cut[0]
    assert [row for row in cut[1] if row["step"] != "7"] == whole[1]
    after = read(folder / "runs" / "cut")
    assert after.meta["origin"] == {"name": "a", "step": 20}
    assert settings_of(RunReport("cut", after, [], 0.9, []))["began with"] == "a, step 20"


def test_a_run_killed_before_its_first_step_goes_on_from_the_model(train_small, ok, fails, folder):
    train_small("--max-steps", 20, "--run", "a", "--quiet")
    ok("train", "music", "--from", "a", "--max-steps", 9, "--run", "b", "--quiet")
    runs = folder / "runs"
    shutil.copytree(runs / "b", runs / "c", symlinks=True)
    for path in (runs / "c" / "checkpoints").iterdir():
        if path.name != "step-00000000":
            shutil.rmtree(path) if not path.is_symlink() else path.unlink()
    ok("train", "--resume", "--run", "c", "--max-steps", 9, "--quiet")
    assert contents(runs / "c")[0] == contents(runs / "b")[0]
    shutil.rmtree(runs / "c" / "checkpoints" / "step-00000000")
    for path in list((runs / "c" / "checkpoints").iterdir()):
        shutil.rmtree(path) if not path.is_symlink() else path.unlink()
    line = fails("train", "--resume", "--run", "c", "--max-steps", 9)
    assert line == "the run 'runs/c' never began: train a new one with --from a"


def test_what_the_model_cant_be_is_one_line(train_small, fails, folder):
    train_small("--max-steps", 2, "--run", "a", "--quiet")
    for words, has in (
        (("--hidden", 9), "--hidden 8: leave --hidden out, or --from"),
        (("--layers", 1), "--layers 2"), (("--embedding", 9), "--embedding 8"),
        (("--head", "factored"), "--head softmax"), (("--tracks", "merge"), "--tracks flatten"),
        (("--representation", "event"), "--representation message"),
    ):  # fmt: skip
        line = fails("train", "music", "--from", "a", "--run", "b", *words)
        assert f"'a' was trained with {has}" in line
    assert "no run or checkpoint 'z'" in fails("train", "music", "--from", "z")
    assert "leave one out" in fails("train", "--resume", "--from", "a")
    assert not (folder / "runs" / "b").exists()


def test_resuming_on_a_changed_corpus_names_the_way_on(train_small, fails, ok, folder):
    train_small("--max-steps", 2, "--run", "a", "--quiet")
    write_music(folder / "music", pieces=9)
    line = fails("train", "--resume", "--run", "a", "--max-steps", 3)
    assert "this is not the corpus that 'runs/a' was begun with, or it has changed" in line
    assert line.endswith("--from runs/a begins with what this one has learnt")
    ok("train", "music", "--from", "runs/a", "--max-steps", 3, "--run", "b", "--quiet")
    assert target(folder / "runs" / "b", "latest") == "step-00000003"


def test_a_resumed_run_takes_options_as_any(train_small, ok, fails, folder):
    train_small("--max-steps", 2, "--run", "a", "--quiet")
    ok("train", "music", "--from", "a", "--max-steps", 2, "--run", "b", "--quiet")
    ok("train", "music", *SMALL, "--resume", "--run", "b", "--max-steps", 3)
    assert "was begun with --hidden 8" in fails("train", "--resume", "--run", "b", "--hidden", 9)


def test_parts_take_over_from_the_likest(ok, fails, folder):
    """A corpus whose scores name the same parts in another order: each goes on as it was."""
    names = ("Flute", "Bassoon")
    for place, order in (("a", (0, 1)), ("b", (1, 0))):
        (folder / place).mkdir()
        for n in range(8):
            high = track_of([(480 * k, 480 * k + 480, 72 + (k + n) % 5) for k in range(12)])
            low = track_of([(480 * k, 480 * k + 480, 48 + (k + n) % 5) for k in range(12)])
            tracks, parts = (high, low), tuple(Part(name, 70) for name in names)
            piece = Piece("", [tracks[k] for k in order], parts=tuple(parts[k] for k in order))
            write_midi(piece, folder / place / f"{n}.mid")
    how = ("--representation", "event", *SMALL, "--max-steps", 2)
    ok("train", folder / "a", *how, "--run", "a")
    line = fails("train", folder / "b", "--from", "a", "--no-parts")
    assert "'a' was trained with --parts: leave --no-parts out, or --from" in line
    line = fails("train", "--resume", "--run", "a", "--no-parts")
    assert "the run 'runs/a' was begun with --parts: leave the option out" in line
    lines = ok("train", folder / "b", "--from", "a", "--max-steps", 1, "--run", "b", "--lr", 1e-30)
    found = [re.search(r"with (\d+) of (\d+) words", line) for line in lines]
    assert any(one and one[1] == one[2] for one in found)
    before, after = read(folder / "runs" / "a", "best"), read(folder / "runs" / "b")
    assert [player[0] for player in after.meta["tokenizer"]["parts"]] == [*names[::-1]]
    for word, other in (("to-72/1", "to-72/2"), ("to-48/2", "to-48/1")):
        there, here = before.vocabulary.id(word), after.vocabulary.id(other)
        rows = before.parameters["embedding.W"][there], after.parameters["embedding.W"][here]
        np.testing.assert_array_equal(*rows)
