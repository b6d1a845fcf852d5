"""Several ranks do what one process does: the same losses, weights and checkpoints."""

import math
import signal
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_mpi import on_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from small import metrics, small_corpus, small_model, small_rolls, target

import lstm_music.training.ranks as ranks_module
from lstm_music import errors
from lstm_music.cli import sample as sample_command
from lstm_music.cli import train as train_command
from lstm_music.cli.common import check_ranks, fail
from lstm_music.cli.train_options import make_parser
from lstm_music.corpus.batches import Batches
from lstm_music.errors import UserError, mpi_size_and_rank
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps, get_ops
from lstm_music.runs.checkpoint import (
    CHECKPOINTS,
    TRAIN_FILE,
    checkpoints_of,
    read_arrays,
    read_meta,
    write_checkpoint,
)
from lstm_music.runs.folder import new_run
from lstm_music.runs.settings import Settings
from lstm_music.training.ranks import ALONE, Alone, join, own_gpu
from lstm_music.training.signals import Interrupted
from lstm_music.training.trainer import Trainer
from lstm_music.training.validation import mean_nats

T = {"seconds": 0, "period_seconds": 0, "best": 0, "to_beat": 0}  # each rank's own, or rounded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for names in errors.LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)


def trainer_of(corpus, run, ranks=ALONE, resume=False, head="softmax", show=None, **chosen):
    chosen = Settings(**{"batch": 5, "seq": 5, "early_stop": 0, "seed": 1, "lr": 0.02} | chosen)
    ops = NumpyOps("float64")
    model = Model(Config(len(corpus.vocabulary), 8, 8, 2, 0.3, head=head, nade=5), ops, 1)
    show = show or (lambda report: None)
    trainer = Trainer(corpus, model, chosen, Path(run), show, ranks=ranks)
    ranks.connect(ops)
    if resume:
        trainer.resume()
    elif ranks.leads:
        new_run(Path(run), model.config, corpus, chosen, {"corpus": "c", "data": None}, {})
    return trainer


def train(corpus, run, size=0, **given):
    """The trainers of each rank, trained; size 0 is one process that knows no ranks."""

    def work(ranks):
        trainer = trainer_of(corpus, run, ranks, **given)
        trainer.train()
        return trainer

    return on_ranks(size, work) if size else [work(ALONE)]


def assert_near(found, expected):
    for name, p in expected.model.parameters.items():
        np.testing.assert_allclose(found.model.parameters[name], p, 1e-7, 1e-9, err_msg=name)
    for a, b in zip(metrics(found.run), metrics(expected.run), strict=True):
        assert {**a, "loss": 0, "grad_norm": 0} == {**b, "loss": 0, "grad_norm": 0}
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=2e-6)


def bits(trainer):
    arrays = trainer.model.parameters | trainer.optimizer.slots
    return {name: a.tobytes() for name, a in arrays.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_learn_what_one_process_learns(corpus, tmp_path, size):
    (alone,) = train(corpus, tmp_path / "alone", epochs=2)
    found = train(corpus, tmp_path / "ranks", size, epochs=2)
    assert_near(found[0], alone)
    assert [bits(each) == bits(found[0]) for each in found] == [True] * size
    assert [each.progress.to_json() | T for each in found] == [alone.progress.to_json() | T] * size


def test_ranks_draw_the_same_words_beside_targets_of_their_own(corpus, tmp_path):
    V = len(corpus.vocabulary)
    (alone,) = train(corpus, tmp_path / "alone", max_steps=20)
    assert_near(train(corpus, tmp_path / "all", 2, max_steps=20, sampled_softmax=V)[0], alone)
    found = train(corpus, tmp_path / "some", 2, max_steps=20, sampled_softmax=5)
    assert bits(found[0]) == bits(found[1]) != bits(alone)
    first, second = (each.model.draws.head(1, 7).drawn for each in found)
    assert (first == second).all()


@pytest.mark.parametrize("head", ["chord", "sigmoid", "nade", "biaxial"])
def test_piano_rolls_too(tmp_path, head):
    kind = "chord" if head == "chord" else "note"
    corpus = small_rolls(tmp_path, kind, transpose_augment=2)
    given = {"head": "softmax" if head == "chord" else head, "batch": 3, "epochs": 2}
    (alone,) = train(corpus, tmp_path / "alone", **given)
    assert_near(train(corpus, tmp_path / "ranks", 2, **given)[0], alone)


def test_the_same_ranks_give_the_same_bits(corpus, tmp_path):
    given = {"max_steps": 15, "average": 0.9, "optimizer": "rmsprop", "clip": 0.5}
    first, second = (train(corpus, tmp_path / name, 3, **given)[0] for name in "ab")
    assert bits(first) == bits(second)
    assert metrics(first.run) == metrics(second.run)


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (3, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(corpus, tmp_path, before, after):
    straight = train(corpus, tmp_path / "straight", max_steps=25)[0]
    train(corpus, tmp_path / "run", before, max_steps=14)
    found = train(corpus, tmp_path / "run", after, resume=True, max_steps=25)[0]
    for name, p in straight.model.parameters.items():
        np.testing.assert_allclose(found.model.parameters[name], p, 1e-7, 1e-9, err_msg=name)
    path = checkpoints_of(found.run)[0]
    state = read_arrays(path, TRAIN_FILE, read_meta(path))["state.h"]
    np.testing.assert_allclose(state, straight.steps.state.h, 1e-7, 1e-9)


def test_rank_0_alone_points_at_the_best(corpus, tmp_path, monkeypatch):
    pointed = []
    monkeypatch.setattr("lstm_music.training.resuming.point", lambda *given: pointed.append(given))
    train(corpus, tmp_path / "run", 3, max_steps=4)
    assert len(pointed) == 1


def test_a_signal_to_any_rank_ends_all_once_saved(corpus, tmp_path):
    def work(ranks):
        def show(report):
            if report.progress.step == 7 and ranks.rank == 1:
                trainer._wish.number = signal.SIGTERM  # only a main thread gets real ones

        trainer = trainer_of(corpus, tmp_path / "run", ranks, show=show)
        with pytest.raises(Interrupted) as stopped:
            trainer.train()
        return stopped.value.number, trainer.progress.step

    assert on_ranks(2, work) == [(signal.SIGTERM, 7)] * 2
    assert [path.name for path in checkpoints_of(tmp_path / "run")] == ["step-00000007"]


def test_rank_0s_clock_alone_counts(corpus, tmp_path):
    def work(ranks):
        given = {"max_minutes": 10, "max_steps": 6, "checkpoint_minutes": 10}
        trainer = trainer_of(corpus, tmp_path / "run", ranks, **given)
        trainer.started -= ranks.rank * 3600
        trainer._saved -= ranks.rank * 3600
        return trainer.train()

    assert on_ranks(2, work) == ["--max-steps 6"] * 2
    assert target(tmp_path / "run", "latest") == "step-00000006"
    assert len(list((tmp_path / "run" / CHECKPOINTS).glob("step-*"))) == 1


def test_a_disk_that_refuses_leaves_all_ranks_of_one_mind(corpus, tmp_path, monkeypatch):
    """Rank 0 can't write the best model: none of them counts it as kept."""
    tries = []

    def full_at_first(*given):
        tries.append(given)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        return write_checkpoint(*given)

    monkeypatch.setattr("lstm_music.training.resuming.write_checkpoint", full_at_first)
    found = train(corpus, tmp_path / "run", 2, epochs=1)
    assert [trainer.progress.best for trainer in found] == [math.inf] * 2
    assert len(tries) == 2


def test_validation_is_shared(corpus):
    expected = mean_nats(small_model(corpus), corpus, "valid", 4, 7)

    def work(ranks):
        return mean_nats(small_model(corpus), corpus, "valid", 4, 7, ranks=ranks)

    for size in (2, 5):  # of five ranks, some have no stream at all
        found = on_ranks(size, work)
        assert found == [pytest.approx(expected, rel=1e-6)] * size
        assert len(set(found)) == 1


def test_a_skipped_step_is_skipped_by_all(corpus, tmp_path):
    def work(ranks):
        trainer = trainer_of(corpus, tmp_path / "run", ranks, max_steps=8, skip_bad_steps=True)
        real = trainer.model.loss_and_grads

        def broken(batch, state, seed, step, ready):
            loss, grads, after = real(batch, state, seed, step, ready)
            return np.nan if step == 4 and ranks.rank == 1 else loss, grads, after

        trainer.model.loss_and_grads = broken
        trainer.train()
        return trainer

    found = on_ranks(2, work)
    assert [each.progress.skipped for each in found] == [1, 1]
    assert bits(found[0]) == bits(found[1])


def test_rows_go_without_the_zeros_between_them(corpus, tmp_path):
    trainer = train(corpus, tmp_path / "run", 2, max_steps=1)[0]
    dense = sum(p.nbytes for p in trainer.model.parameters.values())
    embedding = trainer.model.parameters["embedding.W"]
    rows = (trainer.ranks.sent - (dense - embedding.nbytes)) / (8 * embedding.shape[1] + 4)
    x = trainer.ranks.part(corpus.training_batches(5, 5, 1, 0))[0].x
    assert rows == len(np.unique(x))
    assert trainer.ranks.sent < dense


def test_many_rows_become_dense(monkeypatch, corpus, tmp_path):
    monkeypatch.setattr(ranks_module, "DENSE", 0)
    (alone,) = train(corpus, tmp_path / "alone", max_steps=9)
    found = train(corpus, tmp_path / "ranks", 2, max_steps=9)[0]
    assert_near(found, alone)
    parameters = found.model.parameters.values()
    assert found.ranks.sent == 9 * sum(p.nbytes for p in parameters)


def test_large_arrays_travel_alone_and_small_ones_together(monkeypatch, corpus, tmp_path):
    monkeypatch.setattr("lstm_music.training.all_reduce.BUCKET", 2000)
    (alone,) = train(corpus, tmp_path / "alone", max_steps=5)
    assert_near(train(corpus, tmp_path / "ranks", 2, max_steps=5)[0], alone)


def test_there_must_be_a_stream_for_each_rank(corpus, tmp_path):
    with pytest.raises(UserError, match="5 streams are too few for 6 ranks"):
        train(corpus, tmp_path / "run", 6, max_steps=1)


def test_ranks_compute_alike(corpus):
    def work(ranks):
        ranks.connect(get_ops("numba" if ranks.rank else "numpy"))

    with pytest.raises(UserError, match="computes with numpy and rank 1 with numba: choose"):
        on_ranks(2, work)


def test_ranks_are_given_the_same_options():
    options = [["bach", "--hidden", "8"], ["bach", "--hidden", "9", "--seed", "2"]]
    own = ["--quiet", "--threads", "1"]

    def work(*words):
        def compare(ranks):
            given = [*words[ranks.rank], *own * ranks.rank]
            check_ranks(make_parser().parse_args(given), ranks)

        return compare

    told = r"rank 1 was given other options than rank 0 \(hidden 9, not 8, seed 2, not None\)"
    with pytest.raises(UserError, match=told):
        on_ranks(2, work(*options))
    on_ranks(2, work(options[0], options[0]))
    check_ranks(make_parser().parse_args([]), ALONE)


@pytest.mark.parametrize("command", [train_command, sample_command])
def test_commands_compare_the_options_of_ranks(monkeypatch, command):
    class Others(Alone):
        def check_alike(self, options):
            raise UserError(f"{len(options) > 9}")

    monkeypatch.setattr(command, "join", Others)
    with pytest.raises(UserError, match="True"):
        command.main(["nowhere"])


def test_rank_0_is_first():
    done = []

    def work(ranks):
        return ranks.first_alone(lambda: done.append(ranks.rank) or list(done))

    assert on_ranks(3, work)[0] == [0]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.data())
def test_parts_of_windows_make_the_whole(corpus, B, data):
    whole = corpus.training_batches(B, 7, 0, 0)
    size = data.draw(st.integers(1, len(whole.streams)))
    cuts = [k * len(whole.streams) // size for k in range(size + 1)]
    parts = [whole.part(*cut) for cut in pairwise(cuts)]
    assert {len(part) for part in parts} == {len(whole)}
    for window in range(len(whole)):
        batch, found = whole[window], [part[window] for part in parts]
        for name in ("x", "y"):
            joined = np.concatenate([getattr(each, name) for each in found], axis=1)
            np.testing.assert_array_equal(joined, getattr(batch, name))
        assert {each.targets for each in found} == {batch.targets}
        assert [each.first for each in found] == cuts[:-1]
        assert {each.whole for each in found} == {len(whole.streams)}


def test_a_batch_that_is_no_part_is_as_it_was(corpus):
    whole = corpus.training_batches(3, 5, 0, 0)
    batch = Batches(whole.source, whole.streams, 5)[0]
    assert (batch.first, batch.whole) == (0, None)


# What a launcher says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, (4, 3)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, (1, 0)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}, (8, 5)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),  # srun of one process
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script, outside srun
        ({"PMI_SIZE": "two", "PMI_RANK": "0"}, None),
    ],
)
def test_launchers_are_known_by_what_they_say(monkeypatch, said, found):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert mpi_size_and_rank() == found


def test_without_a_launcher_mpi4py_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert join() is ALONE


def test_a_launcher_without_mpi4py_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(UserError, match=r"pip install 'lstm-music\[mpi\]'"):
        join()


def test_a_later_rank_says_which_it_is(monkeypatch, capsys):
    monkeypatch.setattr("lstm_music.cli.common.PATIENCE", 0)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    assert fail("so it is") == 2
    assert capsys.readouterr().err == "error: rank 1: so it is\n"


@pytest.mark.parametrize(
    ("visible", "local", "own"),
    [
        (None, 2, "2"),
        ("4,5,6", 1, "5"),
        ("7", 1, "7"),  # the launcher chose it
        ("", 1, ""),
        ("4,5", 2, ""),  # more ranks than GPUs
    ],
)
def test_each_rank_has_a_gpu_of_its_own(visible, local, own):
    assert own_gpu(visible, local) == own
