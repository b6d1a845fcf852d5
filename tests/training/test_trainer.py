import errno
import json
import math
import os
import signal
import threading
import time
from contextlib import suppress
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import flip, metrics, small_corpus, small_model, small_rolls, small_trainer, target

from lstm_music.errors import UserError
from lstm_music.network.learning_rate import average_share
from lstm_music.runs import checkpoint as checkpoints
from lstm_music.runs import folder as run_folder
from lstm_music.runs.checkpoint import CHECKPOINTS, MODEL_FILE, TRAIN_FILE, checkpoints_of, read_run
from lstm_music.runs.folder import HEADER, append, cut_metrics, new_run
from lstm_music.runs.settings import Progress, Settings
from lstm_music.training import resuming
from lstm_music.training import trainer as training
from lstm_music.training import validation as evaluation
from lstm_music.training.signals import Interrupted

STEPS = 50  # 18 an epoch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def straight(corpus, tmp_path_factory):
    """A run that went from step 0 to STEPS without a stop."""
    run = tmp_path_factory.mktemp("straight") / "run"
    trainer = small_trainer(corpus, run, max_steps=STEPS)
    assert trainer.train() == f"--max-steps {STEPS}"
    assert not trainer.warnings
    return run


def contents(run, link):
    """Every array of the checkpoint that a link points to, as bytes, and its progress."""
    folder = run / CHECKPOINTS / link
    arrays = {}
    for name in (MODEL_FILE, TRAIN_FILE):
        meta = checkpoints.read_meta(folder)
        found = checkpoints.read_arrays(folder, name, meta)
        arrays |= {f"{name} {key}": value.tobytes() for key, value in found.items()}
    progress = {k: v for k, v in meta["progress"].items() if "seconds" not in k}
    return arrays, progress, meta["annealing"], meta["optimizer_steps"]


def assert_same_run(run, other):
    """Two runs have gone the same way, to the bit."""
    assert metrics(run) == metrics(other)
    for link in ("latest", "best"):
        assert target(run, link) == target(other, link)
        assert contents(run, link) == contents(other, link)


def stop_at(step, action):
    """A `show` that does something after one step."""

    def show(report):
        if report.progress.step == step:
            action()

    return show


def interrupt(number=signal.SIGINT):
    return lambda: signal.raise_signal(number)


# Going on exactly -------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_run(corpus, straight, tmp_path):
    small_trainer(corpus, tmp_path / "run", max_steps=STEPS).train()
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2}, {"dropout": 0.2}, {"lr": 0.01}, {"seq": 4}, {"weight_decay": 0.1},
        {"average": 0.9}, {"sampled_softmax": 6},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_are_another_run(corpus, straight, tmp_path, other):
    small_trainer(corpus, tmp_path / "run", max_steps=STEPS, **other).train()
    assert contents(tmp_path / "run", "latest")[0] != contents(straight, "latest")[0]


def test_a_sampled_softmax_goes_on_exactly(corpus, straight, tmp_path):
    how = {"sampled_softmax": 6, "average": 0.9}
    small_trainer(corpus, tmp_path / "a", max_steps=45, **how).train()
    small_trainer(corpus, tmp_path / "b", max_steps=25, **how).train()
    small_trainer(corpus, tmp_path / "b", resume=True, max_steps=45, **how).train()
    assert_same_run(tmp_path / "a", tmp_path / "b")
    (kept,) = checkpoints_of(tmp_path / "a")[:1]
    assert checkpoints.read_meta(kept)["settings"]["sampled_softmax"] == 6
    model = {name: a for name, a in contents(straight, "latest")[0].items() if MODEL_FILE in name}
    assert model.keys() == {k for k in contents(tmp_path / "a", "latest")[0] if MODEL_FILE in k}


def test_what_a_sampled_softmax_learns_is_judged_exactly(corpus, tmp_path):
    trainer = small_trainer(corpus, tmp_path / "run", max_steps=150, sampled_softmax=6)
    assert len(corpus.vocabulary) > 12
    before = trainer.validate()
    trainer.train()
    exact = small_model(corpus, 1)
    for name, p in trainer.model.parameters.items():
        exact.parameters[name][...] = p
    size = trainer.settings.batch, trainer.settings.seq
    assert trainer.valid == evaluation.mean_nats(exact, corpus, "valid", *size)
    assert trainer.valid < before - 0.3


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_each_optimizer_goes_on_exactly(corpus, tmp_path, optimizer):
    how = {"optimizer": optimizer, "lr": 0.05, "anneal_patience": 1, "anneal_factor": 0.3}
    small_trainer(corpus, tmp_path / "a", max_steps=45, **how).train()
    small_trainer(corpus, tmp_path / "b", max_steps=25, **how).train()
    small_trainer(corpus, tmp_path / "b", resume=True, max_steps=45, **how).train()
    assert_same_run(tmp_path / "a", tmp_path / "b")


# Inside an epoch, at its end, one before, one after.
@pytest.mark.parametrize("steps", [1, 7, 17, 18, 19, 36, 49])
def test_a_run_stopped_by_its_steps_goes_on_exactly(corpus, straight, tmp_path, steps):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=steps).train()
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert_same_run(run, straight)


@given(stops=st.sets(st.integers(1, STEPS - 1), max_size=6))
@settings(deadline=None, max_examples=8)
def test_a_run_stopped_anywhere_goes_on_exactly(corpus, straight, tmp_path_factory, stops):
    run = tmp_path_factory.mktemp("run") / "run"
    for n, steps in enumerate(sorted({*stops, STEPS})):
        small_trainer(corpus, run, resume=n > 0, max_steps=steps).train()
    assert_same_run(run, straight)


def test_a_run_stopped_by_its_epochs_goes_on_exactly(corpus, tmp_path):
    small_trainer(corpus, tmp_path / "a", epochs=3).train()
    small_trainer(corpus, tmp_path / "b", epochs=1).train()
    assert small_trainer(corpus, tmp_path / "b", resume=True, epochs=3).train() == "--epochs 3"
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert [row["step"] for row in metrics(tmp_path / "a")] == ["18", "18", "36", "36", "54", "54"]


def test_a_run_stopped_by_the_clock_goes_on_exactly(corpus, straight, tmp_path):
    run = tmp_path / "run"
    trainer = small_trainer(corpus, run, max_minutes=60)

    def show(report):
        if report.progress.step == 23:
            trainer.started -= 3600  # an hour passes

    trainer.show = show
    assert trainer.train() == "--max-minutes 60"
    assert trainer.progress.step == 23
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert_same_run(run, straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [5, 18, 31])
def test_a_run_stopped_by_a_signal_goes_on_exactly(corpus, straight, tmp_path, number, step):
    run = tmp_path / "run"
    before = signal.getsignal(number)
    trainer = small_trainer(corpus, run, max_steps=STEPS, show=stop_at(step, interrupt(number)))
    with pytest.raises(Interrupted) as stopped:
        trainer.train()
    assert stopped.value.number == number
    assert signal.getsignal(number) is before
    assert target(run, "latest") == f"step-{step:08d}"
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert_same_run(run, straight)


@pytest.mark.parametrize("step", [9, 18, 27])
def test_a_run_that_was_killed_goes_on_exactly_from_its_last_checkpoint(
    corpus, straight, tmp_path, step
):
    run = tmp_path / "run"

    class Killed(BaseException):
        pass

    def show(report):
        at = report.progress.step
        if at == step - 2:
            trainer._saved -= 3600  # a checkpoint is due
        if at == step + 1:
            raise Killed

    trainer = small_trainer(corpus, run, max_steps=STEPS, show=show)
    with suppress(Killed):
        trainer.train()
    (run / CHECKPOINTS / ".step-00000099.1.tmp").mkdir()  # as a kill in the midst of writing
    with (run / "metrics.csv").open("a") as file:
        file.write("half a r")
    resumed = small_trainer(corpus, run, resume=True, max_steps=STEPS)
    assert resumed.progress.step == (18 if step == 18 else step - 2)
    resumed.train()
    assert_same_run(run, straight)
    assert not list((run / CHECKPOINTS).glob(".*"))


def test_a_run_killed_before_its_first_checkpoint_begins_again(corpus, straight, tmp_path):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=STEPS)
    resumed = small_trainer(corpus, run, resume=True, max_steps=STEPS)
    resumed.train()
    assert_same_run(run, straight)


def test_a_run_at_its_limit_stays_as_it_is(corpus, straight, tmp_path, monkeypatch):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=STEPS).train()
    monkeypatch.setattr(resuming, "write_checkpoint", None)  # not even written again
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert_same_run(run, straight)


@pytest.mark.parametrize("file", [MODEL_FILE, TRAIN_FILE, "meta.json"])
def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    corpus, straight, tmp_path, file
):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=20).train()
    flip(run / CHECKPOINTS / "step-00000020" / file, 0.95)
    resumed = small_trainer(corpus, run, resume=True, max_steps=STEPS)
    assert resumed.progress.step == 18
    (line,) = resumed.warnings
    assert "step-00000020" in line
    assert "using step-00000018" in line
    resumed.train()
    assert_same_run(run, straight)
    small_trainer(corpus, run, resume=True, max_steps=STEPS + 1).train()


def test_no_whole_checkpoint_is_an_error_and_changes_nothing(corpus, tmp_path):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=20).train()
    for path in checkpoints_of(run):
        flip(path / TRAIN_FILE, 0.5)
    before = (run / "metrics.csv").read_text()
    with pytest.raises(UserError, match="no whole checkpoint"):
        small_trainer(corpus, run, resume=True)
    assert (run / "metrics.csv").read_text() == before


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(
    "forge",
    [
        lambda a: a.pop("slot.m.head.b"),
        lambda a: a.update({"slot.m.x": a["slot.m.head.b"]}),
        lambda a: a.update({"slot.v.head.b": a["slot.v.head.b"][1:]}),
        lambda a: a.pop("state.h"),
        lambda a: a.update({"state.h": a["state.h"][0]}),
        lambda a: a.update({"state.h": a["state.h"][:, :1]}),
        lambda a: a.update({k: a[k][:1] for k in ("state.h", "state.c")}),
        lambda a: a.update({k: a[k][..., :1] for k in ("state.h", "state.c")}),
        lambda a: a.update({k: a[k][:, :1] for k in ("state.h", "state.c")}),
        lambda a: a.update({"last.head.b": a["slot.v.head.b"][1:]}),
    ],
)
def test_forged_arrays_are_refused_in_one_line(corpus, tmp_path, forge, average):
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=7, average=average).train()
    checkpoint, arrays = read_run(run, print, train=True)
    forge(arrays)
    meta = {k: v for k, v in checkpoint.meta.items() if k not in ("format", "step", "sha256")}
    checkpoints.write_checkpoint(run, 7, checkpoint.parameters, arrays, meta)
    with pytest.raises(
        UserError, match=r"of the run\): use another|is of another batch"
    ) as refused:
        small_trainer(corpus, run, resume=True, max_steps=9, average=average).train()
    assert "\n" not in str(refused.value)


def test_another_corpus_or_shape_is_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    small_trainer(corpus, run, max_steps=2).train()
    with pytest.raises(UserError, match="not the corpus"):
        small_trainer(small_corpus(tmp_path, notes=11), run, resume=True)
    with pytest.raises(UserError, match="doesn't describe the run's checkpoints"):
        small_trainer(corpus, run, resume=True, dropout=0.1)


# Piano rolls and averages -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["chord", "sigmoid", "nade", "biaxial"])
def rolls(request, tmp_path_factory):
    """A corpus of frames whose training pieces are transposed each epoch, and a head for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        kind, head = ("chord", None) if request.param == "chord" else ("note", request.param)
        folder = tmp_path_factory.mktemp("corpus")
        yield small_rolls(folder, kind, transpose_augment=2), head


def roll_trainer(rolls, run, **settings):
    corpus, head = rolls
    chosen = {"average": 0.9, "weight_decay": 0.1} | settings
    return small_trainer(corpus, run, head=head, **chosen)


def windows_of(rolls):
    return len(rolls[0].training_batches(3, 5, 1, 0))


@pytest.mark.parametrize("inside", [True, False], ids=["inside an epoch", "at its end"])
def test_a_run_on_rolls_with_averages_goes_on_exactly(rolls, tmp_path, inside):
    stop = windows_of(rolls) + 2 * inside
    roll_trainer(rolls, tmp_path / "a", max_steps=3 * stop).train()
    for n in range(3):
        roll_trainer(rolls, tmp_path / "b", resume=n > 0, max_steps=(n + 1) * stop).train()
    assert_same_run(tmp_path / "a", tmp_path / "b")
    losses = [float(row["loss"]) for row in metrics(tmp_path / "a") if row["split"] == "train"]
    assert losses[-1] < losses[0]


def test_a_checkpoint_holds_the_averages_and_beside_them_the_last_weights(rolls, tmp_path):
    run = tmp_path / "run"
    means = {}

    steps = count(1)

    def show(report):
        share = average_share(0.1, next(steps))  # more at first
        for name, p in trainer.model.parameters.items():
            means[name] += share * (p - means[name])

    trainer = roll_trainer(rolls, run, max_steps=25, show=show)
    means.update({name: p.copy() for name, p in trainer.model.parameters.items()})
    trainer.train()
    checkpoint, arrays = read_run(run, print, ("latest",), train=True)
    assert checkpoint.parameters.keys() == means.keys()
    for name, mean in means.items():
        np.testing.assert_allclose(checkpoint.parameters[name], mean, rtol=1e-4, atol=1e-6)
        last = trainer.model.parameters[name]
        np.testing.assert_array_equal(arrays[f"last.{name}"], last)
        assert (checkpoint.parameters[name] != last).any()


def test_the_recorded_loss_and_the_best_are_the_averages(rolls, tmp_path):
    run = tmp_path / "run"
    trainer = roll_trainer(rolls, run, epochs=4)
    trainer.train()
    losses = {row["step"]: float(row["loss"]) for row in metrics(run) if row["split"] == "valid"}
    best = read_run(run, print)[0]
    assert best.meta["step"] == int(min(losses, key=losses.get))
    corpus, head = rolls
    model = small_model(corpus, head=head)
    model.parameters.update(best.parameters)
    nats = training.mean_nats(model, corpus, "valid", 3, 5)
    assert nats == pytest.approx(min(losses.values()), abs=2e-6)
    last = training.mean_nats(trainer.model, corpus, "valid", 3, 5)
    assert abs(last - list(losses.values())[-1]) > 1e-3  # the last weights are not the averages


def test_without_averages_the_model_is_the_last_weights(corpus, straight):
    _, arrays = read_run(straight, print, ("latest",), train=True)
    assert not [name for name in arrays if name.startswith("last.")]


def test_primers_of_notes_are_frames(rolls, tmp_path):
    roll_trainer(rolls, tmp_path / "run", max_steps=1).train()
    corpus, head = rolls
    meta = read_run(tmp_path / "run", print)[0].meta
    assert meta["primers"] == corpus.primers()
    assert ("frames" in meta["primers"][0]) == (head is not None)
    assert meta["tokenizer"] == corpus.tokenizer_json()
    assert meta["corpus"]["augment"] == 2


# What is recorded -------------------------------------------------------------------------------


def test_metrics_have_a_row_for_each_split_at_each_validation(corpus, straight):
    assert (straight / "metrics.csv").read_text().splitlines()[0] == HEADER
    rows = metrics(straight)
    assert [(row["step"], row["split"]) for row in rows] == [
        ("18", "train"), ("18", "valid"), ("36", "train"), ("36", "valid"), ("50", "valid"),
    ]  # fmt: skip
    tokens = sum(corpus.lengths[p] for p in corpus.splits["train"])
    assert [int(row["tokens"]) for row in rows[:4]] == [tokens, tokens, 2 * tokens, 2 * tokens]
    first, last = rows[0], rows[2]
    assert float(first["loss"]) > float(last["loss"])
    assert float(first["grad_norm"]) > 0
    assert rows[1]["grad_norm"] == ""


def test_the_recorded_loss_is_that_of_the_best_checkpoint(corpus, straight):
    best = read_run(straight, print)[0]
    model = small_model(corpus)
    model.parameters.update(best.parameters)
    losses = {
        row["step"]: float(row["loss"]) for row in metrics(straight) if row["split"] == "valid"
    }
    assert best.meta["step"] == int(min(losses, key=losses.get))
    nats = training.mean_nats(model, corpus, "valid", 3, 5)
    assert nats == pytest.approx(min(losses.values()), abs=1e-6)


def test_the_best_is_kept_and_early_stopping_counts_from_it(corpus, tmp_path):
    run = tmp_path / "run"
    how = {"lr": 0.2, "dropout": 0.0, "early_stop": 3, "max_steps": 2000}
    trainer = small_trainer(corpus, run, **how)
    assert trainer.train() == "--early-stop 3"
    losses = [float(row["loss"]) for row in metrics(run) if row["split"] == "valid"]
    best = int(np.argmin(losses))
    assert best == len(losses) - 4
    assert target(run, "best") == f"step-{18 * (best + 1):08d}"
    assert len(checkpoints_of(run)) <= 3
    resumed = small_trainer(corpus, run, resume=True, **how)
    assert resumed.train() == "--early-stop 3"
    assert len(metrics(run)) == 2 * len(losses)


def test_long_epochs_are_validated_now_and_then(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "VALIDATE_STEPS", 7)
    validated = []

    def show(report):
        if report.validated:
            validated.append(report.progress.step)

    small_trainer(corpus, tmp_path / "run", max_steps=30, show=show).train()
    assert validated == [7, 14, 18, 25]


def test_a_long_split_is_validated_in_part(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(corpus.splits, "valid", corpus.splits["train"])
    whole = sum(corpus.lengths[piece] for piece in corpus.splits["train"])
    assert small_trainer(corpus, tmp_path / "whole").validated == whole
    monkeypatch.setattr(evaluation, "LEAST_VALIDATED", 9)
    assert small_trainer(corpus, tmp_path / "long").validated == whole // 5
    monkeypatch.setattr(training, "VALIDATE_STEPS", 4)
    trainer = small_trainer(corpus, tmp_path / "run")
    assert trainer.validated == 4 * 3 * 5 // 5
    read, losses = [], trainer.model.losses

    def watched(batch, state):
        read.append(batch.targets)
        return losses(batch, state)

    monkeypatch.setattr(trainer.model, "losses", watched)
    part = trainer.validate()
    assert sum(read) == trainer.validated
    assert part != training.mean_nats(trainer.model, corpus, "valid", 3, 5)


def test_a_runs_folder_describes_the_run(corpus, straight):
    assert sorted(p.name for p in straight.iterdir()) == [
        "checkpoints", "config.json", "mended.csv", "metrics.csv", "skipped.csv",
            "vocabulary.json",
    ]  # fmt: skip
    described = json.loads((straight / "config.json").read_text())
    assert described["source"] == {"corpus": corpus.name, "data": None}
    assert described["corpus"]["pieces"] == 8
    assert described["training"]["max_steps"] == STEPS
    assert described["reading"]["representation"] == "message"
    assert json.loads((straight / "vocabulary.json").read_text())["hash"] == corpus.vocabulary.hash
    assert (straight / "skipped.csv").read_text() == "file,reason\n"


def test_primers_begin_validation_pieces_and_end_none(corpus, straight):
    primers = read_run(straight, print)[0].meta["primers"]
    assert [p["name"] for p in primers] == [corpus.pieces[p] for p in corpus.splits["valid"]]
    for primer, piece in zip(primers, corpus.splits["valid"], strict=True):
        assert primer["ids"] == corpus.piece_ids(piece)[:-1].tolist()


@pytest.mark.parametrize("best", [math.inf, 1 / 3])
def test_progress_survives_json(best):
    progress = Progress(step=3, best=best, period_loss=0.1 + 0.2, rows=7)
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress
    assert "Infinity" not in json.dumps(progress.to_json())


# What goes wrong --------------------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be filled; it takes a few bytes more."""
    real = checkpoints.write_synced
    full = {"is": False}

    def write(path, data):
        if full["is"]:
            path.write_bytes(data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(checkpoints, "write_synced", write)
    return lambda is_full: full.update({"is": is_full})


def test_a_full_disk_is_a_warning_while_training_goes_on(corpus, straight, tmp_path, disk):
    run = tmp_path / "run"
    disk(True)
    trainer = small_trainer(corpus, run, max_steps=STEPS, show=stop_at(40, lambda: disk(False)))
    trainer.train()
    assert len(trainer.warnings) == 2  # at the best of steps 18 and 36
    assert all("No space left on device" in line for line in trainer.warnings)
    assert "training goes on" in trainer.warnings[0]
    assert metrics(run) == metrics(straight)
    assert contents(run, "latest")[0] == contents(straight, "latest")[0]
    assert target(run, "best") == target(run, "latest")  # those of 18 and 36 are nowhere


def test_after_a_best_that_the_disk_refused_a_better_one_than_the_one_kept_is_kept(
    corpus, tmp_path, disk, monkeypatch
):
    run = tmp_path / "run"
    losses = iter((4.0, 2.0, 3.0, 3.5))  # of 2, at step 36, nothing is left

    def show(report):
        disk(report.progress.step == 35)

    trainer = small_trainer(corpus, run, epochs=4, show=show)
    monkeypatch.setattr(trainer, "validate", lambda: next(losses))
    trainer.train()
    assert target(run, "best") == "step-00000054"
    assert read_run(run, print)[0].meta["progress"]["best"] == 3.0


def test_a_disk_full_at_the_end_is_an_error_and_the_checkpoint_before_is_whole(
    corpus, straight, tmp_path, disk
):
    run = tmp_path / "run"
    trainer = small_trainer(corpus, run, max_steps=STEPS, show=stop_at(40, lambda: disk(True)))
    with pytest.raises(UserError, match=r"No space left.*step-00000036 is whole") as error:
        trainer.train()
    assert f"--resume --run {run}" in str(error.value)
    assert target(run, "latest") == "step-00000036"
    assert not list((run / CHECKPOINTS).glob(".*"))
    disk(False)
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert_same_run(run, straight)


def test_a_disk_full_when_interrupted_is_an_error(corpus, tmp_path, disk):
    disk(True)
    trainer = small_trainer(corpus, tmp_path / "run", show=stop_at(4, interrupt()))
    with pytest.raises(UserError, match="free some space"):
        trainer.train()


def test_no_space_is_asked_for_where_that_is_not_what_is_missing(corpus, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    trainer = small_trainer(corpus, tmp_path / "run", max_steps=20)
    monkeypatch.setattr(resuming, "write_checkpoint", refuse)
    with pytest.raises(UserError, match=r"Input/output error.*: mend that, then go on with"):
        trainer.train()


def test_metrics_that_cant_be_written_are_a_warning(corpus, straight, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = append

    def refuse(path, line, head):
        if line.startswith("18,"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, line, head)

    monkeypatch.setattr(resuming, "append", refuse)
    trainer = small_trainer(corpus, run, max_steps=40)
    trainer.train()
    assert len(trainer.warnings) == 2
    small_trainer(corpus, run, resume=True, max_steps=STEPS).train()
    assert metrics(run) == metrics(straight)[2:]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    append(path, "a,b\n")
    append(path, "1,2\n")
    real = type(path).open

    def nearly_full(self, *args, **options):
        file = real(self, *args, **options)

        class Disk:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, data):
                return file.write(data[:2])

            def __getattr__(self, name):
                return getattr(file, name)

        return Disk()

    monkeypatch.setattr(type(path), "open", nearly_full)
    with pytest.raises(OSError, match="No space"):
        append(path, "3,4\n")
    assert path.read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize("there", [None, "", "x\n1\n2\n3\n4\n", "x\n1\n2\n\xff"])
def test_metrics_are_cut_to_what_a_checkpoint_saw(tmp_path, there):
    path = tmp_path / "metrics.csv"
    if there is not None:
        path.write_bytes(there.encode("latin-1"))
    rows = cut_metrics(path, 2)
    assert path.read_text() == f"{HEADER}\n" + "1\n2\n" * (rows > 0)
    assert rows == (2 if there and "1" in there else 0)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_ends_training_and_says_what_to_try(
    corpus, tmp_path, monkeypatch, what
):
    run = tmp_path / "run"
    trainer = small_trainer(corpus, run)
    real = trainer.model.loss_and_grads

    def broken(batch, state, seed, step, ready):
        loss, grads, state = real(batch, state, seed, step)
        if step == 20:
            loss = math.nan if what == "loss" else loss
            grads["head.b"][0] = math.inf
        return loss, grads, state

    monkeypatch.setattr(trainer.model, "loss_and_grads", broken)
    with pytest.raises(UserError, match=f"the {what} is no finite number at step 21.*--lr"):
        trainer.train()
    assert target(run, "latest") == "step-00000018"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(corpus, tmp_path, number):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(number)

    before = signal.getsignal(signal.SIGINT)
    trainer = small_trainer(corpus, tmp_path / "run", show=stop_at(4, twice))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not checkpoints_of(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def heeded():
    """SIGHUP as it is where the tests weren't begun by nohup, which has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals don't close here")
@pytest.mark.parametrize("first", ["SIGHUP", "SIGTERM"])
def test_a_closed_terminal_is_no_second_signal(corpus, tmp_path, heeded, first):
    """A shell says it after the system has, and a session's manager after SIGTERM."""

    def twice():
        signal.raise_signal(getattr(signal, first))
        signal.raise_signal(signal.SIGHUP)

    trainer = small_trainer(corpus, tmp_path / "run", show=stop_at(4, twice))
    with pytest.raises(Interrupted) as stopped:
        trainer.train()
    assert stopped.value.number == getattr(signal, first)
    assert target(tmp_path / "run", "latest") == "step-00000004"


def test_a_second_signal_while_saving_leaves_no_half_checkpoint(corpus, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = checkpoints.write_synced

    def impatient(path, data):
        real(path, data)
        if "step-00000025" in path.parent.name:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoints, "write_synced", impatient)
    trainer = small_trainer(corpus, run, show=stop_at(25, interrupt()))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert target(run, "latest") == "step-00000018"
    assert sorted(p.name for p in (run / CHECKPOINTS).iterdir()) == [
        "best", "latest", "step-00000018",
    ]  # fmt: skip


def test_a_signal_after_the_last_step_is_heeded(corpus, tmp_path, monkeypatch):
    trainer = small_trainer(corpus, tmp_path / "run", max_steps=20)
    real = trainer.validate

    def validate():
        if trainer.progress.step == 20:
            signal.raise_signal(signal.SIGTERM)
        return real()

    monkeypatch.setattr(trainer, "validate", validate)
    with pytest.raises(Interrupted):
        trainer.train()
    assert target(tmp_path / "run", "latest") == "step-00000020"


def test_a_run_in_another_thread_handles_no_signals(corpus, straight, tmp_path):
    trainer = small_trainer(corpus, tmp_path / "run", max_steps=STEPS)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert_same_run(tmp_path / "run", straight)


# New runs ---------------------------------------------------------------------------------------


def test_a_new_run_replaces_nothing(corpus, straight):
    model = small_model(corpus)
    with pytest.raises(UserError, match="exists: continue it with --resume, or choose another"):
        new_run(straight, model.config, corpus, Settings(), {}, {})
    assert target(straight, "latest")


def test_a_new_run_that_cant_be_written_leaves_nothing(corpus, tmp_path, monkeypatch):
    model = small_model(corpus)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another place with --run"):
        new_run(tmp_path / "file" / "run", model.config, corpus, Settings(), {}, {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "describe_run", full)
    with pytest.raises(UserError, match="No space left on device"):
        new_run(tmp_path / "run", model.config, corpus, Settings(), {}, {})
    assert os.listdir(tmp_path) == ["file"]


# What is shown ----------------------------------------------------------------------------------


class Clock:
    """Time that passes only when told."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def reports(corpus, run, clock, resume=False, seconds_a_step=2.0, **limits):
    found = []

    def show(report):
        found.append(report)

    trainer = small_trainer(corpus, run, resume=resume, show=show, **limits)
    real = trainer._step

    def step(batch):
        clock.now += seconds_a_step
        return real(batch)

    trainer._step = step
    trainer.started = clock.now
    trainer.train()
    return found


def test_share_and_time_left_by_steps(corpus, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    found = reports(corpus, tmp_path / "run", clock, max_steps=20)
    assert [r.share for r in found] == [pytest.approx(n / 20) for n in range(1, 21)]
    assert [r.seconds_left for r in found] == [2 * (20 - n) for n in range(1, 21)]
    # A run that goes on has its share, and the pace of now.
    found = reports(
        corpus, tmp_path / "run", clock, resume=True, seconds_a_step=1.0, max_steps=30, epochs=9
    )
    assert [r.share for r in found] == [pytest.approx(n / 30) for n in range(21, 31)]
    assert [r.seconds_left for r in found] == list(range(9, -1, -1))


def test_share_and_time_left_by_the_clock(corpus, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    found = reports(corpus, tmp_path / "run", clock, max_minutes=1, max_steps=10_000)
    assert len(found) == 30
    assert [r.seconds_left for r in found] == [60 - 2 * n for n in range(1, 31)]
    assert [r.share for r in found] == [pytest.approx(n / 30) for n in range(1, 31)]


def test_share_and_time_left_by_epochs(corpus, tmp_path, monkeypatch):
    found = reports(corpus, tmp_path / "run", Clock(monkeypatch), epochs=2, max_minutes=1000)
    assert len(found) == 36
    assert found[-1].share == 1
    assert found[17].share == 0.5
    assert found[17].seconds_left == 36
    assert [r.progress.step for r in found if r.validated]


def test_checkpoints_come_by_the_clock(corpus, tmp_path, monkeypatch):
    saved = []
    real = resuming.write_checkpoint

    def write(run, step, *rest):
        saved.append(step)
        return real(run, step, *rest)

    monkeypatch.setattr(resuming, "write_checkpoint", write)
    run = tmp_path / "run"
    reports(corpus, run, Clock(monkeypatch), max_steps=17, checkpoint_minutes=0.15)
    assert saved == [5, 10, 15, 17]
    assert [p.name for p in checkpoints_of(run)] == ["step-00000017", "step-00000015"]
