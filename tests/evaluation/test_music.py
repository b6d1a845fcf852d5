"""bin/evaluate --music, on small runs."""

import json
import shutil

import pytest
from small import (
    COMPUTE,
    small_corpus,
    small_performances,
    small_rolls,
    small_trainer,
    write_music,
)

from lstm_music.cli import evaluate, music
from lstm_music.cli.common import run
from lstm_music.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of messages and one of note vectors, of the same music."""
    folder = tmp_path_factory.mktemp("runs")
    music = {"pieces": 20, "notes": 40}
    messages = small_trainer(small_corpus(folder, "merge", **music), folder / "m", max_steps=60)
    messages.train()
    rolls = small_rolls(folder, grid=16)
    small_trainer(rolls, folder / "n", head="nade", max_steps=40).train()
    return str(folder / "m"), str(folder / "n")


def test_the_tables_and_what_they_say(runs, tmp_path, capsys):
    asked = ["--num", "6", "--bars", "4", "--json", str(tmp_path / "a.json"), *COMPUTE]
    figure = ["--figure", str(tmp_path / "new" / "bars.png")]
    assert run(evaluate.main, ["--music", *runs, *asked, *figure]) == 0
    shown = capsys.readouterr().out
    for words in (
        "overlap with held-out", "copied from training", "bars that repeat", "polyphony",
        "whole pieces", "equal to 16 bars before", "end on the tonic", "Whole pieces of m return",
    ):  # fmt: skip
        assert words in shown
    made = json.loads((tmp_path / "a.json").read_text())
    names = [one["name"] for one in made["sets"]]
    assert names == [
        "held-out", "validation", "training", "m", "n",
        "untrained", "chord-frequency", "note-unigram", "random",
    ]  # fmt: skip
    sets = {one["name"]: one for one in made["sets"]}
    assert sets["training"]["memorisation"] is None
    assert sets["random"]["numbers"]["polyphony"]["mean"] > 30
    assert 0 <= sets["m"]["overlap"]["value"] <= 1
    assert sets["m"]["memorisation"]["recites"] in (True, False)
    samples = sets["m"]["memorisation"]["samples"]
    assert len(samples) == 6 and max(one["exact"]["here"][1] for one in samples) <= 4
    assert (tmp_path / "new" / "bars.png").is_file()
    assert [name for name in sets if sets[name]["whole"]] == names[:5]
    assert sets["n"]["whole"]["bars"] == {"median": 16, "longest": 16}  # it knows no end
    assert sets["m"]["whole"]["pieces"] == 6 == sets["training"]["whole"]["pieces"]
    assert sets["held-out"]["whole"]["pieces"] == 2
    assert "Nearest to held-out first" in shown and "recite" in shown.lower()


def test_of_performances_nothing_is_counted_in_bars(tmp_path, capsys, monkeypatch):
    """A bar of 1.92 s is none: only how long an excerpt is and where a copy lies is told, in s."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    corpus = small_performances(tmp_path, pieces=20, notes=40)
    small_trainer(corpus, tmp_path / "p", max_steps=60).train()
    asked = [str(tmp_path / "p"), "--num", "4", "--bars", "4", *COMPUTE]
    assert music.main([*asked, "--json", str(tmp_path / "a.json")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("Excerpts and pieces of 7.7 s") and "performances have no bars" in first
    assert not [line for line in lines if "bar" in line or "groove" in line or "phrase" in line]
    sets = json.loads((tmp_path / "a.json").read_text())["sets"]
    for one in sets:
        assert one["whole"] is None and one["repetition"] == {}
        assert "groove_consistency" not in one["numbers"] and "polyphony" in one["numbers"]
        assert "empty_bar_rate" not in one["features"]
    with pytest.raises(UserError, match="--figure draws bars, and a performance has none"):
        music.main([*asked, "--figure", str(tmp_path / "x.png")])


def test_another_corpus_as_the_reference(runs, tmp_path, capsys):
    other = write_music(tmp_path / "other", pieces=20, notes=25)
    words = [runs[0], "--reference", str(other), "--num", "4", "--bars", "3", "--quiet", *COMPUTE]
    assert music.main([*words, "--json", str(tmp_path / "a.json")]) == 0
    sets = {one["name"]: one for one in json.loads((tmp_path / "a.json").read_text())["sets"]}
    found = sets["validation"]["memorisation"]["samples"][0]["transposed"]
    assert found["piece"].endswith(".mid")  # searched in its own training split
    assert capsys.readouterr().out.count("overlap with") == 0


def test_a_checkpoint_whose_corpus_is_gone(runs, tmp_path, capsys):
    other = write_music(tmp_path / "other", pieces=20, notes=25)
    alone = tmp_path / "alone"
    shutil.copytree(f"{runs[0]}/checkpoints/latest", alone)
    words = [str(alone), "--num", "3", "--bars", "3", "--quiet", *COMPUTE]
    with pytest.raises(UserError, match="--corpus"):
        music.main(words)
    assert music.main([*words, "--corpus", str(other)]) == 0
    assert "stands in" in capsys.readouterr().err


def test_bad_requests_are_told_in_a_line(runs, capsys):
    with pytest.raises(UserError, match="lower --bars"):
        music.main([runs[0], "--bars", "900", *COMPUTE])
    assert run(evaluate.main, ["--music", "no-such-run"]) == 2
    assert run(evaluate.main, ["--music", runs[0], "--num", "1"]) == 2
    assert run(evaluate.main, ["--music", runs[0], "--reference", "no-such-corpus"]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
