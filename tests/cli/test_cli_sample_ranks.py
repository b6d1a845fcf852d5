"""bin/sample on two ranks, one after the other: each has its share of the very same pieces."""

from pathlib import Path

import pytest

from lstm_music.cli import sample
from lstm_music.training.ranks import Alone


class Share(Alone):
    """A rank of two that asks the other nothing."""

    def __init__(self, rank):
        self.rank, self.size = rank, 2


@pytest.mark.parametrize("kind", ["message", "chord", "sigmoid", "nade", "biaxial", "baseline"])
def test_pieces_are_those_of_one_process(kind, train_small, train_rolls, ok, monkeypatch):
    words = ["a", "--length", 20]
    if kind == "baseline":
        words = ["--baseline", "note-unigram", "--corpus", "music", "--bars", 2]
    elif kind == "message":
        train_small("--max-steps", 3, "--run", "a")
    else:
        train_rolls(kind, "--max-steps", 3, "--run", "a")

    def composed(out):
        paths = ok("sample", *words, "--num", 5, "--seed", 4, "--quiet", "--out", out)
        return {Path(path).name: Path(path).read_bytes() for path in paths}

    alone = composed("alone")
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(sample, "join", lambda rank=rank: Share(rank))
        shares.append(composed("shared"[: 3 + rank]))
    assert [len(share) for share in shares] == [2, 3]
    assert shares[0] | shares[1] == alone
