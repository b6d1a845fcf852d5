"""A run on the stand-in for the GPU writes what a run on the CPU writes."""

import csv

import numpy as np
import pytest
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from small import counts_of, small_corpus, small_rolls

from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.runs.folder import new_run
from lstm_music.runs.settings import Settings
from lstm_music.tokenizers.messages import word_parts
from lstm_music.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def trainer_of(ops, corpus, run, resume=False, head="softmax", copy=0, **settings):
    chosen = Settings(**{"batch": 3, "seq": 5, "early_stop": 0, "seed": 1, "lr": 0.02} | settings)
    words = word_parts(corpus.vocabulary) if head == "factored" else None
    sizes = {"nade": 5, "copy": copy, **counts_of(words)}
    config = Config(len(corpus.vocabulary), 8, 8, 2, 0.3, head=head, **sizes)
    model = Model(config, ops, 1, words=words)
    trainer = Trainer(corpus, model, chosen, run)
    if resume:
        trainer.resume()
    else:
        new_run(run, model.config, corpus, chosen, {"corpus": corpus.name, "data": None}, {})
    return trainer


def host_gpu():
    return CupyOps("float64", cupy=HostCupy(("ascending",)))


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same(found, expected, ops):
    for name, p in expected.model.parameters.items():
        on_host = ops.to_numpy(found.model.parameters[name])
        np.testing.assert_allclose(on_host, p, rtol=1e-6, atol=1e-8, err_msg=name)
    for a, b in zip(rows(found.run), rows(expected.run), strict=True):
        assert (a["step"], a["split"], a["tokens"]) == (b["step"], b["split"], b["tokens"])
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=2e-6)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("head", ["softmax", "factored"])
def test_a_run_is_the_cpus_and_resumes(corpus, tmp_path, head, copies):
    ops, how = host_gpu(), {"head": head, "copy": corpus.recall.candidates * copies}
    expected = trainer_of(NumpyOps("float64"), corpus, tmp_path / "cpu", **how, epochs=2)
    expected.train()
    whole = trainer_of(ops, corpus, tmp_path / "gpu", **how, epochs=2)
    whole.train()
    assert_same(whole, expected, ops)
    # Stopped in the middle of an epoch, and taken up by a new process.
    trainer_of(ops, corpus, tmp_path / "parts", **how, max_steps=25).train()
    again = trainer_of(ops, corpus, tmp_path / "parts", resume=True, **how, epochs=2)
    again.train()
    for name, p in whole.model.parameters.items():
        on_host = ops.to_numpy(again.model.parameters[name])
        np.testing.assert_allclose(on_host, ops.to_numpy(p), rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_run_whose_loss_is_no_number_stops_with_a_line(corpus, tmp_path):
    trainer = trainer_of(host_gpu(), corpus, tmp_path / "gpu", max_steps=40)
    trainer.model.parameters["head.b"][...] = np.nan
    with pytest.raises(UserError, match="finite"):
        trainer.train()


def test_the_bad_step_is_named_though_losses_are_read_later(corpus, tmp_path):
    trainer = trainer_of(host_gpu(), corpus, tmp_path / "gpu", max_steps=40)

    def show(report):
        if report.progress.step == 10:
            trainer.model.parameters["head.b"][...] = np.nan

    trainer.show = show
    with pytest.raises(UserError, match="the loss is no finite number at step 11: train"):
        trainer.train()
    assert trainer.progress.step == 18  # the period's end, where losses are read


def test_bad_steps_are_skipped_on_a_gpu_too(corpus, tmp_path):
    trainer = trainer_of(host_gpu(), corpus, tmp_path / "gpu", max_steps=12, skip_bad_steps=True)
    real, kept = trainer.model.loss_and_grads, {}

    def broken(batch, state, seed, step, ready):
        loss, grads, after = real(batch, state, seed, step)
        kept[step] = trainer.ops.to_numpy(trainer.model.parameters["head.b"])
        return (np.nan if step == 5 else loss), grads, after

    trainer.model.loss_and_grads = broken
    trainer.train()
    assert trainer.progress.skipped == 1
    np.testing.assert_array_equal(kept[6], kept[5])
    assert (kept[7] != kept[6]).any()


@pytest.mark.parametrize("first", ["gpu", "cpu"])
def test_a_run_begun_on_one_backend_goes_on_with_the_other(corpus, tmp_path, first):
    cpu, gpu = NumpyOps("float64"), host_gpu()
    one, other = (gpu, cpu) if first == "gpu" else (cpu, gpu)
    expected = trainer_of(cpu, corpus, tmp_path / "whole", max_steps=15)
    expected.train()
    trainer_of(one, corpus, tmp_path / "parts", max_steps=7).train()
    found = trainer_of(other, corpus, tmp_path / "parts", resume=True, max_steps=15)
    found.train()
    for name, p in expected.model.parameters.items():
        on_host = other.to_numpy(found.model.parameters[name])
        # A checkpoint holds what the run computed in, so nothing is lost on the way.
        np.testing.assert_allclose(on_host, p, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("head", ["sigmoid", "nade", "biaxial"])
def test_a_run_on_notes_with_averages_and_decay_is_the_cpus_and_resumes(tmp_path, head):
    corpus = small_rolls(tmp_path)
    ops = host_gpu()
    how = {"head": head, "average": 0.8, "weight_decay": 0.1}
    steps = len(corpus.training_batches(3, 5, 1, 0)) + 2
    expected = trainer_of(NumpyOps("float64"), corpus, tmp_path / "cpu", max_steps=steps, **how)
    expected.train()
    trainer_of(ops, corpus, tmp_path / "gpu", max_steps=steps - 3, **how).train()
    found = trainer_of(ops, corpus, tmp_path / "gpu", resume=True, max_steps=steps, **how)
    found.train()
    for name, p in expected.model.parameters.items():
        on_host = ops.to_numpy(found.model.parameters[name])
        np.testing.assert_allclose(on_host, p, rtol=1e-5, atol=1e-7, err_msg=name)
        mean = ops.to_numpy(found.averages.means[name])
        expected_mean = expected.averages.means[name]
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-7, err_msg=name)
    assert rows(tmp_path / "gpu")[-1]["step"] == rows(tmp_path / "cpu")[-1]["step"]
    losses = [float(rows(tmp_path / run)[-1]["loss"]) for run in ("gpu", "cpu")]
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
