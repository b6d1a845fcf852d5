"""Losses and gradients that are no numbers, and losses that jump."""

import math

import numpy as np
import pytest
from small import metrics, small_corpus, small_trainer, target

from lstm_music.arrays import RowGradient
from lstm_music.errors import UserError
from lstm_music.ops import get_ops
from lstm_music.runs.checkpoint import read_run
from lstm_music.training.health import MOST_BAD_STEPS, WARM_STEPS, Jumps, bad_tensor


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_MUSIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return small_corpus(tmp_path_factory.mktemp("corpus"))


def spoiled(trainer, steps, what="gradient", tensor="lstm.0.Wh"):
    """Make the loss or a gradient of some steps, counted from 0, no number."""
    real = trainer.model.loss_and_grads

    def broken(batch, state, seed, step, ready):
        loss, grads, after = real(batch, state, seed, step)
        if step in steps:
            loss = math.nan if what == "loss" else loss
            g = grads[tensor]
            (g.values if isinstance(g, RowGradient) else g)[..., 0] = math.inf
        return loss, grads, after

    trainer.model.loss_and_grads = broken
    return trainer


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("tensor", ["lstm.0.Wh", "embedding.W", "head.b"])
def test_the_step_and_the_tensor_are_named_and_the_last_checkpoint_kept(
    corpus, tmp_path, what, tensor
):
    run = tmp_path / "run"
    with pytest.raises(UserError) as stopped:
        spoiled(small_trainer(corpus, run), [20], what, tensor).train()
    line = str(stopped.value)
    assert line.startswith(
        f"the {what} is no finite number at step 21 (gradient of {tensor}); step-00000018 is kept:"
    )
    for option in ("--lr lower than 0.02", "--clip", "--resume --skip-bad-steps"):
        assert option in line
    assert "\n" not in line
    assert target(run, "latest") == "step-00000018"


def test_a_parameter_that_is_no_number_is_named(corpus, tmp_path):
    trainer = small_trainer(corpus, tmp_path / "run")
    trainer.model.parameters["lstm.1.b"][3] = np.nan
    with pytest.raises(UserError, match=r"the loss is .* at step 1 \(lstm.1.b\): "):
        trainer.train()


def test_the_last_weights_are_those_before_the_bad_step(corpus, tmp_path):
    good = small_trainer(corpus, tmp_path / "good", max_steps=20)
    good.train()
    bad = spoiled(small_trainer(corpus, tmp_path / "bad"), [20])
    with pytest.raises(UserError):
        bad.train()
    for name, p in good.model.parameters.items():
        np.testing.assert_array_equal(bad.model.parameters[name], p)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_bad_steps_are_skipped_where_that_is_asked_for(corpus, tmp_path, what):
    run = tmp_path / "run"
    bad = [4, 20, 21, 22, 30]
    trainer = spoiled(small_trainer(corpus, run, skip_bad_steps=True, max_steps=50), bad, what)
    assert trainer.train() == "--max-steps 50"
    at = trainer.progress
    assert (at.skipped, at.skipped_in_row, at.step) == (5, 0, 50)
    assert [line.split(",")[0] for line in trainer.warnings] == [
        "skipped step 5", "skipped step 21", "skipped step 23",
    ]  # fmt: skip
    assert "gradient of lstm.0.Wh" in trainer.warnings[0]
    assert trainer.warnings[-1].endswith("4 skipped so far")
    assert trainer.optimizer.t == 45
    assert all(math.isfinite(float(row["loss"])) for row in metrics(run))
    for p in read_run(run, print)[0].parameters.values():
        assert np.isfinite(p).all()


def test_a_skipped_steps_loss_is_in_no_mean(corpus, tmp_path):
    losses = []
    trainer = spoiled(
        small_trainer(corpus, tmp_path / "run", skip_bad_steps=True, epochs=1), [4], "loss"
    )
    real = trainer._step

    def step(batch):
        loss = real(batch)
        if math.isfinite(loss):
            losses.append((loss, batch.targets))
        return loss

    trainer._step = step
    trainer.train()
    mean = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    assert len(losses) == 17
    assert float(metrics(tmp_path / "run")[0]["loss"]) == pytest.approx(mean, abs=1e-6)


def test_too_many_bad_steps_in_a_row_end_the_run(corpus, tmp_path):
    run = tmp_path / "run"
    trainer = spoiled(small_trainer(corpus, run, skip_bad_steps=True), range(20, 99))
    with pytest.raises(UserError) as stopped:
        trainer.train()
    line = str(stopped.value)
    assert f"at step {21 + MOST_BAD_STEPS} " in line
    assert f"after {MOST_BAD_STEPS} skipped before it; step-00000018 is kept" in line
    assert "--skip-bad-steps" not in line


def test_an_epoch_of_bad_steps_alone_anneals_nothing(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("lstm_music.training.trainer.MOST_BAD_STEPS", 99)
    run = tmp_path / "run"
    trainer = spoiled(small_trainer(corpus, run, skip_bad_steps=True, epochs=2), range(18, 36))
    trainer.train()
    assert [row["split"] for row in metrics(run)] == ["train", "valid", "valid"]
    assert trainer.annealing.best > 0


def test_a_run_with_skipped_steps_resumes_exactly(corpus, tmp_path):
    how = {"skip_bad_steps": True}
    bad = [4, 9, 10, 30]
    spoiled(small_trainer(corpus, tmp_path / "a", max_steps=40, **how), bad).train()
    spoiled(small_trainer(corpus, tmp_path / "b", max_steps=10, **how), bad).train()
    again = spoiled(small_trainer(corpus, tmp_path / "b", resume=True, max_steps=40, **how), bad)
    assert (again.progress.skipped, again.progress.skipped_in_row) == (2, 1)
    again.train()
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    a, b = (read_run(tmp_path / run, print, ("latest",))[0] for run in "ab")
    for name, p in a.parameters.items():
        np.testing.assert_array_equal(b.parameters[name], p)


def test_which_tensor_is_named():
    ops = get_ops("numpy")
    p = {"a": np.ones(3), "b": np.ones(2)}
    rows = RowGradient(np.array([1]), np.array([[1.0, np.nan]]))
    g = {"b": np.ones(2), "a": rows}
    assert bad_tensor(ops, p, g) == "gradient of a"
    assert bad_tensor(ops, p | {"b": np.array([1, np.inf])}, g) == "b"
    large = {"b": np.array([1.0, -1e30], np.float32), "a": np.ones(3, np.float32)}
    assert bad_tensor(ops, p, large) == "largest: gradient of b"


# Jumps ------------------------------------------------------------------------------------------


def seen(losses):
    jumps = Jumps()
    return [n for n, loss in enumerate(losses) if jumps.see(loss)]


def noisy(n, level=2.0, seed=0):
    return (level * (1 + 0.05 * np.random.default_rng(seed).standard_normal(n))).tolist()


def test_a_loss_that_falls_with_noise_never_jumps():
    for seed in range(20):
        falling = np.array(noisy(3000, 1.0, seed)) * (1 + 5 * np.exp(-np.arange(3000) / 300))
        assert seen(falling.tolist()) == []


def test_a_jump_is_told_of_once_until_the_next_validation():
    jumps = Jumps()
    for loss in noisy(200):
        assert not jumps.see(loss)
    assert [jumps.see(loss) for loss in (9.0, 9.0, 9.0)] == [True, False, False]
    jumps.told = False
    assert jumps.see(9.0)


def test_a_jump_needs_something_to_jump_from():
    assert seen([0.1, *[9.0] * (WARM_STEPS - 2)]) == []


def test_a_loss_that_stays_high_is_soon_no_jump():
    jumps = Jumps()
    for loss in noisy(200):
        jumps.see(loss)
    told = []
    for loss in [9.0] * 400:
        jumps.told = False
        told.append(jumps.see(loss))
    assert told[0] and not told[-1]


def test_a_run_warns_of_a_jump_but_where_an_epoch_begins(corpus, tmp_path):
    def warnings(run, *steps):
        trainer = small_trainer(corpus, tmp_path / run, max_steps=90)
        real = trainer.model.loss_and_grads

        def jumping(batch, state, seed, step, ready):
            loss, grads, after = real(batch, state, seed, step)
            return (loss * 10 if step in steps else loss), grads, after

        trainer.model.loss_and_grads = jumping
        trainer.train()
        return trainer.warnings

    assert warnings("begins", 72) == []  # of 18 windows an epoch
    (line,) = warnings("jumps", 75, 76)
    assert line.startswith("the loss jumped from about ")
    assert "at step 76: if it stays there, train with a lower --lr or --clip" in line
