import json
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import COMPUTE, SMALL, flip, metrics, target, write_music

from lstm_music.cli import train, train_options
from lstm_music.midi.files import read_midi
from lstm_music.network import learning_rate
from lstm_music.runs.settings import Progress, Report
from lstm_music.training.trainer import Trainer

TRAIN = [sys.executable, "-m", "lstm_music.cli.train"]


def sample_bytes(run):
    """The content of a run's samples."""
    return [path.read_bytes() for path in sorted((run / "samples").glob("*.mid"))]


def start(*words, **options):
    """Begin training in a process of its own."""
    return subprocess.Popen(
        [*TRAIN, *map(str, words), *COMPUTE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# A run ------------------------------------------------------------------------------------------


def test_a_first_run(train_small, folder):
    lines = train_small("--max-steps", 20)
    (run,) = (folder / "runs").iterdir()
    assert re.fullmatch(r"music-\d{8}-\d{6}", run.name)
    assert lines[0].startswith(f"new run runs/{run.name}: 6 pieces, 258 tokens, ")
    assert lines[1].startswith("step 18, 0:00 left, epoch 1, loss ")
    assert lines[2].startswith("stopped by --max-steps 20: step 20, best validation loss ")
    assert lines[3].startswith(f"runs/{run.name}/samples/sample-0001.mid  (")
    assert lines[4:] == [
        f"more:  bin/sample runs/{run.name} --num 4 --temperature 0.9",
        f"go on: bin/train --resume --run runs/{run.name} --max-minutes 30",
    ]
    assert len(sample_bytes(run)) == 1


def test_quiet_prints_the_samples_path_alone(train_small):
    assert train_small("--max-steps", 20, "--run", "a", "--quiet") == [
        "runs/a/samples/sample-0001.mid"
    ]


def test_runs_that_begin_in_one_second_have_names_of_their_own(train_small, folder, monkeypatch):
    monkeypatch.setattr(train.time, "strftime", lambda _: "now")
    for _ in range(3):
        train_small("--max-steps", 1)
    assert sorted(os.listdir("runs")) == ["music-now", "music-now-2", "music-now-3"]


@pytest.mark.parametrize(
    ("name", "place"),
    [("a", "runs/a"), ("./a", "a"), ("x/y", "x/y"), ("{}/a", "a"), ("a b", "runs/a b")],
)
def test_where_a_run_is_kept(train_small, ok, folder, name, place):
    lines = train_small("--max-steps", 1, "--run", name.format(folder))
    assert (folder / place / "config.json").is_file()
    _, go_on = lines[-1].split("bin/train ")
    again = ok("train", *shlex.split(go_on), "--max-steps", 2)
    assert again[0].startswith("resumed at step 1 ")


def test_the_console_script_finds_every_command(folder):
    call = "import sys; from lstm_music.cli import main; sys.exit(main())"
    for words, status in ((["corpus", "music"], 0), (["--help"], 0), (["sing"], 2), ([], 2)):
        command = [sys.executable, "-c", call, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == status
        assert len(done.stderr.splitlines()) == (status == 2)


@pytest.mark.parametrize("kind", ["chord", "sigmoid", "nade", "biaxial"])
def test_a_run_on_frames(train_rolls, folder, kind):
    lines = train_rolls(kind, "--max-steps", 8, "--run", "a")
    described = json.loads((folder / "runs/a/config.json").read_text())
    notes = kind != "chord"
    counts = described["corpus"]["splits"]["train"]
    assert described["reading"]["representation"] == ("note" if notes else "chord")
    assert described["model"]["head"] == (kind if notes else "softmax")
    assert described["model"]["vocabulary"] == (88 if notes else counts["unique_tokens"] + 1)
    steps = counts["tokens"] + (0 if notes else counts["pieces"])
    lost, opening = lines[:2]
    assert lost.startswith("left out: 16 tracks (merged), ")
    assert f": 6 pieces, {steps} {'frames' if notes else 'tokens'}" in opening
    (stopped,) = (line for line in lines if line.startswith("stopped by --max-steps 8: step 8"))
    assert f" nats per {'frame' if notes else 'token'}" in stopped
    assert len(sample_bytes(folder / "runs/a")) == 1


@pytest.mark.parametrize(
    ("representation", "head"), [("message", "softmax"), ("chord", "softmax"), ("note", "sigmoid")]
)
def test_each_representation_has_a_head_of_its_own(train_small, folder, representation, head):
    train_small("--representation", representation, "--max-steps", 1, "--run", "a")
    assert json.loads((folder / "runs/a/config.json").read_text())["model"]["head"] == head


@pytest.mark.parametrize(
    ("given", "representation"),
    [
        ("bach", "event"), ("bach --head softmax", "event"), ("bach --tracks merge", "message"),
        ("bach --min-count 2", "message"), ("bach --head factored", "message"),
        ("bach --head nade", "note"), ("bach --representation chord --tracks merge", "chord"),
        ("music", "event"), ("music --head sigmoid", "note"),
        ("music --representation event", "event"),
    ],
)  # fmt: skip
def test_options_say_what_the_representation_is(given, representation):
    args = train_options.make_parser().parse_args(given.split())
    assert train_options.new_options(args)[1]["representation"] == representation


def test_the_bundled_corpus_has_defaults_of_its_own():
    def options(*words):
        return train_options.new_options(train_options.make_parser().parse_args(words))[1]

    own = train_options.BACHS
    assert own.items() <= options("bach").items()
    assert options("bach", "--hidden", "9", "--average", "0").items() >= {
        **own, "hidden": 9, "average": 0.0,
    }.items()  # fmt: skip
    usual = {name: train_options.DEFAULTS[name] for name in own}
    for other in (("music",), ("bach", "--tracks", "merge"), ("bach", "--optimizer", "sgd")):
        assert usual.items() <= options(*other).items()
    rows = train_options.ROWS
    assert rows.items() <= options("jsb", "--head", "biaxial").items()
    assert (
        options("bach", "--head", "biaxial", "--batch", "2").items() >= {**rows, "batch": 2}.items()
    )
    assert options("bach", "--drums")["common_key"] == "A"  # they are a part, which has no key
    assert options("bach", "--drums", "--no-parts")["common_key"] is None


def test_the_head_and_the_learning_rate_suit_the_vocabulary(ok, folder, monkeypatch):
    how = ("train", "music", "--max-steps", 1, "--hidden", 4, "--quiet", "--backend", "numpy")
    messages = (*how, "--representation", "message")
    ok(*messages, "--run", "few")
    for module in (learning_rate, train_options):
        monkeypatch.setattr(module, "MANY_WORDS", 5)
    ok(*messages, "--run", "many")
    ok(*messages, "--run", "told", "--lr", 0.7, "--head", "softmax")
    ok(*how, "--run", "events", "--representation", "event")
    ok(*messages, "--run", "drawn", "--sampled-softmax", 9)
    found = {}
    for run in ("few", "many", "told", "events", "drawn"):
        config = json.loads((folder / "runs" / run / "config.json").read_text())
        found[run] = config["model"]["head"], config["training"]["lr"]
    assert found == {
        "few": ("softmax", 5e-3), "many": ("factored", 1e-3), "told": ("softmax", 0.7),
        "events": ("softmax", 1e-3), "drawn": ("softmax", 1e-3),
    }  # fmt: skip


def test_a_sampled_softmax_is_kept_resumed_and_used(train_small, ok, folder):
    drawn = ("--sampled-softmax", 9, "--quiet")
    train_small("--max-steps", 20, *drawn, "--run", "whole")
    train_small("--max-steps", 11, *drawn, "--run", "a")
    ok("train", "--resume", "--run", "a", "--max-steps", 20, "--quiet")
    assert_same_model(folder / "runs/a", folder / "runs/whole")
    described = json.loads((folder / "runs/a/config.json").read_text())
    assert described["training"]["sampled_softmax"] == 9
    assert "sampled_softmax" not in described["model"]
    (path,) = ok("sample", "a", "--bars", 2, "--quiet")
    assert read_midi(folder / path, "x").tracks
    ok("evaluate", "a", "--split", "train", "--json", "a.json")
    rows = {row["name"]: row["nats_per_token"] for row in json.loads(Path("a.json").read_text())}
    assert rows["a"] < rows["untrained"]


def test_a_factored_model_is_trained_resumed_and_used(train_small, ok, draw, folder):
    """Every command that reads a model of messages reads this one."""
    factored = ("--head", "factored", "--tracks", "merge", "--quiet")
    train_small("--max-steps", 20, *factored, "--run", "whole")
    train_small("--max-steps", 11, *factored, "--run", "a")
    ok("train", "--resume", "--run", "a", "--max-steps", 20, "--quiet")
    assert_same_model(folder / "runs/a", folder / "runs/whole")
    assert json.loads((folder / "runs/a/config.json").read_text())["model"]["head"] == "factored"
    (path,) = ok("sample", "a", "--bars", 2, "--quiet")
    assert read_midi(folder / path, "x").tracks
    ok("evaluate", "a", "--split", "train", "--json", "a.json")
    rows = {row["name"]: row["nats_per_token"] for row in json.loads(Path("a.json").read_text())}
    assert rows["a"] < rows["untrained"]
    ok("sample", "a", "--baseline", "untrained", "--bars", 2, "--quiet")
    assert not draw("a")[1]
    assert (folder / "runs/a/figures/embedding.png").is_file()


def test_every_option_is_kept_and_used(train_rolls, folder):
    options = {
        "--grid": 16, "--max-polyphony": 1, "--common-key": "C", "--transpose-augment": 3,
        "--input-dropout": 0.25, "--output-dropout": 0.5, "--weight-decay": 0.125,
        "--average": 0.75, "--seed": 4, "--nade": 7,
    }  # fmt: skip
    words = [word for option in options.items() for word in option]
    train_rolls("nade", *words, "--max-steps", 1, "--run", "a")
    described = json.loads((folder / "runs/a/config.json").read_text())
    found = described["reading"] | described["model"] | described["training"]
    for option, value in options.items():
        assert found[option[2:].replace("-", "_")] == value
    assert described["tokenizer"] == {
        "name": "note", "grid": 16, "max_polyphony": 1, "common_key": "C", "seed": 4,
    }  # fmt: skip


# Going on ---------------------------------------------------------------------------------------


def assert_same_model(a, b):
    for link in ("latest", "best"):
        assert target(a, link) == target(b, link)
        files = [run / "checkpoints" / link / "model.safetensors" for run in (a, b)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("kind", ["chord", "sigmoid", "nade", "biaxial"])
def test_a_run_on_frames_resumed_is_the_run_that_never_stopped(train_rolls, ok, folder, kind):
    how = ("--average", 0.9, "--weight-decay", 0.1, "--transpose-augment", 2, "--seed", 3)
    train_rolls(kind, *how, "--max-steps", 20, "--run", "a")
    train_rolls(kind, *how, "--max-steps", 9, "--run", "b")
    ok("train", "--resume", "--run", "b", "--max-steps", 20)
    a, b = folder / "runs/a", folder / "runs/b"
    assert metrics(a) == metrics(b)
    assert_same_model(a, b)


def test_a_run_of_an_older_version_goes_on(train_small, ok, folder):
    """Its config.json knows nothing of representations, heads, averages and weight decay."""
    words = ("--tracks", "merge", "--seed", 5, "--dropout", 0.25)
    train_small(*words, "--max-steps", 30, "--run", "a")
    train_small(*words, "--max-steps", 9, "--run", "b")
    a, b = folder / "runs/a", folder / "runs/b"
    described = json.loads((b / "config.json").read_text())
    del described["reading"]
    for part, new in (
        ("model", ("head", "nade", "input_dropout", "output_dropout")),
        ("training", ("weight_decay", "average")),
    ):
        for name in new:
            del described[part][name]
    (b / "config.json").write_text(json.dumps(described))
    ok("train", "--resume", "--run", "b", "--max-steps", 30, "--seed", 5)
    assert metrics(a) == metrics(b)
    assert_same_model(a, b)


def test_a_run_resumed_is_the_run_that_never_stopped(train_small, ok, folder):
    train_small("--max-steps", 50, "--run", "a")
    train_small("--max-steps", 23, "--run", "b")
    shutil.rmtree("runs/b/samples")
    lines = ok("train", "--resume", "--run", "b", "--max-steps", 50)
    assert lines[0].startswith("resumed at step 23 runs/b: ")
    a, b = folder / "runs" / "a", folder / "runs" / "b"
    assert metrics(a) == metrics(b)
    assert sample_bytes(a) == sample_bytes(b)
    assert_same_model(a, b)


def test_resume_takes_the_newest_run(train_small, ok):
    for name in ("b", "a"):
        train_small("--max-steps", 1, "--run", name)
    os.utime("runs/b/checkpoints", (9e9, 9e9))
    assert ok("train", "--resume", "--max-steps", 2)[0].startswith("resumed at step 1 runs/b: ")


def test_new_limits_replace_the_old(train_small, ok):
    train_small("--epochs", 1, "--run", "a")
    assert "stopped by --epochs 1: step 18" in ok("train", "--resume")[1]
    assert "--max-steps 20" in ok("train", "--resume", "--max-steps", 20)[1]
    assert "stopped by --max-minutes 0.001" in ok("train", "--resume", "--max-minutes", 0.001)[-4]


def test_by_default_the_rate_stays_and_weights_are_averaged(ok, folder):
    how = ("--hidden", 4, "--embedding", 4, "--batch", 3, "--seq", 5, "--lr", 1e-9)
    ok("train", "music", "--epochs", 6, "--run", "a", "--quiet", *how)
    assert {row["learning_rate"] for row in metrics(folder / "runs" / "a")} == {"1e-09"}
    training = json.loads((folder / "runs" / "a" / "config.json").read_text())["training"]
    assert (training["anneal_factor"], training["average"]) == (1, 0.998)


def test_a_frozen_run_with_a_new_limit_gets_a_rate_to_learn_with(train_small, ok, folder):
    """One that goes on to the limit that it has is the run that it was."""
    how = (
        "--lr",
        1e-9,
        "--anneal-factor",
        0.01,
        "--anneal-patience",
        1,
    )  # next to nothing is learnt
    train_small("--epochs", 4, "--run", "a", "--quiet", *how)
    rates = [row["learning_rate"] for row in metrics(folder / "runs" / "a")]
    assert rates[-1] == "1e-13"
    assert "learning rate" not in ok("train", "--resume", "--run", "a")[0]
    lines = ok("train", "--resume", "--run", "a", "--epochs", 6)
    assert lines[0] == (
        "the learning rate had fallen to 1e-15: from here on it is 1e-10, a tenth of --lr"
    )
    assert lines[1].startswith("resumed at step 72 ")
    assert "learning rate" not in ok("train", "--resume", "--run", "a", "--epochs", 7)[0]
    rates = [row["learning_rate"] for row in metrics(folder / "runs" / "a")]
    assert rates[-6:] == ["1e-10"] * 6


def test_after_early_stopping_the_way_on_is_said(train_small, ok):
    stop = ("--early-stop", 1, "--lr", 2)
    lines = train_small("--run", "a", *stop)
    assert lines[-4].startswith("stopped by --early-stop 1")
    assert lines[-1].endswith("--max-minutes 30 --early-stop 0")
    assert (
        "stopped by --max-steps"
        in ok("train", "--resume", "--early-stop", 0, "--max-steps", 200)[-4]
    )


def test_a_corpus_that_moved_is_taken_from_its_new_place(train_small, ok, fails, folder):
    train_small("--max-steps", 2, "--run", "a")
    (folder / "music").rename(folder / "moved")
    assert "no file or folder" in fails("train", "--resume", "--max-steps", 3)
    ok("train", "moved", "--resume", "--max-steps", 3)
    ok("train", "bach", "--data", "moved", "--resume", "--max-steps", 4)
    write_music(folder / "other", notes=5)
    assert "not the corpus" in fails("train", "other", "--resume", "--max-steps", 5)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(train_small, command, folder):
    train_small("--max-steps", 20, "--run", "a")
    flip(folder / "runs/a/checkpoints/step-00000020/model.safetensors", 0.9)
    done = command("train", "--resume", "--max-steps", 21)
    assert done.status == 0
    assert done.out[0].startswith("resumed at step 18 ")
    (line,) = done.err
    assert line.startswith("warning: ")
    assert "step-00000020/model.safetensors' is damaged" in line
    assert line.endswith("using step-00000018 instead")


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say what to train on"),
        (["bahc"], "unknown corpus 'bahc': use bach"),
        (["no/such.mid"], "no file or folder 'no/such.mid': check the path"),
        (["empty"], "no MIDI files"),
        (["rubbish"], "no usable MIDI file among 1 in"),
        (["rubbish.zip"], "is it a whole zip?"),
        (["music", "--data", "none"], "/none': check the path"),
        (["music", "--hidden", "0"], "--hidden: '0' is not a whole number from 1 to 65536"),
        (["music", "--hidden", "many"], "'many' is not a whole number"),
        (["music", "--lr", "nan"], "--lr: 'nan' is not a number above 0"),
        (["music", "--lr", "0"], "'0' is not a number above 0"),
        (["music", "--lr", "inf"], "'inf' is not a number"),
        (["music", "--dropout", "1"], "'1' is not a number from 0 to 0.95"),
        (["music", "--max-minutes", "-1"], "'-1' is not a number above 0"),
        (["music", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (["jsb"], "'jsb' holds piano rolls, which have no MIDI messages"),
        (["jsb", "--representation", "note"], "say where it is, with --data JSB_Chorales.mat"),
        (["music", "--representation", "sound"], "invalid choice: 'sound'"),
        (["music", "--representation", "note", "--grid", "7"], "the grid must divide 1920"),
        (["music", "--representation", "note", "--head", "softmax"], "use --head sigmoid or nade"),
        (["music", "--representation", "chord", "--head", "nade"], "use --head softmax"),
        (
            ["music", "--representation", "chord", "--head", "factored"],
            "--head factored can't predict --representation chord: use --head softmax",
        ),
        (["music", "--representation", "note", "--head", "factored"], "use --head sigmoid or nade"),
        (["music", "--representation", "message", "--head", "sigmoid"], "use --head softmax"),
        (["music", "--representation", "note", "--sampled-softmax", "9"], "network's is sigmoid"),
        (["nowhere", "--head", "factored", "--sampled-softmax", "9"], "is factored: leave"),
        (["music", "--sampled-softmax", "-1"], "'-1' is not a whole number"),
        (["music", "--average", "1"], "'1' is not a number from 0 to 0.99999"),
        (["music", "--input-dropout", "1"], "'1' is not a number from 0 to 0.95"),
        (["music", "--common-key", "D"], "invalid choice: 'D'"),
        (["music", "--precision", "fp8"], "invalid choice: 'fp8'"),
        (["music", "--backend", "numpy", "--precision", "bf16"], "--precision bf16 is for a GPU"),
        (["--resume", "--precision", "tf32"], "no run to resume"),
        (["music", "--volume", "11"], "unrecognized arguments: --volume 11"),
        (["--resume"], "no run to resume in runs/: begin one with bin/train bach"),
        (["--resume", "--run", "a"], "no run at 'runs/a': begin it without --resume"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, folder, words, says):
    (folder / "empty").mkdir()
    (folder / "rubbish").mkdir()
    (folder / "rubbish" / "a.mid").write_bytes(b"rubbish")
    (folder / "rubbish.zip").write_bytes(b"rubbish")
    assert says in fails("train", *words)
    assert not (folder / "runs").exists()


def test_an_existing_run_is_not_replaced(train_small, fails, folder):
    train_small("--max-steps", 2, "--run", "a")
    assert "'runs/a' exists: continue it with --resume" in fails("train", "music", "--run", "a")
    (folder / "runs" / "b").mkdir()
    assert "exists" in fails("train", "music", "--run", "b")
    assert target(folder / "runs" / "a", "latest")


@pytest.mark.parametrize(
    ("flag", "value", "was"),
    [
        ("--hidden", 9, "8"), ("--layers", 1, "2"), ("--embedding", 4, "8"),
        ("--dropout", 0, "0.3"), ("--tracks", "merge", "flatten"), ("--batch", 2, "3"),
        ("--seq", 4, "5"), ("--lr", 0.1, "0.003"), ("--optimizer", "sgd", "adam"),
        ("--clip", 1, "5.0"), ("--seed", 1, "0"), ("--anneal-factor", 0.1, "0.5"),
        ("--anneal-patience", 5, "2"), ("--representation", "note", "message"),
        ("--grid", 16, None), ("--max-polyphony", 4, "0"), ("--common-key", "C", None),
        ("--transpose-augment", 1, "0"), ("--head", "nade", "softmax"), ("--nade", 5, "128"),
        ("--input-dropout", 0.1, None), ("--output-dropout", 0.1, None),
        ("--weight-decay", 0.1, "0.0"), ("--average", 0.5, "0.0"), ("--sampled-softmax", 9, "0"),
    ],
)  # fmt: skip
def test_options_that_contradict_the_run_are_refused(train_small, fails, flag, value, was):
    train_small("--max-steps", 2, "--run", "a")
    line = fails("train", "--resume", flag, value)
    option = f"no {flag}" if was is None else f"{flag} {was}"
    assert f"the run 'runs/a' was begun with {option}: leave the option out" in line


def test_options_that_agree_with_the_run_are_taken(train_small, ok):
    train_small("--max-steps", 2, "--run", "a")
    ok("train", "music", *SMALL, "--resume", "--max-steps", 3)


def test_options_of_frames_that_agree_with_the_run_are_taken(train_rolls, ok):
    for kind in ("chord", "nade"):
        train_rolls(kind, "--max-steps", 2, "--run", kind)
        train_rolls(kind, "--max-steps", 3, "--run", kind, "--resume", "--max-polyphony", 0)


@pytest.mark.parametrize("damage", ["cut", "newer", "empty"])
def test_a_damaged_description_is_an_error(train_small, fails, folder, damage):
    train_small("--max-steps", 2, "--run", "a")
    path = folder / "runs/a/config.json"
    text = path.read_text()
    changed = {"cut": text[:50], "newer": text.replace('"format": 1', '"format": 2'), "empty": "{}"}
    path.write_text(changed[damage])
    says = "upgrade lstm-music" if damage == "newer" else "is damaged: train a new run"
    assert says in fails("train", "--resume")


def test_too_little_memory_is_one_line_and_leaves_no_run(fails, folder, monkeypatch):
    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(Trainer, "_step", greedy)
    assert "not enough memory" in fails("train", "music", "--run", "a", "--quiet")
    assert not (folder / "runs" / "a").exists()


def test_too_large_a_model_is_one_line(fails, folder):
    """A model of about 100 PB, which no machine has."""
    words = ("--hidden", 65536, "--embedding", 65536, "--layers", 64)

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    done = start("music", *words, "--run", "a", preexec_fn=limited)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 2
    assert err.startswith("error: not enough memory")
    assert len(err.splitlines()) == 1
    assert not out
    assert not (folder / "runs").exists()


def test_skipped_files_are_named(command, folder):
    for n in range(7):
        (folder / "music" / f"bad-{n}.mid").write_bytes(b"rubbish")
    words = ("train", "music", *SMALL, "--max-steps", 1, "--run")
    done = command(*words, "a")
    assert done.status == 0
    assert [line[:27] for line in done.err[:5]] == [
        f"warning: skipped bad-{n}.mid:" for n in range(5)
    ]
    assert done.err[5:] == ["warning: skipped 7 files in all: see runs/a/skipped.csv"]
    rows = (folder / "runs/a/skipped.csv").read_text().splitlines()
    assert len(rows) == 8
    assert rows[1].startswith("bad-0.mid,")
    assert command(*words, "b", "--quiet").err == []


# Signals and disks, in processes of their own ----------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(train_small, ok, folder, number):
    process = start("music", *SMALL, "--early-stop", 0, "--max-steps", 10**6, "--run", "a")
    lines = [process.stdout.readline() for _ in range(3)]  # it has validated twice
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (line,) = err.splitlines()
    step, command = re.fullmatch(r"stopped at step (\d+) and saved; go on with (.*)", line).groups()
    assert command == "bin/train --resume --run runs/a --max-steps 1000000"
    assert lines[2].startswith("step 36, ")
    a, b = folder / "runs" / "a", folder / "runs" / "b"
    steps = int(step) + 30
    ok("train", "--resume", "--run", "a", "--max-steps", steps)
    train_small("--early-stop", 0, "--max-steps", steps, "--run", "b")
    assert metrics(a) == metrics(b)
    assert sample_bytes(a) == sample_bytes(b)


def test_an_interrupt_before_training_is_silent(command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "load_corpus", interrupted)
    done = command("train", "music")
    assert (done.status, done.out, done.err) == (130, [], [""])


def test_a_disk_that_fills_up(ok, folder):
    """Files may grow to 64 KiB: what describes the run fits, the model does not."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    words = ("music", *SMALL, "--hidden", 64, "--early-stop", 0, "--run", "a")
    ok("train", *words, "--max-steps", 30)
    process = start("--resume", "--run", "a", "--max-steps", 60, preexec_fn=limited)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "step 54, " in out  # training went on to the end
    *warnings, error = err.splitlines()
    assert all(line.startswith("warning: can't write a checkpoint") for line in warnings)
    assert warnings
    assert error.startswith("error: can't write a checkpoint in 'runs/a' (File too large)")
    assert error.endswith("then go on with bin/train --resume --run runs/a")
    ok("train", "--resume", "--max-steps", 60)
    ok("train", *words[:-1], "b", "--max-steps", 60)
    assert metrics(folder / "runs/a") == metrics(folder / "runs/b")


def test_a_reader_that_goes_away_is_no_error(folder):
    """As in `bin/train … | head -n 1`: training goes on."""
    process = start("music", *SMALL, "--max-steps", 400, "--early-stop", 0, "--run", "a")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert target(folder / "runs/a", "latest") == "step-00000400"


# The screen -------------------------------------------------------------------------------------


class Terminal:
    """A stand-in for standard error that is a terminal."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def report(step=1, share=0.25, seconds_left=119.6, valid=2.25, validated=False):
    return Report(Progress(step), 1.5, valid, 0.1, 1234.5, share, seconds_left, validated)


def test_a_terminal_shows_a_bar(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with train.Screen(quiet=False) as screen:
        screen.bar.mininterval = 0
        screen.show(report())
        assert " 25%|" in terminal.text
        line = "2:00 left, epoch 1, loss 1.500, validation 2.250, 1,234 tokens/s"
        assert f"| {line}" in terminal.text
        screen.show(report(share=1.0, seconds_left=0.0, valid=float("inf"), validated=True))
    last = terminal.text.rstrip("\n").split("\r")[-1]
    assert last.startswith("100%|")
    assert "| 0:00 left, epoch 1, loss 1.500, validation -, " in last
    assert terminal.text.endswith("\n")
    assert capsys.readouterr().out == ""


def test_a_terminal_that_says_it_has_no_size_shows_a_bar(folder):
    reader, terminal = pty.openpty()
    command = [*TRAIN, "music", *SMALL, "--max-steps", "30", *COMPUTE]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert done.returncode == 0
    assert "100%|" in text
    assert "0:00 left" in text


@pytest.mark.parametrize("quiet", [False, True])
def test_elsewhere_there_is_a_line_for_a_validation(quiet, capsys):
    with train.Screen(quiet) as screen:
        for n in range(1, 5):
            screen.show(report(step=n, validated=n == 3))
    out, err = capsys.readouterr()
    line = "step 3, 2:00 left, epoch 1, loss 1.500, validation 2.250, 1,234 tokens/s\n"
    assert out == ("" if quiet else line)
    assert err == ""


def test_the_bar_is_closed_before_the_way_on_is_said(train_small, monkeypatch, folder):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    real = train.Screen.show

    def show(self, report):
        real(self, report)
        if report.progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train.Screen, "show", show)
    assert train.main(["music", *SMALL, "--run", "a", *COMPUTE]) == 130
    assert terminal.text.splitlines()[-1].startswith("stopped at step 3 and saved; go on with ")
