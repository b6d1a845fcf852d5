import json
import shutil

import pytest

from lstm_music.evaluate import mean_nats, unigram_nats
from small import SMALL, flip, metrics, small_corpus, small_model, write_music

KEYS = ["name", "nats_per_token", "nats_per_frame", "frame_accuracy", "frames", "tokens"]


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
        assert list(row) == KEYS
        assert [row[key] for key in KEYS[2:]] == [None, None, None, tokens]
    trained, unigram, untrained = (row["nats_per_token"] for row in rows)
    assert unigram == unigram_nats(corpus, "test")
    fresh = small_model(corpus, seed=0)
    assert untrained == pytest.approx(mean_nats(fresh, corpus, "test", 3, 5))
    assert trained < untrained


def test_the_validation_loss_is_that_of_training(run, results):
    valid = [float(row["loss"]) for row in metrics(run) if row["split"] == "valid"]
    (row, *_) = results("a", "--split", "valid")
    assert row["nats_per_token"] == pytest.approx(min(valid), abs=1e-6)


def test_the_table_shows_what_the_json_holds(run, ok):
    lines = ok("evaluate", "a", "--split", "train", "--json", "x.json")
    assert lines[0].split() == ["train", "nats", "per", "token", "tokens"]
    with open("x.json", encoding="utf-8") as file:
        rows = json.load(file)
    for line, row in zip(lines[1:], rows, strict=True):
        assert line.split() == [row["name"], f"{row['nats_per_token']:.4f}", str(row["tokens"])]


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
        ([], "arguments are required: RUN"),
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
    done = command("evaluate", "a", "--json", "no/such/folder.json")
    assert done.status == 2
    assert len(done.out) == 4
    (line,) = done.err
    assert line == (
        "error: No such file or directory 'no/such/folder.json': check the path and the free space"
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
