"""Ranks on GPUs, whose sums NCCL makes: on stand-ins for both. Not run on a GPU yet."""

import sys
from pathlib import Path

import numpy as np
import pytest
from fake_mpi import World, on_ranks
from host_cuda.compile import COMPILER
from host_cuda.host_cupy import HostCupy
from host_cuda.host_nccl import HostNccl
from small import metrics, small_corpus

from lstm_music.errors import UserError
from lstm_music.network.config import Config
from lstm_music.network.model import Model
from lstm_music.ops import NumpyOps
from lstm_music.ops.cuda.cupy_ops import CupyOps
from lstm_music.runs.folder import new_run
from lstm_music.runs.settings import Settings
from lstm_music.training.ranks import ALONE
from lstm_music.training.step import EagerStep
from lstm_music.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def train(corpus, run, ops, ranks=ALONE, **chosen):
    chosen = Settings(batch=3, seq=5, early_stop=0, seed=1, lr=0.02, max_steps=20, **chosen)
    model = Model(Config(len(corpus.vocabulary), 8, 8, 2, 0.3), ops, 1)
    ranks.connect(ops)
    if ranks.leads:
        new_run(Path(run), model.config, corpus, chosen, {"corpus": "c", "data": None}, {})
    trainer = Trainer(corpus, model, chosen, Path(run), ranks=ranks)
    trainer.train()
    return trainer


@pytest.mark.parametrize("size", [1, 2])
def test_ranks_on_gpus_learn_what_one_process_learns(corpus, tmp_path, size, monkeypatch):
    alone = train(corpus, tmp_path / "alone", NumpyOps("float64"))
    world = World(size)
    nccl = HostNccl(world)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", nccl)

    def work(ranks):
        ops = CupyOps("float64", cupy=HostCupy(("ascending",)))
        trainer = train(corpus, tmp_path / "ranks", ops, ranks)
        assert isinstance(trainer.steps, EagerStep)
        return {name: ops.to_numpy(p) for name, p in trainer.model.parameters.items()}

    found = on_ranks(size, work, world)
    assert [set(each.calls) for each in nccl.made] == [{"allReduce", "allGather"}] * size
    for name, p in alone.model.parameters.items():
        np.testing.assert_allclose(found[0][name], p, rtol=1e-6, atol=1e-8, err_msg=name)
        assert all(each[name].tobytes() == found[0][name].tobytes() for each in found)
    ours, theirs = metrics(tmp_path / "ranks"), metrics(tmp_path / "alone")
    for a, b in zip(ours, theirs, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=2e-6)


def test_a_cupy_without_nccl_is_one_line(cupy_module):
    """CuPy offers it only once it is imported, and then it may say that it isn't there."""
    import cupy

    assert not hasattr(cupy.cuda, "nccl")

    def work(ranks):
        ranks.connect(CupyOps("float64", cupy=HostCupy()))

    with pytest.raises(UserError, match=r"several GPUs need NCCL.*pip install nvidia-nccl"):
        on_ranks(1, work)
