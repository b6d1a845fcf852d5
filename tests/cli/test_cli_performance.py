"""Performances from files to files: bin/corpus, bin/train, bin/evaluate, bin/sample, bin/report."""

from pathlib import Path

import pytest
from played import played_file
from small import SMALL

from lstm_music.midi.files import read_midi

HOW = ("--representation", "performance")
SIZES = tuple(word for word in SMALL if word not in ("--tracks", "flatten"))


@pytest.fixture(scope="module")
def p(tmp_path_factory, in_folder):
    """A folder of recordings, music/, and a run of them, p."""
    folder = tmp_path_factory.mktemp("played")
    with in_folder(folder):
        Path("music").mkdir()
        for seed in range(8):
            Path(f"music/{seed}.mid").write_bytes(played_file(seed, 60)[0])
        yield folder


def read(path):
    return read_midi(Path(path), "x", played=True)
