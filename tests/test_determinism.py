"""One seed, one machine, one number of threads: the same weights and samples, to the bit."""

import importlib
import os
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher
from small import COMPUTE, SMALL, metrics, small_corpus, small_model, write_music

import lstm_music
from lstm_music.ops import get_ops
from lstm_music.runs.settings import Settings
from lstm_music.training.trainer import Trainer


def trained(folder, name, words, hash_seed):
    """Train in a process of its own; return the run."""
    command = [sys.executable, "-m", "lstm_music.cli.train", "music", *SMALL, "--max-steps", "40"]
    subprocess.run(
        [*command, *words, "--run", f"./{name}", "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
    )
    return folder / name


@pytest.mark.parametrize(
    "words",
    [
        ("--average", "0.9", "--transpose-augment", "2"),
        ("--representation", "note", "--head", "nade", "--max-polyphony", "2"),
        ("--representation", "chord", "--optimizer", "rmsprop"),
    ],
    ids=["messages", "notes", "chords"],
)
def test_two_processes_with_one_seed_end_alike(tmp_path, monkeypatch, words):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    write_music(tmp_path / "music")
    if "chord" in words or "note" in words:
        words = ("--tracks", "merge", *words)
    runs = [trained(tmp_path, f"run-{n}", (*words, *COMPUTE), n) for n in (1, 2)]
    assert metrics(runs[0]) == metrics(runs[1])
    for name in ("checkpoints/best/model.safetensors", "checkpoints/latest/train.safetensors",
                 "samples/sample-0001.mid"):  # fmt: skip
        files = [(run / name).read_bytes() for run in runs]
        assert files[0] == files[1], name


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_two_runs_of_a_backend_end_alike(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    corpus = small_corpus(tmp_path)
    ends = []
    for n in (1, 2):
        settings = Settings(batch=3, seq=5, max_steps=30, seed=1)
        model = small_model(corpus, seed=1, dropout=0.3, ops=get_ops(backend))
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "checkpoints").mkdir()
        trainer = Trainer(corpus, model, settings, tmp_path / str(n))
        trainer.train()
        ends.append(trainer.model.parameters)
    for name, p in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], p, name)


# Compiled code ----------------------------------------------------------------------------------

LOSSES = """
import numpy as np
from lstm_music.ops import get_ops

ops, rng = get_ops("numba"), np.random.default_rng(0)
for V, op in (200, ops.softmax_xent), (88, ops.sigmoid_xent):
    logits = rng.normal(size=(30, V)).astype(np.float32)
    targets = rng.integers(0, V, 30, np.int32) if V == 200 else (logits > 1).astype(np.uint8)
    losses = np.empty(30, np.float32)
    op(logits, targets, losses, 1 / 30)
    print(losses.tobytes().hex(), logits.tobytes().hex())
"""


def test_code_just_compiled_computes_what_code_from_the_cache_does(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", LOSSES]
    said = [subprocess.check_output(command, env=environment) for _ in range(2)]
    assert list(tmp_path.rglob("*softmax*.nbc"))
    assert said[0] == said[1]


def test_no_compiled_function_leaves_the_order_of_its_sums_to_llvm():
    """LLVM compiles a function alone and again in its callers; which code runs is chance."""
    modules = pkgutil.walk_packages(lstm_music.__path__, "lstm_music.")
    names = [module.name for module in modules if ".ops.cuda" not in module.name]  # CuPy's
    compiled = [
        function
        for module in map(importlib.import_module, names)
        for function in (*vars(module).values(), *vars(module).get("AUTOMATON", {}).values())
        if isinstance(function, CPUDispatcher)
    ]
    assert len(set(compiled)) > 60
    assert [f.__name__ for f in compiled if f.targetoptions.get("fastmath")] == []
