"""benchmarks/gpu_train.py on the stand-in for CuPy, where there is no mido, with a tiny corpus."""

import json
import os
import sys
import zipfile
from argparse import Namespace

import pytest
from bare import bare_run
from documentation import ROOT
from host_cuda.compile import COMPILER
from small import write_music

# Behind all else: benchmarks/ has modules of common names.
sys.path.append(str(ROOT / "benchmarks"))

import gpu_train
from lstm_music.errors import UserError

NAME = "bach-midi-paper"
TINY = "--hidden 8 --embedding 8 --batch 3 --seq 5 --epochs 2"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder of corpora, read from a file that is named as the experiment's."""
    monkeypatch.setenv("LSTM_MUSIC_CACHE", str(tmp_path / "cache"))
    music = tmp_path / "music"
    write_music(music, pieces=6)
    with zipfile.ZipFile(tmp_path / "bach-417.zip", "w") as archive:
        for path in music.iterdir():
            archive.write(path, path.name)
    given = {"prepare": tmp_path, "data": tmp_path / "data", "runs": tmp_path}
    gpu_train.prepare([NAME], Namespace(**given, minutes=1, options=""))
    return tmp_path / "data"


def test_a_corpus_is_carried_whole(prepared, tmp_path):
    corpus = gpu_train.unpacked(prepared / f"{NAME}.tar.xz", tmp_path / "there")
    assert (len(corpus.pieces), corpus.tokenizer.layout) == (6, "flatten")
    assert corpus.offsets[-1] == len(corpus.ids) == sum(corpus.lengths)
    (tmp_path / "there" / "corpus" / "ids.npy").write_bytes(b"")
    with pytest.raises(UserError, match="with --prepare"):
        gpu_train.unpacked(prepared / "none.tar.xz", tmp_path)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler here (g++, clang++ or c++)")
def test_runs_end_go_on_and_are_counted_without_mido(prepared, tmp_path):
    def run(*options):
        command = [sys.executable, ROOT / "benchmarks" / "gpu_train.py", NAME, "--data", prepared]
        command += [f"--options={TINY} {' '.join(options)}", "--runs", tmp_path / "runs"]
        command += ["--out", tmp_path / "out", "--minutes", "30"]
        done = bare_run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"| {NAME} |" in done.stdout
        return json.loads((tmp_path / "out" / "gpu-train.json").read_text())[NAME]

    first = run("--max-steps", "4")
    assert first["ended"] == f"{NAME}: stopped by --max-steps"
    second = run()
    log = (tmp_path / "out" / "gpu-train-log.txt").read_text()
    assert second["ended"] == f"{NAME}: stopped by --epochs", log
    assert second["epochs"] == "2.0 of 50" and second["precision"] == "bf16"
    assert second["best validation loss"] < 7 and second["minutes"] > first["minutes"]
    assert run() == second  # it is whole
    assert len(os.listdir(tmp_path / "out")) == 3


def test_what_is_missing_is_said_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_train.py", "x", "--data", "there"])
    assert gpu_train.main() == 2
    assert "unknown run 'x'" in capsys.readouterr().err
